"""Replacements of layers in searches (BPDA), from `LAYER=PACKAGE.MODULE:FACTORY` to modules.

`satbench.engine.bpda` describes what they do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from satbench.core.digests import digest_json
from satbench.core.errors import SatbenchError
from satbench.models import make_module

if TYPE_CHECKING:
    from torch import nn

IDENTITY = "identity"
"""The replacement that passes the gradient through unchanged."""

_WANTED = "--bpda LAYER=identity or LAYER=PACKAGE.MODULE:FACTORY"


@dataclass(frozen=True)
class Replacement:
    """A module that replaces a layer in backward passes; `text` describes it in the record."""

    text: str
    module: nn.Module


def parse_bpda(texts: Sequence[str]) -> dict[str, str]:
    """Read texts `LAYER=TARGET`.  -> layer to `identity` or `package.module:factory`.

    Imports no torch.  Raises SatbenchError for another form, and for a layer named twice.
    """
    wanted: dict[str, str] = {}
    for text in texts:
        layer, _, target = (part.strip() for part in text.partition("="))
        module, _, factory = target.partition(":")
        if not layer or not (target == IDENTITY or (module and factory)):
            raise SatbenchError(f"expected {_WANTED}, got {text!r}")
        if layer in wanted:
            raise SatbenchError(f"--bpda names the layer {layer!r} twice")
        wanted[layer] = target
    return wanted


def load_replacements(wanted: Mapping[str, str | nn.Module]) -> dict[str, Replacement]:
    """Make the replacements from `identity`, the name of a factory, or a module.

    Raises SatbenchError for anything else, and for a factory that does not make a module.
    """
    return {layer: _load(layer, target) for layer, target in wanted.items()}


def _load(layer: str, target: str | nn.Module) -> Replacement:
    from torch import nn

    if isinstance(target, nn.Module):
        return Replacement(_described(target), target)
    if not isinstance(target, str):
        raise SatbenchError(
            f"expected a torch.nn.Module, 'identity' or 'package.module:factory' in place of the "
            f"layer {layer!r}, got {type(target).__name__}"
        )
    (name,) = parse_bpda([f"{layer}={target}"]).values()
    return Replacement(name, nn.Identity() if name == IDENTITY else make_module(name, _WANTED))


def _described(module: nn.Module) -> str:
    """Return a text that identifies a module: its class and the digest of its repr and weights."""
    from satbench.model_zoo.weights import digest_weights

    kind = type(module)
    digest = digest_json([repr(module), digest_weights(module)])
    return f"{kind.__module__}.{kind.__qualname__}@{digest[:12]}"
