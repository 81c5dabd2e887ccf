"""Makes NAME.ipynb, which readers open, from NAME.py, which authors write: execute, clean, pair.

    make notebooks [NOTEBOOK=NAME]

A committed notebook holds its outputs as image/png, text/markdown and text/plain only, so that it shows everywhere, and
nothing of the machine it ran on. `complaints` lists what is wrong with one, and those of course.py what its form
lacks; tests/notebooks wants none. The minutes in the header are written anew when they are no longer true.
"""

import ast
import re
import sys
import time
from pathlib import Path

import course
import jupytext
import nbformat
from IPython.core.inputtransformer2 import TransformerManager
from jupytext.config import load_jupytext_config
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
FORMAT = "py:percent"
JUPYTEXT = load_jupytext_config(str(ROOT))  # [tool.jupytext] in pyproject.toml

MEGABYTE = 1_000_000
LARGEST_NOTEBOOK = 1.5 * MEGABYTE
LONGEST_RUN = 180  # seconds, on two cores
WELCOME = "00_start_here"  # the one notebook that has a form of its own

KEPT = {"tags", "nbgrader", "jupyter", "cellView"}  # of a cell's metadata, as in [tool.jupytext]
SHOWN = {"image/png", "text/plain", "text/markdown"}
DROPPED = {"application/vnd.jupyter.widget-view+json"}  # shows nothing without its state; its PNG does
OF_A_MACHINE = [
    (re.compile(r"/home/|/root/|/Users/|/tmp/|/mnt/|/content/|site-packages|[A-Z]:\\"), "a machine's path"),
    (re.compile(r"\b0x[0-9a-fA-F]{6,}"), "a memory address"),
    (re.compile(r"\b\w*Warning:"), "a warning"),
    (re.compile(r"\d+%\||\bit/s\]|\bs/it\]"), "a progress bar"),
]


def read(path: Path) -> NotebookNode:
    """A notebook from either file of its pair."""
    return jupytext.read(path, fmt=FORMAT if path.suffix == ".py" else "ipynb", config=JUPYTEXT)


def as_script(notebook: NotebookNode) -> str:
    """The text of a notebook: what the .py beside it must be."""
    return jupytext.writes(notebook, FORMAT, config=JUPYTEXT)


def execute(notebook: NotebookNode, folder: Path) -> float:
    """Runs all cells, with this environment's Python, in that folder. Returns the seconds it took."""
    start = time.perf_counter()
    NotebookClient(
        notebook,
        timeout=2 * LONGEST_RUN,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    ).execute()
    return time.perf_counter() - start


def clean(notebook: NotebookNode, name: str) -> None:
    """Leaves what is the same on every machine: no widget state, no timings, no traceback with its paths."""
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata = NotebookNode(
        kernelspec={"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        language_info={"name": "python"},
    )
    for index, cell in enumerate(notebook.cells):
        cell.id = f"{name}-{index}"
        cell.metadata = {key: value for key, value in cell.metadata.items() if key in KEPT}
        for output in cell.get("outputs", []):
            if "data" in output:
                output.data = {mime: value for mime, value in output.data.items() if mime not in DROPPED}
                alt = alt_text(output)
                output.metadata = {"image/png": {"alt": alt}} if alt else {}
            if output.output_type == "error":
                output.traceback = []


def alt_text(output: NotebookNode) -> str:
    """What a picture says of itself: display(figure, metadata={"image/png": {"alt": ...}})."""
    return output.get("metadata", {}).get("image/png", {}).get("alt", "")


def complaints(notebook: NotebookNode) -> list[str]:
    """What a committed notebook must not be, each with the cell where it is (cells count from 1)."""
    found = []
    if "widgets" in notebook.metadata:
        found.append("the notebook carries widget state")
    code_cells = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    counts = [cell.execution_count for cell in code_cells]
    if counts != list(range(1, len(counts) + 1)):
        found.append(f"it was not executed once from top to bottom: execution counts are {counts}")
    for number, cell in enumerate(notebook.cells, start=1):
        problems = _of_code(cell) if cell.cell_type == "code" else _of_text(cell)
        found += [f"cell {number}: {problem}" for problem in problems]
    return found


def _of_text(cell: NotebookNode) -> list[str]:
    without_alt = re.findall(r"!\[\s*\]\([^)]*\)|<img(?![^>]*\balt=[\"'][^\"'])[^>]*>", cell.source)
    return [f"{image} has no alt text" for image in without_alt]


def _of_code(cell: NotebookNode) -> list[str]:
    found = []
    if not cell.outputs and _shows_something(cell.source):
        found.append("its output is missing")
    for output in cell.outputs:
        if output.output_type == "stream" and output.name == "stderr":
            found.append(f"writes to stderr: {output.text.strip()[:200]}")
        if output.output_type == "error" and "raises-exception" not in cell.metadata.get("tags", []):
            found.append(f"ends in {output.ename}: {output.evalue}")
        data = output.get("data", {})
        if not set(data) <= SHOWN:
            found.append(f"shows {sorted(set(data) - SHOWN)}: print it, or show a picture")
        description = data.get("text/plain", "<")
        if "image/png" in data and not alt_text(output) and description.startswith("<"):
            found.append(f"its picture has no alt text, only {description!r}")
        text = output.get("text", "") + description + output.get("evalue", "")
        for pattern, what in OF_A_MACHINE:
            if match := pattern.search(text):
                found.append(f"shows {what}: {match.group()}")
    return found


def _shows_something(source: str) -> bool:
    """Whether a cell surely has an output: it prints, shows or checks, or ends in a value or in a new widget."""
    statements = ast.parse(TransformerManager().transform_cell(source)).body  # magics become Python
    for statement in statements:
        match statement:
            case ast.Expr(ast.Call(ast.Name(name) | ast.Attribute(attr=name))):
                if name in {"print", "display"} or name.split("_")[0] == "show" or name.startswith("check_"):
                    return True
    match statements:
        case [*_, ast.Expr(ast.Call(ast.Name(name)))]:
            return name[0].isupper()  # a widget; what other calls give may be None
        case [*_, ast.Expr(ast.Call() | ast.Constant())]:
            return False
        case [*_, ast.Expr()]:
            return True
    return False


def make(source: Path) -> list[str]:
    """Writes the notebook of one .py. Returns what is wrong with it; one that does not run is not written."""
    notebook = read(source)
    try:
        seconds = execute(notebook, source.parent)
    except CellExecutionError as error:
        return [f"did not run, and was not written:\n{error}"]
    clean(notebook, source.stem)
    if course.state_seconds(notebook, seconds):
        print(f"{source.stem}: its header now says what the cells take")
    target = source.with_suffix(".ipynb")
    nbformat.write(notebook, target)
    source.write_text(as_script(notebook))
    print(f"{source.stem}: {seconds:.0f} s, {target.stat().st_size / MEGABYTE:.2f} MB")
    found = complaints(notebook)
    if seconds > LONGEST_RUN:
        found.append(f"took {seconds:.0f} s, more than {LONGEST_RUN}")
    return found


def main(names: list[str]) -> int:
    sources = [NOTEBOOKS / f"{name}.py" for name in names] or sorted(NOTEBOOKS.glob("[0-9]*.py"))
    wrong = []
    for source in sources:
        found = make(source)
        if source.stem != WELCOME and (made := source.with_suffix(".ipynb")).exists():
            found += course.complaints(read(made), source.stem)
        wrong += [f"{source.stem}: {complaint}" for complaint in found]
    print(*wrong, sep="\n", file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main([Path(name).stem for name in sys.argv[1:]]))
