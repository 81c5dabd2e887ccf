"""Architecture drawings written as code: boxes, arrows with shapes on them, groups; and the same in words.

Drawing(
    "One encoder layer",
    boxes=[Box("tokens", (0, 0), kind="data"), Box("self-attention", (1, 0), kind="learned")],
    arrows=[Arrow("tokens", "self-attention", "(B, N, d)")],
).show()
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path
from matplotlib.textpath import TextPath

from minivis.widgets.pictures import PAGE_WIDTH, show

# All lengths are pixels.
DPI = 100  # as `show` saves a figure
ROW = 92  # from one row of boxes to the next
MARGIN, PAD = 12, 11  # around all, and between a box's edge and its text
NARROWEST, WIDEST = 36, 110  # of the gaps between columns
FRAME = 10  # what a group's frame adds on every side; above, its name is added
BLACK, GREY = "#1A1A1A", "#595959"

# Okabe and Ito's colours, light to write on and dark for the edge: told apart by every kind of vision.
KINDS = {
    "data": ("#E3F0F8", "#0072B2"),
    "step": ("#F4F4F4", "#6B6B6B"),
    "learned": ("#FCF1D6", "#B87F00"),
    "loss": ("#FBE6DB", "#D55E00"),
}


def _font(points: float, weight: str = "normal") -> FontProperties:
    return FontProperties(family="DejaVu Sans", size=points, weight=weight)  # matplotlib brings it along


TITLE, NAME, SMALL = _font(12, "bold"), _font(10, "bold"), _font(9)


class Box(NamedTuple):
    """A tensor, a step or a module. Columns and rows count from the upper left; halves lie between."""

    name: str
    at: tuple[float, float]  # column, row
    detail: str = ""  # in lighter letters below the name
    kind: str = "step"  # one of KINDS


class Arrow(NamedTuple):
    """What goes from one box to another, and its shape."""

    start: str
    end: str
    label: str = ""


class Group(NamedTuple):
    """Boxes that belong together, in a frame with a name."""

    name: str
    boxes: Sequence[str]


class _Area(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    @property
    def middle(self) -> tuple[float, float]:
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    def meets(self, other: "_Area") -> bool:
        sideways = self.left < other.right and other.left < self.right
        return sideways and self.top < other.bottom and other.top < self.bottom


@dataclass(frozen=True)
class Drawing:
    """Boxes on a grid, joined by arrows. A box is as large as its texts, and a column as wide as its widest box.

    Raises:
        ValueError: if two boxes have one name or overlap, if an arrow or a group names a box that is not there, or if
            it is wider than a page.
    """

    title: str
    boxes: Sequence[Box]
    arrows: Sequence[Arrow] = ()
    groups: Sequence[Group] = ()

    def __post_init__(self):
        names = [box.name for box in self.boxes]
        if len(set(names)) < len(names):
            raise ValueError(f"two boxes have the same name: {', '.join(names)}")
        named = {name for arrow in self.arrows for name in arrow[:2]} | {
            n for g in self.groups for n in g.boxes
        }
        if named - set(names):
            raise ValueError(
                f"there is no box {', '.join(sorted(named - set(names)))}; there are {', '.join(names)}"
            )
        areas = self._areas()
        for (a, first), (b, second) in combinations(areas.items(), 2):
            if first.meets(second):
                raise ValueError(f"the boxes {a!r} and {b!r} overlap: move one to another column or row")

    def show(self) -> None:
        """Displays the drawing, with its words as alt text."""
        show(self.figure(), self.alt())

    def alt(self) -> str:
        """The drawing in words."""
        parts = [f"{box.name} ({_on_one_line(box.detail)})" if box.detail else box.name for box in self.boxes]
        text = f"Drawing. {self.title}. Boxes: {'; '.join(parts)}."
        if self.arrows:
            labels = [f", {_on_one_line(arrow.label)}" if arrow.label else "" for arrow in self.arrows]
            ways = [f"{arrow.start} → {arrow.end}{label}" for arrow, label in zip(self.arrows, labels)]
            text += f" Arrows: {'; '.join(ways)}."
        for group in self.groups:
            text += f" Framed as “{group.name}”: {', '.join(group.boxes)}."
        return text

    def figure(self) -> Figure:
        """The drawing as a matplotlib figure, at most as wide as a page, on white."""
        areas = self._areas()
        frames = {
            group.name: _frame([areas[name] for name in group.boxes], group.name) for group in self.groups
        }
        extents = [*areas.values(), *frames.values()]
        left, right = min(a.left for a in extents) - MARGIN, max(a.right for a in extents) + MARGIN
        title = _wrapped(self.title, int((right - left) / 10))
        top = min(a.top for a in extents) - MARGIN - _size(title, TITLE)[1] - 6
        bottom = max(a.bottom for a in extents) + MARGIN + 24

        figure = Figure(figsize=((right - left) / DPI, (bottom - top) / DPI), dpi=DPI, facecolor="white")
        axes = figure.add_axes((0, 0, 1, 1), xlim=(left, right), ylim=(bottom, top))
        axes.set_axis_off()
        axes.text(left + MARGIN, top + MARGIN, title, font=TITLE, color=BLACK, va="top")
        for name, frame in frames.items():
            _draw_rounded(axes, frame, "white", GREY, linestyle=(0, (4, 3)), linewidth=1)
            name = _fitted(name, frame.right - frame.left)
            axes.text(frame.left + 8, frame.top + 5, name, font=SMALL, color=GREY, va="top", linespacing=1.15)
        for arrow in self.arrows:
            _draw_arrow(axes, areas[arrow.start], areas[arrow.end], arrow.label)
        for box in self.boxes:
            _draw_box(axes, areas[box.name], box)
        self._draw_legend(axes, left + MARGIN, bottom - MARGIN - 4)
        return figure

    def _areas(self) -> dict[str, _Area]:
        """Where each box lies."""
        columns = sorted({box.at[0] for box in self.boxes})
        sizes = {box.name: _box_size(box) for box in self.boxes}
        widths = {c: max(sizes[box.name][0] for box in self.boxes if box.at[0] == c) for c in columns}
        gaps = {pair: self._narrowest_gap(*pair) for pair in pairwise(columns)}
        spare = PAGE_WIDTH - 2 * (MARGIN + FRAME) - sum(widths.values()) - sum(gaps.values())
        if spare < 0:
            raise ValueError(
                f"it is {-spare:.0f} pixels wider than a page: take fewer columns, or shorter texts"
            )
        share = spare / max(len(gaps), 1)

        left = {columns[0]: 0.0}
        for (a, b), gap in gaps.items():
            left[b] = left[a] + widths[a] + max(gap, min(gap + share, WIDEST))
        areas = {}
        for box in self.boxes:
            column, row = box.at
            half = sizes[box.name][1] / 2
            areas[box.name] = _Area(
                left[column], row * ROW - half, left[column] + widths[column], row * ROW + half
            )
        return areas

    def _narrowest_gap(self, left: float, right: float) -> float:
        """Between two neighbouring columns: room for the labels of the arrows there."""
        column = {box.name: box.at[0] for box in self.boxes}
        crossing = [
            arrow.label for arrow in self.arrows if {column[arrow.start], column[arrow.end]} == {left, right}
        ]
        return max([NARROWEST, *(_size(label, SMALL)[0] + 16 for label in crossing)])

    def _draw_legend(self, axes: Axes, x: float, y: float) -> None:
        kinds = [kind for kind in KINDS if kind in {box.kind for box in self.boxes}]
        for kind in kinds if len(kinds) > 1 else []:
            _draw_rounded(axes, _Area(x, y - 5, x + 14, y + 5), *KINDS[kind], radius=2)
            axes.text(x + 20, y, kind, font=SMALL, color=GREY, va="center")
            x += 20 + _size(kind, SMALL)[0] + 18


def _frame(areas: Sequence[_Area], name: str) -> _Area:
    """Around some boxes, with room for the name above them."""
    lefts, tops, rights, bottoms = zip(*areas)
    left, right = min(lefts) - FRAME, max(rights) + FRAME
    return _Area(
        left, min(tops) - _size(_fitted(name, right - left), SMALL)[1] - 9, right, max(bottoms) + FRAME
    )


def _fitted(name: str, width: float) -> str:
    """A group's name, in lines that its frame has room for."""
    return _wrapped(name, int((width - 16) / 7.5))


def _way(start: _Area, end: _Area) -> tuple[list[tuple[float, float]], bool]:
    """The corners of an arrow between facing sides, and whether these face each other across a gap of columns."""
    (x0, y0), (x1, y1) = start.middle, end.middle
    if start.right < end.left or end.right < start.left:
        begin, tip = (start.right, end.left) if start.right < end.left else (start.left, end.right)
        bend = tip - (tip - begin) / abs(tip - begin) * min(abs(tip - begin), WIDEST) / 2  # beside the end
        return [(begin, y0), (bend, y0), (bend, y1), (tip, y1)], True
    begin, tip = (start.bottom, end.top) if start.bottom < end.top else (start.top, end.bottom)
    bend = (begin + tip) / 2
    return [(x0, begin), (x0, bend), (x1, bend), (x1, tip)], False


def _draw_arrow(axes: Axes, start: _Area, end: _Area, label: str) -> None:
    corners, sideways = _way(start, end)
    line = dict(arrowstyle="-|>", mutation_scale=11, color=BLACK, linewidth=1.2, capstyle="butt", zorder=2)
    axes.add_patch(FancyArrowPatch(path=_rounded_path(corners), **line))
    (x0, y0), (x1, y1) = corners[0], corners[-1]
    x, y = (corners[1][0] + corners[2][0]) / 2, (y0 + y1) / 2
    if sideways and y0 == y1:  # above a level line,
        x, y, how = (x0 + x1) / 2, y - 4, dict(ha="center", va="bottom")
    elif x0 == x1:  # beside an upright one,
        x, how = x + 7, dict(ha="left", va="center")
    else:  # or on the middle part of one with bends
        how = dict(ha="center", va="center", bbox=dict(facecolor="white", edgecolor="none", pad=1.5))
    if label:
        axes.text(x, y, label, font=SMALL, color=BLACK, zorder=3, linespacing=1.15, **how)


def _rounded_path(corners: Sequence[tuple[float, float]], radius: float = 7) -> Path:
    """From corner to corner, each turn an arc."""
    points, codes = [corners[0]], [Path.MOVETO]
    for before, corner, after in zip(corners, corners[1:], corners[2:]):
        for other in before, after:
            length = abs(other[0] - corner[0]) + abs(other[1] - corner[1])
            part = min(radius / length, 0.5) if length else 0
            points.append(tuple(c + part * (o - c) for c, o in zip(corner, other)))
            points.append(corner)
        points.pop()  # the arc is: to before the corner, by the corner, to after it
        codes += [Path.LINETO, Path.CURVE3, Path.CURVE3]
    return Path([*points, corners[-1]], [*codes, Path.LINETO])


def _draw_box(axes: Axes, area: _Area, box: Box) -> None:
    _draw_rounded(axes, area, *KINDS[box.kind])
    x, y = area.middle
    name, detail = _texts(box)
    heights = _size(name, NAME)[1], _size(detail, SMALL)[1]
    top = y - sum(heights) / 2
    how = dict(ha="center", va="center", linespacing=1.15, zorder=4)
    axes.text(x, top + heights[0] / 2, name, font=NAME, color=BLACK, **how)
    axes.text(x, top + heights[0] + heights[1] / 2, detail, font=SMALL, color=BLACK, **how)


def _draw_rounded(axes: Axes, area: _Area, fill: str, edge: str, radius: int = 6, **line) -> None:
    left, top, right, bottom = area
    style = f"round,pad=0,rounding_size={radius}"
    line = dict(linewidth=1.4, zorder=1) | line
    axes.add_patch(
        FancyBboxPatch((left, top), right - left, bottom - top, style, facecolor=fill, edgecolor=edge, **line)
    )


def _texts(box: Box) -> tuple[str, str]:
    return _wrapped(box.name, 14), _wrapped(box.detail, 18)


def _box_size(box: Box) -> tuple[float, float]:
    (width, height), (detail_width, detail_height) = map(_size, _texts(box), (NAME, SMALL))
    return max(width, detail_width) + 2 * PAD, height + detail_height + 2 * PAD - 6


def _size(text: str, font: FontProperties) -> tuple[float, float]:
    """Width and height of a text."""
    lines = text.splitlines()
    widths = [float(TextPath((0, 0), line, prop=font).get_extents().width) for line in lines]
    scale = DPI / 72  # pixels in a point
    return scale * max(widths, default=0), scale * len(lines) * 1.34 * font.get_size_in_points()


def _wrapped(text: str, width: int) -> str:
    lines = [line for part in text.split("\n") for line in textwrap.wrap(part, width, break_on_hyphens=False)]
    return "\n".join(lines)


def _on_one_line(text: str) -> str:
    return " ".join(text.split())
