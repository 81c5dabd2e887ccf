"""On Colab one has the notebook file alone: its setup cell brings everything, and torch and numpy stay as they are."""

import json
import os
import shutil
from pathlib import Path

import colab_environment
import make_notebooks
import nbformat
import pytest
import test_committed
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

pytestmark = pytest.mark.slow
VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NotebookClient:
    """The first notebook, alone in an empty folder, on a kernel of an environment like Colab's."""
    content = tmp_path / "content"
    content.mkdir()
    python = colab_environment.make(tmp_path / "environment")
    repository = tmp_path / "repository"
    repository.mkdir()
    colab_environment.repository(make_notebooks.ROOT, repository)

    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "colab.py").write_text("import google.colab.output\n")  # Colab's kernel has loaded it
    kernel = tmp_path / "jupyter" / "kernels" / "colab"
    kernel.mkdir(parents=True)
    address = test_committed.ADDRESS
    environment = colab_environment.instead_of(address, repository) | {
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "PYTHONPATH": "",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }
    spec = {
        "argv": [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "Colab",
        "language": "python",
        "env": environment,
    }
    (kernel / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))

    shutil.copy(test_committed.NOTEBOOKS[0], content)
    notebook = nbformat.read(content / test_committed.NOTEBOOKS[0].name, 4)
    client = NotebookClient(
        notebook, timeout=600, kernel_name="colab", resources={"metadata": {"path": str(content)}}
    )
    client.python, client.content = python, content
    return client


def test_the_first_notebook_runs_on_colab(client: NotebookClient):
    before = colab_environment.state(client.python)
    assert "minivis" not in before
    try:
        client.execute()
    except CellExecutionError as error:
        if "pip" in str(error) and not os.environ.get("CI"):
            pytest.skip("pip could not install what minivis needs: is there no network?")
        raise
    assert colab_environment.state(client.python) == before, "torch and numpy are Colab's own, and stay"
    outputs = [output for cell in client.nb.cells for output in cell.get("outputs", [])]
    live = [output.metadata[VIEW] for output in outputs if VIEW in output.get("data", {})]
    manager = {"colab": {"custom_widget_manager": {"url": colab_environment.WIDGET_MANAGER}}}
    assert live and all(view == manager for view in live), (
        "Colab shows other people's widgets only if asked to"
    )
    written = {path.name for path in client.content.iterdir()}
    assert written == {test_committed.NOTEBOOKS[0].name}, "the notebook leaves nothing beside itself"
