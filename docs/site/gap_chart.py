"""Draw docs/gap.svg: what PGD-50 says of six models beside what is left under all attacks.

python docs/site/gap_chart.py [--check]
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from satbench.board.publish import published_board
from satbench.figures.styles import NEUTRAL, activation_colour, tint_of

TARGET = Path(__file__).parents[1] / "gap.svg"
BOARD = "fashion-mnist, Linf, eps 0.1"
MODELS = {
    "fmnist-pgd7-tiny-silu-s0": "SILU, seven-step training",
    "fmnist-sat-tiny-relu-s0": "ReLU, single-step training",
    "fmnist-sat-tiny-silu-s0": "SILU, single-step training",
    "fmnist-sat-small-relu-s0": "ReLU, single-step, larger net",
    "fmnist-pgd2-tiny-silu-s0": "SILU, two-step training",
    "fmnist-standard-tiny-relu-s0": "ReLU, no adversarial training",
}


def shown() -> list[tuple[str, float, float]]:
    """Return for each model its title, PGD-50 and best known accuracy in percent, from records."""
    benchmark = next(one for one in published_board().benchmarks if one.title == BOARD)
    rows = {row.model.name: row for row in benchmark.rows}
    found = []
    for name, title in MODELS.items():
        pgd, best = (rows[name].value(column) for column in ("pgd50", "best_known"))
        if pgd is None or best is None:
            raise SystemExit(f"{name} has no record with PGD-50")
        found.append((title, 100 * pgd, 100 * best))
    return found


def draw() -> str:
    """Return the chart as SVG; the same records give the same text."""
    settings = {"svg.hashsalt": "gap", "svg.fonttype": "path", "font.size": 10}
    with mpl.rc_context(settings):
        figure = Figure(figsize=(8, 3.6), layout="constrained", facecolor="white")
        axes = figure.add_subplot()
        rows = shown()
        places = range(len(rows))
        own = [activation_colour(row[0].partition(",")[0]) or NEUTRAL for row in rows]
        pale, tints = tint_of(NEUTRAL), [tint_of(colour) for colour in own]
        for offset, pick, colours, key, label in (
            (-0.19, 1, tints, pale, "after PGD-50"),
            (0.19, 2, own, NEUTRAL, "after all attacks"),
        ):
            values = [row[pick] for row in rows]
            bars = axes.barh([place + offset for place in places], values, 0.36, color=colours)
            axes.bar(0, 0, color=key, label=label)
            axes.bar_label(bars, [f"{value:.0f}" for value in values], padding=3)
        axes.set_yticks(list(places), [row[0] for row in rows])
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        axes.set_xlabel("robust accuracy in %, on the same 500 images")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="lower right", frameon=False)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()


if __name__ == "__main__":
    text = draw()
    if "--check" in sys.argv[1:]:
        sys.exit(TARGET.read_text(encoding="utf-8") != text and f"{TARGET} is out of date")
    TARGET.write_text(text, encoding="utf-8")
