"""Weights and a network that must fit each other, name by name and shape by shape."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor, nn

from satbench.core.errors import SatbenchError
from satbench.model_zoo._normalize import Normalize

State = dict[str, Tensor]


def load_state(model: nn.Module, state: State, path: Path) -> None:
    """Load `state` into `model`, strictly; `path` is where it was read, for the message.

    Names may all carry a prefix more or less than the model's (`module.`, `_orig_mod.`, `model.`).
    What may be missing is what no training changes, the constants of a `Normalize` layer, and
    the counters of batch-norm, which eval mode does not read.  Raises SatbenchError with the
    tensors that do not fit and the likely cause.
    """
    own = model.state_dict()
    dispensable = set(_dispensable(model))
    for names in _renamings(state, own.keys() - dispensable):
        renamed = {new: state[old] for new, old in names.items()}
        if own.keys() - renamed.keys() <= dispensable and renamed.keys() <= own.keys():
            break
    else:
        renamed = {name: tensor for name, tensor in state.items() if name != _AVERAGED}
    _check_fit(own, renamed, path, dispensable)
    model.load_state_dict({**own, **renamed}, strict=True)


_AVERAGED = "n_averaged"  # how many models torch's AveragedModel has averaged


def _dispensable(model: nn.Module) -> Iterator[str]:
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        if isinstance(module, Normalize):
            yield from (f"{prefix}mean", f"{prefix}std")
        elif isinstance(module, nn.modules.batchnorm._NormBase):
            yield f"{prefix}num_batches_tracked"


def _renamings(state: State, wanted: set[str]) -> Iterator[dict[str, str]]:
    """Yield ways to name the tensors, new name to old: as they are, and with other prefixes."""
    names = {name: name for name in state if name != _AVERAGED}
    outer = {name.partition(".")[0] for name in wanted}
    while names:
        yield names
        if len(outer) == 1:
            first = next(iter(outer))
            yield {f"{first}.{new}": old for new, old in names.items()}
        firsts = {name.partition(".")[0] for name in names}
        if len(firsts) > 1 or any("." not in name for name in names):
            return
        names = {new.partition(".")[2]: old for new, old in names.items()}


def _check_fit(own: State, state: State, path: Path, dispensable: set[str]) -> None:
    missing = sorted(own.keys() - state.keys() - dispensable)
    extra = sorted(state.keys() - own.keys())
    other = [n for n in sorted(own.keys() & state.keys()) if state[n].shape != own[n].shape]
    shapes = [f"{name} {tuple(state[name].shape)} for {tuple(own[name].shape)}" for name in other]
    faults = {"missing": missing, "not in the model": extra, "of another shape": shapes}
    said = "; ".join(f"{what}: {_few(names)}" for what, names in faults.items() if names)
    if said:
        cause = _cause(own, state, missing, extra, other)
        raise SatbenchError(f"the weights {path} do not fit the model ({said}); {cause}")


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + more


def _cause(own: State, state: State, missing: list[str], extra: list[str], other: list[str]) -> str:
    if not missing and not extra:
        return _cause_of_shapes(own, state, other)
    odd = [own[name] for name in missing] + [state[name] for name in extra]
    if all(tensor.numel() <= 1 for tensor in odd):
        return "likely another activation, with other parameters: check --activation"
    for first in sorted({name.partition(".")[0] for name in extra}):
        if missing and all(f"{first}.{name}" in state for name in missing):
            return (
                f"the model's weights are under the prefix {first!r}, beside others: "
                "save them alone"
            )
    shared = len(own.keys() & state.keys()) / len(own)
    if shared < 0.5:
        return "likely another architecture, or names of another library: check --arch"
    return "likely a variant of the architecture, or other settings of it: check --arch"


def _cause_of_shapes(own: State, state: State, other: list[str]) -> str:
    matrices = [name for name in own if own[name].dim() > 1]
    last = matrices[-1].rpartition(".")[0] if matrices else ""
    if all(name.rpartition(".")[0] == last for name in other):
        there, here = state[other[0]].shape[0], own[other[0]].shape[0]
        return (
            f"likely weights for {there} classes, while the data set has {here}: "
            "evaluate on the data set that they were trained on"
        )
    return "likely the same architecture in another size: check --arch and its parameters"
