"""The contract of every card, architecture and activation in the registries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import norm
from torch import Tensor, nn

from satbench.data import Dataset
from satbench.model_zoo.card import read_card, weights_path, write_card, zoo_card, zoo_names
from satbench.model_zoo.weights import digest_weights, load_weights, save_weights
from satbench.models import load_model, request_model
from satbench.networks import ACTIVATIONS, ARCHITECTURES
from satbench.networks.build import (
    build_activation,
    build_network,
    canonical_activation,
    canonical_architecture,
)

Curve = Callable[[NDArray[np.float64]], NDArray[np.float64]]

GRID = np.linspace(-20, 20, 4001)


def sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-x))


def tanh_gelu(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2


def tanh_gelu_slope(x: NDArray[np.float64]) -> NDArray[np.float64]:
    inner, inner_slope = x + 0.044715 * x**3, 1 + 3 * 0.044715 * x**2
    t = np.tanh(np.sqrt(2 / np.pi) * inner)
    return (1 + t) / 2 + x * (1 - t**2) * np.sqrt(2 / np.pi) * inner_slope / 2


def softplus(alpha: float) -> tuple[Curve, Curve]:
    return lambda x: np.logaddexp(0, alpha * x) / alpha, lambda x: sigmoid(alpha * x)


def exponential(alpha: float, scale: float) -> tuple[Curve, Curve]:
    return (
        lambda x: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0) / scale)),
        lambda x: np.where(x > 0, 1, alpha / scale * np.exp(np.minimum(x, 0) / scale)),
    )


def smooth_relu(alpha: float) -> tuple[Curve, Curve]:
    def scaled(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return alpha * np.maximum(x, 0)

    return (
        lambda x: (scaled(x) - np.log1p(scaled(x))) / alpha,
        lambda x: scaled(x) / (1 + scaled(x)),
    )


def leaky_relu(slope: float) -> tuple[Curve, Curve]:
    return lambda x: np.where(x > 0, x, slope * x), lambda x: np.where(x > 0, 1, slope)


# Formula and derivative in float64, from the papers.  A new activation needs its line.
CLOSED_FORMS: dict[str, tuple[Curve, Curve]] = {
    "relu": (lambda x: np.maximum(x, 0), lambda x: (x > 0).astype(np.float64)),
    "silu": (
        lambda x: x * sigmoid(x),
        lambda x: sigmoid(x) * (1 + x * (1 - sigmoid(x))),
    ),
    "gelu": (tanh_gelu, tanh_gelu_slope),
    "gelu(approximate=none)": (
        lambda x: x * norm.cdf(x),
        lambda x: norm.cdf(x) + x * norm.pdf(x),
    ),
    "parametric-softplus": softplus(10),
    "parametric-softplus(alpha=2.5)": softplus(2.5),
    "softplus": softplus(1),
    "elu": exponential(1, 1),
    "elu(alpha=1.8)": exponential(1.8, 1),
    "celu": exponential(1, 1),
    "celu(alpha=1.8)": exponential(1.8, 1.8),
    "smooth-relu": smooth_relu(400),
    "smooth-relu(alpha=50,trainable=false)": smooth_relu(50),
    "mish": (
        lambda x: x * np.tanh(np.logaddexp(0, x)),
        lambda x: np.tanh(np.logaddexp(0, x)) + x * sigmoid(x) / np.cosh(np.logaddexp(0, x)) ** 2,
    ),
    "leaky-relu": leaky_relu(0.2),
    "leaky-relu(slope=0.01)": leaky_relu(0.01),
    "pssilu": (  # as it starts: SiLU to 1e-8
        lambda x: x * sigmoid(x),
        lambda x: sigmoid(x) * (1 + x * (1 - sigmoid(x))),
    ),
}
ACTIVATION_SPECS = sorted({*ACTIVATIONS.names(), *CLOSED_FORMS})


def tensor_of(values: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))


def input_gradient(model: nn.Module, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(model(x)[:, 0].sum(), x)
    return grad


# Activations


@pytest.mark.parametrize("spec", ACTIVATION_SPECS)
def test_an_activation_is_its_formula(spec: str) -> None:
    got = build_activation(spec)()(tensor_of(GRID)).detach().double().numpy()

    np.testing.assert_allclose(got, CLOSED_FORMS[spec][0](GRID), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("spec", ACTIVATION_SPECS)
def test_the_slope_of_an_activation_is_its_derivative(spec: str) -> None:
    x = tensor_of(GRID).requires_grad_()
    (slope,) = torch.autograd.grad(build_activation(spec)()(x).sum(), x)

    np.testing.assert_allclose(
        slope.double().numpy(), CLOSED_FORMS[spec][1](GRID), rtol=1e-5, atol=3e-6
    )


def test_each_site_of_a_network_has_an_activation_of_its_own() -> None:
    makers = {spec: build_activation(spec) for spec in ACTIVATION_SPECS}

    assert [spec for spec, make in makers.items() if make() is make()] == []


def test_the_canonical_text_of_an_activation_is_its_own() -> None:
    for spec in ACTIVATION_SPECS:
        canonical = canonical_activation(spec)
        assert canonical_activation(canonical) == canonical
        assert build_activation(canonical) == build_activation(spec)


# Architectures

# Those that 28×28 grey images suit; tests/model_zoo holds every architecture to the same.
GREY = ["tiny", "small"]


@pytest.mark.sampled(11)
@pytest.mark.usefixtures("shapes_checked")
@pytest.mark.parametrize("activation", ACTIVATIONS.names())
@pytest.mark.parametrize("architecture", GREY)
def test_forward_and_backward_are_finite(architecture: str, activation: str) -> None:
    with torch.random.fork_rng():
        model = build_network(architecture, activation, classes=7)
    x = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))

    logits = model(x)
    logits.square().sum().backward()

    assert logits.shape == (4, 7)
    assert logits.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("architecture", GREY)
def test_the_same_seed_gives_the_same_first_weights_whatever_the_activation(
    architecture: str,
) -> None:
    states = []
    for activation in ACTIVATIONS.names():
        with torch.random.fork_rng():
            torch.manual_seed(3)
            states.append(build_network(architecture, activation, classes=10).state_dict())

    first = states[0]
    assert all(
        torch.equal(state[name], tensor)
        for state in states[1:]
        for name, tensor in first.items()
        if name in state
    )


@pytest.mark.sampled(11)
@pytest.mark.parametrize("activation", ACTIVATIONS.names())
@pytest.mark.parametrize("architecture", GREY)
def test_weights_survive_a_file(architecture: str, activation: str, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        first, second = (build_network(architecture, activation, classes=3) for _ in range(2))
    save_weights(first, tmp_path / "w.safetensors")
    load_weights(second, tmp_path / "w.safetensors")

    assert digest_weights(second) == digest_weights(first)


def test_the_canonical_text_of_an_architecture_is_its_own() -> None:
    canonical = [canonical_architecture(name) for name in ARCHITECTURES.names()]

    assert [canonical_architecture(text) for text in canonical] == canonical


# Cards


def test_there_are_shipped_models() -> None:
    assert zoo_names() != []


@pytest.mark.sampled(14)
@pytest.mark.parametrize("name", zoo_names())
def test_a_shipped_model_is_the_one_that_its_card_tells_of(name: str, tmp_path: Path) -> None:
    card, model = zoo_card(name), load_model(request_model(name), classes=10).module

    assert digest_weights(model) == card.weights_digest
    assert sum(p.numel() for p in model.parameters()) == card.parameters
    assert card.name == name
    assert weights_path(card).name == card.weights
    assert card.architecture == canonical_architecture(card.architecture)
    assert card.activation == canonical_activation(card.activation)

    write_card(card, tmp_path / f"{name}.json")
    assert read_card(tmp_path / f"{name}.json") == card


@pytest.mark.sampled(14)
@pytest.mark.parametrize("name", zoo_names())
def test_a_shipped_model_answers_each_image_finitely_and_rightly(
    name: str, fashion: Dataset
) -> None:
    card, model = zoo_card(name), load_model(request_model(name), classes=10).module
    x = torch.from_numpy(fashion.pixels(np.arange(200)))
    with torch.no_grad():
        logits, again = model(x), model(x)
        one_by_one = torch.cat([model(image[None]) for image in x[:8]])
    grad = input_gradient(model, x[:8])

    assert tuple(x.shape[1:]) == card.input_shape
    assert (logits.shape, logits.dtype) == ((200, card.classes), torch.float32)
    assert logits.isfinite().all()
    assert torch.equal(again, logits)
    torch.testing.assert_close(one_by_one, logits[:8])
    assert grad.isfinite().all()
    assert (grad.flatten(1).abs().sum(1) > 0).all()  # it reaches every image
    assert card.training
    # Four standard errors of a share of 200 images are 14 points at most.
    expected = card.training.held_out["clean"]
    assert abs((logits.argmax(1).numpy() == fashion.labels).mean() - expected) < 0.14
