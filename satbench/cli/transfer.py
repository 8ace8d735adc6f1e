"""The command `satbench transfer`."""

from __future__ import annotations

import json

import click

from satbench.cli import options
from satbench.cli.shell import completion
from satbench.cli.shell.commands import command
from satbench.core.text.terminal import tell


@command(
    examples="""
    satbench transfer --limit 200                  # surrogates against the zoo
    satbench transfer --source fmnist-standard-tiny-relu-s0 \\
      --target fmnist-sat-tiny-silu-s0 --attack 'transfer(method=mi+di,steps=40)'
    """,
)
@click.option(
    "--source",
    "sources",
    multiple=True,
    shell_complete=completion.models,
    help="A model to make adversarial images on, see `satbench eval --help`. May be given several "
    "times. Default: the benchmark's surrogates.",
)
@click.option(
    "--target",
    "targets",
    multiple=True,
    shell_complete=completion.models,
    help="A model to try the images on. Default: all others of the zoo.",
)
@click.option(
    "--attack",
    default="transfer",
    shell_complete=completion.attacks,
    show_default=True,
    help="Such as 'transfer(method=mi+di,steps=40)'; its sources are those of --source.",
)
@click.option("--eps", help="Radius for pixels in [0, 1]. Default: the first target's own.")
@options.a_run(
    "the first target",
    "results/transfer",
    "the matrix: JSON, markdown and, with matplotlib, a heat map",
)
def transfer(
    sources: tuple[str, ...],
    targets: tuple[str, ...],
    attack: str,
    eps: str | None,
    run: options.RunOptions,
) -> None:
    """Measure how well adversarial images made on some models break others.

    Each source makes one adversarial image of every image of the data set, and each target answers
    each of them once. Only the judge decides whether an image is broken.
    """
    from satbench.transfer.config import transfer_config

    config = transfer_config(sources, targets, attack, eps=eps, **run.settings)
    from satbench.core.console import BarProgress, results
    from satbench.core.files import write_text
    from satbench.evaluation.workers import helped
    from satbench.transfer.report import (
        draw_matrix,
        legend,
        matrix_markdown,
        matrix_summary,
        matrix_table,
        note,
    )
    from satbench.transfer.run import measure_transfer

    tasks = [(measure_transfer, (config,))]
    with (
        helped(tasks, run.workers.checked(run.again), run.quiet) as shared,
        BarProgress(run.quiet) as progress,
    ):
        progress.model("transfer")
        measured = measure_transfer(config, progress, shared)
    page = measured.path.with_suffix(".md")
    write_text(page, matrix_markdown(measured.matrix))
    files = [measured.path, page]
    figures, missing = draw_matrix(measured.matrix, measured.path)
    files += figures
    if missing:
        tell(f"satbench: no heat map: {missing}", err=True)
    if run.as_json:
        tell(json.dumps(matrix_summary(measured.matrix, files), indent=2))
        return
    results().print(matrix_table(measured.matrix))
    tell(f"{legend(measured.matrix)}\n{note(measured.matrix)}")
    made = measured.matrix.environment.finished
    options.tell_where(", ".join(map(str, files)), measured.found, made, run.quiet)
