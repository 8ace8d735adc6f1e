"""Options that several commands share, so that they read and mean the same in each."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from satbench.core.text.terminal import tell

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

seed = click.option("--seed", type=int, default=0, show_default=True, help="Keys all noise.")
batch_size = click.option(
    "--batch-size",
    type=int,
    default=250,
    show_default=True,
    help="Images at once; no verdict depends on it.",
)
device = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:1."
)
data_dir = click.option("--data-dir", type=click.Path(path_type=Path), help="Where the data lies.")
trust = click.option(
    "--trust",
    multiple=True,
    metavar="NAME",
    help="Trust NAME, which a file contains, as if you had typed it: satbench may then run the "
    "code that it names, or fetch it. May be given several times.",
)
again = click.option(
    "--again", is_flag=True, help="Run it anew, where the same result lies in the folder already."
)
timeout = click.option(
    "--timeout",
    type=float,
    metavar="SECONDS",
    help="What one batch may take; then the run stops, names the image, and keeps what is done.",
)
workers = click.option(
    "--workers",
    type=int,
    default=1,
    show_default=True,
    metavar="N",
    help="Processes that share the work; the record is the same.  Not together with --again.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
quiet = click.option("--quiet", is_flag=True, help="No progress on stderr.")


def model_files(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say what a file of weights is; they come as one, `file: FileOptions`."""

    @wraps(command)
    def collected(
        *args: Any,
        arch: str | None,
        activation: str | None,
        preset: str | None,
        normalize: str | None,
        keys: str,
        drop_keys: tuple[str, ...],
        **others: Any,
    ) -> Any:
        from satbench.models import FileOptions

        file = FileOptions(arch, activation, preset, normalize, keys, drop_keys)
        return command(*args, file=file, **others)

    return _all(
        click.option("--arch", help="Architecture of a weights file, such as 'tiny(width=8)'."),
        click.option("--activation", help="Activation of a weights file, such as silu."),
        click.option(
            "--preset",
            metavar="NAME",
            help="Whose weights file it is, in the place of --arch, --activation and --normalize: "
            "trades, wong, rice, awp, madry, torchvision, timm, … (`satbench models presets`).",
        ),
        click.option(
            "--normalize",
            metavar="HOW",
            help="How the network of a weights file normalises pixels: cifar10, imagenet, none, "
            "… or MEAN;STD, for a file that does not tell.",
        ),
        click.option(
            "--keys",
            default="",
            metavar="PREFIX",
            help="Take the tensors of a weights file whose names begin with PREFIX.",
        ),
        click.option(
            "--drop-keys",
            multiple=True,
            metavar="PREFIX",
            help="Leave out those whose names begin with PREFIX. May be given several times.",
        ),
    )(collected)


def dataset_and_norm(of: str) -> Decorator:
    """Add --dataset and --norm, whose defaults are those of the model named by `of`.

    What --data, --data-name and --classes say goes into the name of the data set.
    """
    norm = click.option(
        "--norm",
        type=click.Choice(["linf", "l2", "l1"], case_sensitive=False),
        help=f"Default: {of}'s own, else linf.",
    )
    named = click.option(
        "--dataset",
        help=f"Such as cifar10 or imagefolder:PATH@RULE, see `satbench datasets`. Default: what "
        f"{of} was trained on.",
    )
    return _all(named, own_data, norm)


def what_a_record_is_of(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --model, --trust, and what says what a file of weights or the images are."""
    return _all(
        click.option("--model", help="The model, where the record's own name is not known here."),
        model_files,
        click.option("--dataset", help="The data set, where its name is not known here."),
        own_data,
        data_dir,
        trust,
    )(command)


def own_data(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --data, --data-name and --classes; `command` gets them within its `dataset`."""

    @wraps(command)
    def named(
        dataset: str | None,
        data: str | None,
        data_name: str | None,
        classes: str | None,
        **others: Any,
    ) -> Any:
        from satbench.data import dataset_name

        return command(dataset=dataset_name(dataset, data, data_name, classes), **others)

    return _all(
        click.option(
            "--data",
            metavar="FILE",
            help="Images and labels of your own instead of --dataset: FILE.npz, FILE.pt or "
            "X.npy,Y.npy.",
        ),
        click.option("--data-name", help="What --data is called. Default: the name of the file."),
        click.option(
            "--classes",
            help="How classes of --data or imagefolder:PATH are numbered: how many there are, "
            "FILE.json (name to number), imagenet or folders.",
        ),
    )(named)


def n_examples(default: str = "1000") -> Decorator:
    """Add --n-examples."""
    return click.option("--n-examples", type=int, help=f"The first N images. Default: {default}.")


def how_to_run(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --seed, --batch-size, --device and --data-dir."""
    return _all(seed, batch_size, device, data_dir)(command)


def out(default: str | None, what: str) -> Decorator:
    """Add --out, the folder for `what`."""
    return click.option(
        "--out",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path(default) if default else None,
        show_default=default is not None,
        help=f"Folder for {what}.",
    )


def how_to_tell(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --json and --quiet."""
    return _all(as_json, quiet)(command)


def tell_where(files: str, found: bool, made: str, quiet: bool) -> None:
    """Say where a result lies; on stderr, that one which was found is not new, unless `quiet`."""
    tell(f"{'found' if found else 'wrote'} {files}")
    if found and not quiet:
        tell(f"satbench: this result was made {made}; --again makes it anew", err=True)


def _all(*options: Decorator) -> Decorator:
    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate
