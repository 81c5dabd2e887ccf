"""Training: recipes, one loop for every model, and run folders that resume exactly."""

from importlib import import_module
from typing import Any

# Looked up when first asked for, so that `import minivis.training` stays light.
_EXPORTS = {
    "RECIPES": "recipes",
    "Recipe": "recipes",
    "DetrRecipe": "recipes",
    "get_recipe": "recipes",
    "train": "loop",
    "Task": "task",
    "TrainingDiverged": "progress",
    "RunError": "checkpoint",
    "plot_curves": "curves",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return __all__
