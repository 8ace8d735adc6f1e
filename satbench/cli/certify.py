"""`satbench certify`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from satbench.cli import options
from satbench.cli.shell import completion
from satbench.cli.shell.commands import command
from satbench.core.text.terminal import tell

if TYPE_CHECKING:
    from pathlib import Path

    from satbench.models import FileOptions


@command(
    examples="""
    satbench certify fmnist-sat-tiny-relu-s0 --eps 0.001 --limit 20
    satbench certify NAME --eps 0.001 --eps 0.01 --attack fast --limit 100
    satbench certify NAME --eps 1/255 --method bab --seconds 300
    """,
)
@click.argument("names", nargs=-1, metavar="[MODEL]...", shell_complete=completion.models)
@click.option(
    "--model",
    "models",
    multiple=True,
    shell_complete=completion.models,
    help="The same as MODEL, see `satbench eval --help`.",
)
@options.model_files
@click.option(
    "--eps",
    "radii",
    multiple=True,
    help="Radius for pixels in [0, 1]. Several give a line each, and a figure. Default: the "
    "model's own.",
)
@click.option(
    "--method",
    type=click.Choice(["ibp", "crown-ibp", "crown", "alpha-crown", "bab"]),
    default="alpha-crown",
    show_default=True,
    help="How far to go for an image; each tries those before it first. bab is branch and bound.",
)
@click.option(
    "--seconds",
    type=float,
    default=60.0,
    show_default=True,
    metavar="N",
    help="The longest time for one image.",
)
@click.option(
    "--attack",
    "attacks",
    multiple=True,
    shell_complete=completion.attacks,
    help="Bound robust accuracy from above too, on the same images. Default: not.",
)
@options.dataset_and_norm("the model")
@options.n_examples("1000")
@options.data_dir
@options.zoo
@options.threads
@options.again
@options.out("results/certificates", "the certificates, their proofs, and the figure")
@options.how_to_tell
@click.pass_context
def certify(
    ctx: click.Context,
    names: tuple[str, ...],
    models: tuple[str, ...],
    file: FileOptions,
    radii: tuple[str, ...],
    method: str,
    seconds: float,
    attacks: tuple[str, ...],
    dataset: str | None,
    norm: str | None,
    n_examples: int | None,
    data_dir: Path | None,
    again: bool,
    out: Path,
    as_json: bool,
    quiet: bool,
) -> None:
    """Bound robust accuracy from below: certify images that no adversary can break.

    A certified image is proven: no image that the judge allows within eps is taken for another
    class, whatever the attack, rounding included. `satbench verify` checks the proofs. What is not
    certified may be robust all the same. docs/how-to/certify.md says which networks can be bounded.
    """
    from satbench.certification.asked import asked_for

    asked = asked_for(
        options.models_of(ctx, names, models),
        radii,
        method,
        seconds,
        attacks,
        file=file,
        dataset=dataset,
        norm=norm,
        n_examples=n_examples,
        data_dir=data_dir,
        out=out,
        fresh=again,
    )
    from satbench.certification.report import (
        draw_sandwich,
        sandwich_summary,
        sandwich_table,
    )
    from satbench.certification.sandwich import measure
    from satbench.core.console import BarProgress, results

    with BarProgress(quiet) as progress:
        measured = [measure(one, progress) for one in asked]
    figures, missing = draw_sandwich(measured, out)
    if missing and not quiet:
        tell(f"satbench: no figure: {missing}", err=True)
    if as_json:
        tell(json.dumps([sandwich_summary(one, figures) for one in measured], indent=2))
        return
    results().print(sandwich_table(measured))
    for one in measured:
        made = one.certified.certificate.environment.finished
        options.tell_where(str(one.certified.path), one.certified.found, made, quiet)
    if figures:
        tell(f"drew {' and '.join(str(figure) for figure in figures)}")
