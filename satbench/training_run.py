"""A training run as a user sees it: a folder with a log, weights, a card, and what to do next."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

import satbench
from satbench.console import progress_bar
from satbench.core.files import write_text
from satbench.core.specs import split_spec
from satbench.data import Dataset, load_dataset
from satbench.devices import choose_device
from satbench.model_zoo.card import Card, Training, write_card
from satbench.model_zoo.weights import digest_weights, save_weights
from satbench.recipes import TrainConfig
from satbench.train import EpochMetrics, train


@dataclass(frozen=True)
class TrainingRun:
    """What a finished run left behind."""

    weights: Path
    card: Path
    eval_command: str


def run_training(
    config: TrainConfig,
    name: str | None,
    out: Path,
    data_dir: Path | None,
    device: str,
    threads: int | None,
    on_epoch: Callable[[EpochMetrics], None],
    quiet: bool,
) -> TrainingRun:
    """Train as `config` says in the folder `out/name`, or go on there; write weights and card.

    Raises SatbenchError for a missing or corrupt training set, a device that is not there, and a
    folder that holds another run.
    """
    name = name or default_name(config)
    folder = out / name
    chosen = choose_device(device)
    if threads:
        torch.set_num_threads(threads)
    data = load_dataset(config.dataset, "train", data_dir=data_dir)
    with progress_bar(quiet) as bar:
        task = bar.add_task(name, total=None, note="")

        def tick(epoch: int, step: int, steps: int) -> None:
            note = f"epoch {epoch + 1}/{config.epochs}"
            bar.update(task, completed=epoch * steps + step, total=config.epochs * steps, note=note)

        model, history = train(config, data, folder, chosen, tick, on_epoch)
    lines = (json.dumps(asdict(metrics)) + "\n" for metrics in history)
    write_text(folder / "metrics.jsonl", "".join(lines))
    held_out = {"clean": history[-1].held_out_clean, "pgd-10": history[-1].held_out_pgd10}
    return _finish(config, name, folder, model, data, held_out)


def default_name(config: TrainConfig) -> str:
    """Return the name of a run: recipe, architecture, activation and seed."""
    plain = (split_spec(spec)[0] for spec in (config.architecture, config.activation))
    return "-".join((config.recipe, *plain, f"s{config.seed}"))


def train_command(config: TrainConfig) -> str:
    """Return the command that trains the same weights again."""
    return shlex.join(
        (
            *("satbench", "train", "--recipe", config.recipe, "--arch", config.architecture),
            *("--activation", config.activation, "--seed", str(config.seed)),
            *("--epochs", str(config.epochs), "--threads", str(torch.get_num_threads())),
        )
    )


def _finish(
    config: TrainConfig,
    name: str,
    folder: Path,
    model: nn.Module,
    data: Dataset,
    held_out: dict[str, float],
) -> TrainingRun:
    weights, card = folder / f"{name}.safetensors", folder / f"{name}.json"
    save_weights(model, weights)
    training = Training(
        recipe=config.recipe,
        seed=config.seed,
        threat=config.threat,
        attack=config.attack,
        dataset=config.dataset,
        data_digest=data.digest,
        command=train_command(config),
        kept="last epoch",
        held_out=held_out,
        config=asdict(config),
        satbench=satbench.__version__,
        torch=torch.__version__,
    )
    write_card(
        Card(
            name=name,
            architecture=config.architecture,
            activation=config.activation,
            parameters=sum(p.numel() for p in model.parameters()),
            input_shape=data.shape,
            classes=data.classes,
            weights=weights.name,
            weights_digest=digest_weights(model),
            licence="MIT",
            training=training,
        ),
        card,
    )
    return TrainingRun(weights, card, _eval_command(config, card))


def _eval_command(config: TrainConfig, card: Path) -> str:
    norm, _, eps = config.threat.partition(":")
    return (
        f"satbench eval --model {shlex.quote(str(card))} --dataset {config.dataset} "
        f"--norm {norm} --eps {eps} --attack pgd-50 --attack autoattack"
    )
