"""Networks for files of weights that do not say what they are of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from satbench.core.errors import SatbenchError
from satbench.core.specs import split_spec
from satbench.model_zoo.presets import find_preset
from satbench.models._file_options import FileOptions
from satbench.models._loaded import normalized

if TYPE_CHECKING:
    from torch import Tensor, nn

    from satbench.networks.normalize import Normalize


@dataclass(frozen=True)
class Built:
    """A network with its weights, in eval mode.

    `architecture` and `activation` are canonical specs; where its normalisation is none that the
    architecture names, the text tells it behind the spec.  `assumed` tells what neither the file
    nor the user said, `normalize=cifar10`, with spaces between; empty if nothing.
    """

    module: nn.Module
    architecture: str
    activation: str
    assumed: str


@dataclass(frozen=True)
class _Told:
    """What the options, or their preset, say: the architectures are tried in order.

    `fallback` is a preset's normalisation, which a file's own constants come before.
    """

    architectures: tuple[str, ...]
    activation: str
    normalize: str | None
    fallback: str | None = None
    unused: tuple[str, ...] = ()


def build_for(
    state: dict[str, Tensor], options: FileOptions, path: Path, classes: int, exactly: bool
) -> Built:
    """Build the network that `options` tell of for the weights `state`, read at `path`.

    Unless `exactly`, the weights say how many classes there are, at least `classes`.  Raises
    SatbenchError for unknown parts, weights that do not fit, and constants of a normalisation that
    are not those of the file.
    """
    told = _told(options)
    for part in told.unused:
        state = {n: t for n, t in state.items() if f".{part}." not in f".{n}"}
    fault: SatbenchError | None = None
    for architecture in told.architectures:
        try:
            return _built(architecture, told, state, path, classes, exactly)
        except SatbenchError as error:
            fault = fault or error
    raise fault or SatbenchError("expected an architecture, got none")


def _told(options: FileOptions) -> _Told:
    if not options.preset:
        return _Told((options.architecture or "",), options.activation or "", options.normalize)
    preset = find_preset(options.preset)
    return _Told(
        preset.architectures,
        options.activation or preset.activation,
        options.normalize,
        preset.normalize,
        preset.unused,
    )


def _built(
    architecture: str,
    told: _Told,
    state: dict[str, Tensor],
    path: Path,
    classes: int,
    exactly: bool,
) -> Built:
    from satbench.model_zoo.fitting import classes_in, load_state
    from satbench.networks.build import (
        build_network,
        canonical_activation,
        canonical_architecture,
    )
    from satbench.networks.normalize import normalize_text

    module = build_network(architecture, told.activation, classes)
    if not exactly and (there := classes_in(module, state)) > classes:
        module = build_network(architecture, told.activation, there)
    own = [normalize_text(layer) for layer in _layers(module)]
    if not own:
        module = _behind_a_normalisation(module, told, state)
    from_file = load_state(module, state, path)
    said = told.normalize or split_spec(architecture)[1].get("statistics")
    assumed = settled(_layers(module), said, told.fallback, from_file, path)
    now = [normalize_text(layer) for layer in _layers(module)]
    return Built(
        module.eval(),
        canonical_architecture(architecture) if now == own else _text(architecture, now[0]),
        canonical_activation(told.activation),
        " ".join((*assumed, *_untold(architecture))),
    )


def _layers(module: nn.Module) -> list[Normalize]:
    from satbench.networks.normalize import Normalize

    return [layer for layer in module.modules() if isinstance(layer, Normalize)]


def _behind_a_normalisation(network: nn.Module, told: _Told, state: dict[str, Tensor]) -> nn.Module:
    """Put a normalisation before a network without one, where the file or the user has one."""
    from satbench.model_zoo.normaliser import normalisers
    from satbench.networks.normalize import parse_normalize

    found = normalisers(state)
    if said := told.normalize or told.fallback:
        mean, std = parse_normalize(said)
        return normalized(network, mean, std)
    channels = len(found[0].mean) if found else 0
    return normalized(network, (0.0,) * channels, (1.0,) * channels) if found else network


def settled(
    layers: list[Normalize], said: str | None, fallback: str | None, from_file: bool, path: Path
) -> list[str]:
    """Give the layers their constants, and return what had to be assumed of them.

    What the file tells comes first, then what the user has `said`, then the `fallback` of a preset;
    a user who says otherwise than the file is wrong.  Raises SatbenchError.
    """
    from satbench.networks.normalize import normalize_text, set_constants

    for layer in layers:
        if from_file:
            own = normalize_text(layer)
            if said:
                set_constants(layer, said)
            if said and normalize_text(layer) != own:
                raise SatbenchError(
                    f"the weights {path} carry the normalisation that they were trained with, "
                    f"{own}, which is not {said}: leave out what says otherwise"
                )
        elif said or fallback:
            set_constants(layer, said or fallback or "")
    if layers and not (from_file or said or fallback):
        return [f"normalize={normalize_text(layers[0])}"]
    return []


def _untold(architecture: str) -> list[str]:
    """Return the settings of an architecture that no weights tell and that nobody gave."""
    from satbench.networks import ARCHITECTURES
    from satbench.networks.build import canonical_architecture

    name, given = split_spec(architecture)
    own = split_spec(canonical_architecture(architecture))[1]
    names: tuple[str, ...] = getattr(ARCHITECTURES[name].load(), "untold", ())
    return [f"{one}={own[one]}" for one in names if one not in given]


def _text(architecture: str, normalisation: str) -> str:
    """Return an architecture's canonical text with another normalisation than it has of itself."""
    from satbench.networks.build import canonical_architecture
    from satbench.networks.normalize import Statistics

    canonical = canonical_architecture(architecture)
    name, own = split_spec(canonical)
    if "statistics" not in own or normalisation not in get_args(Statistics):
        return f"{canonical} normalised by {normalisation}"
    own["statistics"] = normalisation
    return f"{name}({','.join(f'{key}={value}' for key, value in own.items())})"
