"""Networks for files of weights that do not name their network."""

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

    `architecture` and `activation` are canonical specs; a normalisation that the architecture has
    no name for follows the spec.  `assumed` lists what neither the file nor the user said, such as
    `normalize=cifar10`, separated by spaces; it is empty if nothing was assumed.
    """

    module: nn.Module
    architecture: str
    activation: str
    assumed: str


@dataclass(frozen=True)
class _Options:
    """The options, or those of the preset; the architectures are tried in order.

    `fallback` is a preset's normalisation; the file's own constants take precedence.
    """

    architectures: tuple[str, ...]
    activation: str
    normalize: str | None
    fallback: str | None = None
    unused: tuple[str, ...] = ()


def build_for(
    state: dict[str, Tensor], options: FileOptions, path: Path, classes: int, exactly: bool
) -> Built:
    """Build the network that `options` describe for the weights `state`, read from `path`.

    Unless `exactly`, the weights decide how many classes there are, at least `classes`.  Raises
    SatbenchError for unknown parts, weights that do not fit, and a normalisation that differs from
    that of the file.
    """
    given = _read_options(options)
    for part in given.unused:
        state = {n: t for n, t in state.items() if f".{part}." not in f".{n}"}
    fault: SatbenchError | None = None
    for architecture in given.architectures:
        try:
            return _built(architecture, given, state, path, classes, exactly)
        except SatbenchError as error:
            fault = fault or error
    raise fault or SatbenchError("expected an architecture, got none")


def _read_options(options: FileOptions) -> _Options:
    if not options.preset:
        return _Options((options.architecture or "",), options.activation or "", options.normalize)
    preset = find_preset(options.preset)
    return _Options(
        preset.architectures,
        options.activation or preset.activation,
        options.normalize,
        preset.normalize,
        preset.unused,
    )


def _built(
    architecture: str,
    given: _Options,
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

    module = build_network(architecture, given.activation, classes)
    if not exactly and (there := classes_in(module, state)) > classes:
        module = build_network(architecture, given.activation, there)
    own = [normalize_text(layer) for layer in _layers(module)]
    if not own:
        module = _behind_a_normalisation(module, given, state)
    from_file = load_state(module, state, path)
    said = given.normalize or split_spec(architecture)[1].get("statistics")
    assumed = settled(_layers(module), said, given.fallback, from_file, path)
    now = [normalize_text(layer) for layer in _layers(module)]
    return Built(
        module.eval(),
        canonical_architecture(architecture) if now == own else _text(architecture, now[0]),
        canonical_activation(given.activation),
        " ".join((*assumed, *_not_in_weights(architecture))),
    )


def _layers(module: nn.Module) -> list[Normalize]:
    from satbench.networks.normalize import Normalize

    return [layer for layer in module.modules() if isinstance(layer, Normalize)]


def _behind_a_normalisation(
    network: nn.Module, given: _Options, state: dict[str, Tensor]
) -> nn.Module:
    """Add a normalisation before a network without one, if the file or the user gives one."""
    from satbench.model_zoo.normaliser import normalisers
    from satbench.networks.normalize import parse_normalize

    found = normalisers(state)
    if said := given.normalize or given.fallback:
        mean, std = parse_normalize(said)
        return normalized(network, mean, std)
    channels = len(found[0].mean) if found else 0
    return normalized(network, (0.0,) * channels, (1.0,) * channels) if found else network


def settled(
    layers: list[Normalize], said: str | None, fallback: str | None, from_file: bool, path: Path
) -> list[str]:
    """Set the constants of the normalisation layers, and return what was assumed.

    The constants come from the file, else from the user (`said`), else from the `fallback` of a
    preset.  Raises SatbenchError if the user contradicts the file.
    """
    from satbench.networks.normalize import normalize_text, set_constants

    for layer in layers:
        if from_file:
            own = normalize_text(layer)
            if said:
                set_constants(layer, said)
            if said and normalize_text(layer) != own:
                raise SatbenchError(
                    f"the weights {path} include the normalisation of their training, "
                    f"{own}, which is not {said}: leave out --normalize"
                )
        elif said or fallback:
            set_constants(layer, said or fallback or "")
    if layers and not (from_file or said or fallback):
        return [f"normalize={normalize_text(layers[0])}"]
    return []


def _not_in_weights(architecture: str) -> list[str]:
    """Return the settings of an architecture that neither the weights nor the user give."""
    from satbench.networks import ARCHITECTURES
    from satbench.networks.build import canonical_architecture

    name, given = split_spec(architecture)
    own = split_spec(canonical_architecture(architecture))[1]
    names: tuple[str, ...] = getattr(ARCHITECTURES[name].load(), "not_in_weights", ())
    return [f"{one}={own[one]}" for one in names if one not in given]


def _text(architecture: str, normalisation: str) -> str:
    """Return an architecture's canonical text with this normalisation."""
    from satbench.networks.build import canonical_architecture
    from satbench.networks.normalize import Statistics

    canonical = canonical_architecture(architecture)
    name, own = split_spec(canonical)
    if "statistics" not in own or normalisation not in get_args(Statistics):
        return f"{canonical} normalised by {normalisation}"
    own["statistics"] = normalisation
    return f"{name}({','.join(f'{key}={value}' for key, value in own.items())})"
