"""What an installation gets: a wheel, what it ships, dependencies, clear words where they do not fit."""

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import sync_dependencies
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import minivis

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SHIPPED = sorted(path.relative_to(ROOT / "data") for path in (ROOT / "data").rglob("*") if path.is_file())


def run(*command: str | Path, **options) -> str:
    """Standard output of a command that must succeed."""
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


# --------------------------------------------------------------------------- the wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet"]
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT)
    return next(folder.glob("minivis-*.whl"))


def test_the_wheel_has_the_package_and_what_data_ships(wheel: Path):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = {str(path.relative_to(ROOT)) for path in (ROOT / "minivis").rglob("*") if path.is_file()}
    package = {name for name in package if "__pycache__" not in name and not name.endswith(".pyc")}
    assert names == package | {f"minivis/shipped/{path.as_posix()}" for path in SHIPPED}


def test_an_installed_wheel_finds_what_it_ships_from_anywhere(wheel: Path, tmp_path: Path):
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    run(sys.executable, "-m", "pip", "--quiet", "install", "--no-deps", "--no-index", "--target", site, wheel)
    code = f"""
import minivis, minivis.pretrained
print(minivis.__file__)
for name in {[path.as_posix() for path in SHIPPED]}:
    print(minivis.pretrained.shipped(name))
"""
    python = [sys.executable, "-c", code]
    printed = run(*python, cwd=elsewhere, env={**os.environ, "PYTHONPATH": str(site)}).splitlines()
    assert printed[0] == str(site / "minivis" / "__init__.py")
    assert printed[1:] == [str(site / "minivis" / "shipped" / path) for path in SHIPPED]


def test_a_clone_finds_what_it_ships():
    from minivis.pretrained import shipped

    assert [shipped(path.as_posix()) for path in SHIPPED] == [ROOT / "data" / path for path in SHIPPED]


def test_what_ships_is_small_and_has_a_licence():
    assert sum((ROOT / "data" / path).stat().st_size for path in SHIPPED) <= 40_000_000
    licences = (ROOT / "data" / "README.md").read_text()
    folders = {path.parts[0] for path in SHIPPED if len(path.parts) > 1}
    assert [folder for folder in folders if f"`{folder}/`" not in licences] == [], "data/README.md names them"


# --------------------------------------------------------------------------- dependencies


def imported_packages(folder: Path) -> set[str]:
    """Top-level names of everything imported under a folder that neither Python nor this repository has."""
    scripts = [path for name in ("tests", "tools", "benchmarks") for path in (ROOT / name).rglob("*.py")]
    own = {"minivis", *(path.stem for path in scripts)}
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module.split(".")[0])
    return found - own - set(sys.stdlib_module_names)


def declared(*groups: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for group in groups for line in group}


@pytest.mark.parametrize("folder", ["minivis", "benchmarks", "tests", "tools"])
def test_what_is_imported_is_declared(folder: str):
    extras = PROJECT["optional-dependencies"]
    groups = [PROJECT["dependencies"]] + ([] if folder == "minivis" else [extras["test"], extras["lab"]])
    distributions = metadata.packages_distributions()
    missing = {
        name
        for name in imported_packages(ROOT / folder)
        if not {canonicalize_name(one) for one in distributions.get(name, [name])} & declared(*groups)
    }
    assert not missing, f"{folder}/ imports {sorted(missing)}, which pyproject.toml does not ask for"


def test_constraints_pin_every_direct_dependency_within_its_range():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9a-z.]+", line) for line in lines), "name==version only"
    pinned = dict(line.split("==") for line in lines)
    for requirement in sync_dependencies.direct_requirements(PROJECT):
        version = pinned.get(canonicalize_name(requirement.name))
        assert version and requirement.specifier.contains(version), f"{requirement}: {version}; run make sync"


def test_dependencies_are_ranges():
    for requirement in sync_dependencies.direct_requirements(PROJECT):
        operators = {specifier.operator for specifier in requirement.specifier}
        assert operators == {">="}, f"{requirement}: on Colab a pin would replace what is there"


def test_environment_yml_is_made_from_pyproject():
    assert (ROOT / "environment.yml").read_text() == sync_dependencies.environment_yml(PROJECT)


# --------------------------------------------------------------------------- importing


def test_version_is_the_one_installed():
    assert minivis.__version__ == metadata.version("minivis")


def test_top_level_names_are_those_of_their_modules():
    from minivis import attention, pretrained

    assert minivis.record_attention is attention.record_attention
    assert minivis.load is pretrained.load
    assert minivis.from_transformers is pretrained.from_transformers
    assert minivis.to_transformers is pretrained.to_transformers
    assert {"load", "from_transformers", "to_transformers", "record_attention"} <= set(dir(minivis))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"'minivis' has no attribute 'laod'"):
        minivis.laod


def import_beside(folder: Path, torch: str, torchvision: str, source: str) -> subprocess.CompletedProcess:
    """`import minivis` in a fresh Python whose torch and torchvision (with this source) are stand-ins."""
    (folder / "torchvision.py").write_text(source)
    for name, version in [("torch", torch), ("torchvision", torchvision)]:
        info = folder / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    code = "import sys, minivis; print('torchvision' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)


NO_OPERATOR = "raise RuntimeError('operator torchvision::nms does not exist')"


@pytest.mark.parametrize(
    ("torch", "torchvision"),
    [("2.14.1+cpu", "0.29.1"), ("2.14.1", "0.29.1+cpu"), ("2.13.0+cpu", "0.29.1"), ("2.13.0", "0.29.1")],
)
def test_builds_that_do_not_fit_are_named_with_what_to_do(tmp_path: Path, torch: str, torchvision: str):
    result = import_beside(tmp_path, torch, torchvision, NO_OPERATOR)
    assert result.returncode == 1
    last = result.stderr[result.stderr.index("ImportError") :]
    assert f"torch {torch} and torchvision {torchvision}" in last
    assert "torchvision::nms" in last and "CPU-only" in last and "pip install torch torchvision" in last


@pytest.mark.parametrize(
    ("torch", "torchvision", "looked"),
    [
        ("2.14.1", "0.29.1", "False"),  # nothing suspicious: not even imported
        ("2.11.0+cu130", "0.26.0+cu130", "False"),
        ("2.14.1+cpu", "0.29.1", "True"),  # suspicious, and works all the same
    ],
)
def test_builds_that_fit_are_left_alone(tmp_path: Path, torch: str, torchvision: str, looked: str):
    result = import_beside(tmp_path, torch, torchvision, "")
    assert (result.returncode, result.stdout.strip()) == (0, looked), result.stderr


def test_another_failure_of_torchvision_is_not_explained_away(tmp_path: Path):
    result = import_beside(tmp_path, "2.14.1+cpu", "0.29.1", "raise RuntimeError('no disk')")
    assert "RuntimeError: no disk" in result.stderr and "CPU-only" not in result.stderr


# --------------------------------------------------------------------------- make and CI


def test_make_names_a_python_that_is_too_old(tmp_path: Path):
    python = tmp_path / "python3.9"
    python.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.2" || exit 1\n')
    python.chmod(0o755)
    command = ["make", "lab", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode != 0
    assert "needs Python 3.11 or newer" in result.stderr and "Python 3.9.2" in result.stderr
    assert not (tmp_path / "venv").exists()


def test_continuous_integration_runs_the_command_of_the_readme():
    script = (ROOT / ".ci" / "run").read_text()
    assert "make test" in script and "make test" in (ROOT / "README.md").read_text()
    run("bash", "-n", ROOT / ".ci" / "run")
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
