"""The command `satbench models import-tf1`: a TensorFlow checkpoint to safetensors and card."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Literal

import click

from satbench.cli import options
from satbench.cli.shell import completion
from satbench.cli.shell.commands import command
from satbench.cli.shell.paths import PATH
from satbench.core.text.terminal import tell


@command(
    "import-tf1",
    examples="""
    satbench models import-tf1 resnet50_silu/model.ckpt --activation silu \\
      --arch 'resnet(depth=50)'
    """,
)
@click.argument("checkpoint", type=PATH)
@click.option(
    "--arch",
    required=True,
    shell_complete=completion.architectures,
    help="resnet(depth=50), resnext(…) or efficientnet(…).",
)
@click.option(
    "--activation",
    required=True,
    shell_complete=completion.activations,
    help="Its activation, such as silu.",
)
@click.option("--classes", type=int, default=1000, show_default=True, help="Number of classes.")
@click.option(
    "--channels",
    type=click.Choice(["auto", "rgb", "bgr"]),
    default="auto",
    show_default=True,
    help="Order of colours that the network expects; auto: bgr for ResNets, else rgb.",
)
@click.option(
    "--averaged/--as-trained",
    default=None,
    help="Which weights to take if the checkpoint also has their moving averages.",
)
@click.option("--size", type=int, help="Height and width of its images. Default: the usual ones.")
@click.option(
    "--drop", multiple=True, metavar="PREFIX", help="Leave out tensors whose names begin so."
)
@click.option("--name", default="", help="Name of the model. Default: the name of the checkpoint.")
@click.option("--licence", default="", help="Licence of the weights, for the card.")
@options.out("runs", "the folder of the model")
@options.as_json
def import_tf1(
    checkpoint: Path,
    arch: str,
    activation: str,
    classes: int,
    channels: Literal["auto", "rgb", "bgr"],
    averaged: bool | None,
    size: int | None,
    drop: tuple[str, ...],
    name: str,
    licence: str,
    out: Path,
    as_json: bool,
) -> None:
    """Convert a TensorFlow checkpoint to safetensors with a card.

    CHECKPOINT is the common prefix of its files, CHECKPOINT.index and
    CHECKPOINT.data-00000-of-00001.  The weights must have the names that the code of Xie et al.
    (arXiv:2006.14536) gives them.  TensorFlow is not needed.
    """
    from satbench.models.tensorflow_import import ImportRequest, import_checkpoint

    wanted = ImportRequest(
        checkpoint, arch, activation, classes, channels, averaged, size, drop, name, licence
    )
    card = import_checkpoint(wanted, out)
    if as_json:
        tell(json.dumps({"name": card.stem, "card": str(card)}, indent=2))
        return
    tell(f"wrote {card} and its weights")
    command = f"satbench eval --model {shlex.quote(str(card))} --dataset imagefolder:PATH"
    tell(f"{command} --eps 4/255")
