"""The result of a run: the weights of one epoch, with those of the best and the last epoch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from satbench.core.errors import SatbenchError
from satbench.model_zoo.checkpoints import read_state
from satbench.model_zoo.fitting import load_state
from satbench.recipes import TrainConfig
from satbench.training.epochs import Run, history_of
from satbench.training.saved.best import BEST, find_best
from satbench.training.saved.checkpoint import Checkpoint
from satbench.training.watch import EpochMetrics, history_notes

BEST_EPOCH, LAST_EPOCH = "best", "last"


@dataclass(frozen=True)
class Kept:
    """An epoch whose weights are kept: its metrics, why it was chosen, and notes.

    `state` are the weights, None if they are those of the resulting model.
    """

    metrics: EpochMetrics
    why: str
    notes: tuple[str, ...]
    state: dict[str, Tensor] | None = None


@dataclass(frozen=True)
class _Best:
    """The best epoch whose weights can be read; `path` is None if it is the last epoch."""

    metrics: EpochMetrics
    path: Path | None
    lost: tuple[str, ...] = ()


def choose_kept(run: Run, state: Checkpoint) -> tuple[Kept, dict[str, Kept]]:
    """Choose the epoch that is the result, and load its weights into the stepper's model.

    Returns that epoch and, in the leading process, the last epoch (`LAST_EPOCH`) and the best one
    (`BEST_EPOCH`, unless its weights are lost).  Raises SatbenchError if the best epoch is chosen
    and its weights cannot be read.
    """
    config, last, best = run.config, history_of(state)[-1], _best(run, state)
    rolled_back = config.on_overfitting == "rollback" and (bool(state.stopped) or last.collapsed)
    which = BEST_EPOCH if rolled_back or config.keep == "best" else LAST_EPOCH
    epochs = {LAST_EPOCH: _last(run, state, last)}
    if best:
        why = f"epoch {best.metrics.epoch}, best by held-out PGD-10 accuracy{_averaged(config)}"
        epochs[BEST_EPOCH] = Kept(best.metrics, why, _notes(run, state, best.metrics, best.lost))
    elif which == BEST_EPOCH:
        raise SatbenchError(
            f"the best weights {run.folder / BEST} are corrupt, and so are the second best; "
            f"remove {run.folder} to train again"
        )
    if state.stopped or rolled_back:
        ended = f"; {'rolled back' if rolled_back else 'stopped'}: {state.stopped or last.warning}"
        epochs[which] = replace(epochs[which], why=epochs[which].why + ended)
    chosen = epochs[which]
    if best and best.path:
        result, saved = run.stepper.result, read_state(best.path)
        if which == BEST_EPOCH:
            epochs[LAST_EPOCH] = replace(epochs[LAST_EPOCH], state=_state_of(result))
            load_state(result, saved, best.path)
        else:
            epochs[BEST_EPOCH] = replace(epochs[BEST_EPOCH], state=saved)
    return chosen, epochs if run.ranks.leads else {}


@contextmanager
def holding(model: nn.Module, state: dict[str, Tensor] | None) -> Iterator[nn.Module]:
    """Yield a model with other weights for the block; None keeps its own."""
    if state is None:
        yield model
        return
    own = _state_of(model)
    model.load_state_dict(state)
    try:
        yield model
    finally:
        model.load_state_dict(own)


def _best(run: Run, state: Checkpoint) -> _Best | None:
    run.ranks.wait()
    history, lost = history_of(state), list[str]()
    for kept in state.best:
        if path := find_best(run.folder, kept):
            metrics = history[kept["epoch"] - 1]
            return _Best(metrics, None if metrics is history[-1] else path, tuple(lost))
        lost.append(f"the best weights, of epoch {kept['epoch']}, were corrupt or missing")
    return None


def _last(run: Run, state: Checkpoint, last: EpochMetrics) -> Kept:
    why = "last epoch"
    if state.stopped:
        why += f", {last.epoch} of {run.config.epochs}"
    return Kept(last, why + _averaged(run.config), _notes(run, state, last))


def _notes(
    run: Run, state: Checkpoint, kept: EpochMetrics, lost: tuple[str, ...] = ()
) -> tuple[str, ...]:
    notes = (*state.notes, *lost, *history_notes(history_of(state), kept, run.chance))
    return tuple(dict.fromkeys(notes))


def _averaged(config: TrainConfig) -> str:
    if config.ema_decay:
        return f"; moving average of the weights, decay {config.ema_decay:g}"
    if config.swa_from:
        return f"; even average of the weights from epoch {config.swa_from} on"
    return ""


def _state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
