"""The command `satbench models card`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from satbench.cli import options
from satbench.cli.shell import completion
from satbench.cli.shell.commands import command
from satbench.cli.shell.paths import FILE
from satbench.core.errors import SatbenchError
from satbench.core.text.terminal import one_line, tell

if TYPE_CHECKING:
    from satbench.models import FileOptions


@command(
    "card",
    examples="""
    satbench models card net.pt --arch 'tiny(width=8)' --activation silu \\
        --shape 1x28x28 --name my-net --licence MIT
    satbench models add my-net.json
    """,
)
@click.argument("weights", type=FILE)
@click.option("--name", required=True, help="Name of the model, and of the files.")
@click.option(
    "--shape", required=True, metavar="CxHxW", help="Shape of one image, such as 3x32x32."
)
@click.option("--licence", required=True, help="Licence of the weights, such as MIT.")
@options.model_files
@click.option("--origin", default="", help="Where the weights come from: a file, an address.")
@click.option(
    "--recipe",
    default="",
    shell_complete=completion.recipes,
    help="Recipe that it was trained with; needs the next three.",
)
@click.option("--seed", type=int, help="Seed that it was trained with.")
@click.option(
    "--threat", default="", help="Threat model that it was trained for, such as linf:8/255."
)
@click.option(
    "--dataset",
    default="",
    shell_complete=completion.datasets,
    help="Data set that it was trained on.",
)
@click.option(
    "--trained-with",
    "attack",
    default="",
    shell_complete=completion.attacks,
    help="Attack that it was trained with. Default: none.",
)
@click.option("--command", default="", help="Command that makes the weights again.")
@options.out(".", "card and weights")
@options.as_json
def card(
    weights: Path,
    name: str,
    shape: str,
    licence: str,
    file: FileOptions,
    origin: str,
    recipe: str,
    seed: int | None,
    threat: str,
    dataset: str,
    attack: str,
    command: str,
    out: Path,
    as_json: bool,
) -> None:
    """Make a card and a safetensors file for WEIGHTS that were trained elsewhere.

    WEIGHTS is a file that `satbench eval --model` can read, with the same options.  The weights
    must fit the network exactly.  docs/how-to/card.md describes the fields.
    """
    from satbench.submissions.carding import CardFields, make_card

    if not file.preset and not (file.architecture and file.activation):
        raise SatbenchError(
            "say what network the weights are for: give --arch and --activation, or --preset"
        )
    fields = CardFields(
        name, _shape(shape), licence, origin, recipe, seed, threat, attack, dataset, command
    )
    path = make_card(weights, file, fields, out)
    if as_json:
        tell(json.dumps({"name": name, "card": str(path)}, indent=2))
        return
    tell(f"wrote {one_line(path)} and {name}.safetensors")
    tell(f"satbench models add {one_line(path)}")


def _shape(text: str) -> tuple[int, int, int]:
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) == 3 and all(part.isdecimal() and 0 < int(part) <= 10_000 for part in parts):
        channels, height, width = map(int, parts)
        return channels, height, width
    raise SatbenchError(f"expected a shape such as 3x32x32, got {text!r}")
