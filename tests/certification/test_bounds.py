"""Bounds hold at every point of a region, and are exact where they can be."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from bounded_nets import EXACT, around, perceptron, points
from torch import Tensor, nn

from satbench.certification.bounding.bounds import interval_bounds, logit_bounds, margin_rows
from satbench.certification.bounding.crown import crown_bounds
from satbench.certification.bounding.layers import UnknownLayerError
from satbench.certification.bounding.program import read_program
from satbench.certification.bounding.region import Region
from satbench.certification.bounding.rounding import Roundoff
from satbench.core.errors import SatbenchError
from satbench.networks.blocks import BasicBlock, Bottleneck
from satbench.networks.build import build_activation, build_network
from satbench.networks.registry import ACTIVATIONS

ACTIVATION_NAMES = [entry.name for entry in ACTIVATIONS]


def image(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(1, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def margins(net: nn.Module, x: Tensor, label: int) -> Tensor:
    logits = net(x)
    others = [k for k in range(logits.shape[1]) if k != label]
    return logits[:, [label]] - logits[:, others]


def corners(net: nn.Module, region: Region, label: int) -> Tensor:
    """The corners of a box that the gradients of the margins point to."""
    x = region.centre.clone().requires_grad_()
    found = margins(net, x, label)[0]
    grads = [torch.autograd.grad(one, x, retain_graph=True)[0] for one in found]
    return torch.cat([torch.where(grad > 0, region.low, region.high) for grad in grads])


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2), ("l1", np.inf)])
def test_a_linear_net_is_bounded_exactly(norm: str, dual: float) -> None:
    """The least margin is that of the image less ‖w‖ eps, in the dual norm."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 4)).double().eval()
    x, eps = 0.3 + 0.4 * image(1, 3, 4), 0.05
    region = around(x, eps, norm)
    weight = net[1].weight.detach()
    w = torch.stack([weight[2] - weight[k] for k in (0, 1, 3)])
    expected = margins(net, x, 2)[0] - eps * torch.linalg.vector_norm(w, ord=dual, dim=1)
    bounds = interval_bounds(read_program(net, (1, 3, 4)), region, EXACT)
    found = logit_bounds(bounds, margin_rows(torch.tensor([2]), 4))[0]

    assert (found <= expected).all()
    assert torch.allclose(found, expected, rtol=0, atol=1e-10)


def test_pixels_beyond_0_and_1_are_none_of_the_adversarys() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False)).double().eval()
    net.requires_grad_(False)
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
    x = torch.tensor([0.02, 0.5], dtype=torch.float64).view(1, 1, 1, 2)
    bounds = interval_bounds(read_program(net, (1, 1, 2)), around(x, 0.1), EXACT)
    found = logit_bounds(bounds, margin_rows(torch.tensor([0]), 2))

    assert float(found) == pytest.approx(0.4, abs=1e-9)


class Functions(nn.Module):
    """A user's net, of functions and of arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, 2, 1, groups=2)
        self.other = nn.Conv2d(4, 4, 3, padding="same", dilation=2)
        self.pool = nn.AvgPool2d(2)
        self.linear = nn.Linear(2 * 6 * 2, 3)
        self.register_buffer("mean", torch.tensor([0.2, 0.4]).view(1, 2, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv((x - self.mean) / 0.5))
        y = nn.functional.silu(self.other(x)) - 0.5 * x
        y = nn.functional.pad(y[:, ::2], (1, 1, 0, 0))
        y = nn.functional.avg_pool2d(1 - y, 1)
        y = y.view(y.size(0), -1)
        return self.linear(y) + torch.tensor([0.1, 0.2, 0.3], dtype=y.dtype)


def residual(activation: str) -> nn.Module:
    make = build_activation(activation)
    return nn.Sequential(
        BasicBlock(2, 3, 2, make),
        Bottleneck(3, 1, 1, make),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


def settled(net: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """Give batch-norms statistics and factors that are not 0 and 1."""
    torch.manual_seed(1)
    net = net.double()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    net.train()
    with torch.no_grad():
        net(torch.rand(64, *shape, dtype=torch.float64))
    return net.eval().requires_grad_(False)


NETS = {
    **{f"residual {name}": (partial(residual, name), (2, 8, 6)) for name in ACTIVATION_NAMES},
    "functions": (Functions, (2, 6, 4)),
    "option A": (lambda: build_network("he-cifar-resnet(depth=8)", "relu", 3), (3, 8, 8)),
    "tiny": (lambda: build_network("tiny(width=1)", "mish", 3), (1, 12, 12)),
}  # fmt: skip


CASES = [
    *((name, 0.003) for name in NETS),
    *((f"residual {name}", 0.1) for name in ("relu", "pssilu", "gelu")),
]


@pytest.mark.parametrize(("name", "eps"), CASES)
def test_bounds_hold_at_every_point_and_crown_is_inside_of_intervals(name: str, eps: float) -> None:
    make, shape = NETS[name]
    torch.manual_seed(0)
    net = settled(make(), shape)
    region = around(image(*shape), eps)
    program = read_program(net, shape)
    rows = margin_rows(torch.tensor([1]), 3)
    wide, near = interval_bounds(program, region, EXACT), crown_bounds(program, region, EXACT)
    tried = torch.cat([points(region, 400), corners(net, region, 1)])
    with torch.no_grad():
        seen = margins(net, tried, 1).amin(0)
    by_intervals = logit_bounds(wide, rows, until_last_site=True)[0]
    by_lines, by_crown = logit_bounds(wide, rows)[0], logit_bounds(near, rows)[0]

    for found in (by_intervals, by_lines, by_crown):
        assert (found <= seen).all()
    assert by_crown.min() > by_intervals.min()
    assert by_crown.min() >= by_lines.min() - 1e-9
    if eps == 0.003:
        centre = margins(net, region.centre, 1)[0]
        assert (centre - by_crown).max() < 3 * (centre - seen).max()
    for number, box in enumerate(near.boxes):
        other = wide.boxes[number]
        assert (box.low >= other.low - 1e-9).all()
        assert (box.high <= other.high + 1e-9).all()
        assert (box.low <= box.high).all()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_every_step_is_inside_of_its_box(norm: str) -> None:
    shape = (2, 6, 4)
    torch.manual_seed(0)
    net = settled(residual("silu"), shape)
    region = around(image(*shape), 0.05, norm)
    found = crown_bounds(read_program(net, shape), region, EXACT)
    parts = [net[0].conv1, net[0].bn2, net[1].bn3, net[3]]
    seen: list[Tensor] = []
    for part in parts:
        part.register_forward_hook(lambda module, given, made: seen.append(made))
    with torch.no_grad():
        net(points(region, 300))
    names = ["0.conv1", "0.bn2", "1.bn3", "3"]

    for name, values in zip(names, seen, strict=True):
        (number,) = (k for k, step in enumerate(found.program.steps) if step.name == name)
        box = found.boxes[number]
        assert (values >= box.low).all()
        assert (values <= box.high).all()


@pytest.mark.parametrize("name", ["tiny(width=2)", "small(width=2,blocks=1)"])
def test_a_float32_net_is_bounded_with_its_rounding(name: str) -> None:
    """At the image itself nothing but rounding is left: it must be inside, and little."""
    torch.manual_seed(0)
    net = build_network(name, "silu", 10).eval()
    x = torch.rand(8, 1, 28, 28)
    with torch.no_grad():
        logits = net(x).double()
    region = around(x.double(), 0.0)
    bounds = interval_bounds(read_program(net.double(), (1, 28, 28)), region, Roundoff(2.0**-24))
    box = bounds.boxes[-1]

    assert (box.low <= logits).all()
    assert (logits <= box.high).all()
    assert (box.high - box.low).max() < 0.02 * logits.abs().max()
    real = net(x.double()).detach()
    off = (logits - real).abs().max()
    assert 1e-9 < off < (box.high - box.low).min()


def test_backward_bounds_take_the_rounding_of_float32_into_account() -> None:
    """At the image itself the real margins are about the answers: some answers are below them."""
    torch.manual_seed(0)
    net = build_network("tiny(width=2)", "silu", 10).eval().requires_grad_(False)
    x = torch.rand(8, 1, 28, 28)
    rows = margin_rows(torch.arange(8), 10)
    answered = torch.einsum("brk,bk->br", rows, net(x).double())
    program = read_program(net.double(), (1, 28, 28))
    bounds = interval_bounds(program, around(x.double(), 0.0), Roundoff(2.0**-24))
    real = torch.einsum("brk,bk->br", rows, net(x.double()))

    assert (answered < real - 1e-9).any()
    assert (logit_bounds(bounds, rows) <= answered).all()


def test_a_layer_without_bounds_is_named() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2, 2))
    with pytest.raises(UnknownLayerError, match="MaxPool2d at 1"):
        read_program(net.eval(), (1, 4, 4))


def hooked() -> nn.Module:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    net[1].register_forward_hook(lambda module, given, made: made + 1)
    return net


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) if x.sum() > 0 else -x.flatten(1)


class Mixing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) - x.flatten(1).mean(0)


class Own(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    "make",
    [
        hooked,
        Branching,
        Mixing,
        lambda: nn.Sequential(nn.Flatten(), Own(4, 2)),
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.Softmax(1)),
        lambda: nn.Sequential(nn.Conv2d(1, 2, 1, padding_mode="circular"), nn.Flatten()),
        lambda: nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU()),
    ],
    ids=["hook", "branch", "mixes images", "own layer", "softmax", "circular", "no logits"],
)
def test_what_cannot_be_read_is_refused(make: type[nn.Module]) -> None:
    with pytest.raises(SatbenchError):
        read_program(make().eval(), (1, 2, 2))


def test_reading_leaves_a_model_as_it_was() -> None:
    net = build_network("tiny(width=1)", "relu", 3).train()
    before = {name: one.clone() for name, one in net.state_dict().items()}
    read_program(net, (1, 12, 12))

    assert all(module.training for module in net.modules())
    assert all(torch.equal(before[name], one) for name, one in net.state_dict().items())


def test_a_perceptron_is_bounded_more_tightly_by_lines_than_by_intervals() -> None:
    net = perceptron("relu", 6, 12, 12, 3)
    region = around(image(1, 1, 6), 0.2)
    program = read_program(net, (1, 1, 6))
    rows = margin_rows(torch.tensor([0]), 3)
    wide, near = interval_bounds(program, region, EXACT), crown_bounds(program, region, EXACT)

    by_intervals = logit_bounds(wide, rows, until_last_site=True).min()
    assert by_intervals + 0.02 < logit_bounds(wide, rows).min()
    assert logit_bounds(wide, rows).min() < logit_bounds(near, rows).min()
