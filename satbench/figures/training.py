"""The epochs of a training run: read from its folder, and drawn as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from satbench.core.errors import SatbenchError
from satbench.core.schema import parse_object, read_text
from satbench.figures.drawing import figure_at
from satbench.figures.picture import check_can_draw
from satbench.figures.styles import DASHES, Look, looks_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NUMBERS = (
    "loss",
    "train_accuracy",
    "held_out_clean",
    "held_out_pgd10",
    "learning_rate",
)
MOST_RUNS = 7
"""How many runs can be told apart in one figure."""

_ACCURACIES = {
    "held_out_clean": "held-out, clean",
    "held_out_pgd10": "held-out, PGD-10",
    "train_accuracy": "training images, as trained on",
}


@dataclass(frozen=True)
class Epoch:
    """One line of a run's metrics.  Accuracies are shares in [0, 1].

    `loss` and `train_accuracy` are those of the (adversarial) training images.  `warning` is a
    problem, such as a collapse of robustness.
    """

    epoch: int
    loss: float
    train_accuracy: float
    held_out_clean: float
    held_out_pgd10: float
    learning_rate: float
    warning: str = ""


@dataclass(frozen=True)
class TrainingCurve:
    """A run's epochs, never empty; `threat` is PGD-10's, `held_out` its number of images."""

    name: str
    threat: str
    dataset: str
    held_out: int
    epochs: tuple[Epoch, ...]
    activation: str = ""

    @property
    def best(self) -> Epoch:
        """The first epoch with the greatest held-out PGD-10 accuracy."""
        return max(self.epochs, key=lambda epoch: epoch.held_out_pgd10)

    @property
    def last(self) -> Epoch:
        """The last finished epoch."""
        return self.epochs[-1]

    def summary(self) -> dict[str, Any]:
        """Return the run's part of the output of `--json`."""
        return {
            "run": self.name,
            "epochs": self.last.epoch,
            "held_out_clean": self.last.held_out_clean,
            "held_out_pgd10": self.last.held_out_pgd10,
            "best_epoch": self.best.epoch,
            "best_held_out_pgd10": self.best.held_out_pgd10,
            "warnings": [epoch.warning for epoch in self.epochs if epoch.warning],
        }


def read_training(folder: Path) -> TrainingCurve:
    """Read the files that `satbench train` writes to its folder: metrics.jsonl and config.json.

    Raises SatbenchError for a folder without them, and for malformed files.
    """
    metrics, config = folder / "metrics.jsonl", folder / "config.json"
    if not metrics.is_file():
        raise SatbenchError(
            "expected the folder of a training run with at least one finished epoch, but "
            f"{metrics} is missing; give a folder of satbench train, such as runs/NAME"
        )
    lines = enumerate(read_text(metrics, "list of epochs").splitlines(), 1)
    epochs = tuple(_epoch(line, f"{metrics}, line {number}") for number, line in lines)
    if not epochs:
        raise SatbenchError(f"expected at least one epoch in {metrics}, got none")
    try:
        told = parse_object(read_text(config, "config"), "config", str(config))
        threat, dataset, held_out = told["threat"], told["dataset"], int(told["held_out"])
    except (ValueError, KeyError, TypeError):
        raise SatbenchError(
            f"expected threat, dataset and held_out in {config}, which satbench train writes"
        ) from None
    activation = str(told.get("activation", ""))
    name = folder.resolve().name
    return TrainingCurve(name, str(threat), str(dataset), held_out, epochs, activation)


def _epoch(line: str, where: str) -> Epoch:
    try:
        values = parse_object(line, "epoch", where)
        numbers = {name: float(values[name]) for name in _NUMBERS}
        return Epoch(int(values["epoch"]), **numbers, warning=str(values.get("warning", "")))
    except (ValueError, KeyError, TypeError):
        raise SatbenchError(f"expected epoch, {', '.join(_NUMBERS)} as JSON in {where}") from None


def training_figure(curves: Sequence[TrainingCurve], path: Path) -> None:
    """Draw accuracies, loss and learning rate against the epoch.

    Each kind of accuracy has its dash pattern.  A colour is an activation and a marker is a run; if
    all runs have the same activation, a run is also a shade of its colour.  The suffix of `path`,
    .png or .svg, selects the format.  Raises SatbenchError without a run, for more than
    `MOST_RUNS`, for another suffix, and without matplotlib.
    """
    if not 1 <= len(curves) <= MOST_RUNS:
        raise SatbenchError(f"expected 1 to {MOST_RUNS} runs in one figure, got {len(curves)}")
    check_can_draw()
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    with figure_at(path, (10.0, 5.0)) as (figure, accuracy):
        grid = figure.add_gridspec(2, 2, width_ratios=(3, 2))
        accuracy.set_subplotspec(grid[:, 0])
        loss = figure.add_subplot(grid[0, 1], sharex=accuracy)
        rate = figure.add_subplot(grid[1, 1], sharex=accuracy)
        looks = looks_of([(curve.activation, curve.name) for curve in curves])
        for number, (curve, look) in enumerate(zip(curves, looks, strict=True)):
            _draw_accuracies(accuracy, curve, number, look)
            _draw(loss, curve, "loss", look, label=curve.name)
            _draw(rate, curve, "learning_rate", look)
        accuracy.set(xlabel="epoch", ylabel="accuracy (%), higher is better", ylim=(0, 1))
        accuracy.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=None))
        loss.set(ylabel="training loss,\nlower is better")  # one line is longer than the axis
        rate.set(xlabel="epoch", ylabel="learning rate")
        loss.tick_params(labelbottom=False)
        accuracy.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        for axes in (accuracy, loss, rate):
            axes.grid(color="#dddddd", linewidth=0.6)
            axes.set_axisbelow(True)
        _legend(accuracy)
        if len(curves) > 1:
            _legend(loss)
        _explain(figure, curves)


def _draw_accuracies(axes: Axes, curve: TrainingCurve, number: int, look: Look) -> None:
    for kind, (name, what) in enumerate(_ACCURACIES.items()):
        _draw(axes, curve, name, look, kind, label="" if number else what)
    if number == 0:  # the legend shows dash patterns in grey
        for line in axes.lines:
            axes.plot([], [], color="#444444", linestyle=line.get_linestyle(), linewidth=2)
            axes.lines[-1].set_label(str(line.get_label()))
            line.set_label("_")
    warned = [epoch for epoch in curve.epochs if epoch.warning]
    axes.plot(
        [epoch.epoch for epoch in warned],
        [epoch.held_out_pgd10 for epoch in warned],
        linestyle="",
        marker="X",
        markersize=11,
        color="#000000",
        label="robustness collapsed" if warned else "_",
    )


def _draw(
    axes: Axes,
    curve: TrainingCurve,
    name: str,
    look: Look,
    dash: int = 0,
    label: str = "",
) -> None:
    n = len(curve.epochs)
    axes.plot(
        [epoch.epoch for epoch in curve.epochs],
        [getattr(epoch, name) for epoch in curve.epochs],
        color=look.colour,
        linestyle=DASHES[dash],
        linewidth=2,
        marker=look.marker,
        markevery=max(1, n // 10),
        markersize=5,
        label=label or "_",
    )


def _legend(axes: Axes) -> None:
    """Draw the legend above the axes, where it hides no line."""
    lines, labels = axes.get_legend_handles_labels()
    shown = dict(zip(labels, lines, strict=True))  # one entry for the collapses of several runs
    axes.legend(
        shown.values(),
        shown.keys(),
        loc="lower left",
        bbox_to_anchor=(0, 1),
        frameon=False,
        fontsize=10 if len(shown) <= 4 else 9,
    )


def _explain(figure: Figure, curves: Sequence[TrainingCurve]) -> None:
    title = curves[0].name if len(curves) == 1 else f"{len(curves)} training runs"
    figure.suptitle(title, fontsize=12, x=0.01, ha="left")
    kinds = sorted({(curve.held_out, curve.dataset, curve.threat) for curve in curves})
    measured = "; ".join(
        f"the last {n:,} training images of {dataset}, PGD-10 in {threat}"
        for n, dataset, threat in kinds
    )
    figure.supxlabel(f"Held out: {measured}.", fontsize=9, color="#444444")
