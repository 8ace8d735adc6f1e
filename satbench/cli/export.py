"""The command `satbench export`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from satbench.cli import options
from satbench.cli.shell import completion
from satbench.cli.shell.commands import command
from satbench.core.text.terminal import tell


@command(
    examples="""
    satbench export fmnist-sat-tiny-silu-s0 --form onnx
    satbench export runs/mine --form hub --push ORG/NAME
    """,
)
@options.zoo
@click.argument("model", shell_complete=completion.models)
@click.option(
    "--form",
    type=click.Choice(["torch-export", "torchscript", "onnx", "hub"]),
    default="torch-export",
    show_default=True,
    help="torch-export (plain PyTorch), torchscript, onnx, or hub: a folder in the layout of the "
    "Hugging Face Hub.",
)
@click.option("--push", metavar="ORG/NAME", help="With --form hub: upload the folder there.")
@options.out("exported", "the files")
@options.as_json
def export(model: str, form: str, push: str | None, out: Path, as_json: bool) -> None:
    """Write MODEL (a name, card or run folder) to files that load without satbench.

    The exported model maps images (N, C, H, W), float32 in [0, 1], to logits. If the exported
    files can be run here, their logits are compared with the model's.
    """
    from satbench.core.errors import SatbenchError
    from satbench.models import load_model, request_model
    from satbench.models.exporting import export_model, push_to_hub

    if push and form != "hub":
        raise SatbenchError("--push needs --form hub")
    request = request_model(model)
    loaded = load_model(request, request.card.classes if request.card else 0)
    exported = export_model(loaded, form, out)
    address = push_to_hub(out, push) if push else ""
    if as_json:
        files = [str(path) for path in exported.files]
        told = {"files": files, "load_with": exported.load_with, "address": address}
        tell(json.dumps(told, indent=2))
        return
    for path in exported.files:
        tell(f"wrote {path}")
    tell(f"\n{exported.load_with}" + (f"\n\npushed to {address}" if address else ""))
