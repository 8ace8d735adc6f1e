"""`satbench demo`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("demo"),
    show_default=True,
    help="Folder for the records and the leaderboard.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:1.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
def demo(out: Path, device: str, quiet: bool) -> None:
    """Evaluate every model that ships with satbench, live, and show the full leaderboard.

    Every model under PGD-20 on the first 1,000 test images, two of them under AutoAttack on the
    first 50; then the leaderboard that is committed with satbench, marked as such.
    """
    from satbench.evaluation.demo import run_demo

    run_demo(out, device, quiet)
