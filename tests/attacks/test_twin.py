from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from satbench.attacks.borrow import searching_copy


class Block(nn.Module):
    """Convolution and batch norm as attributes, the way that ResNets are written."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x))).mean((2, 3))


class Branching(Block):
    """What leaves the convolution goes two ways."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x)
        return (self.norm(h) + h).mean((2, 3))


class Repeating(Block):
    """The norm follows the convolution, and something else later on."""

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(F.relu(self.norm(self.conv(x)))).mean((2, 3))


class Deciding(Block):
    """What happens depends on the pixels, so there is no graph."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum() > 0 else -x)


class Deceiving(Block):
    """The way through this is another one while a graph is drawn."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x)
        return (self.norm(h) if isinstance(h, fx.Proxy) else h.relu()).mean((2, 3))


def with_statistics(model: nn.Module) -> nn.Module:
    """Return the model in eval mode, frozen, with batch norms that do something."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
                tensor.data.uniform_(0.5, 2, generator=generator)
    return model.eval().requires_grad_(False)


def images(side: int = 8, channels: int = 3) -> Tensor:
    return torch.rand(5, channels, side, side, generator=torch.Generator().manual_seed(1))


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


every_block = pytest.mark.parametrize("kind", [Block, Branching, Repeating, Deciding, Deceiving])


@every_block
def test_a_twin_answers_as_its_model_does(kind: type[Block]) -> None:
    model = with_statistics(kind())

    torch.testing.assert_close(searching_copy(model)(images()), model(images()))


@every_block
def test_the_model_itself_keeps_its_norm(kind: type[Block]) -> None:
    model = with_statistics(kind())
    searching_copy(model)(images())

    assert norms(model) == 1


def test_a_norm_that_is_an_attribute_is_folded() -> None:
    twin = searching_copy(with_statistics(nn.Sequential(Block(), nn.Flatten())))

    twin(images())

    assert norms(twin) == 0


@pytest.mark.parametrize("kind", [Branching, Repeating, Deciding, Deceiving])
def test_a_norm_that_does_not_simply_follow_its_convolution_is_left(kind: type[Block]) -> None:
    twin = searching_copy(with_statistics(kind()))

    twin(images())

    assert norms(twin) == 1


def test_a_norm_with_a_hook_is_left() -> None:
    model = with_statistics(Block())
    model.norm.register_forward_hook(lambda module, inputs, output: output * 2)

    twin = searching_copy(model)

    assert norms(twin) == 1
    torch.testing.assert_close(twin(images()), model(images()))


def test_a_norm_with_a_forward_of_its_own_is_left() -> None:
    model = with_statistics(Block())
    model.norm.forward = torch.sigmoid  # type: ignore[method-assign]

    twin = searching_copy(model)

    assert norms(twin) == 1
    torch.testing.assert_close(twin(images()), model(images()))


def test_a_convolution_that_two_chains_share_is_folded_in_each_by_itself() -> None:
    class Sharing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            conv = nn.Conv2d(3, 4, 3)
            self.one = nn.Sequential(conv, nn.BatchNorm2d(4))
            self.two = nn.Sequential(conv, nn.BatchNorm2d(4))

        def forward(self, x: Tensor) -> Tensor:
            return (self.one(x) - self.two(x)).mean((2, 3))

    model = with_statistics(Sharing())

    torch.testing.assert_close(searching_copy(model)(images()), model(images()))


def test_the_probe_of_a_twin_draws_no_model_into_it() -> None:
    model = with_statistics(Block())

    assert not any(module is model for module in searching_copy(model).modules())


def stem(side: int, channels: int = 1, **changes: object) -> tuple[nn.Module, Tensor]:
    arguments = {"kernel_size": 5, "stride": 2, "padding": 2} | changes
    return with_statistics(nn.Sequential(nn.Conv2d(channels, 8, **arguments))), images(  # type: ignore[arg-type]
        side, channels
    )


@pytest.mark.parametrize("side", [8, 9])
@pytest.mark.parametrize("padding", [0, 1, 2, 3])
def test_a_strided_convolution_of_an_image_gives_the_same_pixels(side: int, padding: int) -> None:
    model, x = stem(side, channels=3, padding=padding)

    torch.testing.assert_close(searching_copy(model)(x), model(x))


@pytest.mark.parametrize("side", [8, 9])
def test_a_strided_convolution_of_an_image_has_the_same_gradient(side: int) -> None:
    model, x = stem(side)
    x.requires_grad_()
    expected, got = (
        torch.autograd.grad(net(x).square().sum(), x)[0] for net in (model, searching_copy(model))
    )

    torch.testing.assert_close(got, expected)


def test_a_strided_convolution_of_an_image_is_made_dense() -> None:
    twin = searching_copy(stem(8)[0])

    assert tuple(twin[0].dense.shape) == (8, 4, 3, 3)


@pytest.mark.parametrize(
    "changes",
    [
        {"stride": 1},
        {"dilation": 2},
        {"kernel_size": 7},  # would cost twice the multiplications
        {"padding_mode": "reflect"},
        {"channels": 16},
    ],
    ids=str,
)
def test_another_convolution_is_left_as_it_is(changes: dict[str, object]) -> None:
    model, x = stem(8, **changes)  # type: ignore[arg-type]
    twin = searching_copy(model)

    assert type(twin[0]) is nn.Conv2d
    torch.testing.assert_close(twin(x), model(x))


def test_the_gradient_of_a_global_average_is_laid_out_channels_last() -> None:
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    x = images().contiguous(memory_format=torch.channels_last).requires_grad_()

    (grad,) = torch.autograd.grad(searching_copy(model)(x).square().sum(), x)

    assert grad.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(grad, torch.autograd.grad(model(x).square().sum(), x)[0])


def wide() -> tuple[nn.Module, Tensor]:
    model = with_statistics(nn.Sequential(nn.Conv2d(512, 512, 3, padding=1), nn.ReLU()))
    return model, images(2, 512).contiguous(memory_format=torch.channels_last).requires_grad_()


def test_a_wide_convolution_gives_the_same_pixels_and_gradient() -> None:
    model, x = wide()
    twin = searching_copy(model)
    expected, got = (torch.autograd.grad(net(x).square().sum(), x)[0] for net in (model, twin))

    torch.testing.assert_close(twin(x), model(x))
    torch.testing.assert_close(got, expected)


def test_a_wide_convolution_works_channels_first_among_others_channels_last() -> None:
    model, x = wide()
    twin = searching_copy(model)

    out = twin(x)
    (grad,) = torch.autograd.grad(out.square().sum(), x)

    assert twin[0].weight.is_contiguous()
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert grad.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_every_kind_of_batch_norm_is_folded_exactly(affine: bool, bias: bool) -> None:
    conv, norm = nn.Conv2d(3, 4, 3, bias=bias).double(), nn.BatchNorm2d(4, affine=affine).double()
    generator = torch.Generator().manual_seed(0)
    for tensor in (norm.running_mean, norm.running_var, *norm.parameters()):
        tensor.data.uniform_(0.5, 2, generator=generator)
    model = nn.Sequential(conv, norm).eval().requires_grad_(False)
    twin = searching_copy(model)

    assert type(twin[1]) is nn.Identity
    torch.testing.assert_close(twin(images().double()), model(images().double()))


def test_a_batch_norm_without_statistics_is_left() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)).eval()
    twin = searching_copy(model.requires_grad_(False))

    assert norms(twin) == 1
    torch.testing.assert_close(twin(images()), model(images()))
