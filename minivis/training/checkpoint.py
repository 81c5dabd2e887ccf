"""The folder of a run, written so that a run which is killed at any moment goes on exactly where it was.

    OUT/recipe.json        what is trained; resuming with anything else is refused
    OUT/state.pt           weights, optimiser, average, step: all that the next step depends on
    OUT/state.previous.pt  the one before
    OUT/metrics.jsonl      one JSON object a line: losses every `log_every` steps, metrics at every evaluation

Every file but the log is written beside its place, flushed to the disk, and then renamed onto it: it is there whole or
not at all. The log is only appended to; resuming cuts off what was written after the step that `state.pt` holds.
"""

import json
import logging
import os
from pathlib import Path
from typing import Any

import torch

from minivis.pretrained.checkpoint import write_atomically

logger = logging.getLogger("minivis")


class RunError(ValueError):
    """A run folder that cannot be used as asked."""


class RunFolder:
    """What a run writes, by its main process alone.

    Args:
        folder: made if it does not exist.
        recipe: as `Recipe.to_dict` gives it.
        resume: go on with the run that is there; if there is none yet, start it.
        main: whether this process is the one that writes.

    Raises:
        RunError: if there is a run and `resume` is False, or if it is a run of another recipe.
    """

    def __init__(
        self, folder: str | Path, recipe: dict[str, Any], resume: bool = False, main: bool = True
    ) -> None:
        self.folder, self.main = Path(folder), main
        self.state_path, self.previous_path = self.folder / "state.pt", self.folder / "state.previous.pt"
        self.metrics_path, recipe_path = self.folder / "metrics.jsonl", self.folder / "recipe.json"
        if self.folder.exists() and not self.folder.is_dir():
            raise RunError(f"{self.folder} is a file; a run needs a folder")
        if recipe_path.exists():
            if not resume:
                raise RunError(
                    f"{self.folder} holds a run already: add --resume to go on with it, or choose another --out "
                    "(or remove the folder)"
                )
            try:
                before = json.loads(recipe_path.read_text())
            except ValueError as error:
                raise RunError(
                    f"{recipe_path} is not JSON ({error}); start anew in another folder"
                ) from error
            check_same_recipe(before, recipe, recipe_path)
        self._recipe = (recipe_path, json.dumps(recipe, indent=2).encode())

    def start(self, step: int = 0) -> None:
        """Writes the recipe, and cuts the log at the step that the run goes on from."""
        if self.main:
            self.folder.mkdir(parents=True, exist_ok=True)
            path, text = self._recipe
            write_atomically(path, text)
            self._cut_log(step)

    def save_state(self, state: dict[str, Any]) -> None:
        """Writes the state, and keeps the one before it."""
        if self.main:
            temporary = self.folder / "state.pt.tmp"
            with open(temporary, "wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            if self.state_path.exists():
                os.replace(self.state_path, self.previous_path)
            # Killed here, there is no state.pt for a moment, but a whole state.previous.pt.
            os.replace(temporary, self.state_path)

    def load_state(self, device: torch.device | str) -> dict[str, Any] | None:
        """The newest state that can be read, or None if none was written yet.

        Raises:
            RunError: if there are states, but none can be read.
        """
        device = torch.device(device)
        place = (
            "cpu" if device.type == "cpu" else device
        )  # several processes have "cpu:0", which torch.load refuses
        paths = [path for path in (self.state_path, self.previous_path) if path.exists()]
        for path in paths:
            try:
                return torch.load(path, map_location=place, weights_only=True)
            except Exception as error:  # a damaged file raises whatever the reader stumbled over
                logger.warning(
                    "%s cannot be read (%s)", path, str(error).splitlines()[0] if str(error) else error
                )
        if paths:
            raise RunError(f"no state in {self.folder} can be read; start anew in another folder")
        return None

    def log(self, entry: dict[str, Any]) -> None:
        """Adds a line to `metrics.jsonl`."""
        if self.main:
            with open(self.metrics_path, "a") as file:
                file.write(json.dumps(entry) + "\n")
                file.flush()
                os.fsync(file.fileno())

    def _cut_log(self, step: int) -> None:
        """Removes what was logged after `step`, a half-written line included."""
        if self.metrics_path.exists():
            kept = "".join(
                json.dumps(entry) + "\n" for entry in read_log(self.folder) if entry["step"] <= step
            )
            write_atomically(self.metrics_path, kept.encode())


def read_log(folder: str | Path) -> list[dict[str, Any]]:
    """The entries of a run's `metrics.jsonl`; a last line that is not complete is left out."""
    entries = []
    for line in (Path(folder) / "metrics.jsonl").read_text().splitlines():
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return entries


def check_same_recipe(there: dict[str, Any], given: dict[str, Any], path: Path) -> None:
    """RunError, naming every field that differs, unless both recipes are the same."""
    there, given = flat(there), flat(given)
    keys = sorted((there.keys() | given.keys()) - {"about", "estimate", "workers"})  # these change no number
    differing = [key for key in keys if there.get(key) != given.get(key)]
    if differing:
        changes = ", ".join(f"{key} (there {there.get(key)!r}, now {given.get(key)!r})" for key in differing)
        raise RunError(f"cannot resume: {path} differs from what was asked for in {changes}")


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"model": {"d_model": 64}} → {"model.d_model": 64}"""
    result = {}
    for key, value in values.items():
        result |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return result
