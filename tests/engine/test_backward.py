"""The softplus backward: values are those of the model, gradients those of softplus."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from satbench.core.errors import SatbenchError
from satbench.engine.backward import Backward
from satbench.networks.build import build_activation

Function = Callable[[Tensor], Tensor]

MODULES: dict[str, Function] = {
    "ReLU": nn.ReLU(),
    "ReLU in place": nn.ReLU(inplace=True),
    "ReLU6": nn.ReLU6(),
    "ReLU6 in place": nn.ReLU6(inplace=True),
    "LeakyReLU": nn.LeakyReLU(0.1),
    "LeakyReLU in place": nn.LeakyReLU(0.1, inplace=True),
    "RReLU": nn.RReLU().eval(),
    "SiLU": nn.SiLU(),
    "SiLU in place": nn.SiLU(inplace=True),
    "GELU": nn.GELU(),
    "GELU tanh": nn.GELU(approximate="tanh"),
    "Mish": nn.Mish(),
    "ELU": nn.ELU(0.7),
    "ELU in place": nn.ELU(0.7, inplace=True),
    "CELU": nn.CELU(0.7),
    "SELU": nn.SELU(),
    "Softplus": nn.Softplus(beta=3),
    "Hardswish": nn.Hardswish(),
    "the zoo's SmoothReLU": build_activation("smooth-relu")(),
    "the zoo's PSSiLU": build_activation("pssilu")(),
}
CALLS: dict[str, Function] = {
    "F.relu": F.relu,
    "F.relu(inplace)": lambda x: F.relu(x, inplace=True),
    "F.relu(input=)": lambda x: F.relu(input=x),
    "F.relu_": F.relu_,
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "Tensor.relu": lambda x: x.relu(),
    "Tensor.relu_": lambda x: x.relu_(),
    "F.leaky_relu_": lambda x: F.leaky_relu_(x, 0.2),
    "F.relu6": F.relu6,
    "F.hardtanh(min_val=0)": lambda x: F.hardtanh(x, min_val=0, max_val=6),
    "F.silu": F.silu,
    "F.gelu": F.gelu,
    "F.elu_": F.elu_,
    "F.celu_": F.celu_,
    "F.selu_": F.selu_,
}
each_activation = pytest.mark.parametrize(
    "activation",
    [pytest.param(function, id=name) for name, function in {**MODULES, **CALLS}.items()],
)


def points() -> Tensor:
    return torch.linspace(-4, 8, 25)


def value_and_grad(function: Function, alpha: float | None) -> tuple[Tensor, Tensor]:
    leaf = points().requires_grad_()
    with Backward(alpha).applied():
        value = function(leaf * 1)  # autograd forbids writing into the leaf itself
    (grad,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), grad


@each_activation
def test_an_activation_keeps_its_value(activation: Function) -> None:
    value, _ = value_and_grad(activation, 10)

    assert torch.equal(value, activation(points()))


@each_activation
def test_an_activation_has_the_gradient_of_softplus(activation: Function) -> None:
    _, grad = value_and_grad(activation, 10)

    torch.testing.assert_close(grad, torch.sigmoid(10 * points()))


def test_alpha_has_the_meaning_of_the_parametric_softplus() -> None:
    x = points().requires_grad_()
    (expected,) = torch.autograd.grad((F.softplus(2.5 * x) / 2.5).sum(), x)

    _, grad = value_and_grad(nn.ReLU(), 2.5)

    torch.testing.assert_close(grad, expected)


def test_an_activation_in_place_keeps_the_tensor_that_the_previous_layer_needs() -> None:
    # sigmoid's backward reads its own output, which relu_ would have overwritten
    x = points().requires_grad_()
    with Backward(10).applied():
        value = F.relu(torch.sigmoid(x) - 0.5, inplace=True)
        value = value + torch.relu_(torch.sigmoid(x))
    (grad,) = torch.autograd.grad(value.sum(), x)

    s = torch.sigmoid(points())
    slope = s * (1 - s) * (torch.sigmoid(10 * (s - 0.5)) + torch.sigmoid(10 * s))
    torch.testing.assert_close(grad, slope)


@each_activation
def test_outside_the_context_activations_are_unchanged(activation: Function) -> None:
    expected = value_and_grad(activation, None)
    value_and_grad(activation, 10)

    after = value_and_grad(activation, None)

    assert torch.equal(after[0], expected[0])
    assert torch.equal(after[1], expected[1])


def test_an_error_inside_the_context_also_ends_it() -> None:
    with pytest.raises(RuntimeError, match="stop"), Backward(10).applied():
        raise RuntimeError("stop")

    assert torch.equal(value_and_grad(torch.relu, None)[1], (points() > 0).float())


def test_without_gradients_the_activation_itself_runs() -> None:
    x = points().requires_grad_()
    with Backward(10).applied(), torch.no_grad():
        value = torch.relu(x)

    assert torch.equal(value, points().clamp_min(0))
    assert not value.requires_grad


def test_an_activation_in_place_without_gradients_is_in_place() -> None:
    x = points()
    with Backward(10).applied():
        torch.relu_(x)

    assert torch.equal(x, points().clamp_min(0))


def test_another_function_keeps_its_gradient() -> None:
    _, grad = value_and_grad(torch.tanh, 10)

    torch.testing.assert_close(grad, 1 - torch.tanh(points()) ** 2)


def test_a_clip_on_both_sides_of_zero_keeps_its_gradient() -> None:
    _, grad = value_and_grad(nn.Hardtanh(-1.25, 1.25), 10)

    assert torch.equal(grad, (points().abs() < 1.25).float())


class Functional(nn.Module):
    """A user's model that calls its activations as functions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(F.relu(self.first(x)))
        return logits


def test_functional_calls_in_a_users_forward_are_replaced() -> None:
    model = Functional().requires_grad_(False)
    with torch.no_grad():
        model.first.weight.zero_()
        model.first.bias.fill_(-0.1)  # the gradient of ReLU is 0 there
        model.first.weight[:, 0] = 1
        model.last.weight.fill_(1)
    x = torch.zeros(1, 3, requires_grad=True)

    (own,) = torch.autograd.grad(model(x).sum(), x)
    with Backward(10).applied():
        logits = model(x)
    (smooth,) = torch.autograd.grad(logits.sum(), x)

    assert own.tolist() == [[0, 0, 0]]
    # 4 units, 2 logits, each with the slope σ(10 · -0.1) along the first pixel
    expected = 8 * torch.sigmoid(torch.tensor(-1.0)).item()
    torch.testing.assert_close(smooth, torch.tensor([[expected, 0, 0]]))


@pytest.mark.parametrize(
    ("text", "alpha"),
    [("true", None), ("softplus(10)", 10), ("softplus(2.5)", 2.5), (" softplus( 1e1 ) ", 10)],
)
def test_a_backward_is_parsed_from_its_text(text: str, alpha: float | None) -> None:
    assert Backward.parse(text) == Backward(alpha)


@pytest.mark.parametrize("backward", [Backward(), Backward(10), Backward(0.5), Backward(1e-5)])
def test_the_text_of_a_backward_is_parsed_back_to_an_equal_one(backward: Backward) -> None:
    assert Backward.parse(str(backward)) == backward


@pytest.mark.parametrize(
    "text",
    ["", "relu", "softplus", "softplus()", "softplus(0)", "softplus(-1)", "softplus(inf)",
     "softplus(nan)", "softplus(ten)", "softplus(10", "True"],
)  # fmt: skip
def test_an_invalid_text_is_refused(text: str) -> None:
    with pytest.raises(SatbenchError) as caught:
        Backward.parse(text)

    assert str(caught.value) == (f"expected backward=true or backward=softplus(10), got {text!r}")
