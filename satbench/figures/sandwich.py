"""The figure of robust accuracy between two bounds, against eps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from satbench.core.errors import SatbenchError
from satbench.figures.drawing import figure_at
from satbench.figures.styles import Look, looks_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}


@dataclass(frozen=True)
class SandwichLine:
    """The data of one model: at each eps, of n images, how many are certified and survive.

    `surviving` has None if no attack was run.
    """

    name: str
    activation: str
    norm: str
    dataset: str
    n: int
    clean: int
    eps: Sequence[float]
    certified: Sequence[int]
    surviving: Sequence[int | None]


def sandwich_figure(lines: Sequence[SandwichLine], path: Path) -> None:
    """Draw both bounds of each model, and shade the area between them.

    The suffix of `path`, .png or .svg, selects the format.  Raises SatbenchError for lines of
    different norms or images, and for no line.
    """
    kinds = {(line.norm, line.dataset, line.n) for line in lines}
    if len(kinds) != 1:
        raise SatbenchError("expected certificates of one norm on the same images in one figure")
    first = lines[0]
    with figure_at(path, (8.0, 5.0)) as (figure, axes):
        looks = looks_of([(line.activation, line.name) for line in lines])
        for line, look in zip(lines, looks, strict=True):
            _draw(axes, line, look)
        axes.set(
            xscale="log",
            ylim=(0, 100),
            xlabel=f"eps ({_NORMS[first.norm]}, pixels in [0, 1])",
            ylabel="robust accuracy (%), higher is better",
        )
        marks = sorted({eps for line in lines for eps in line.eps})
        axes.set_xticks(marks, [f"{eps:.3g}" for eps in marks])
        axes.minorticks_off()
        figure.supxlabel(
            "Robust accuracy is in the shaded area: not below the certified images (full "
            "line), not above the survivors of attacks (dashed).",
            fontsize=8,
            color="#444444",
        )
        figure.suptitle(
            f"Certified and attacked, first {first.n:,} images of {first.dataset}",
            fontsize=12,
            x=0.01,
            ha="left",
        )
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=10)


def _draw(axes: Axes, line: SandwichLine, look: Look) -> None:
    low = [100 * count / line.n for count in line.certified]
    axes.plot(line.eps, low, color=look.colour, marker=look.marker, linewidth=2, label=line.name)
    above = [
        (eps, 100 * count / line.n, 100 * below / line.n)
        for eps, count, below in zip(line.eps, line.surviving, line.certified, strict=True)
        if count is not None
    ]
    if above:
        eps, high, below = zip(*above, strict=True)
        axes.plot(eps, high, color=look.colour, marker=look.marker, linestyle="--", linewidth=1.5)
        axes.fill_between(eps, below, high, color=look.colour, alpha=0.12, linewidth=0)
