"""The Python interface of training: `satbench.train(...)`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from satbench.core.console import say
from satbench.core.errors import SatbenchError
from satbench.core.files import check_folder
from satbench.data import Dataset
from satbench.evaluation.arguments import check_arguments
from satbench.networks.build import canonical_architecture
from satbench.preflight.reading import Data, data_of
from satbench.recipes import TrainConfig, load_recipe, spelled_out, typed_setting
from satbench.recipes.config import IN_MEMORY
from satbench.training.kept_epoch import BEST_EPOCH, LAST_EPOCH
from satbench.training.own import Loss, OptimizerOf, Own, SchedulerOf, check_parts
from satbench.training.progress import Step
from satbench.training.run import default_name, run_training
from satbench.training.update.inner import Inner
from satbench.training.watch import EpochMetrics

OWN = "own"
"""The architecture and activation of a user's own network, in the config of a run."""


class Callback:
    """An object that is called during a run; override the methods that you need."""

    def on_step(self, step: Step) -> None:
        """Handle the end of a step, with its loss, learning rate, and the time left."""

    def on_epoch(self, metrics: EpochMetrics) -> None:
        """Handle the end of an epoch, with its losses and held-out accuracies."""


@dataclass(frozen=True)
class TrainedModel:
    """The result of a training.

    `model` is in eval mode, on the device of the training; `history` has an entry for each epoch;
    `path` is the file of weights, `card` the card next to it, and `notes` are its notes.  `best`
    and `last` are the files of weights of the best epoch by held-out PGD-10 accuracy and of the
    last epoch; one of these is the result, whose weights are in `path`.  `best` is None if its
    weights are lost.
    """

    model: nn.Module
    history: list[EpochMetrics]
    path: Path
    card: Path
    kept_epoch: int
    notes: tuple[str, ...]
    best: Path | None
    last: Path


def train(
    model: nn.Module | str,
    data: Data,
    recipe: str | PathLike[str] | TrainConfig = "fmnist-sat",
    *,
    attack: str | None = None,
    loss: Loss | None = None,
    optimizer: OptimizerOf | None = None,
    scheduler: SchedulerOf | None = None,
    init: str | PathLike[str] | Mapping[str, Tensor] | None = None,
    callbacks: Sequence[Callback] = (),
    name: str | None = None,
    out: str | PathLike[str] = "runs",
    device: str | torch.device = "auto",
    threads: int | None = None,
    workers: int | None = None,
    data_dir: str | PathLike[str] | None = None,
    quiet: bool = False,
    **settings: object,
) -> TrainedModel:
    """Train a classifier by adversarial training, and return it with its history.

    `model` maps images (B, C, H, W), float32 in [0, 1], to logits (B, K): normalisation is its
    first layer.  A copy of it is trained.  It can also be the name of an architecture, such as
    `"tiny"`.  `data` is a pair of images (N, C, H, W), float32 in [0, 1] or uint8, and labels (N,);
    the name of a data set, such as `"imagefolder:PATH@none"` or `"arrays:train.npz"`; or a torch
    Dataset or DataLoader, which is read once, in the order of its data set.  The last `held_out`
    images are kept for the metrics.  `recipe` is the name of a recipe, the path of a FILE.toml, or
    a TrainConfig; `settings` change single values of it, such as `epochs=5, batch_size=64, seed=1`.

    `attack` is the training attack, such as `"pgd(steps=7,step=eps/4)"`, or `""` for none.
    `loss(logits, y)` returns the losses (B,) at the adversarial images, or their mean; it replaces
    the recipe's objective.  `optimizer(parameters)` returns the optimiser, with its own learning
    rate.  `scheduler(optimizer, steps)` returns a schedule of `steps` steps, one after each step of
    the optimiser.  `init` are weights to start from: a file, the checkpoint of a run, a model's
    name or a state dict.  `callbacks` are called after steps and epochs.

    It runs the loop of `satbench train`.  All files are in the folder `out/name`; the same call
    continues a stopped run there, and finds a finished one.  Your own network is recognised by its
    class, layers and shapes.  torch's global generators do not change.  Raises SatbenchError, a
    ValueError, with one sentence for a wrong set-up.

    >>> import satbench, torch
    >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))
    >>> x = torch.rand(40, 1, 4, 4)
    >>> y = (x.mean((1, 2, 3)) > 0.5).long()
    >>> trained = satbench.train(
    ...     network, (x, y), epochs=2, batch_size=8, held_out=8, out=tmp, quiet=True
    ... )
    >>> len(trained.history), trained.path.name
    (2, 'fmnist-sat-Sequential-s0.safetensors')
    """
    check_arguments(
        network=model, name=name, out=out, device=device, threads=threads, workers=workers
    )
    if out is None:
        raise SatbenchError("expected out as a folder, got None: training saves its run there")
    own = Own(
        model if isinstance(model, nn.Module) else None,
        loss,
        optimizer,
        scheduler,
        init if isinstance(init, Mapping) else None,
        images=not isinstance(data, str),
    )
    check_parts(own)
    called = _callbacks(callbacks)
    config = _config(model, data, recipe, _changes(attack, init, settings))
    Inner.of(config)  # an attack that cannot train is refused before images are read
    images = data_of(data)
    check_folder(Path(out))
    chosen = name or (_own_name(config, own.network) if own.network else default_name(config))
    done = run_training(
        config,
        chosen,
        Path(out),
        None if data_dir is None else Path(data_dir),
        str(device),
        threads,
        _each(called, "on_epoch", None if quiet else _line(config)),
        quiet,
        workers,
        (lambda note: None) if quiet else lambda note: say(f"note: {note}"),
        images if isinstance(images, Dataset) else None,
        own,
        _each(called, "on_step", None) if called else None,
    )
    if done is None:
        raise SatbenchError("only the leading process of a distributed run returns a model")
    trained = done.trained
    best, last = (done.epochs.get(which) for which in (BEST_EPOCH, LAST_EPOCH))
    return TrainedModel(
        *(trained.model, trained.history, done.weights, done.card),
        *(trained.kept_epoch, trained.notes),
        best[0] if best else None,
        last[0] if last else done.weights,
    )


def _changes(
    attack: str | None,
    init: str | PathLike[str] | Mapping[str, Tensor] | None,
    settings: Mapping[str, object],
) -> dict[str, object]:
    if attack is not None and not isinstance(attack, str):
        raise SatbenchError(
            f"expected attack as a text such as 'pgd(steps=7)', got a {type(attack).__name__}"
        )
    changes = {**settings, "attack": attack}
    if init is not None and not isinstance(init, Mapping):
        if not isinstance(init, str | PathLike):
            raise SatbenchError(
                "expected init as a file of weights, a model's name or a state dict, got a "
                f"{type(init).__name__}"
            )
        changes["init"] = str(init)
    taken = {"architecture": "model", "dataset": "data", "recipe": "recipe"}
    for key, argument in taken.items():
        if key in settings:
            raise SatbenchError(f"{argument} already sets {key}: leave {key}= out")
    return {key: value for key, value in changes.items() if value is not None}


def _config(
    model: nn.Module | str,
    data: Data,
    recipe: str | PathLike[str] | TrainConfig,
    changes: dict[str, object],
) -> TrainConfig:
    """Return the config of a run on these images; a user's own network has no architecture."""
    changes["dataset"] = data if isinstance(data, str) else IN_MEMORY
    if isinstance(model, str):
        changes["architecture"] = canonical_architecture(model)
    elif "activation" in changes:
        raise SatbenchError("activation= needs an architecture by name: leave it out")
    if isinstance(recipe, TrainConfig):
        config = _changed(recipe, changes)
    elif isinstance(recipe, str | PathLike):
        config = load_recipe(str(recipe), **changes)
    else:
        raise SatbenchError(
            "expected recipe as a name, a FILE.toml or a TrainConfig, got a "
            f"{type(recipe).__name__}"
        )
    if isinstance(model, nn.Module):
        if config.activation_rate != 1:
            raise SatbenchError("activation_rate= needs an architecture by name: leave it out")
        config = replace(config, architecture=OWN, activation=OWN)
    return config


def _changed(config: TrainConfig, changes: dict[str, object]) -> TrainConfig:
    """Return a config with changes, each checked and normalised as in a recipe."""
    checked: dict[str, Any] = {key: typed_setting(key, value) for key, value in changes.items()}
    return spelled_out(replace(config, **checked))


def _callbacks(callbacks: Sequence[Callback]) -> tuple[Callback, ...]:
    if not isinstance(callbacks, list | tuple):
        raise SatbenchError(
            f"expected callbacks as a list, got a {type(callbacks).__name__}: write [callback]"
        )
    for one in callbacks:
        if isinstance(one, type) or not (hasattr(one, "on_step") or hasattr(one, "on_epoch")):
            raise SatbenchError(
                "expected callbacks with on_step(step) or on_epoch(metrics), got "
                f"{one.__name__ if isinstance(one, type) else type(one).__name__}: "
                "pass an object of a class that has them"
            )
    return tuple(callbacks)


def _each(
    callbacks: Sequence[Callback], method: str, also: Callable[[Any], None] | None
) -> Callable[[Any], None]:
    calls = [getattr(one, method) for one in callbacks if hasattr(one, method)]

    def notify(event: object) -> None:
        for call in (*([also] if also else []), *calls):
            call(event)

    return notify


def _line(config: TrainConfig) -> Callable[[EpochMetrics], None]:
    def line(metrics: EpochMetrics) -> None:
        say(
            f"epoch {metrics.epoch}/{config.epochs}  loss {metrics.loss:.3f}  held-out clean "
            f"{metrics.held_out_clean:.1%}  PGD-10 {metrics.held_out_pgd10:.1%}  "
            f"{metrics.images_per_second:.0f} images/s"
        )
        if metrics.warning:
            say(f"warning: {metrics.warning}")

    return line


def _own_name(config: TrainConfig, network: nn.Module) -> str:
    return f"{Path(config.recipe).stem}-{type(network).__name__}-s{config.seed}"
