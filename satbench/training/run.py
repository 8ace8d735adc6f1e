"""A training run for the user: a folder with a log, weights, a card, and the next command."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from satbench.core.specs import split_spec
from satbench.data import Dataset, evaluation_set_of
from satbench.model_zoo.card import Card, write_card
from satbench.model_zoo.weights import save_weights
from satbench.recipes import TrainConfig, overrides_of
from satbench.training.epochs import writing
from satbench.training.images.folders import default_workers
from satbench.training.images.training_set import fair_set, open_training_set
from satbench.training.kept_epoch import holding
from satbench.training.live import LiveTable
from satbench.training.loop import EpochMetrics, Trained, train
from satbench.training.own import NOTHING, Own, name_of
from satbench.training.progress import Step
from satbench.training.ranks import joined
from satbench.training.saved.facts import Facts
from satbench.training.saved.own_card import write_own_card
from satbench.training.saved.run_card import run_card
from satbench.training.saved.tensorboard import write_events


@dataclass(frozen=True)
class TrainingRun:
    """The files of a finished run.

    `test_set` is the default data set to evaluate the model on, None if there is none; the command
    is then empty.  `epochs` are the weights and cards of the best and the last epoch, by name.
    """

    weights: Path
    card: Path
    test_set: str | None
    eval_command: str
    trained: Trained
    epochs: Mapping[str, tuple[Path, Path]]


def run_training(
    config: TrainConfig,
    name: str | None,
    out: Path,
    data_dir: Path | None,
    device: str,
    threads: int | None,
    on_epoch: Callable[[EpochMetrics], None],
    quiet: bool,
    workers: int | None = None,
    on_note: Callable[[str], None] = lambda note: None,
    given: Dataset | None = None,
    own: Own = NOTHING,
    after_step: Callable[[Step], None] | None = None,
) -> TrainingRun | None:
    """Train as `config` says in the folder `out/name`, or continue there; write weights and card.

    Under `torchrun` the processes share each batch; one of them writes and prints, the others
    return None.  Each has `workers` processes that read a folder of images (None: one per core, at
    most 8); the result does not depend on their number.  From Python, `given` are training images,
    and the parts in `own` replace those of the recipe.  Raises SatbenchError for a missing or
    corrupt training set, a device that does not exist, and a folder of another run.
    """
    name = name or default_name(config)
    folder = out / name
    with joined(device) as (ranks, chosen):
        if threads:
            torch.set_num_threads(threads)
        readers = default_workers(ranks.world) if workers is None else workers
        opened = fair_set(config, given) if given else open_training_set(config, data_dir, readers)
        with LiveTable(name, config, quiet or not ranks.leads) as table:

            def tell(metrics: EpochMetrics) -> None:
                table.on_epoch(metrics)
                if ranks.leads:
                    with writing(folder):
                        write_events(folder / "tensorboard", metrics)
                    on_epoch(metrics)

            def note(text: str) -> None:
                table.on_note(text)
                if ranks.leads:
                    on_note(text)

            trained = train(
                *(config, opened, folder, chosen, table.on_step, tell, ranks, note),
                own=own,
                after_step=after_step if ranks.leads else None,
            )
        if trained.facts is None:
            return None
        with writing(folder):
            for metrics in trained.history:  # a stop may have come between an epoch and its events
                write_events(folder / "tensorboard", metrics)
            return _finish(config, name, folder, trained, trained.facts, opened.data, own)


def default_name(config: TrainConfig) -> str:
    """Return the name of a run: recipe, architecture, activation and seed."""
    plain = (split_spec(spec)[0] for spec in (config.architecture, config.activation))
    return "-".join((Path(config.recipe).stem, *plain, f"s{config.seed}"))


def train_command(config: TrainConfig, processes: int = 1, threads: int | None = None) -> str:
    """Return the command that trains the same weights again, with `processes` and `threads`.

    The default of `threads` is torch's current number.
    """
    program = (
        ("satbench",)
        if processes == 1
        else ("torchrun", "--nproc-per-node", str(processes), "-m", "satbench")
    )
    overrides = (word for text in overrides_of(config) for word in ("--set", text))
    return shlex.join(
        (
            *(*program, "train", "--recipe", config.recipe, "--arch", config.architecture),
            *("--activation", config.activation, "--seed", str(config.seed)),
            *("--epochs", str(config.epochs), *overrides),
            *("--threads", str(threads or torch.get_num_threads())),
        )
    )


def _finish(
    config: TrainConfig,
    name: str,
    folder: Path,
    trained: Trained,
    facts: Facts,
    data: Dataset,
    own: Own,
) -> TrainingRun:
    again = train_command(config, facts.processes, facts.threads) if own.retrainable else ""
    written: dict[str, tuple[Path, Path, Card]] = {}
    for which, kept in {"": trained.chosen, **trained.epochs}.items():
        label = f"{name}-{which}" if which else name
        is_new = not which or kept.state is not None
        weights, card = (
            folder / f"{label if is_new else name}.safetensors",
            folder / f"{label}.json",
        )
        with holding(trained.model, kept.state) as model:
            made = run_card(
                *(label, weights.name, model, config, data, facts),
                *((kept.why, kept.metrics), again, kept.notes),
            )
            if is_new:
                save_weights(model, weights, None if own.network else made)
        written[which] = weights, card, made
    weights, card, made = chosen = written.pop("")
    for _, path, described in (*written.values(), chosen):  # who finds the run's card finds all
        if own.network:
            write_own_card(described, name_of(own.network), path)
        else:
            write_card(described, path)
    trained_on = made.training.dataset if made.training else config.dataset
    test_set = None if own.images else evaluation_set_of(trained_on)
    command = "" if own.network or own.images else _eval_command(config, card, test_set)
    epochs = {which: files[:2] for which, files in written.items()}
    return TrainingRun(weights, card, test_set, command, trained, epochs)


def _eval_command(config: TrainConfig, card: Path, test_set: str | None) -> str:
    norm, _, eps = config.threat.partition(":")
    dataset = shlex.quote(test_set) if test_set else "TEST_SET"
    return (
        f"satbench eval --model {shlex.quote(str(card))} --dataset {dataset} "
        f"--norm {norm} --eps {eps} --attack pgd-50 --attack autoattack"
    )
