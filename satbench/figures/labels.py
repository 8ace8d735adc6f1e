"""Labels next to the points of a figure, placed so that they hide no point and no other label.

A label has a white ground, so that it can be read where it must cross a line.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import isnan
from typing import TYPE_CHECKING

from satbench.figures.styles import Look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIDES = ((1, 1), (-1, 1), (1, -1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1))
_FAR = (4, 14, 26, 40, 56)  # distances between a point and its name, tried in this order
_ALIGN = {1: "left", -1: "right", 0: "center"}
_GROUND = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.4}
_LINE = {1: "bottom", -1: "top", 0: "center"}


def label_points(
    figure: Figure,
    axes: Axes,
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    looks: Sequence[Look],
) -> None:
    """Write the name of each point next to it, in its colour, with a thin line if it is far away.

    The limits of the axes are widened and then fixed.
    """
    from matplotlib.text import Text

    axes.margins(0.2)
    figure.draw_without_rendering()
    axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())
    places = [axes.transData.transform(point) for point in points if not isnan(point[0])]
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in places]
    frame = axes.get_window_extent()
    for point, name, look in zip(points, names, looks, strict=True):
        if isnan(point[0]):
            continue
        for far, (right, up) in product(_FAR, _SIDES):
            text = axes.annotate(
                name,
                point,
                xytext=(far * right, far * up),
                textcoords="offset points",
                ha=_ALIGN[right],
                va=_LINE[up],
                fontsize=8,
                color=look.colour,
                bbox=_GROUND,
                zorder=6,
                arrowprops={"arrowstyle": "-", "color": look.colour, "linewidth": 0.5}
                if far > _FAR[0]
                else None,
            )
            text.get_window_extent()  # updates its position
            extent = Text.get_window_extent(text)  # the extent without the line
            box = (extent.x0, extent.y0, extent.x1, extent.y1)
            inside = frame.x0 <= box[0] and box[2] <= frame.x1
            inside = inside and frame.y0 <= box[1] and box[3] <= frame.y1
            if inside and not any(_meet(box, other) for other in taken):
                taken.append(box)
                break
            if (far, right, up) != (_FAR[-1], *_SIDES[-1]):
                text.remove()


def _meet(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    apart = one[2] < other[0] or other[2] < one[0] or one[3] < other[1] or other[3] < one[1]
    return not apart
