"""Options that several commands share, so that they have one wording and one meaning."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import click
from click.core import ParameterSource

from satbench.cli.shell import completion
from satbench.cli.shell.batch_size import read_batch_size
from satbench.cli.shell.paths import FOLDER
from satbench.cli.shell.workers import workers
from satbench.core.text.terminal import tell

if TYPE_CHECKING:
    from satbench.evaluation.workers import Workers

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _choose_zoo(ctx: click.Context, _: click.Parameter, value: Path | None) -> None:
    if value is not None:
        _set_while_it_runs(ctx, "SATBENCH_ZOO", str(value))


def _choose_threads(ctx: click.Context, _: click.Parameter, value: int | None) -> None:
    if value is None or ctx.resilient_parsing:
        return
    _set_while_it_runs(ctx, "OMP_NUM_THREADS", str(value))  # torch reads it when it is imported
    if "torch" in sys.modules:
        import torch

        ctx.call_on_close(partial(torch.set_num_threads, torch.get_num_threads()))
        torch.set_num_threads(value)


def _set_while_it_runs(ctx: click.Context, name: str, value: str) -> None:
    before = os.environ.get(name)
    os.environ[name] = value

    def restore() -> None:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before

    ctx.call_on_close(restore)


zoo = click.option(
    "--zoo",
    type=FOLDER,
    expose_value=False,
    is_eager=True,
    callback=_choose_zoo,
    help="Folder of your own models. Default: $SATBENCH_ZOO, else ~/.local/share/satbench/zoo.",
)
_THREADS: dict[str, Any] = {"type": click.IntRange(min=1), "metavar": "N"}
_CHOSEN = "CPU threads. Default: one for a small network, else torch's choice."
threads = click.option(
    "--threads", **_THREADS, expose_value=False, callback=_choose_threads, help=_CHOSEN
)
threads_given = click.option("--threads", **_THREADS, help="CPU threads. Default: torch's choice.")
"""--threads for commands that record the number; they get it as `threads`."""
seed = click.option(
    "--seed", type=int, default=0, show_default=True, metavar="N", help="Seed of all noise."
)
batch_size = click.option(
    "--batch-size",
    default="250",
    show_default=True,
    metavar="N",
    callback=read_batch_size,
    help="Images in a batch; no verdict depends on it. eval also takes auto, the fastest size.",
)
device = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or cuda:all."
)
judged_on = click.option(
    "--device", default="cpu", show_default=True, help="Where the model answers: cpu, cuda or auto."
)
data_dir = click.option(
    "--data-dir",
    type=FOLDER,
    help="Folder of the data sets. Default: $SATBENCH_DATA, else ~/.cache/satbench/data.",
)
trust = click.option(
    "--trust",
    multiple=True,
    metavar="NAME",
    help="Trust NAME, which a file contains, as if you had typed it: satbench may then run the "
    "code that it names, or download it. May be given several times.",
)
again = click.option(
    "--again", is_flag=True, help="Run again, even if the folder already has the same result."
)
timeout = click.option(
    "--timeout",
    type=float,
    metavar="SECONDS",
    help="Longest time for one batch. After it the run stops, names the image, and keeps the "
    "finished work.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print results and errors as JSON.")
quiet = click.option("--quiet", is_flag=True, help="No progress on stderr.")


def model_files(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that describe a file of weights; `command` gets `file: FileOptions`."""

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
        click.option(
            "--arch",
            shell_complete=completion.architectures,
            help="Architecture of a weights file, such as 'tiny(width=8)'; see `satbench "
            "architectures`.",
        ),
        click.option(
            "--activation",
            shell_complete=completion.activations,
            help="Activation of a weights file, such as silu; see `satbench activations`.",
        ),
        click.option(
            "--preset",
            metavar="NAME",
            shell_complete=completion.presets,
            help="Whose code made the weights file, instead of --arch, --activation and "
            "--normalize: trades, wong, rice, awp, madry, torchvision, timm, … (`satbench models "
            "presets`).",
        ),
        click.option(
            "--normalize",
            metavar="HOW",
            help="How the network of a weights file normalises pixels: cifar10, imagenet, none, "
            "… or MEAN;STD. Needed if the file does not say.",
        ),
        click.option(
            "--keys",
            default="",
            metavar="PREFIX",
            help="Take only the tensors of a weights file whose names begin with PREFIX.",
        ),
        click.option(
            "--drop-keys",
            multiple=True,
            metavar="PREFIX",
            help="Leave out the tensors whose names begin with PREFIX. May be given several times.",
        ),
    )(collected)


def dataset_and_norm(of: str) -> Decorator:
    """Add --dataset and --norm; their defaults are those of the model that `of` describes.

    --data, --data-name and --classes become part of the name of the data set.
    """
    norm = click.option(
        "--norm",
        type=click.Choice(["linf", "l2", "l1"], case_sensitive=False),
        help=f"Default: {of}'s own, else linf.",
    )
    named = click.option(
        "--dataset",
        metavar="NAME",
        shell_complete=completion.datasets,
        help=f"Such as cifar10 or imagefolder:PATH@RULE, see `satbench datasets`. Default: the one "
        f"that {of} was trained on.",
    )
    return _all(named, own_data, norm)


def what_a_record_is_of(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say which model and images a record is of, and where they are."""
    return _all(
        click.option(
            "--model",
            shell_complete=completion.models,
            help="The model, if the name in the record is not known here.",
        ),
        model_files,
        click.option(
            "--dataset",
            metavar="NAME",
            shell_complete=completion.datasets,
            help="The data set, if its name is not known here.",
        ),
        own_data,
        data_dir,
        zoo,
        trust,
        threads,
    )(command)


def own_data(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --data, --data-name and --classes; `command` gets them as part of its `dataset`."""

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
            help="Your own images and labels instead of --dataset: FILE.npz, FILE.pt or "
            "X.npy,Y.npy.",
        ),
        click.option(
            "--data-name", metavar="NAME", help="Name of --data. Default: the name of the file."
        ),
        click.option(
            "--classes",
            help="How the classes of --data or imagefolder:PATH are numbered: their count, "
            "FILE.json (name to number), imagenet or folders.",
        ),
    )(named)


def n_examples(default: str = "1000") -> Decorator:
    """Add --n-examples and its short name --limit."""
    return click.option(
        "--n-examples",
        "--limit",
        "n_examples",
        type=int,
        metavar="N",
        help=f"Use the first N images. Default: {default}.",
    )


def how_to_run(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --seed, --batch-size, --device, --threads and --data-dir."""
    return _all(seed, batch_size, device, threads, data_dir)(command)


def out(default: str | None, what: str) -> Decorator:
    """Add --out, the folder for `what`."""
    return click.option(
        "--out",
        type=FOLDER,
        default=Path(default) if default else None,
        show_default=default is not None,
        help=f"Folder for {what}.",
    )


def how_to_tell(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --json and --quiet."""
    return _all(as_json, quiet)(command)


class RunSettings(TypedDict):
    """The part of `RunOptions` that every config is made from."""

    dataset: str | None
    norm: str | None
    n_examples: int | None
    seed: int
    batch_size: int
    device: str
    data_dir: Path | None
    out: Path
    fresh: bool
    timeout: float | None


@dataclass(frozen=True)
class RunOptions:
    """The options that eval, curve and transfer have in common."""

    settings: RunSettings
    workers: Workers
    as_json: bool
    quiet: bool

    @property
    def out(self) -> Path:
        """The folder for results."""
        return self.settings["out"]

    def with_norm(self, norm: str) -> RunSettings:
        """Return the settings with a norm."""
        return {**self.settings, "norm": norm}

    @property
    def again(self) -> bool:
        """Whether to make an existing result again."""
        return self.settings["fresh"]


def a_run(of: str, folder: str, files: str, examples: str = "1000") -> Decorator:
    """Add the options of every run; `command` gets them as one, `run: RunOptions`.

    `of` describes the model that defaults come from, `folder` is the default of --out, `files`
    describes what is written there, `examples` is the default of --n-examples.
    """

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def collected(
            *args: Any,
            dataset: str | None,
            norm: str | None,
            n_examples: int | None,
            seed: int,
            batch_size: int,
            device: str,
            data_dir: Path | None,
            timeout: float | None,
            workers: Workers,
            again: bool,
            out: Path,
            as_json: bool,
            quiet: bool,
            **others: Any,
        ) -> Any:
            settings = RunSettings(
                dataset=dataset,
                norm=norm,
                n_examples=n_examples,
                seed=seed,
                batch_size=batch_size,
                device=device,
                data_dir=data_dir,
                out=out,
                fresh=again,
                timeout=timeout,
            )
            run = RunOptions(settings, workers, as_json, quiet)
            return command(*args, run=run, **others)

        parts = (dataset_and_norm(of), n_examples(examples), how_to_run, zoo)
        rest = (timeout, workers, again, out(folder, files), how_to_tell)
        return _all(*parts, *rest)(collected)

    return add


def models_of(
    ctx: click.Context, names: tuple[str, ...], models: tuple[str, ...]
) -> tuple[str, ...]:
    """Return the models that are named as arguments, then those of --model.

    Those of a --config file count only if the command line names none.  Raises
    click.UsageError for no model at all.
    """
    in_file = ctx.get_parameter_source("models") is ParameterSource.DEFAULT_MAP
    found = names if names and in_file else (*names, *models)
    if not found:
        raise click.UsageError("expected a MODEL, such as a name that `satbench models` lists", ctx)
    return found


def tell_where(files: str, found: bool, made: str, quiet: bool) -> None:
    """Print where a result is and, if it was found, that nothing was run for it."""
    if found:
        when = "" if quiet else f", made {made}: nothing was run; --again makes it again"
        tell(f"found {files}{when}")
    else:
        tell(f"wrote {files}")


def _all(*options: Decorator) -> Decorator:
    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate
