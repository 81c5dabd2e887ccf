"""JupyterLab on this machine, for one file of tests, and what one does with a notebook in it."""

import ast
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat

if TYPE_CHECKING:
    from playwright.sync_api import Page

# Nothing that asks the network or opens a window above the notebook.
SETTINGS = {
    "apputils-extension/notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
        "doNotDisturbMode": True,
    },
    "extensionmanager-extension/plugin": {"enabled": False},
    "docmanager-extension/plugin": {"autosave": False},
    "notebook-extension/tracker": {"windowingMode": "none"},  # every cell is drawn, also those out of sight
}
WAIT = 180_000  # milliseconds for a kernel, where many start at once


class JupyterLab:
    """A server of its own: settings, kernels and notebooks are in `folder`, and gone with it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.notebooks = folder / "notebooks"
        self.log = folder / "log.txt"

    def __enter__(self) -> "JupyterLab":
        self.notebooks.mkdir()
        for name, content in SETTINGS.items():
            file = self.folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(content))
        folders = {
            f"JUPYTER_{name}_DIR": str(self.folder / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")
        }
        folders |= {"IPYTHONDIR": str(self.folder / "ipython")}
        for name in ("SETTINGS", "WORKSPACES"):
            folders[f"JUPYTERLAB_{name}_DIR"] = str(self.folder / name.lower())
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}"]
        command += ["--ip=127.0.0.1", f"--ServerApp.root_dir={self.notebooks}", "--ServerApp.port_retries=0"]
        command += ["--LabApp.expose_app_in_browser=True", "--IdentityProvider.token="]
        with self.log.open("w") as log:
            self.server = subprocess.Popen(command, env=os.environ | folders, stdout=log, stderr=log)
        try:
            self.wait_for_server()
        except BaseException:
            self.server.kill()
            raise
        return self

    def __exit__(self, *error: Any) -> None:
        self.server.terminate()
        try:
            self.server.wait(20)
        except subprocess.TimeoutExpired:
            self.server.kill()

    def wait_for_server(self, seconds: float = 90) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.server.poll() is None:
            try:
                urllib.request.urlopen(f"{self.address}/api", timeout=5).close()
                return
            except OSError:
                time.sleep(0.2)
        raise RuntimeError(f"JupyterLab did not start within {seconds} s:\n{self.log.read_text()[-3000:]}")

    def open(self, page: "Page", notebook: Path) -> None:
        """Open a copy of a notebook, and wait until its kernel answers."""
        folder = Path(str(time.monotonic_ns()))
        (self.notebooks / folder).mkdir()
        shutil.copy(notebook, self.notebooks / folder)
        page.goto(f"{self.address}/lab/tree/{folder}/{notebook.name}?reset")
        context = "window.jupyterapp?.shell?.currentWidget?.sessionContext"
        page.wait_for_function(f"{context}?.isReady", timeout=WAIT)
        # "ready" and "idle" are said before there is a kernel: it is there when it answers.
        page.wait_for_function(f"{context}.session?.kernel", timeout=WAIT)
        kernel = f"{context}.session.kernel"
        page.evaluate(f"async () => {{ await {kernel}.info; await {kernel}.requestKernelInfo(); }}")


def run_all_cells(page: "Page") -> None:
    """Run the notebook that is open; a cell that fails is an `AssertionError` with its traceback."""
    page.evaluate("() => jupyterapp.commands.execute('notebook:run-all-cells')")
    cells = page.evaluate("() => jupyterapp.shell.currentWidget.content.model.toJSON().cells")
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    errors = ["\n".join(output["traceback"]) for output in outputs if output["output_type"] == "error"]
    assert not errors, "\n\n".join(errors)


def python(page: "Page", code: str) -> Any:
    """What an expression is in the notebook's kernel, as JSON can say it."""
    result = page.evaluate(
        """async (code) => {
            const kernel = jupyterapp.shell.currentWidget.sessionContext.session.kernel;
            const request = kernel.requestExecute({
                code: "", silent: true, store_history: false, user_expressions: { value: code },
            });
            return (await request.done).content.user_expressions.value;
        }""",
        f"__import__('json').dumps({code})",
    )
    assert result["status"] == "ok", result
    return json.loads(ast.literal_eval(result["data"]["text/plain"]))


def wait_for_python(page: "Page", code: str, wanted: Any) -> None:
    """Until an expression is so in the kernel: what the browser changed arrives a moment later."""
    for _ in range(100):
        if (value := python(page, code)) == wanted:
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"{code} is {value}, expected {wanted}")


def write_notebook(file: Path, *cells: str) -> Path:
    """A notebook of code cells."""
    content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in cells])
    content.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(content, file)
    return file


def shut_down_kernel(page: "Page") -> None:
    page.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.shutdown()")
