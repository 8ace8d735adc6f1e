"""`satbench transfer`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from satbench.cli import options
from satbench.core.text.terminal import tell


@click.command()
@click.option(
    "--source",
    "sources",
    multiple=True,
    help="A model to make images on, as for `satbench eval --model`.  May be given several times. "
    "Default: the benchmark's surrogates.",
)
@click.option(
    "--target",
    "targets",
    multiple=True,
    help="A model to try them on.  Default: all others of the zoo.",
)
@click.option(
    "--attack",
    default="transfer",
    show_default=True,
    help="Such as 'transfer(method=mi+di,steps=40)'; its sources are those above.",
)
@options.dataset_and_norm("the first target")
@click.option("--eps", help="Radius for pixels in [0, 1]. Default: the first target's own.")
@options.n_examples()
@options.how_to_run
@options.timeout
@options.workers
@options.again
@options.out("results/transfer", "the matrix: JSON, markdown and, with matplotlib, a heat map")
@options.how_to_tell
def transfer(
    sources: tuple[str, ...],
    targets: tuple[str, ...],
    attack: str,
    dataset: str | None,
    norm: str | None,
    eps: str | None,
    n_examples: int | None,
    seed: int,
    batch_size: int,
    device: str,
    data_dir: Path | None,
    timeout: float | None,
    workers: int,
    again: bool,
    out: Path,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure what images made on some models do to others.

    Images are made once on every source, for all images of the data set, and each target is asked
    once about each.  The judge decides, and nothing else does.
    """
    from satbench.transfer.config import transfer_config

    config = transfer_config(
        sources,
        targets,
        attack,
        dataset=dataset,
        norm=norm,
        eps=eps,
        n_examples=n_examples,
        seed=seed,
        batch_size=batch_size,
        device=device,
        data_dir=data_dir,
        out=out,
        fresh=again,
        timeout=timeout,
    )
    from satbench.core.console import BarProgress, results
    from satbench.core.files import write_text
    from satbench.evaluation.workers import check_workers, helped
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
    with helped(tasks, check_workers(workers, again)) as shared, BarProgress(quiet) as progress:
        progress.model("transfer")
        measured = measure_transfer(config, progress, shared)
    page = measured.path.with_suffix(".md")
    write_text(page, matrix_markdown(measured.matrix))
    files = [measured.path, page]
    figures, missing = draw_matrix(measured.matrix, measured.path)
    files += figures
    if missing:
        tell(f"satbench: no heat map: {missing}", err=True)
    if as_json:
        tell(json.dumps(matrix_summary(measured.matrix, files), indent=2))
        return
    results().print(matrix_table(measured.matrix))
    tell(f"{legend(measured.matrix)}\n{note(measured.matrix)}")
    made = measured.matrix.environment.finished
    options.tell_where(", ".join(map(str, files)), measured.found, made, quiet)
