"""What notebooks show: pictures that say what they show."""

from minivis.widgets.pictures import show

__all__ = ["show"]
