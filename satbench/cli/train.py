"""The command `satbench train`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from satbench.cli import options
from satbench.cli.shell import completion
from satbench.cli.shell.commands import command
from satbench.cli.shell.paths import FOLDER
from satbench.core.errors import SatbenchError
from satbench.core.text.terminal import tell


@command(
    examples="""
    satbench train --recipe fmnist-sat --activation silu
    satbench train --recipe fmnist-sat --set weight_decay=0 --name mine
    satbench train --recipe mine.toml --data train.npz --classes 10
    """,
)
@click.option(
    "--recipe",
    required=True,
    shell_complete=completion.recipes,
    help="A name (`satbench recipes` lists them) or FILE.toml.",
)
@click.option(
    "--dataset",
    shell_complete=completion.datasets,
    help="Another data set than the recipe's, such as imagefolder:PATH@RULE.",
)
@options.own_data
@click.option(
    "--activation",
    shell_complete=completion.activations,
    help="Such as silu or 'parametric-softplus(alpha=10)'; see `satbench activations`.",
)
@click.option(
    "--arch",
    shell_complete=completion.architectures,
    help="Such as tiny or 'tiny(width=16)'; see `satbench architectures`.",
)
@click.option(
    "--seed", type=int, help="Seed of weights, order and noise. Default: the recipe's, else 0."
)
@click.option("--epochs", type=int, help="Default: the recipe's.")
@click.option("--batch-size", type=int, metavar="N", help="Default: the recipe's.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Another value for a setting of the recipe, such as weight_decay=1e-4. May be given "
    "several times.",
)
@click.option(
    "--from",
    "start",
    metavar="WEIGHTS",
    shell_complete=completion.models,
    help="Start from these weights instead of random ones: the checkpoint of a run, a file of "
    "weights (FILE#KEY for one of several sets), or a model's name.",
)
@click.option("--name", help="Name of the model. Default: RECIPE-ARCH-ACTIVATION-sSEED.")
@click.option(
    "--out",
    type=FOLDER,
    default=Path("runs"),
    show_default=True,
    help="Folder for the run's folder, which is named like the model.",
)
@options.data_dir
@options.zoo
@options.device
@options.threads_given
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    help="Processes that read a folder of images. Default: one for each core, at most 8.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON line for each epoch on stdout."
)
@options.quiet
def train(
    recipe: str,
    dataset: str | None,
    activation: str | None,
    arch: str | None,
    seed: int | None,
    epochs: int | None,
    batch_size: int | None,
    overrides: tuple[str, ...],
    start: str | None,
    name: str | None,
    out: Path,
    data_dir: Path | None,
    device: str,
    threads: int | None,
    workers: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Train a model by adversarial training; the same command continues a stopped run.

    Each epoch reports clean and PGD-10 accuracy on held-out training images; the test set is not
    used.  The run's folder gets the weights (safetensors) and card of the model, of the best epoch
    by PGD-10 and of the last epoch, metrics.jsonl and a checkpoint.  On several GPUs or processes:
    torchrun --nproc-per-node N -m satbench train …
    """
    from satbench.recipes import load_recipe, parse_overrides

    changes = parse_overrides(overrides)
    own = {
        "dataset": dataset,
        "activation": activation,
        "architecture": arch,
        "seed": seed,
        "epochs": epochs,
        "batch_size": batch_size,
        "init": start,
    }
    given = {key: value for key, value in own.items() if value is not None}
    for key in changes.keys() & given.keys():
        raise SatbenchError(f"{key} is given twice, by its own option and by --set: give one")
    config = load_recipe(recipe, **changes, **given)
    from satbench.training.loop import EpochMetrics
    from satbench.training.run import run_training

    # On a terminal the table of epochs already shows this.
    in_table = sys.stdout.isatty() and sys.stderr.isatty() and not quiet

    def say(metrics: EpochMetrics) -> None:
        if as_json:
            tell(json.dumps(asdict(metrics)))
        elif not in_table:
            tell(
                f"epoch {metrics.epoch}/{config.epochs}  loss {metrics.loss:.3f}  "
                f"held-out clean {metrics.held_out_clean:.1%}  "
                f"PGD-10 {metrics.held_out_pgd10:.1%}  {metrics.images_per_second:.0f} images/s"
            )
        if metrics.warning and not in_table:
            tell(f"warning: {metrics.warning}", err=True)

    def note(text: str) -> None:
        if not in_table:
            tell(f"note: {text}", err=True)

    run = run_training(config, name, out, data_dir, device, threads, say, quiet, workers, note)
    if run and not as_json:
        tell(f"wrote {run.weights} and {run.card}")
        for which, (_, card) in sorted(run.epochs.items()):
            epoch = run.trained.epochs[which].metrics.epoch
            tell(f"wrote {card}, the {which} epoch ({epoch})")
        if run.test_set is None:
            tell("found no test set next to the training images: replace TEST_SET by its name")
        tell(f"evaluate it with\n  {run.eval_command}")
