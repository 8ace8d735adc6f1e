"""The command `satbench plot`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from satbench.cli import options
from satbench.cli.shell.commands import command
from satbench.cli.shell.paths import PATH
from satbench.core.text.terminal import tell


@command(
    examples="""
    satbench plot runs/mine
    satbench plot runs/relu runs/silu --out figures
    """,
)
@click.argument("runs", nargs=-1, required=True, type=PATH)
@options.out(None, "training.png and training.svg. Default: RUN; of several runs results/training")
@options.as_json
def plot(runs: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """Draw accuracy, loss and learning rate against the epoch, for the training in the folder RUN.

    The accuracies are clean and PGD-10 accuracy on held-out training images, and the accuracy on
    the training batches.  Several folders give one figure.  A run that is still training can be
    drawn.
    """
    from satbench.figures.picture import FORMATS, check_can_draw
    from satbench.figures.training import read_training, training_figure

    check_can_draw()
    curves = [read_training(run) for run in runs]
    folder = out or (runs[0] if len(runs) == 1 else Path("results/training"))
    figures = [folder / f"training{suffix}" for suffix in FORMATS]
    for figure in figures:
        training_figure(curves, figure)
    if as_json:
        shown = {
            "runs": [curve.summary() for curve in curves],
            "figures": [str(figure) for figure in figures],
        }
        tell(json.dumps(shown, indent=2))
        return
    for curve in curves:
        tell(
            f"{curve.name}: epoch {curve.last.epoch}, held-out clean "
            f"{curve.last.held_out_clean:.1%}, PGD-10 {curve.last.held_out_pgd10:.1%} "
            f"(best {curve.best.held_out_pgd10:.1%}, epoch {curve.best.epoch})"
        )
        for epoch in curve.epochs:
            if epoch.warning:
                tell(f"warning: {epoch.warning}")
    tell(f"drew {' and '.join(str(figure) for figure in figures)}")
