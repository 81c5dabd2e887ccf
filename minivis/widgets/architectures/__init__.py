"""The course's drawings of how things are put together, one module for a topic: each a `Drawing`, as code.

from minivis.widgets.architectures import HUNGARIAN_LOSS

HUNGARIAN_LOSS.show()
"""

from minivis.widgets.architectures.course import COURSE
from minivis.widgets.architectures.detr_backbone import BACKBONE
from minivis.widgets.architectures.detr_decoder import DECODER_LAYER
from minivis.widgets.architectures.detr_encoder import ENCODER_LAYER
from minivis.widgets.architectures.detr_loss import HUNGARIAN_LOSS
from minivis.widgets.architectures.detr_training import DETR_TRAINING
from minivis.widgets.architectures.panoptic import PANOPTIC_HEAD

__all__ = [
    "BACKBONE",
    "COURSE",
    "DECODER_LAYER",
    "DETR_TRAINING",
    "ENCODER_LAYER",
    "HUNGARIAN_LOSS",
    "PANOPTIC_HEAD",
]
