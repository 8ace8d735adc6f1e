"""The networks of Xie et al., 2020, in TensorFlow 1, with its names and its padding.

Written for the tests from the names and the operations of the official code, channels last so that
they run on a CPU.  Each takes (N, S, S, 3) in [0, 255] and gives logits.

    python tests/sources/tensorflow_networks.py efficientnet-b0 224 PREFIX [averaged]
    python tests/sources/tensorflow_networks.py 'resnet(groups=32,width=4)' 224 PREFIX

saves a network with random weights at PREFIX, and its pixels and logits in PREFIX.npz.  It is a
program because TensorFlow and torch conflict in one process.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from satbench.core.specs import split_spec

Array = NDArray[np.float32]

HEAD = re.compile("linear/|dense/")
"""What the names of the last layer's weights have in them."""


def main() -> None:
    text, size, prefix = sys.argv[1:4]
    name, arguments = split_spec(text)
    networks = {"resnet": resnet, "efficientnet-b0": lambda: efficientnet_b0}
    values = {key: int(value) if value.isdigit() else value for key, value in arguments.items()}
    pixels = np.random.default_rng(1).integers(0, 256, (2, int(size), int(size), 3))
    logits = answers(
        networks[name](**values), pixels.astype(np.float32), Path(prefix), "averaged" in sys.argv
    )
    np.savez(f"{prefix}.npz", pixels=pixels.astype(np.float32), logits=logits)


def tensorflow() -> Any:
    """Return TensorFlow's old interface, with graphs and sessions."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow

    tensorflow.compat.v1.disable_eager_execution()
    return tensorflow.compat.v1


def answers(
    network: Callable[[Any, Any], Any], pixels: Array, prefix: Path, averaged: bool = False
) -> Array:
    """Return the logits of (N, S, S, 3) pixels by a random network that is saved at `prefix`.

    With `averaged`, its weights are saved as moving averages, next to other weights, a step counter
    and the state of an optimiser.
    """
    tf = tensorflow()
    rng = np.random.default_rng(0)
    with tf.Graph().as_default(), tf.Session() as session:
        images = tf.placeholder(tf.float32, pixels.shape)
        logits = network(tf, images * (2.0 / 255) - 1.0)
        weights = tf.global_variables()
        saved = {weight.op.name: weight for weight in weights}
        steps = tf.Variable(np.int64(7), name="global_step", trainable=False)
        memory = tf.Variable(np.ones(weights[0].shape, np.float32), name="memory")
        more = {"global_step": steps, f"{weights[0].op.name}/Momentum": memory}
        if averaged:
            copies = [tf.Variable(tf.zeros(weight.shape)) for weight in weights]
            names = [f"{name}/ExponentialMovingAverage" for name in saved]
            more |= dict(zip(names, copies, strict=True))
        values = {name: drawn(rng, name, weight.shape.as_list()) for name, weight in saved.items()}
        give(session, weights, list(values.values()))
        session.run([steps.initializer, memory.initializer])
        width = np.abs(session.run(logits, {images: pixels})).max() / 5
        for name in [name for name in values if HEAD.search(name)]:
            values[name] /= width  # logits are at most 5 for any activation
        give(session, weights, list(values.values()))
        result: Array = session.run(logits, {images: pixels})
        if averaged:
            give(session, copies, list(values.values()))
            give(session, weights, [value[::-1] for value in values.values()])
        tf.train.Saver(saved | more).save(session, str(prefix))
    return result


def give(session: Any, weights: list[Any], values: list[Array]) -> None:
    """Give all weights their values in one run of the graph."""
    feed = {weight.initial_value: value for weight, value in zip(weights, values, strict=True)}
    session.run([weight.initializer for weight in weights], feed)


def drawn(rng: np.random.Generator, name: str, shape: list[int]) -> Array:
    """Return random numbers for a weight, so that logits are some units wide."""
    kind = name.rpartition("/")[2]
    if "variance" in name or kind == "gamma":
        low = 0.1 if "conv3" in name else 0.5  # so that sums over blocks stay some units wide
        values = rng.uniform(low, 3 * low, shape)
    elif kind == "smoothrelu_beta":
        values = rng.uniform(1, 20, shape)
    elif len(shape) > 1 and max(shape[:-1]) > 1:
        values = rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)
    else:
        values = rng.normal(0, 0.2, shape)
    return values.astype(np.float32)


# ResNets and ResNeXts, by the names of tensorpack


def resnet(groups: int = 1, width: int = 64, activation: str = "silu") -> Callable[[Any, Any], Any]:
    """Return a ResNet-50 or ResNeXt-50 that pads by itself where its 3×3 convolutions stride."""

    def network(tf: Any, x: Any) -> Any:
        def weight(name: str, shape: list[int]) -> Any:
            return tf.get_variable(name, shape, use_resource=True)

        def act(h: Any) -> Any:
            if activation != "smooth-relu":
                return ACTIVATIONS[activation](tf, h)
            alpha = tf.square(weight("smoothrelu_beta", [1]))
            return tf.nn.relu(h - tf.math.log(tf.abs(h) * alpha + 1) / alpha)

        def convolution(
            name: str,
            h: Any,
            channels: int,
            kernel: int,
            stride: int = 1,
            split: int = 1,
            active: bool = True,
        ) -> Any:
            with tf.variable_scope(name):
                kernels = weight("W", [kernel, kernel, h.shape[-1] // split, channels])
                side = (kernel - 1) // 2
                if stride > 1:
                    h = tf.pad(h, [[0, 0], [side, side], [side, side], [0, 0]])
                parts = zip(tf.split(h, split, 3), tf.split(kernels, split, 3), strict=True)
                padding = "VALID" if stride > 1 else "SAME"
                h = tf.concat([tf.nn.conv2d(a, b, stride, padding) for a, b in parts], 3)
                with tf.variable_scope("bn"):
                    gamma, beta = weight("gamma", [channels]), weight("beta", [channels])
                    mean, variance = (weight(f"{n}/EMA", [channels]) for n in ("mean", "variance"))
                h = (h - mean) * gamma / tf.sqrt(variance + 1e-5) + beta
                return act(h) if active else h

        def block(h: Any, channels: int, stride: int) -> Any:
            inner = channels * (width * groups // 64)
            out = convolution("conv1", h, inner, 1)
            out = convolution("conv2", out, inner, 3, stride, groups)
            out = convolution("conv3", out, 4 * channels, 1, active=False)
            if h.shape[-1] != 4 * channels:
                h = convolution("convshortcut", h, 4 * channels, 1, stride, active=False)
            return act(out + h)

        h = convolution("conv0", x, 64, 7, 2)
        h = tf.nn.max_pool2d(h, 3, 2, "SAME")
        for group, count in enumerate((3, 4, 6, 3)):
            for place in range(count):
                with tf.variable_scope(f"group{group}/block{place}"):
                    h = block(h, 64 * 2**group, 2 if group and not place else 1)
        with tf.variable_scope("linear"):
            h = tf.reduce_mean(h, [1, 2])
            return h @ weight("W", [h.shape[-1], 1000]) + weight("b", [1000])

    return network


ACTIVATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "relu": lambda tf, x: tf.nn.relu(x),
    "silu": lambda tf, x: x * tf.sigmoid(x),
    "elu": lambda tf, x: tf.nn.elu(x),
    "softplus": lambda tf, x: tf.nn.softplus(x),
    "mish": lambda tf, x: x * tf.tanh(tf.nn.softplus(x)),
    "gelu": lambda tf, x: (
        0.5 * x * (1 + tf.tanh(np.float32(np.sqrt(2 / np.pi)) * (x + 0.044715 * tf.pow(x, 3))))
    ),
}


# EfficientNets, by the names of TensorFlow's models for TPUs


STAGES = (
    # layers, kernel, stride, expansion, channels out
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def efficientnet_b0(tf: Any, x: Any) -> Any:
    """EfficientNet-B0; every convolution pads as `SAME` does."""

    def act(h: Any) -> Any:
        return h * tf.sigmoid(h)

    def layer(
        name: str, h: Any, channels: int, kernel: int, stride: int = 1, bias: bool = False
    ) -> Any:
        with tf.variable_scope(name):
            kernels = tf.get_variable("kernel", [kernel, kernel, h.shape[-1], channels])
            h = tf.nn.conv2d(h, kernels, stride, "SAME")
            return h + tf.get_variable("bias", [channels]) if bias else h

    def depthwise(h: Any, kernel: int, stride: int) -> Any:
        with tf.variable_scope("depthwise_conv2d"):
            kernels = tf.get_variable("depthwise_kernel", [kernel, kernel, h.shape[-1], 1])
        return tf.nn.depthwise_conv2d(h, kernels, [1, stride, stride, 1], "SAME")

    def norm(number: int, h: Any) -> Any:
        shape = [1, 1, 1, 1, h.shape[-1]]
        with tf.variable_scope("tpu_batch_normalization" + (f"_{number}" if number else "")):
            names = ("gamma", "beta", "moving_mean", "moving_variance")
            gamma, beta, mean, variance = (
                tf.reshape(tf.get_variable(name, shape), [-1]) for name in names
            )
        return (h - mean) * gamma / tf.sqrt(variance + 1e-5) + beta

    def block(h: Any, kernel: int, stride: int, expansion: int, channels: int) -> Any:
        out, entered, wide = h, h.shape[-1], expansion > 1
        if wide:
            out = act(norm(0, layer("conv2d", out, entered * expansion, 1)))
        out = act(norm(int(wide), depthwise(out, kernel, stride)))
        with tf.variable_scope("se"):
            gate = tf.reduce_mean(out, [1, 2], keepdims=True)
            gate = act(layer("conv2d", gate, entered // 4, 1, bias=True))
            out = tf.sigmoid(layer("conv2d_1", gate, out.shape[-1], 1, bias=True)) * out
        out = norm(int(wide) + 1, layer("conv2d_1" if wide else "conv2d", out, channels, 1))
        return out + h if stride == 1 and entered == channels else out

    with tf.variable_scope("efficientnet-b0", use_resource=True):
        with tf.variable_scope("stem"):
            h = act(norm(0, layer("conv2d", x, 32, 3, 2)))
        number = 0
        for layers, kernel, stride, expansion, channels in STAGES:
            for place in range(layers):
                with tf.variable_scope(f"blocks_{number}"):
                    h = block(h, kernel, stride if not place else 1, expansion, channels)
                number += 1
        with tf.variable_scope("head"):
            h = tf.reduce_mean(act(norm(0, layer("conv2d", h, 1280, 1))), [1, 2])
            with tf.variable_scope("dense"):
                kernel = tf.get_variable("kernel", [1280, 1000])
                return h @ kernel + tf.get_variable("bias", [1000])


if __name__ == "__main__":
    main()
