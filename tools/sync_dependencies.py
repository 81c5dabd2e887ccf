"""Writes environment.yml and constraints.txt from pyproject.toml and the environment this runs in.

    make sync

pyproject.toml says which versions minivis can use (ranges), constraints.txt lists one whole set of them that
all tests passed with, and environment.yml leads conda to them. tests/test_packaging.py holds these together.
"""

import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent


def read_project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def environment_yml(project: dict) -> str:
    """Conda gives Python, pip gives the rest: torch has no conda channel of its own any more."""
    return f"""\
# Written by tools/sync_dependencies.py (`make sync`) from pyproject.toml: change that.
#   conda env create --file environment.yml && conda activate {project["name"]}
name: {project["name"]}
channels:
  - conda-forge
dependencies:
  - python={project["requires-python"].removeprefix(">=")}
  - pip
  - pip:
      - --constraint constraints.txt
      - --editable .[lab,test]
"""


def direct_requirements(project: dict) -> list[Requirement]:
    """What minivis and its extras ask for by name."""
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    wanted = [Requirement(line) for group in groups for line in group]
    return [requirement for requirement in wanted if requirement.name != project["name"]]


def installed_versions(project: dict) -> dict[str, str]:
    """Name and version of everything minivis needs here, direct or not, sorted."""
    versions: dict[str, str] = {}
    to_visit, seen = direct_requirements(project), set()
    while to_visit:
        requirement = to_visit.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        try:
            distribution = metadata.distribution(requirement.name)
        except metadata.PackageNotFoundError:
            raise SystemExit(f"{requirement} is not installed here: run `make install` first") from None
        # without the build's kind (the part after "+"): constraints.txt holds for every machine
        versions[canonicalize_name(requirement.name)] = distribution.version.partition("+")[0]
        for needed in map(Requirement, distribution.requires or []):
            extras = ["", *requirement.extras]
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                to_visit.append(needed)
    return dict(sorted(versions.items()))


def constraints_txt(project: dict) -> str:
    header = "# Written by tools/sync_dependencies.py (`make sync`): versions all tests passed with together."
    pins = (f"{name}=={version}" for name, version in installed_versions(project).items())
    return "\n".join([header, *pins, ""])


if __name__ == "__main__":
    project = read_project()
    (ROOT / "environment.yml").write_text(environment_yml(project))
    (ROOT / "constraints.txt").write_text(constraints_txt(project))
