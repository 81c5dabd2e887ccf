"""What notebooks show: pictures that say what they show, and live widgets."""

from minivis.widgets.pictures import show

__all__ = ["show"]
