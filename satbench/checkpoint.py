"""Checkpoints of a training run: whole or absent, and read without running any code in them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn

from satbench.core.errors import SatbenchError
from satbench.core.files import atomic_path, sweep, write_text
from satbench.recipes import TrainConfig

_CONFIG, _STATE = "config.json", "checkpoint.pt"


@dataclass(frozen=True)
class Checkpoint:
    """The place in a run: epochs done, steps done in this one, and the sums of its metrics.

    `history` holds the metrics of the epochs done, one dictionary each.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    accuracy_sum: float = 0.0
    history: tuple[dict[str, float], ...] = ()

    def after_step(self, loss: float, accuracy: float) -> Checkpoint:
        """Return the place one step on."""
        return replace(
            self,
            step=self.step + 1,
            loss_sum=self.loss_sum + loss,
            accuracy_sum=self.accuracy_sum + accuracy,
        )


def open_run(folder: Path, config: TrainConfig) -> None:
    """Claim `folder` for a run.  Raises SatbenchError if it holds a run of another config."""
    path = folder / _CONFIG
    for file in (path, folder / _STATE):
        sweep(file)
    if not path.exists():
        write_text(path, json.dumps(asdict(config), indent=2) + "\n")
        return
    try:
        found, wanted = json.loads(path.read_text(encoding="utf-8")), asdict(config)
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


def load_checkpoint(folder: Path, model: nn.Module, optimiser: torch.optim.Optimizer) -> Checkpoint:
    """Put model and optimiser back to where the run in `folder` stopped, if it had started.

    Raises SatbenchError for a corrupt checkpoint.
    """
    path = folder / _STATE
    if not path.exists():
        return Checkpoint()
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        place = saved["place"]
        return Checkpoint(**{**place, "history": tuple(place["history"])})
    except Exception:  # torch lets every kind of error through that a broken file can cause
        raise SatbenchError(
            f"the checkpoint {path} is corrupt; remove it to train from the start"
        ) from None


def save_checkpoint(
    folder: Path, model: nn.Module, optimiser: torch.optim.Optimizer, place: Checkpoint
) -> None:
    """Write the state of a run to `folder`, atomically."""
    with atomic_path(folder / _STATE) as temporary:
        torch.save(
            {
                "model": model.state_dict(),
                "optimiser": optimiser.state_dict(),
                "place": asdict(place),
            },
            temporary,
        )
