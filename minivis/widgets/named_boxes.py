"""A box on a picture, with a name at its corner, as matplotlib draws it."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle


def draw_box(
    axes: Axes,
    corners: Sequence[float],
    colour: str,
    name: str = "",
    *,
    ink: str = "black",
    style: Any = "-",
    halo: str = "white",
    below: bool = False,
) -> None:
    """Draws a box in one colour upon a halo of another, so that it is seen on any picture.

    Args:
        corners: (left, top, right, bottom), in the axes' own units.
        name: stands above the upper left corner, or `below` the lower one, in `ink`; nothing does if it is empty.
        style: matplotlib's, of the coloured line; the halo is solid.
    """
    left, top, right, bottom = corners
    for paint, width, line in ((halo, 3.5, "-"), (colour, 2, style)):
        look = dict(fill=False, edgecolor=paint, linewidth=width, linestyle=line)
        axes.add_patch(Rectangle((left, top), right - left, bottom - top, **look))
    if name:
        tag = dict(boxstyle="square,pad=0.15", facecolor=colour, edgecolor="none")
        at, align = (bottom, "top") if below else (top, "bottom")
        axes.text(left, at, name, fontsize=7.5, color=ink, va=align, bbox=tag)
