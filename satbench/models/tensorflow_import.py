"""The conversion of a TensorFlow checkpoint of Xie et al., 2020, to safetensors with a card."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from satbench.core.digests import digest_file
from satbench.core.errors import SatbenchError
from satbench.core.specs import split_spec
from satbench.model_zoo.card import Card, write_card
from satbench.model_zoo.tensor_bundle import TensorBundle


@dataclass(frozen=True)
class ImportRequest:
    """The options of an import: the checkpoint, and the model that it becomes.

    `checkpoint` is the prefix of its files, or one of them.  `channels` is the order of colours
    that its network expects; `auto` is that of the official code: BGR for ResNets, RGB for
    EfficientNets. `averaged` chooses the moving averages of the weights or the weights, None if the
    checkpoint has one set.  `size` is the height and width of its images, None for the usual ones
    of the architecture.  Tensors whose names begin with one of `drop` are left out.  An empty
    `name` means that of the checkpoint.
    """

    checkpoint: Path
    architecture: str
    activation: str
    classes: int = 1000
    channels: Literal["auto", "rgb", "bgr"] = "auto"
    averaged: bool | None = None
    size: int | None = None
    drop: tuple[str, ...] = ()
    name: str = ""
    licence: str = ""


_FAMILIES = ("resnet", "resnext", "efficientnet")


def import_checkpoint(wanted: ImportRequest, out: Path) -> Path:
    """Write `out/NAME/NAME.safetensors` and its card; return the path of the card.

    The network takes RGB pixels in [0, 1] and pads like TensorFlow.  TensorFlow is not needed.
    Raises SatbenchError, and writes nothing, for a checkpoint that is missing, corrupt, or of
    another architecture or activation, and if a model of this name exists.
    """
    from satbench.model_zoo.fitting import load_state
    from satbench.model_zoo.tensor_bundle import open_bundle
    from satbench.model_zoo.tensorflow_names import layout_of, read_weights
    from satbench.model_zoo.weights import digest_weights, save_weights
    from satbench.models.user_zoo import check_answers
    from satbench.networks.build import (
        build_network,
        canonical_activation,
        canonical_architecture,
    )

    architecture = canonical_architecture(padded_as_tensorflow(wanted.architecture))
    bundle = open_bundle(wanted.checkpoint, wanted.drop)
    name = wanted.name or bundle.prefix.name
    path = out / name / f"{name}.json"
    if path.exists():
        raise SatbenchError(f"{path} exists already: give --name or --out, or remove it")
    network = build_network(architecture, wanted.activation, wanted.classes).eval()
    layout = layout_of(network)
    channels = layout.channels if wanted.channels == "auto" else wanted.channels
    load_state(network, read_weights(bundle, layout, channels, wanted.averaged), bundle.prefix)
    size = wanted.size or _usual_size(architecture)
    card = Card(
        name=name,
        architecture=architecture,
        activation=canonical_activation(wanted.activation),
        parameters=sum(p.numel() for p in network.parameters()),
        input_shape=(3, size, size),
        classes=wanted.classes,
        weights=f"{name}.safetensors",
        weights_digest=digest_weights(network),
        licence=wanted.licence,
        training=None,
        origin=_origin(bundle, channels, wanted.averaged),
    )
    check_answers(network, replace(card, input_shape=(3, 64, 64)))  # another size, a quick check
    save_weights(network, path.parent / card.weights, card)
    write_card(card, path)
    return path


def padded_as_tensorflow(architecture: str) -> str:
    """Return the spec of an architecture with TensorFlow's padding.

    >>> padded_as_tensorflow("resnet(depth=101)")
    'resnet(depth=101,padding=tensorflow)'

    Raises SatbenchError if it sets another padding, and for a family without TensorFlow
    checkpoints.
    """
    name, arguments = split_spec(architecture)
    if name not in _FAMILIES:
        raise SatbenchError(
            f"expected --arch {' or '.join(_FAMILIES)} for a checkpoint of TensorFlow, got {name}"
        )
    if arguments.get("padding", "tensorflow") != "tensorflow":
        raise SatbenchError(
            f"expected padding=tensorflow in {architecture}: the network of the checkpoint pads so"
        )
    shown = (f"{key}={value}" for key, value in {**arguments, "padding": "tensorflow"}.items())
    return f"{name}({','.join(shown)})"


def _usual_size(architecture: str) -> int:
    from satbench.networks.build import make_architecture

    size: int = getattr(make_architecture(architecture), "resolution", 224)
    return size


def _origin(bundle: TensorBundle, channels: str, averaged: bool | None) -> str:
    digests = [digest_file(path)[:16] for path in bundle.data_files()]
    parts = [
        f"converted from the TensorFlow checkpoint {bundle.prefix.name}",
        f"SHA-256 of its data {', '.join(digests)}…",
        f"its network took {channels.upper()}",
    ]
    if averaged is not None:
        parts.append("moving averages of the weights" if averaged else "weights as trained")
    return "; ".join(parts)
