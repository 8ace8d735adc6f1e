"""The names of a network's weights in a TensorFlow checkpoint of Xie et al., 2020.

ResNets and ResNeXts have the names of tensorpack (`group0/block0/conv1/W`), EfficientNets those of
TensorFlow's TPU models (`efficientnet-b0/blocks_0/depthwise_conv2d/depthwise_kernel`), as in
https://github.com/cihangxie/SmoothAdversarialTraining.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models import efficientnet, resnet

from satbench.core.errors import SatbenchError
from satbench.model_zoo.tensor_bundle import TensorBundle
from satbench.networks.activations import SmoothReLUModule
from satbench.networks.normalize import Normalize

Array = NDArray[np.float32]
Channels = Literal["rgb", "bgr"]

_AVERAGE = "/ExponentialMovingAverage"


@dataclass(frozen=True)
class Layout:
    """The names of a family of networks.

    `origins` maps each weight of the network to its name in the checkpoint and the change of its
    layout.  `stem` is the kernel of the first convolution, `channels` the order of its input
    channels.
    """

    origins: dict[str, tuple[str, Callable[[Array], Array]]]
    stem: str
    channels: Channels


def layout_of(network: nn.Module) -> Layout:
    """Return the names of a zoo network's weights in a checkpoint of its family.

    Raises SatbenchError for an activation whose parameters no checkpoint has, and TypeError for a
    network that is not a ResNet, ResNeXt or EfficientNet.
    """
    if isinstance(network, resnet.ResNet):
        layout = Layout(dict(_of_tensorpack(network)), "conv0/W", "bgr")
    elif isinstance(network, efficientnet.EfficientNet):
        layout = Layout(dict(_of_tpu(network)), "stem/conv2d/kernel", "rgb")
    else:
        raise TypeError(f"expected a network of the zoo's families, got {type(network).__name__}")
    if missing := _weights(network) - layout.origins.keys():
        raise SatbenchError(
            f"TensorFlow checkpoints have no weight for {min(missing)}: check --activation"
        )
    return layout


def read_weights(
    bundle: TensorBundle, layout: Layout, channels: Channels, averaged: bool | None = None
) -> dict[str, Tensor]:
    """Read a network's weights, with torch's names and layout.

    `channels` is the channel order of the checkpoint's network.  The first convolution is
    reordered, so that the network takes RGB.  `averaged` selects the moving averages of the weights
    or the weights as trained; it is needed if a checkpoint has both.  Raises SatbenchError if it is
    needed and not given, and for weights that are missing or left over.
    """
    scope = _scope(bundle, layout.stem)
    averaged = _which(bundle, f"{scope}{layout.stem}", averaged)
    ending = _AVERAGE if averaged else ""
    names = {name: f"{scope}{theirs}" for name, (theirs, _) in layout.origins.items()}
    _check_complete(bundle, set(names.values()), ending)
    state = {}
    for name, (theirs, turned) in layout.origins.items():
        array = turned(bundle.read(f"{names[name]}{ending}"))
        if theirs == layout.stem and channels == "bgr":
            array = array[:, ::-1]
        state[name] = torch.from_numpy(np.ascontiguousarray(array))
    return state


def _weights(network: nn.Module) -> set[str]:
    """Return the names of the weights that a checkpoint must have."""
    constants = [name for name, part in network.named_modules() if isinstance(part, Normalize)]
    return {
        name
        for name in network.state_dict()
        if name.rpartition(".")[0] not in constants and not name.endswith("num_batches_tracked")
    }


# In the checkpoint


def _scope(bundle: TensorBundle, stem: str) -> str:
    """Return the prefix of the network's names, such as `efficientnet-b0/`."""
    scopes = [
        name.removesuffix(stem)
        for name in bundle.entries
        if name == stem or name.endswith(f"/{stem}")
    ]
    if len(scopes) != 1:
        some = ", ".join(sorted(bundle.entries)[:4])
        raise SatbenchError(
            f"expected one network with a weight {stem} in {bundle.prefix}, found {len(scopes)} "
            f"among {some}, …: check --arch"
        )
    return scopes[0]


def _which(bundle: TensorBundle, stem: str, averaged: bool | None) -> bool:
    there = f"{stem}{_AVERAGE}" in bundle.entries
    if there and averaged is None:
        raise SatbenchError(
            f"{bundle.prefix} holds the weights as trained and their moving averages, and they "
            "give different results: give --averaged or --as-trained"
        )
    if averaged and not there:
        raise SatbenchError(f"{bundle.prefix} holds no moving averages of its weights")
    return bool(averaged)


def _check_complete(bundle: TensorBundle, names: set[str], ending: str) -> None:
    lacking = sorted(name for name in names if f"{name}{ending}" not in bundle.entries)
    over = sorted(
        name for name, entry in bundle.entries.items() if entry.shape and _over(name, names)
    )
    if lacking or over:
        parts = [("lacks", lacking), ("has also", over)]
        said = " and ".join(
            f"{verb} {len(some)} weights such as {', '.join(some[:3])}"
            for verb, some in parts
            if some
        )
        cause = "--activation" if any("smoothrelu" in name for name in lacking + over) else "--arch"
        raise SatbenchError(f"the checkpoint {bundle.prefix} {said}: check {cause}")


def _over(name: str, names: set[str]) -> bool:
    """Return whether a tensor is neither a weight nor an optimiser's state, such as W/Momentum."""
    parts = name.split("/")
    return not any("/".join(parts[:end]) in names for end in range(1, len(parts) + 1))


# The names


def _convolution(kernel: Array) -> Array:
    return kernel.transpose(3, 2, 0, 1)  # height, width, in, out


def _depthwise(kernel: Array) -> Array:
    return kernel.transpose(2, 3, 0, 1)  # height, width, channels, 1


def _dense(kernel: Array) -> Array:
    return kernel.transpose()


def _flat(values: Array) -> Array:
    return values.reshape(-1)  # TPU models store (1, 1, 1, 1, C)


Origins = Iterator[tuple[str, tuple[str, Callable[[Array], Array]]]]


def _of_tensorpack(network: resnet.ResNet) -> Origins:
    yield from _convolved("conv1", "bn1", "conv0")
    yield from _activated("relu", network.relu, "conv0")
    for number, group in enumerate(("layer1", "layer2", "layer3", "layer4")):
        for place, block in getattr(network, group).named_children():
            here, there = f"{group}.{place}", f"group{number}/block{place}"
            count = len([name for name, _ in block.named_children() if name.startswith("conv")])
            for i in range(1, count + 1):
                yield from _convolved(f"{here}.conv{i}", f"{here}.bn{i}", f"{there}/conv{i}")
                last = there if i == count else f"{there}/conv{i}"
                yield from _activated(f"{here}.act{i}", getattr(block, f"act{i}"), last)
            if block.downsample is not None:
                shortcut = f"{here}.downsample"
                yield from _convolved(f"{shortcut}.0", f"{shortcut}.1", f"{there}/convshortcut")
    yield "fc.weight", ("linear/W", _dense)
    yield "fc.bias", ("linear/b", _flat)


def _convolved(convolution: str, norm: str, there: str) -> Origins:
    yield f"{convolution}.weight", (f"{there}/W", _convolution)
    names = {
        "weight": "gamma",
        "bias": "beta",
        "running_mean": "mean/EMA",
        "running_var": "variance/EMA",
    }
    for ours, theirs in names.items():
        yield f"{norm}.{ours}", (f"{there}/bn/{theirs}", _flat)


def _activated(name: str, activation: nn.Module, there: str) -> Origins:
    if isinstance(activation, SmoothReLUModule):
        yield f"{name}.b", (f"{there}/smoothrelu_beta", _flat)


def _of_tpu(network: efficientnet.EfficientNet) -> Origins:
    head = len(network.features) - 1
    yield from _named(network.features[0], "features.0", _Counter("stem"))
    blocks = [
        f"features.{stage}.{place}.block"
        for stage in range(1, head)
        for place, _ in network.get_submodule(f"features.{stage}").named_children()
    ]
    for number, here in enumerate(blocks):
        counter = _Counter(f"blocks_{number}")
        for place, part in network.get_submodule(here).named_children():
            yield from _named(part, f"{here}.{place}", counter)
    yield from _named(network.features[head], f"features.{head}", _Counter("head"))
    yield "classifier.1.weight", ("head/dense/kernel", _dense)
    yield "classifier.1.bias", ("head/dense/bias", _flat)


class _Counter:
    """Generates TensorFlow's names of layers in a scope: `conv2d`, `conv2d_1`, …."""

    def __init__(self, scope: str) -> None:
        self._scope = scope
        self._seen: dict[str, int] = {}

    def __call__(self, kind: str) -> str:
        number = self._seen.get(kind, 0)
        self._seen[kind] = number + 1
        return f"{self._scope}/{kind}" + (f"_{number}" if number else "")


def _named(part: nn.Module, here: str, name: _Counter) -> Origins:
    """Yield the origins of one part of a block; layers are numbered in the order of their calls."""
    if isinstance(part, efficientnet.SqueezeExcitation):
        inner = _Counter(f"{name('se')}")
        for layer in ("fc1", "fc2"):
            there = inner("conv2d")
            yield f"{here}.{layer}.weight", (f"{there}/kernel", _convolution)
            yield f"{here}.{layer}.bias", (f"{there}/bias", _flat)
        return
    if dict(part.named_children())["0"].groups != 1:
        yield f"{here}.0.weight", (f"{name('depthwise_conv2d')}/depthwise_kernel", _depthwise)
    else:
        yield f"{here}.0.weight", (f"{name('conv2d')}/kernel", _convolution)
    there = name("tpu_batch_normalization")
    names = {
        "weight": "gamma",
        "bias": "beta",
        "running_mean": "moving_mean",
        "running_var": "moving_variance",
    }
    for ours, theirs in names.items():
        yield f"{here}.1.{ours}", (f"{there}/{theirs}", _flat)
