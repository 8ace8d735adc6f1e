"""`satbench eval`."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from satbench.cli import options
from satbench.cli.models import zoo_option
from satbench.core.text.terminal import tell

if TYPE_CHECKING:
    from satbench.models import FileOptions


@click.command("eval")
@zoo_option
@click.option(
    "--model",
    "models",
    multiple=True,
    required=True,
    help="A zoo name (`satbench models`), a card, the folder of a run, a file of weights, with "
    "--preset or --arch and --activation where it does not say what it is (FILE#KEY for one of "
    "several sets), robustbench:…, torchvision:…, timm:…, hf:…, torchhub:… "
    "or PACKAGE.MODULE:FACTORY (docs/models.md). May be given several times.",
)
@options.model_files
@options.dataset_and_norm("the model")
@click.option("--eps", help="Radius for pixels in [0, 1], 8/255 or 0.03. Default: the model's own.")
@click.option(
    "--attack",
    "attacks",
    multiple=True,
    help="Such as pgd-50, autoattack or 'pgd(steps=40,step=eps/10,restarts=2)'; given "
    "several times they run in order. Default: pgd-50, then autoattack.",
)
@click.option(
    "--bpda",
    multiple=True,
    metavar="LAYER=TARGET",
    help="While attacks search, give a layer, named as in named_modules(), the gradient of "
    "another: identity, or what PACKAGE.MODULE:FACTORY makes. May be given several times.",
)
@click.option(
    "--audit",
    type=int,
    metavar="N",
    help="Then run AutoAttack in full on N random survivors and the 50 of least margin, and say "
    "how far it could still lower the result.",
)
@click.option(
    "--until-interval",
    "until",
    metavar="WIDTH",
    help="Go through the images in a random order, and stop once the 95 % interval of the robust "
    "accuracy is no wider, such as 2% or 0.02.",
)
@click.option(
    "--allow-training-data",
    is_flag=True,
    help="Evaluate even on the images that the model was trained on; the record is flagged.",
)
@options.n_examples("1000, or all with --until-interval")
@options.how_to_run
@options.timeout
@options.workers
@options.again
@options.out("results", "the records and their witnesses")
@options.how_to_tell
def evaluate(
    models: tuple[str, ...],
    file: FileOptions,
    dataset: str | None,
    norm: str | None,
    eps: str | None,
    attacks: tuple[str, ...],
    bpda: tuple[str, ...],
    audit: int | None,
    until: str | None,
    allow_training_data: bool,
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
    """Evaluate models: clean accuracy, and robust accuracy after each attack.

    Each attack runs on the images that survived the ones before it.  A stopped evaluation goes
    on where it was when the same command is given again, and ends in the same record.
    """
    from satbench.evaluation.config import eval_config

    configs = [
        eval_config(
            model,
            file=file,
            dataset=dataset,
            norm=norm,
            eps=eps,
            attacks=attacks,
            n_examples=n_examples,
            seed=seed,
            batch_size=batch_size,
            device=device,
            data_dir=data_dir,
            out=out,
            bpda=bpda,
            audit=audit,
            until=until,
            timeout=timeout,
            fresh=again,
            allow_training_data=allow_training_data,
        )
        for model in models
    ]
    from satbench.core.console import BarProgress, results
    from satbench.evaluation.api import evaluate_config
    from satbench.evaluation.report import summary_of, table_of
    from satbench.evaluation.workers import check_workers, helped

    finished = []
    begun = datetime.now(UTC).isoformat(timespec="seconds")
    tasks = [(evaluate_config, (config,)) for config in configs]
    with helped(tasks, check_workers(workers, again)) as shared, BarProgress(quiet) as progress:
        for config in configs:
            progress.model(config.model.text)
            done = evaluate_config(config, progress, shared=shared)
            # A helper may have written the record of this very command.
            just_now = shared and done.record.environment.finished >= begun
            finished.append(replace(done, found=done.found and not just_now))
    if as_json:
        shown = [
            {**summary_of(done.record, str(done.path)), "found": done.found} for done in finished
        ]
        tell(json.dumps(shown, indent=2))
        return
    results().print(table_of([done.record for done in finished]))
    for done in finished:
        options.tell_where(str(done.path), done.found, done.record.environment.finished, quiet)
