"""A box on a picture, with a name at its upper left corner, as matplotlib draws it."""

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
) -> None:
    """Draws a box in one colour upon a halo of another, so that it is seen on any picture.

    Args:
        corners: (left, top, right, bottom), in the axes' own units.
        name: stands above the corner, in `ink`; nothing does if it is empty.
        style: matplotlib's, of the coloured line; the halo is solid.
    """
    left, top, right, bottom = corners
    for paint, width, line in ((halo, 3.5, "-"), (colour, 2, style)):
        look = dict(fill=False, edgecolor=paint, linewidth=width, linestyle=line)
        axes.add_patch(Rectangle((left, top), right - left, bottom - top, **look))
    if name:
        tag = dict(boxstyle="square,pad=0.15", facecolor=colour, edgecolor="none")
        axes.text(left, top, name, fontsize=7.5, color=ink, va="bottom", bbox=tag)
