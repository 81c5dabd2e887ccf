"""The course's drawings of how things are put together, one module for a topic: each a `Drawing`, as code.

from minivis.widgets.architectures import HUNGARIAN_LOSS

HUNGARIAN_LOSS.show()
"""

from minivis.widgets.architectures.course import COURSE
from minivis.widgets.architectures.detr_loss import HUNGARIAN_LOSS

__all__ = ["COURSE", "HUNGARIAN_LOSS"]
