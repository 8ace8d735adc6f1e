"""Checkpoints of a training run: whole or absent, and read without running any code in them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from satbench.core.errors import SatbenchError
from satbench.core.files import atomic_path, sweep, write_text
from satbench.recipes import TrainConfig
from satbench.training.averaging import Average

_CONFIG, _STATE = "config.json", "checkpoint.pt"
_OTHERS = ("best.safetensors", "metrics.jsonl")


@dataclass(frozen=True)
class Checkpoint:
    """The place in a run: epochs done, steps done in this one, and the sums of its metrics.

    `history` holds the metrics of the epochs done, one dictionary each; `stopped` says why the
    run ended before its last epoch, if it did.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    accuracy_sum: float = 0.0
    history: tuple[dict[str, Any], ...] = ()
    stopped: str = ""

    def at(self, step: int, sums: Tensor) -> Checkpoint:
        """Return the place after so many steps of the epoch, with sums of loss and accuracy."""
        loss, accuracy = sums.tolist()
        return replace(self, step=step, loss_sum=loss, accuracy_sum=accuracy)


def open_run(folder: Path, config: TrainConfig) -> None:
    """Claim `folder` for a run.  Raises SatbenchError if it holds a run of another config."""
    path = folder / _CONFIG
    for file in (path, *(folder / name for name in (_STATE, *_OTHERS))):
        sweep(file)
    if not path.exists():
        write_text(path, json.dumps(config.to_dict(), indent=2) + "\n")
        return
    try:
        found, wanted = json.loads(path.read_text(encoding="utf-8")), config.to_dict()
    except ValueError:
        raise SatbenchError(
            f"the config {path} is corrupt; choose another --out or remove that folder"
        ) from None
    if found != wanted:
        names = [k for k in sorted(found.keys() | wanted) if found.get(k) != wanted.get(k)]
        raise SatbenchError(
            f"{folder} holds a run with another {', '.join(names)}; choose another --out or "
            "remove that folder"
        )


def load_checkpoint(
    folder: Path, model: nn.Module, optimiser: torch.optim.Optimizer, average: Average | None
) -> Checkpoint:
    """Put a run back to where the one in `folder` stopped, if it had started.

    Learning rate, order, noise and augmentation are functions of the place, and torch's generator
    is set from it at every step: the place stands for them all.  Raises SatbenchError for a corrupt
    checkpoint.
    """
    path = folder / _STATE
    if not path.exists():
        return Checkpoint()
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        if average:
            average.load_state_dict(saved["average"])
        place = saved["place"]
        return Checkpoint(**{**place, "history": tuple(place["history"])})
    except Exception:  # torch lets every kind of error through that a broken file can cause
        raise SatbenchError(
            f"the checkpoint {path} is corrupt; remove it to train from the start"
        ) from None


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: Average | None,
    place: Checkpoint,
) -> None:
    """Write the state of a run to `folder`, atomically."""
    state: dict[str, Any] = {
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "place": asdict(place),
    }
    if average:
        state["average"] = average.state_dict()
    with atomic_path(folder / _STATE) as temporary:
        torch.save(state, temporary)
