"""The command `satbench eval`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from satbench.cli import options
from satbench.cli.shell import completion
from satbench.cli.shell.commands import command
from satbench.cli.shell.config_file import config_option
from satbench.core.text.terminal import tell

if TYPE_CHECKING:
    from satbench.evaluation.config import EvalConfig
    from satbench.evaluation.run import Finished
    from satbench.models import FileOptions


@command(
    "eval",
    examples="""
    satbench eval fmnist-sat-tiny-silu-s0 --attack pgd-50 --limit 500
    satbench eval runs/mine                        # the folder of a training run
    satbench eval my_module:model --dataset cifar10 --eps 8/255
    satbench eval robustbench:Wong2020Fast --attack autoattack --workers 4
    satbench eval weights.pt --preset trades --dataset cifar10 --eps 8/255
    satbench eval fmnist-sat-tiny-relu-s0 --config lab.toml --json
    satbench eval fmnist-sat-tiny-relu-s0 --dry-run --price H100=2.5
    """,
)
@click.argument("names", nargs=-1, metavar="[MODEL]...", shell_complete=completion.models)
@click.option(
    "--model",
    "models",
    multiple=True,
    shell_complete=completion.models,
    help="The same as MODEL: a zoo name (`satbench models`), a card, the folder of a run, a file "
    "of weights (with --preset, or --arch and --activation, if the file does not name its network; "
    "FILE#KEY for one of several sets), robustbench:…, torchvision:…, timm:…, hf:…, torchhub:… "
    "or PACKAGE.MODULE:NAME, a model or a function that returns one (docs/models.md). May be given "
    "several times.",
)
@options.model_files
@click.option("--eps", help="Radius for pixels in [0, 1], 8/255 or 0.03. Default: the model's own.")
@click.option(
    "--attack",
    "attacks",
    multiple=True,
    shell_complete=completion.attacks,
    help="An attack or suite, such as pgd-50, autoattack or "
    "'pgd(steps=40,step=eps/10,restarts=2)'. May be given several times; they run in this order. "
    "Default: pgd-50, then autoattack.",
)
@click.option(
    "--bpda",
    multiple=True,
    metavar="LAYER=TARGET",
    help="While attacks search, replace the gradient of a layer, named as in named_modules(), by "
    "that of another: identity, or the module that PACKAGE.MODULE:FACTORY returns. May be given "
    "several times.",
)
@click.option(
    "--audit",
    type=int,
    metavar="N",
    help="Then run full AutoAttack on N random survivors and on the 50 with the smallest margin, "
    "and report how far it could still lower the result.",
)
@click.option(
    "--until-interval",
    "until",
    metavar="WIDTH",
    help="Attack the images in a random order, and stop when the 95 % interval of the robust "
    "accuracy is this narrow, such as 2% or 0.02.",
)
@click.option(
    "--allow-training-data",
    is_flag=True,
    help="Allow an evaluation on the images that the model was trained on; the record is flagged.",
)
@click.option(
    "--no-diagnosis",
    is_flag=True,
    help="Do not look for signs of masked gradients. This saves a few percent of the "
    "passes; the record is flagged.",
)
@click.option(
    "--shard",
    metavar="K/N",
    help="Do only part K of N of the work, such as 3/64; satbench merge-shards writes the records.",
)
@click.option(
    "--checkpointing",
    is_flag=True,
    help="Keep fewer activations in memory and recompute them for the gradient. Slower; for "
    "networks where one image does not fit into memory. No verdict depends on it.",
)
@click.option(
    "--dry-run",
    "--cost",
    "dry_run",
    is_flag=True,
    help="Run nothing. Print the expected passes, FLOPs, time (here and on named GPUs) and price.",
)
@click.option(
    "--price",
    "prices",
    multiple=True,
    metavar="[MACHINE=]PRICE",
    help="Price of an hour, for --dry-run: 0.4 for this machine, H100=2.5 for a named one. May "
    "be given several times.",
)
@config_option
@options.a_run(
    "the model",
    "results",
    "the records and their witnesses",
    "1000, or all with --until-interval",
)
@click.pass_context
def evaluate(
    ctx: click.Context,
    names: tuple[str, ...],
    models: tuple[str, ...],
    file: FileOptions,
    eps: str | None,
    attacks: tuple[str, ...],
    bpda: tuple[str, ...],
    audit: int | None,
    until: str | None,
    allow_training_data: bool,
    no_diagnosis: bool,
    shard: str | None,
    checkpointing: bool,
    dry_run: bool,
    prices: tuple[str, ...],
    run: options.RunOptions,
) -> None:
    """Evaluate models: clean accuracy, and robust accuracy after each attack.

    Each attack runs on the images that survived the ones before it. If an evaluation is stopped,
    the same command continues it, and the record is the same.
    """
    from satbench.evaluation.config import eval_config

    configs = [
        eval_config(
            model,
            file=file,
            eps=eps,
            attacks=attacks,
            bpda=bpda,
            audit=audit,
            until=until,
            allow_training_data=allow_training_data,
            diagnose=not no_diagnosis,
            checkpointing=checkpointing,
            **run.settings,
        )
        for model in options.models_of(ctx, names, models)
    ]
    if dry_run or prices:
        _foresee(configs, prices, run.as_json)
        return
    if shard is not None:
        _do_shard(configs, shard, run)
        return
    from satbench.core.console import BarProgress
    from satbench.evaluation.api import evaluate_config
    from satbench.evaluation.workers import helped

    finished = []
    begun = datetime.now(UTC).isoformat(timespec="seconds")
    tasks = [(evaluate_config, (config,)) for config in configs]
    with (
        helped(tasks, run.workers.checked(run.again), run.quiet) as shared,
        BarProgress(run.quiet) as progress,
    ):
        for config in configs:
            progress.model(config.model.text)
            done = evaluate_config(config, progress, shared=shared)
            # A worker may have written the record of this command.
            just_now = shared and done.record.environment.finished >= begun
            finished.append(replace(done, found=done.found and not just_now))
    tell_finished(finished, run.as_json, run.quiet)


def tell_finished(finished: Sequence[Finished], as_json: bool, quiet: bool) -> None:
    """Print records as a table or as JSON, and the path of each."""
    from satbench.core.console import results
    from satbench.evaluation.report import summary_of, table_of

    if as_json:
        shown = [
            {**summary_of(done.record, str(done.path)), "found": done.found} for done in finished
        ]
        tell(json.dumps(shown, indent=2))
        return
    results().print(table_of([done.record for done in finished]))
    for done in finished:
        options.tell_where(str(done.path), done.found, done.record.environment.finished, quiet)


def _foresee(configs: Sequence[EvalConfig], prices: Sequence[str], as_json: bool) -> None:
    from satbench.core.console import results
    from satbench.evaluation.cost.forecast import forecast, parse_prices
    from satbench.evaluation.cost.report import forecast_data, forecast_table

    hourly = parse_prices(prices)
    made = [forecast(config, hourly) for config in configs]
    if as_json:
        tell(json.dumps([forecast_data(one) for one in made], indent=2))
    else:
        results().print(forecast_table(made))


def _do_shard(configs: Sequence[EvalConfig], text: str, run: options.RunOptions) -> None:
    from satbench.core.console import BarProgress
    from satbench.evaluation.cluster.shards import Shard, run_shard

    shard = Shard.parse(text)
    with BarProgress(run.quiet) as progress:
        path, found = run_shard(configs, shard, progress)
    if run.as_json:
        told = {"shard": shard.number, "of": shard.count, "file": str(path), "found": len(found)}
        tell(json.dumps(told, indent=2))
        return
    tell(f"wrote {path}")
