"""A figure of one evaluation: the clean accuracy and the accuracy after each attack."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill

from satbench.figures.picture import DrawnFigure, drawing
from satbench.figures.styles import NEUTRAL, activation_colour, tint_of


def stages_picture(
    rows: Sequence[tuple[str, float, float, float]], title: str, activation: str = ""
) -> DrawnFigure:
    """Draw a bar for each row.

    A row is a name, an accuracy and the ends of its interval, as shares in [0, 1].  The numbers are
    next to the bars, whose colour is that of the activation.  Raises SatbenchError if matplotlib is
    not installed.
    """
    own = activation_colour(activation) or NEUTRAL
    labels = [fill(name, 28) for name, *_ in rows]
    with drawing((7.0, 1.3 + 0.45 * len(rows))) as picture:
        axes = picture.figure.add_subplot()
        for place, (_, share, low, high) in enumerate(rows):
            # Pale, so that the whiskers are seen on every colour.
            fill_colour = tint_of(own) if place else "white"
            axes.barh(place, 100 * share, height=0.6, color=fill_colour, edgecolor=own)
            # By rounding, an end of the interval may lie beyond the share itself.
            ends = [[max(0.0, 100 * (share - low))], [max(0.0, 100 * (high - share))]]
            axes.errorbar(100 * share, place, xerr=ends, color="#000000", capsize=3, linewidth=1.1)
            axes.annotate(
                f"{100 * share:.1f}",
                (100 * high, place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=10,
            )
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.set_xlim(0, 108)
        axes.set_xticks(range(0, 101, 20))
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(
            "accuracy after the attacks so far (%), higher is better\nwhiskers: 95 % intervals"
        )
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        picture.figure.suptitle(title, fontsize=10, x=0.01, ha="left")
        return picture
