"""timm's names for EfficientNets and ResNets, and for each of their weights."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from satbench.core.specs import split_spec

_DEPTHWISE = {"0": ("conv_dw", "bn1"), "2": ("conv_pw", "bn2")}
_INVERTED = {"0": ("conv_pw", "bn1"), "1": ("conv_dw", "bn2"), "3": ("conv_pwl", "bn3")}
_EXCITATION = {"fc1": "se.conv_reduce", "fc2": "se.conv_expand"}
_OWN_ACTIVATION = {"efficientnet": "silu", "resnet": "relu"}


def timm_model_name(architecture: str, activation: str) -> str:
    """Return timm's name of a network, or "" if timm has none with this activation.

    >>> timm_model_name("efficientnet(variant=b0,statistics=sat)", "silu")
    'efficientnet_b0'
    """
    name, arguments = split_spec(architecture)
    if activation != _OWN_ACTIVATION.get(name):
        return ""
    if name == "resnet":
        return f"resnet{arguments['depth']}"
    # timm has no L1 of these widths.  Its B5 to B7 have another epsilon in batch-norm.
    return f"efficientnet_{arguments['variant']}" if arguments["variant"] < "b5" else ""


def timm_state(architecture: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights under timm's names, without the constants of the normalisation."""
    renamed = _efficientnet_name if architecture.startswith("efficientnet") else str
    return {
        renamed(name): value for name, value in state.items() if not name.startswith("normalize.")
    }


def _efficientnet_name(name: str) -> str:
    """Return timm's name for one of torchvision's, such as `features.1.0.block.0.0.weight`."""
    for pattern, ours in (
        (r"features\.0\.0\.(.*)", "conv_stem."),
        (r"features\.0\.1\.(.*)", "bn1."),
        (r"features\.8\.0\.(.*)", "conv_head."),
        (r"features\.8\.1\.(.*)", "bn2."),
        (r"classifier\.1\.(.*)", "classifier."),
    ):
        if found := re.fullmatch(pattern, name):
            return ours + found[1]
    found = re.fullmatch(r"features\.(\d)\.(\d+)\.block\.(\d)\.(\w+)\.(.*)", name)
    if not found:
        return name
    stage, layer, place, inner, rest = found.groups()
    prefix = f"blocks.{int(stage) - 1}.{layer}."
    if inner in _EXCITATION:
        return f"{prefix}{_EXCITATION[inner]}.{rest}"
    # Blocks of the first stage have no expansion, so one convolution less.
    names = (_DEPTHWISE if stage == "1" else _INVERTED)[place]
    return f"{prefix}{names[int(inner)]}.{rest}"
