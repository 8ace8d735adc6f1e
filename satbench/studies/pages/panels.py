"""The panels of a figure of a study, and the legend below them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def panels_in(
    figure: Figure, down: int, across: int, sharex: bool = False, sharey: bool = False
) -> list[Axes]:
    """Return the empty panels of a figure in one list, row by row."""
    figure.clear()
    panels = list(
        np.ravel(figure.subplots(down, across, sharex=sharex, sharey=sharey, squeeze=False))
    )
    for axes in panels:
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
    return panels


def legend_rows(names: Sequence[str]) -> int:
    """Return how many rows a legend of these names has."""
    return -(-len(names) // _columns(names))


def legend_below(figure: Figure, axes: Axes) -> None:
    """Draw the legend of the axes below the figure."""
    legend_of(figure, *axes.get_legend_handles_labels())


def legend_of(figure: Figure, handles: Sequence[Any], names: Sequence[str]) -> None:
    """Draw a legend of these names below the figure."""
    figure.legend(
        handles,
        names,
        loc="outside lower center",
        ncols=_columns(names),
        frameon=False,
        fontsize=10,
    )


def _columns(names: Sequence[str]) -> int:
    longest = max(map(len, names), default=1)
    return max(1, min(4, len(names), int(104 / (longest + 6))))  # characters that fit in a line
