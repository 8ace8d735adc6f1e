"""The initial weights of a run: random ones, or those of another model."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from satbench.core.errors import SatbenchError
from satbench.model_zoo.card import find_card
from satbench.model_zoo.checkpoints import read_state
from satbench.model_zoo.fitting import load_state
from satbench.networks.build import build_network
from satbench.recipes import TrainConfig
from satbench.training.saved.checkpoint import CorruptError, is_checkpoint, read_checkpoint


def fresh_model(config: TrainConfig, classes: int) -> nn.Module:
    """Build the untrained model of a run; its weights are a function of the seed.

    torch's global generator does not change.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return build_network(config.architecture, config.activation, classes)


def load_start(model: nn.Module, start: str) -> str:
    """Load the weights that `start` names into a new model; return a note.

    `start` is the checkpoint of a run, a file of weights (FILE#KEY for one of several sets in it),
    or the name of a model in the zoo.  If the last layer has another number of classes, it keeps
    its random weights.  Raises SatbenchError if the weights are missing, corrupt, or do not fit.
    """
    text, _, copy = start.partition("#")
    path = Path(text)
    if path.suffix and path.exists():
        state = _state_of(path, copy)
    elif path.suffix:
        raise SatbenchError(f"expected weights to start from at {path}, which is missing")
    else:
        _, path = find_card(text)
        state = read_state(path)
    fresh = _other_head(model, state)
    own = model.state_dict()
    load_state(model, {**state, **{name: own[name] for name in fresh}}, path)
    if not fresh:
        return f"starts from the weights {start}"
    return f"starts from the weights {start}, but for {', '.join(fresh)}: it has other classes"


def _state_of(path: Path, copy: str) -> dict[str, Tensor]:
    if copy or path.suffix == ".safetensors" or not is_checkpoint(path):
        return read_state(path, copy)
    try:
        saved = read_checkpoint(path)
    except CorruptError as error:
        raise SatbenchError(f"the checkpoint {path} is corrupt ({error}); take another") from None
    state: dict[str, Tensor] = saved["average"]["network"] if "average" in saved else saved["model"]
    return state


def _other_head(model: nn.Module, state: dict[str, Tensor]) -> list[str]:
    """Return the tensors of the last layer, if only it has another shape than in `state`."""
    own = model.state_dict()
    other = [n for n in own if n in state and own[n].shape != state[n].shape]
    matrices = [name for name in own if own[name].dim() > 1]
    last = matrices[-1].rpartition(".")[0]
    return other if all(name.rpartition(".")[0] == last for name in other) else []
