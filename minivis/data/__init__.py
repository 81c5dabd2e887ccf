"""Data sets of detection: generated scenes and COCO folders, behind one interface (`DetectionDataset`).

With masks of things and stuff they are a `PanopticDataset`.
"""

from importlib import import_module
from typing import Any

# Looked up when first asked for, so that `import minivis.data` stays light.
_EXPORTS = {
    "BadItem": "items",
    "BadItemError": "items",
    "BadItems": "items",
    "Categories": "items",
    "DetectionBatch": "items",
    "DetectionDataset": "items",
    "CocoDetection": "coco",
    "CocoPanoptic": "coco_panoptic",
    "DetrAugment": "augment",
    "Scenes": "scenes",
    "World": "scenes",
    "captions": "scenes",
    "describe": "scenes",
    "load_shipped_scenes": "scenes",
    "render": "scenes",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return __all__
