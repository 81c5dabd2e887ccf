"""Named checkpoints, and weights from and to Hugging Face transformers.

model = minivis.load("detr-mini")       # shipped; or a local folder, or a hub id
model.class_names, model.image_transform, model.card
"""

from minivis.pretrained.checkpoint import CheckpointError, save_checkpoint, shipped_checkpoints
from minivis.pretrained.huggingface import from_transformers, to_transformers
from minivis.pretrained.load import load, load_released
from minivis.shipped_files import shipped

__all__ = [
    "CheckpointError",
    "from_transformers",
    "load",
    "load_released",
    "save_checkpoint",
    "shipped",
    "shipped_checkpoints",
    "to_transformers",
]
