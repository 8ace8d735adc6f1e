"""Loading weights into a network: names and shapes must fit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from satbench.core.errors import SatbenchError
from satbench.model_zoo.normaliser import normalisers
from satbench.networks.normalize import Normalize

State = dict[str, Tensor]
Names = dict[str, str]
"""The model's names of tensors, each with the file's name."""


def load_state(model: nn.Module, state: State, path: Path) -> bool:
    """Load `state` into `model`, strictly; error messages name `path`, where it was read.

    The names may have a prefix that the model lacks, or lack one that it has (`module.`,
    `_orig_mod.`, `model.`).  The weights may occur several times under different prefixes if the
    copies are equal: MadryLab's library saves them for its model and its attacker.  A mean and a
    standard deviation next to them are loaded into the model's `Normalize` layer.  Only two kinds
    of tensors may be missing: the constants of that layer, which training does not change, and the
    counters of batch-norm, which eval mode does not use.

    Returns whether the file holds the constants of all `Normalize` layers.  Raises SatbenchError
    with the tensors that do not fit and the likely cause.
    """
    own = model.state_dict()
    layers = [name for name, module in model.named_modules() if isinstance(module, Normalize)]
    constants = {_join(name, part) for name in layers for part in ("mean", "std")}
    dispensable = constants | set(_counters(model))
    given = {name: tensor for name, tensor in state.items() if name != _AVERAGED}
    prefix, names, copies = _placed(given, own, dispensable, path)
    taken = {new: given[old] for new, old in names.items()}
    beside = {n: t for n, t in given.items() if n not in names.values() and n not in copies}
    taken |= _constants(beside, taken, layers, own)
    _check_normaliser(beside, layers, prefix, path)
    extra = {name.removeprefix(prefix or ""): tensor for name, tensor in beside.items()}
    _check_fit(own, {**extra, **taken}, path, dispensable, prefix)
    model.load_state_dict({**own, **taken}, strict=True)
    return constants <= taken.keys()


def classes_in(model: nn.Module, state: State) -> int:
    """Return the number of classes in the weights `state`, by the model's last layer; 0 if unknown.

    The weights must fit the model except for the number of classes.
    """
    matrices = [name for name, tensor in model.state_dict().items() if tensor.dim() > 1]
    found = [t for n, t in state.items() if matrices and f".{n}".endswith(f".{matrices[-1]}")]
    return max((len(tensor) for tensor in found if tensor.dim()), default=0)


_AVERAGED = "n_averaged"  # the counter in torch's AveragedModel


def _counters(model: nn.Module) -> Iterator[str]:
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            yield _join(name, "num_batches_tracked")


def _join(*parts: str) -> str:
    return ".".join(part for part in parts if part)


# Matching the file's names with the model's


def _placed(
    state: State, own: State, dispensable: set[str], path: Path
) -> tuple[str | None, Names, set[str]]:
    """Find the model's weights in a file -> their prefix, their names, and the names of copies.

    The prefix is None if some weights are missing.  Raises SatbenchError for copies that differ.
    """
    wanted = own.keys() - dispensable
    found = [
        (prefix, names)
        for prefix, outer in _prefixes(state, wanted)
        if wanted <= (names := _names(state, own, prefix, outer)).keys()
    ]
    if not found:
        return None, {name: name for name in state if name in own}, set()
    prefix, names = min(found, key=lambda one: len(one[0]))
    copies: set[str] = set()
    for elsewhere, others in found:
        for new, old in others.items():
            if new not in names or not same_tensor(state[old], state[names[new]]):
                raise SatbenchError(
                    f"the weights {path} hold the model's under the prefixes {prefix!r} and "
                    f"{elsewhere!r}, and they differ: choose one with --keys"
                )
        copies |= set(others.values())
    return prefix, names, copies


def _prefixes(state: State, wanted: set[str]) -> Iterator[tuple[str, str]]:
    """Yield possible prefixes: of the file's names, and of the model's names."""
    outers = {name.partition(".")[0] for name in wanted}
    longest = max(sorted(wanted), key=len, default="")
    for outer in dict.fromkeys(("", f"{outers.pop()}." if len(outers) == 1 else "")):
        anchor = longest.removeprefix(outer)
        for name in state if anchor else ("",):
            prefix = name.removesuffix(anchor)
            if name.endswith(anchor) and (not prefix or prefix.endswith(".")):
                yield prefix, outer


def _names(state: State, own: State, prefix: str, outer: str) -> Names:
    renamed = {f"{outer}{old.removeprefix(prefix)}": old for old in state if old.startswith(prefix)}
    return {new: old for new, old in renamed.items() if new in own}


def same_tensor(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors are equal bit for bit, NaN included."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    bits = [t.detach().contiguous().reshape(-1).view(torch.uint8) for t in (one, other)]
    return torch.equal(*bits)


# Normalisation


def _constants(beside: State, taken: State, layers: list[str], own: State) -> State:
    """Return the constants of the only `Normalize` layer, if the file's other tensors hold them."""
    found = normalisers(beside)
    if len(layers) != 1 or not found or not all(one.same_as(found[0]) for one in found):
        return {}
    names = [_join(layers[0], part) for part in ("mean", "std")]
    values = [
        value.expand(own[name].numel()).reshape(own[name].shape).clone()
        for name, value in zip(names, (found[0].mean, found[0].std), strict=True)
        if len(value) in (1, own[name].numel())
    ]
    if len(values) != 2 or any(name in taken for name in names):
        return {}
    for one in found:
        for name in one.names:
            del beside[name]
    return dict(zip(names, values, strict=True))


def _check_normaliser(beside: State, layers: list[str], prefix: str | None, path: Path) -> None:
    """Raise SatbenchError if the file has constants of a normalisation and the model has none."""
    if layers or prefix is None:
        return
    for one in normalisers(beside):
        if not one.is_identity:
            raise SatbenchError(
                f"the weights {path} are under the prefix {prefix!r}, next to the mean and the "
                f"deviation {', '.join(one.names)}, for which the model has no layer: put "
                "satbench.networks.normalize.Normalize(mean, std) before it"
            )
        for name in one.names:
            del beside[name]


# Tensors that do not fit, and the likely cause


def _check_fit(
    own: State, state: State, path: Path, dispensable: set[str], prefix: str | None
) -> None:
    missing = sorted(own.keys() - state.keys() - dispensable)
    extra = sorted(state.keys() - own.keys())
    other = [n for n in sorted(own.keys() & state.keys()) if state[n].shape != own[n].shape]
    shapes = [f"{name} {tuple(state[name].shape)} for {tuple(own[name].shape)}" for name in other]
    faults = {"missing": missing, "not in the model": extra, "of another shape": shapes}
    said = "; ".join(f"{what}: {_few(names)}" for what, names in faults.items() if names)
    if said:
        cause = _cause(own, state, missing, extra, other, prefix)
        raise SatbenchError(f"the weights {path} do not fit the model ({said}); {cause}")


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + more


def _cause(
    own: State,
    state: State,
    missing: list[str],
    extra: list[str],
    other: list[str],
    prefix: str | None,
) -> str:
    if not missing and not extra:
        return _cause_of_shapes(own, state, other)
    if not missing and all(name.startswith("sub_block1.") for name in extra):
        return (
            "the code of TRADES saves a part that no forward pass uses: give "
            "--preset trades, or leave that part out with --drop-keys sub_block1"
        )
    odd = [own[name] for name in missing] + [state[name] for name in extra]
    if all(tensor.numel() <= 1 for tensor in odd):
        return "likely another activation, with other parameters: check --activation"
    if prefix:
        within = prefix.removesuffix(".")
        return (
            f"the model's weights are under the prefix {within!r}, next to others: select them "
            f"with --keys {within}"
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
            f"evaluate on the data set that they were trained on, or give --classes {there}"
        )
    return "likely the same architecture in another size: check --arch and its parameters"
