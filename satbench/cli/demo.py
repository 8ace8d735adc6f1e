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
@click.option(
    "--all", "everything", is_flag=True, help="Every shipped model, and the whole leaderboard."
)
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
def demo(out: Path, device: str, everything: bool, quiet: bool) -> None:
    """Attack three shipped models, live, in under a minute.

    One trained without an adversary, and a ReLU and a SILU network of adversarial training: PGD-50
    and the fast suite on the first 200 test images.

    With --all, every shipped model under PGD-20 on the first 1,000 test images, two of them under
    AutoAttack on the first 50; then the leaderboard that is committed with satbench, marked as
    such.  This takes minutes; how many is said at the start.
    """
    from satbench.evaluation.demo import run_demo, run_whole_demo

    (run_whole_demo if everything else run_demo)(out, device, quiet)
