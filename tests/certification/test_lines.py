"""Lines above and below every activation: sound on every interval, and not loose."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from satbench.certification.bounding.lines import chosen_lines, highest, lines_of, lowest
from satbench.certification.bounding.shapes import ActivationShape, shape_of
from satbench.networks.activations import PSSiLUModule, SmoothReLUModule
from satbench.networks.build import build_activation
from satbench.networks.registry import ACTIVATIONS

SPECS = [
    *(entry.name for entry in ACTIVATIONS),
    "gelu(approximate=none)",
    "celu(alpha=3)",
    "elu(alpha=0.3)",
    "elu(alpha=2)",
    "leaky-relu(slope=0)",
    "parametric-softplus(alpha=0.5)",
    "smooth-relu(alpha=3)",
]
DENSE = torch.linspace(0, 1, 1001, dtype=torch.float64)[:, None]


def pssilu(a: float, b: float) -> nn.Module:
    return PSSiLUModule(
        nn.Parameter(torch.tensor([float(a)])), nn.Parameter(torch.tensor([float(b)]))
    )


def made(spec: str) -> nn.Module:
    return build_activation(spec)()


MODULES = {spec: made(spec) for spec in SPECS}
MODULES |= {
    "pssilu a=-3 b=0.4": pssilu(-3, 0.4),
    "pssilu b=1.5": pssilu(2, 1.5),
    "pssilu a=0": pssilu(0, 0.2),
    "softplus of a low threshold": nn.Softplus(2.0, 1.0),
}


def intervals(shape: ActivationShape, n: int = 1500) -> tuple[Tensor, Tensor]:
    """Intervals of all widths, many of them around a break."""
    drawn = torch.Generator().manual_seed(0)
    centre = torch.randn(n, generator=drawn, dtype=torch.float64) * 4
    for k, at in enumerate(shape.breaks):
        centre[k::7] = at + 0.1 * centre[k::7]
    width = torch.pow(10.0, 4 * torch.rand(n, generator=drawn, dtype=torch.float64) - 3)
    return centre - width * torch.rand(n, generator=drawn, dtype=torch.float64), centre + width


@pytest.mark.parametrize("name", MODULES)
def test_a_line_of_any_slope_is_sound_and_touches(name: str) -> None:
    module = MODULES[name].double()
    shape = shape_of(module)
    assert shape is not None
    low, high = intervals(shape)
    slope = 3 * torch.rand(len(low), generator=torch.Generator().manual_seed(1)).double() - 1
    x = low + DENSE * (high - low)
    with torch.no_grad():
        g = module(x) - slope * x
    under, over = lowest(shape, slope, low, high), highest(shape, slope, low, high)

    assert (under <= g.amin(0) + shape.gap).all()
    assert (over >= g.amax(0) - shape.gap).all()
    # Between two of the 1,001 points g changes by so much at most.
    step = (high - low) / 1000
    near = shape.curvature * step.square() + 1e-9 * (1 + low.abs() + high.abs()) + shape.gap
    if not shape.is_piecewise_linear:  # at a kink the points miss the very corner
        near = near + step * _jump(shape)
    assert (g.amin(0) - under <= near + step * _jump(shape)).all()
    assert (over - g.amax(0) <= near + step * _jump(shape)).all()


def _jump(shape: ActivationShape) -> float:
    """By how much the slope jumps at the breaks, and 0 where it does not."""
    at = torch.tensor(shape.breaks or (0.0,), dtype=torch.float64)
    jump = (shape.slope(at + 1e-9) - shape.slope(at - 1e-9)).abs().max().item()
    return jump if jump > 1e-5 else 0.0


@pytest.mark.parametrize("name", MODULES)
def test_chosen_lines_are_sound_and_leave_less_than_a_box(name: str) -> None:
    module = MODULES[name].double()
    shape = shape_of(module)
    assert shape is not None
    low, high = intervals(shape)
    lines = chosen_lines(shape, low, high)
    x = low + DENSE * (high - low)
    with torch.no_grad():
        f = module(x)
    under, over = lines.low_slope * x + lines.low, lines.high_slope * x + lines.high

    assert (under <= f + shape.gap).all()
    assert (over >= f - shape.gap).all()
    area = (over - under).mean(0)
    zero = torch.zeros_like(low)
    box = highest(shape, zero, low, high) - lowest(shape, zero, low, high)
    assert (area <= box + 1e-9 * (1 + high.abs() + low.abs())).all()
    assert (area < 0.7 * box + 1e-9).double().mean() > 0.5


@pytest.mark.parametrize("name", MODULES)
def test_the_slope_and_the_bends_are_those_of_the_module(name: str) -> None:
    module = MODULES[name].double()
    shape = shape_of(module)
    assert shape is not None
    x = torch.linspace(-12, 12, 240_001, dtype=torch.float64, requires_grad=True)
    value = module(x)
    (slope,) = torch.autograd.grad(value.sum(), x)
    apart = [x.detach() - at for at in shape.breaks] or [torch.full_like(x, math.inf)]
    inner = torch.stack(apart).abs().amin(0) > 1e-3
    x, value = x.detach(), value.detach()

    assert ((shape.value(x) - value).abs() <= shape.gap + 1e-13).all()
    told = shape.slope(x)
    if not shape.gap > 1e-6:  # else torch's is another function above the threshold
        assert ((told - slope).abs()[inner] < 1e-7).all()
    assert (value.abs() <= shape.scale * (1 + x.abs()) + 1e-12).all()
    piece = torch.bucketize(x, torch.tensor(shape.breaks or (math.inf,), dtype=torch.float64))
    change = told.diff()
    for number, bend in enumerate(shape.bends):
        here = change[(piece[1:] == number) & (piece[:-1] == number) & inner[1:] & inner[:-1]]
        assert len(here) > 100
        if bend == "convex":
            assert here.min() >= -1e-13
        elif bend == "concave":
            assert here.max() <= 1e-13
        else:
            assert here.abs().max() == 0
        assert here.abs().max() <= shape.curvature * 1e-4 * (1 + 1e-6) + 1e-13


@pytest.mark.parametrize("name", MODULES)
def test_float32_stays_within_the_rounding_that_is_taken_off(name: str) -> None:
    module, shape = MODULES[name], shape_of(MODULES[name])
    assert shape is not None
    x = torch.cat([torch.linspace(-30, 30, 300_001), torch.randn(100_000) * 1e-3])
    with torch.no_grad():
        narrow = module.float()(x).double()
    off = (narrow - shape.value(x.double())).abs()
    allowed = 16 * 2.0**-24 * shape.scale * (1 + x.double().abs()) + shape.gap

    assert (off <= allowed).all()
    module.double()


def test_an_unknown_activation_or_one_without_bounds_has_no_shape() -> None:
    assert shape_of(nn.Softmax(1)) is None
    assert shape_of(pssilu(1.0, 1.0)) is None
    assert shape_of(nn.ELU(-1.0)) is None
    assert shape_of(nn.Softplus(-1.0)) is None
    assert shape_of(pssilu(math.nan, 0.1)) is None


def test_relu_has_the_lines_of_crown() -> None:
    shape = shape_of(nn.ReLU())
    assert shape is not None
    low, high = torch.tensor([[-1.0, -3.0, 1.0, -2.0], [3.0, 1.0, 2.0, -1.0]]).double()
    lines = chosen_lines(shape, low, high)

    assert lines.low_slope.tolist() == [1, 0, 1, 0]
    assert torch.allclose(lines.high_slope, torch.tensor([0.75, 0.25, 1, 0]).double())
    assert torch.allclose(lines.low, torch.zeros(4).double(), atol=1e-10)
    assert torch.allclose(lines.high, torch.tensor([0.75, 0.75, 0, 0]).double(), atol=1e-10)


def test_the_intercept_follows_the_slope_with_its_gradient() -> None:
    shape = shape_of(nn.SiLU())
    assert shape is not None
    low, high = torch.tensor([-3.0, -1, 0.5]).double(), torch.tensor([2.0, 4, 1]).double()
    slope = torch.tensor([0.3, 0.5, 0.7], dtype=torch.float64, requires_grad=True)
    lines = lines_of(shape, slope, slope, low, high)
    (found,) = torch.autograd.grad((lines.low + 2 * lines.high).sum(), slope)
    step = 1e-5
    ahead, behind = (
        lines_of(shape, slope.detach() + d, slope.detach() + d, low, high) for d in (step, -step)
    )
    expected = ((ahead.low + 2 * ahead.high) - (behind.low + 2 * behind.high)) / (2 * step)

    assert torch.allclose(found, expected, atol=1e-4)


def test_smooth_relu_reads_alpha_as_it_was_trained() -> None:
    module = SmoothReLUModule(400.0, trainable=True)
    with torch.no_grad():
        module.b.fill_(2.0)
    shape = shape_of(module)
    assert shape is not None
    assert shape.curvature == pytest.approx(4)


@pytest.mark.parametrize("name", MODULES)
def test_an_interval_without_an_end_has_no_line(name: str) -> None:
    """Not a number stands for no bound, and must not be lost among the other points."""
    shape = shape_of(MODULES[name].double())
    assert shape is not None
    low = torch.tensor([-1.0, -math.inf, -math.inf], dtype=torch.float64)
    high = torch.tensor([math.inf, 1.0, math.inf], dtype=torch.float64)
    zero, half = torch.zeros(3, dtype=torch.float64), torch.full((3,), 0.5, dtype=torch.float64)
    for slope in (zero, half):
        assert not lowest(shape, slope, low, high).isfinite().any()
        assert not highest(shape, slope, low, high).isfinite().any()


@pytest.mark.parametrize("name", MODULES)
def test_the_interval_of_an_activation_is_that_of_its_values(name: str) -> None:
    module = MODULES[name].double()
    shape = shape_of(module)
    assert shape is not None
    low, high = intervals(shape)
    least, most = shape.interval(low, high)
    with torch.no_grad():
        seen = module(low + DENSE * (high - low))
    step = (high - low) / 1000
    near = shape.gap + 1e-9 + 3 * shape.scale * step

    assert (least <= seen.amin(0) + shape.gap + 1e-12).all()
    assert (most >= seen.amax(0) - shape.gap - 1e-12).all()
    assert (seen.amin(0) - least <= near).all()
    assert (most - seen.amax(0) <= near).all()
