"""The curves of activations follow their formulas."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from satbench.core.errors import SatbenchError
from satbench.engine.backward import Backward
from satbench.networks.registry import ACTIVATIONS
from satbench.studies.activation_shapes import activation_shape

Formula = Callable[[float], float]
X = (-4.0, -2.0, 0.0, 2.0, 4.0)


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def gauss(x: float) -> float:
    return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def below(x: float) -> float:
    return (1 + math.erf(x / math.sqrt(2))) / 2


FORMULAS: dict[str, tuple[Formula, Formula]] = {
    "relu": (lambda x: max(0.0, x), lambda x: float(x > 0)),
    "softplus": (lambda x: math.log1p(math.exp(x)), sigma),
    "parametric-softplus(alpha=2)": (
        lambda x: math.log1p(math.exp(2 * x)) / 2,
        lambda x: sigma(2 * x),
    ),
    "silu": (lambda x: x * sigma(x), lambda x: sigma(x) * (1 + x * (1 - sigma(x)))),
    "gelu(approximate=none)": (lambda x: x * below(x), lambda x: below(x) + x * gauss(x)),
    "elu(alpha=1.5)": (
        lambda x: x if x > 0 else 1.5 * math.expm1(x),
        lambda x: 1 if x > 0 else 1.5 * math.exp(x),
    ),
    "celu(alpha=1.5)": (
        lambda x: x if x > 0 else 1.5 * math.expm1(x / 1.5),
        lambda x: 1 if x > 0 else math.exp(x / 1.5),
    ),
    "smooth-relu": (
        lambda x: x - math.log1p(400 * x) / 400 if x > 0 else 0.0,
        lambda x: 400 * x / (1 + 400 * x) if x > 0 else 0.0,
    ),
    "leaky-relu(slope=0.1)": (lambda x: x if x > 0 else 0.1 * x, lambda x: 1 if x > 0 else 0.1),
}


@pytest.mark.parametrize("spec", FORMULAS)
def test_an_activation_and_its_derivative_equal_the_formula(spec: str) -> None:
    f, df = FORMULAS[spec]

    shape = activation_shape(spec, points=5)

    assert shape.x == X
    assert shape.f == pytest.approx([f(x) for x in X], abs=1e-6)
    assert shape.df == pytest.approx([df(x) for x in X], abs=1e-6)


def test_a_smooth_backward_keeps_relu_and_has_the_derivative_of_softplus() -> None:
    shape = activation_shape("relu", Backward(10), points=5)

    assert shape.f == (0, 0, 0, 2, 4)
    assert shape.df == pytest.approx([sigma(10 * x) for x in X], abs=1e-15)


def test_the_curve_of_section_3_2_has_the_forward_of_relu_and_the_derivative_of_softplus() -> None:
    backward = Backward(10)
    relu, softplus = map(activation_shape, ("relu", "parametric-softplus(alpha=10)"))
    mixed = activation_shape("relu", backward, f"relu, backward {backward}")

    assert mixed.name == "relu, backward softplus(10)"
    assert mixed.f == relu.f
    # beyond 20/10 torch uses the derivative 1 for softplus
    assert mixed.df == pytest.approx(softplus.df, abs=1e-8)
    assert relu.df != mixed.df


def test_every_registered_activation_has_a_curve_of_finite_numbers() -> None:
    names = [entry.name for entry in ACTIVATIONS]

    shapes = [activation_shape(name) for name in names]

    assert [shape.name for shape in shapes] == names
    assert all(len(shape.x) == len(shape.f) == len(shape.df) == 401 for shape in shapes)
    assert all(math.isfinite(value) for shape in shapes for value in (*shape.f, *shape.df))


@pytest.mark.parametrize("arguments", [{"limit": 0.0}, {"points": 1}])
def test_a_curve_needs_a_limit_above_0_and_two_points(arguments: dict[str, float]) -> None:
    with pytest.raises(SatbenchError, match="expected a limit above 0 and 2 or more points"):
        activation_shape("relu", **arguments)  # type: ignore[arg-type]
