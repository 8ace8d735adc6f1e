"""The activations: formula, slope, limits, half precision and what they learn."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from satbench.core.errors import SatbenchError
from satbench.engine.backward import Backward
from satbench.model_zoo.weights import load_weights, save_weights
from satbench.networks import ACTIVATIONS
from satbench.networks.activations import pssilu, smooth_relu
from satbench.networks.build import build_activation, build_network, canonical_activation

Curve = Callable[[NDArray[np.float64]], NDArray[np.float64]]

GRID = np.concatenate([np.linspace(-30, 30, 1202), [-6e4, -1e3, -1e-3, 1e-3, 1e3, 6e4]])

CANONICAL = {
    "relu": "relu",
    "softplus": "softplus",
    "parametric-softplus": "parametric-softplus(alpha=10)",
    "silu": "silu",
    "gelu": "gelu(approximate=tanh)",
    "gelu(approximate=none)": "gelu(approximate=none)",
    "elu": "elu(alpha=1)",
    "elu(alpha=1.8)": "elu(alpha=1.8)",
    "celu": "celu(alpha=1)",
    "celu(alpha=1.8)": "celu(alpha=1.8)",
    "smooth-relu": "smooth-relu(alpha=400,trainable=true)",
    "smooth-relu(trainable=false)": "smooth-relu(alpha=400,trainable=false)",
    "smooth-relu(alpha=200,trainable=false)": "smooth-relu(alpha=200,trainable=false)",
    "mish": "mish",
    "leaky-relu": "leaky-relu(slope=0.2)",
    "pssilu": "pssilu",
}
SPECS = sorted({*ACTIVATIONS.names(), *CANONICAL})
each_spec = pytest.mark.parametrize("spec", SPECS)


def sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(-np.logaddexp(0, -x))


def erf(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.vectorize(math.erf)(x)


def tanh_gelu(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x * sigmoid(np.sqrt(8 / np.pi) * (x + 0.044715 * x**3))


def tanh_gelu_slope(x: NDArray[np.float64]) -> NDArray[np.float64]:
    s = sigmoid(np.sqrt(8 / np.pi) * (x + 0.044715 * x**3))
    return s + x * s * (1 - s) * np.sqrt(8 / np.pi) * (1 + 3 * 0.044715 * x**2)


def mish_slope(x: NDArray[np.float64]) -> NDArray[np.float64]:
    t = np.tanh(np.logaddexp(0, x))
    return t + x * sigmoid(x) * (1 - t**2)


def below(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.minimum(x, 0)


def above(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(x, 0)


SILU: tuple[Curve, Curve] = (
    lambda x: x * sigmoid(x),
    lambda x: sigmoid(x) + x * sigmoid(x) * sigmoid(-x),
)
# Value and slope in float64, written without torch.
FORMULAS: dict[str, tuple[Curve, Curve]] = {
    "relu": (above, lambda x: 1.0 * (x > 0)),
    "softplus": (lambda x: np.logaddexp(0, x), sigmoid),
    "parametric-softplus": (
        lambda x: np.logaddexp(0, 10 * x) / 10,
        lambda x: sigmoid(10 * x),
    ),
    "silu": SILU,
    "gelu": (tanh_gelu, tanh_gelu_slope),
    "gelu(approximate=none)": (
        lambda x: x * (1 + erf(x / np.sqrt(2))) / 2,
        lambda x: (1 + erf(x / np.sqrt(2))) / 2 + x * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi),
    ),
    "elu": (lambda x: above(x) + np.expm1(below(x)), lambda x: np.exp(below(x))),
    "elu(alpha=1.8)": (
        lambda x: above(x) + 1.8 * np.expm1(below(x)),
        lambda x: np.where(x > 0, 1, 1.8 * np.exp(below(x))),
    ),
    "celu": (lambda x: above(x) + np.expm1(below(x)), lambda x: np.exp(below(x))),
    "celu(alpha=1.8)": (
        lambda x: above(x) + 1.8 * np.expm1(below(x) / 1.8),
        lambda x: np.exp(below(x) / 1.8),
    ),
    "smooth-relu": (
        lambda x: above(x) - np.log1p(400 * above(x)) / 400,
        lambda x: 400 * above(x) / (1 + 400 * above(x)),
    ),
    "smooth-relu(trainable=false)": (
        lambda x: above(x) - np.log1p(400 * above(x)) / 400,
        lambda x: 400 * above(x) / (1 + 400 * above(x)),
    ),
    "smooth-relu(alpha=200,trainable=false)": (
        lambda x: above(x) - np.log1p(200 * above(x)) / 200,
        lambda x: 200 * above(x) / (1 + 200 * above(x)),
    ),
    "mish": (lambda x: x * np.tanh(np.logaddexp(0, x)), mish_slope),
    "leaky-relu": (
        lambda x: above(x) + 0.2 * below(x),
        lambda x: np.where(x > 0, 1, 0.2),
    ),
    "pssilu": (
        lambda x: (SILU[0](x) - 1e-8 * x) / (1 - 1e-8),
        lambda x: (SILU[1](x) - 1e-8) / (1 - 1e-8),
    ),
}
# How much the slope falls short of continuous at 0.  All others are smooth.
JUMPS = {"relu": 1.0, "leaky-relu": 0.8, "elu(alpha=1.8)": -0.8}


def value_and_slope(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    value = module(x)
    (slope,) = torch.autograd.grad(value, x, torch.ones_like(value))
    return value.detach(), slope


def parameters(spec: str) -> int:
    return sum(p.numel() for p in build_network("tiny", spec, classes=10).parameters())


@each_spec
def test_value_and_slope_are_the_formula(spec: str) -> None:
    value, slope = value_and_slope(build_activation(spec)(), torch.from_numpy(GRID))

    # torch's softplus is x from αx = 20 on: 2e-9 off; its CELU rounds α to float32 in the backward
    np.testing.assert_allclose(value.numpy(), FORMULAS[spec][0](GRID), rtol=1e-10, atol=3e-9)
    np.testing.assert_allclose(slope.numpy(), FORMULAS[spec][1](GRID), rtol=0, atol=5e-8)


@each_spec
def test_the_slope_is_the_difference_of_values(spec: str) -> None:
    module, h = build_activation(spec)(), 1e-6
    x = torch.linspace(-5, 5, 100, dtype=torch.float64)  # 0 is no point of it
    with torch.no_grad():
        difference = (module(x + h) - module(x - h)) / (2 * h)

    torch.testing.assert_close(value_and_slope(module, x)[1], difference, rtol=0, atol=5e-8)


@each_spec
def test_the_slope_is_continuous_at_0_but_for_kinks_that_are_known(spec: str) -> None:
    h = 1e-10
    _, (left, right) = value_and_slope(
        build_activation(spec)(), torch.tensor([-h, h], dtype=torch.float64)
    )

    assert (right - left).item() == pytest.approx(JUMPS.get(spec, 0), abs=1e-7)


@pytest.mark.parametrize("alpha", [1, 1.2, 1.4, 1.6, 1.8, 2])
def test_the_slope_of_elu_jumps_by_1_less_alpha_and_that_of_celu_never(alpha: float) -> None:
    ends = torch.tensor([-1e-10, 1e-10], dtype=torch.float64)
    _, (left, right) = value_and_slope(build_activation(f"elu(alpha={alpha})")(), ends)
    _, (celu_left, celu_right) = value_and_slope(build_activation(f"celu(alpha={alpha})")(), ends)

    assert (right - left).item() == pytest.approx(1 - alpha, abs=1e-9)
    assert (celu_right - celu_left).item() == pytest.approx(0, abs=5e-8)


def test_celu_is_elu_at_alpha_1() -> None:
    x = torch.from_numpy(GRID)

    for celu, elu in zip(
        value_and_slope(build_activation("celu")(), x),
        value_and_slope(build_activation("elu")(), x),
        strict=True,
    ):
        assert torch.equal(celu, elu)


@pytest.mark.parametrize(
    ("spec", "off"),
    [
        ("parametric-softplus(alpha=1e8)", math.log(2) / 1e8),
        ("smooth-relu(alpha=1e12,trainable=false)", math.log1p(1e12 * 6e4) / 1e12),
        ("celu(alpha=1e-8)", 1e-8),
        ("leaky-relu(slope=0)", 0),
    ],
)
def test_the_limit_is_relu(spec: str, off: float) -> None:
    x = torch.from_numpy(GRID)

    torch.testing.assert_close(build_activation(spec)()(x), x.clamp_min(0), rtol=0, atol=1.01 * off)


@pytest.mark.parametrize(
    ("spec", "value", "slope"),
    [
        ("relu", 0, 0),
        ("softplus", 0, 0),
        ("parametric-softplus", 0, 0),
        ("silu", 0, 0),
        ("gelu", 0, 0),
        ("gelu(approximate=none)", 0, 0),
        ("elu(alpha=1.8)", -1.8, 0),
        ("celu(alpha=1.8)", -1.8, 0),
        ("smooth-relu", 0, 0),
        ("mish", 0, 0),
        ("leaky-relu", -2e5, 0.2),
        ("pssilu", 0.01, -1e-8),
    ],
)
def test_far_out_the_value_is_x_on_one_side_and_the_limit_on_the_other(
    spec: str, value: float, slope: float
) -> None:
    got = value_and_slope(build_activation(spec)(), torch.tensor([-1e6, 1e6], dtype=torch.float64))

    assert got[0].tolist() == pytest.approx([value, 1e6], rel=1e-6, abs=1e-30)
    assert got[1].tolist() == pytest.approx([slope, 1], rel=1e-6, abs=1e-30)


# Half precision


@each_spec
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32])
def test_a_narrow_type_is_kept_and_only_the_result_is_rounded(spec: str, kind: torch.dtype) -> None:
    x = torch.from_numpy(np.concatenate([GRID, [0.0, -0.0]])).to(kind)
    module = build_activation(spec)()
    value, slope = value_and_slope(module, x)
    expected_value, expected_slope = value_and_slope(module, x.double())

    assert value.dtype == slope.dtype == kind
    assert value.isfinite().all()
    assert slope.isfinite().all()
    eps = torch.finfo(kind).eps
    torch.testing.assert_close(value.double(), expected_value, rtol=eps, atol=1e-6)
    # 1 - σ and 1 - tanh² are left as differences by torch's own kernels
    torch.testing.assert_close(slope.double(), expected_slope, rtol=eps, atol=max(eps / 2, 1e-6))


@pytest.mark.parametrize("spec", ["smooth-relu", "pssilu"])
def test_a_model_in_half_precision_has_finite_gradients_of_its_parameters(spec: str) -> None:
    module = build_activation(spec)().half()
    module(torch.tensor([-6e4, -1, 0, 1e-3, 1, 6e4], dtype=torch.float16)).float().sum().backward()

    for parameter in module.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


# What is learned


def doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


POINTS = (-30.0, -2.0, -0.3, 0.01, 0.4, 3.0, 30.0)


def test_smooth_relu_has_the_gradient_of_b() -> None:
    assert torch.autograd.gradcheck(smooth_relu, (doubles(*POINTS), doubles(3.0)))


def test_smooth_relu_has_the_second_derivatives() -> None:
    assert torch.autograd.gradgradcheck(smooth_relu, (doubles(*POINTS), doubles(3.0)))


def test_the_gradient_of_b_is_2b_times_that_of_alpha() -> None:
    b, x, a = doubles(20.0), np.array([0.001, 0.3, 7.0]), 400
    smooth_relu(torch.tensor([-1, *x], dtype=torch.float64), b).sum().backward()

    by_alpha = np.log1p(a * x) / a**2 - x / (a * (1 + a * x))
    assert b.grad is not None
    assert b.grad.item() == pytest.approx(40 * by_alpha.sum(), rel=1e-9)


def test_smooth_relu_and_its_gradients_are_finite_where_b_passes_0() -> None:
    x, b = torch.linspace(-9, 9, 19).requires_grad_(), torch.zeros(1, requires_grad=True)
    value = smooth_relu(x, b)
    value.sum().backward()

    assert x.grad is not None
    assert b.grad is not None
    assert value.abs().max() < 1e-4
    assert x.grad.abs().max() < 1e-4
    assert b.grad.item() == 0


def test_smooth_relu_runs_under_vmap() -> None:
    x, b = torch.linspace(-1, 1, 6).reshape(3, 2), torch.tensor([20.0])

    mapped = torch.func.vmap(torch.func.grad(lambda row: smooth_relu(row, b).sum()))(x)

    torch.testing.assert_close(mapped, 400 * x.clamp_min(0) / (1 + 400 * x.clamp_min(0)))


@pytest.mark.parametrize(("a", "b"), [(1.0, 1e-8), (-1.5, 0.2), (0.7, -0.3)])
def test_pssilu_has_the_gradients_of_a_and_b(a: float, b: float) -> None:
    # by differences of 1e-9, which do not cross b = 0
    inputs = (doubles(*POINTS), doubles(a), doubles(b))

    assert torch.autograd.gradcheck(pssilu, inputs, eps=1e-9, atol=1e-5)


def test_pssilu_is_its_formula_at_other_parameters() -> None:
    x = torch.linspace(-4, 4, 9, dtype=torch.float64)

    got = pssilu(x, doubles(-1.5), doubles(-0.2))

    torch.testing.assert_close(got, x * (torch.sigmoid(1.5 * x) - 0.2) / 0.8)


def test_smooth_relu_learns_one_number_a_site() -> None:
    assert parameters("smooth-relu") == parameters("relu") + 4


def test_a_fixed_smooth_relu_learns_nothing_and_keeps_alpha_in_the_weights() -> None:
    module = build_activation("smooth-relu(alpha=225,trainable=false)")()

    assert list(module.parameters()) == []
    assert module.state_dict() == {"b": torch.tensor([15.0])}


def test_all_sites_of_a_network_share_what_pssilu_learns() -> None:
    assert parameters("pssilu") == parameters("relu") + 2


def test_two_networks_share_nothing_of_pssilu() -> None:
    first, second = (build_activation("pssilu")() for _ in range(2))

    assert not {*first.parameters()} & {*second.parameters()}


def test_a_network_with_pssilu_goes_through_a_file_and_a_copy_and_still_shares(
    tmp_path: Path,
) -> None:
    source, target = (build_network("tiny", "pssilu", classes=10) for _ in range(2))
    with torch.no_grad():
        source.get_parameter("3.a").fill_(1.7)
    save_weights(source, tmp_path / "w.safetensors")
    load_weights(target, tmp_path / "w.safetensors")
    target = copy.deepcopy(target)

    assert [p.item() for n, p in target.named_parameters() if n.endswith(".a")] == [
        pytest.approx(1.7)
    ]
    assert sum(p.numel() for p in target.parameters()) == parameters("pssilu")


@each_spec
def test_weight_decay_on_matrices_excludes_activations(spec: str) -> None:
    assert all(p.shape == (1,) for p in build_activation(spec)().parameters())


@each_spec
def test_an_activation_draws_no_random_numbers(spec: str) -> None:
    before = torch.get_rng_state()
    build_activation(spec)()

    assert torch.equal(torch.get_rng_state(), before)


# Specs


@each_spec
def test_the_canonical_text_is_the_published_one(spec: str) -> None:
    assert canonical_activation(spec) == CANONICAL[spec]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("elu(alpha=0)", "elu: expected alpha above 0 and finite, got 0"),
        ("celu(alpha=-1)", "celu: expected alpha above 0 and finite, got -1"),
        (
            "smooth-relu(alpha=inf)",
            "smooth-relu(alpha=…): expected a number up to 1e+30, got 'inf'",
        ),
        (
            "smooth-relu(alpha=nan)",
            "smooth-relu(alpha=…): expected a number up to 1e+30, got 'nan'",
        ),
        ("leaky-relu(slope=1)", "leaky-relu: expected a slope in [0, 1), got 1"),
    ],
)
def test_a_parameter_out_of_range_is_refused(spec: str, message: str) -> None:
    with pytest.raises(SatbenchError) as caught:
        build_activation(spec)

    assert str(caught.value) == message


# The paper's operator: the forward stays, the backward is that of parametric softplus


class _Operator(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return value.clone()

    @staticmethod
    def backward(
        ctx: torch.autograd.function.NestedIOFunction, grad: Tensor
    ) -> tuple[Tensor, None]:
        return grad / (1 + torch.exp(-10 * ctx.saved_tensors[0])), None


class Operator(nn.Module):
    """An activation with σ(10x) for its slope."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        value: Tensor = _Operator.apply(x, self.activation(x.detach()).detach())
        return value


@each_spec
def test_the_softplus_backward_keeps_the_logits_of_a_network_and_takes_its_slopes(
    spec: str,
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = build_network("tiny(width=2)", spec, classes=3).eval().requires_grad_(False)
    kind = type(build_activation(spec)())
    assert isinstance(net, nn.Sequential)
    parts = [Operator(part) if isinstance(part, kind) else part for part in net]
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()

    with Backward(10).applied():
        logits = net(x)
    (grad,) = torch.autograd.grad(logits[:, 0].sum(), x)
    (expected,) = torch.autograd.grad(nn.Sequential(*parts)(x)[:, 0].sum(), x)

    assert sum(isinstance(part, Operator) for part in parts) == 4
    assert torch.equal(logits, net(x))
    torch.testing.assert_close(grad, expected)


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:FutureWarning")  # torch's own, in jvp
@pytest.mark.parametrize("trained", [True, False])
def test_smooth_relu_has_forward_derivatives_and_hessians(trained: bool) -> None:
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)
    b = torch.tensor([1.7], dtype=torch.float64)

    def plain(x: Tensor, b: Tensor) -> Tensor:
        positive = x.clamp_min(0)
        return positive - torch.log1p(b**2 * positive) / b**2

    moved = (torch.ones_like(x), torch.full_like(b, 0.3 * trained))
    expected, got = (torch.func.jvp(f, (x, b), moved)[1] for f in (plain, smooth_relu))
    bends = [
        torch.func.hessian(lambda z, f=f: f(z, b).sum())(x + 0.1) for f in (plain, smooth_relu)
    ]

    assert torch.allclose(expected, got)
    assert torch.allclose(*bends)
