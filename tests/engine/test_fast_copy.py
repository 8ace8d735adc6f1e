"""The rewriting of a model: which layers are folded, and that results do not change."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from satbench.engine.fast_copy import fast_copy


class Block(nn.Module):
    """Convolution and batch norm as attributes, as in ResNets."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x))).mean((2, 3))


class Branching(Block):
    """The output of the convolution is used twice."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x)
        return (self.norm(h) + h).mean((2, 3))


class Repeating(Block):
    """The norm follows the convolution, and later another layer."""

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(F.relu(self.norm(self.conv(x)))).mean((2, 3))


class Sharing(Block):
    """The convolution is called twice, and the norm follows it once."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(F.relu(self.conv(x)))).mean((2, 3))


class Tapped(nn.Module):
    """A chain whose layers are called one by one, with a use in between."""

    def __init__(self) -> None:
        super().__init__()
        self.chain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        tap = h = self.chain[0](x)
        for layer in self.chain[1:]:
            h = layer(h)
        return (h + tap).mean((2, 3))


class Skipping(Tapped):
    """A chain without its norm."""

    def forward(self, x: Tensor) -> Tensor:
        return self.chain[2](self.chain[0](x)).mean((2, 3))


class Sliced(Tapped):
    """Parts of a chain are called as chains."""

    def forward(self, x: Tensor) -> Tensor:
        return self.chain[2:](self.chain[:2](x)).mean((2, 3))


class Weighing(Block):
    """A forward that reads the weights of its layers, which folding changes."""

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm(self.conv(x))).mean((2, 3))
        return h * self.norm.weight + self.conv.weight.sum() + self.norm.running_var


class Deep(nn.Module):
    """Blocks within blocks, with a shortcut and a layer that two places share."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.act = self.first[2]

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        h = self.act(self.second(h) + h)
        return h.mean((2, 3))


def with_statistics(model: nn.Module) -> nn.Module:
    """Return the model in eval mode, frozen, with batch norms that change values."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
                tensor.data.uniform_(0.5, 2, generator=generator)
    return model.eval().requires_grad_(False)


def copied(model: nn.Module, channels_last: bool = True) -> nn.Module:
    made = fast_copy(model, channels_last)
    assert made is not None
    return made


def images(side: int = 8, channels: int = 3) -> Tensor:
    return torch.rand(5, channels, side, side, generator=torch.Generator().manual_seed(1))


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def gradient(net: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(net(x).square().sum(), x)[0]


def check_alike(model: nn.Module, x: Tensor | None = None) -> None:
    """Compare values and gradients of both copies with the model's."""
    x = images() if x is None else x
    expected = model(x)
    for channels_last in (True, False):
        net = fast_copy(model, channels_last) or model
        torch.testing.assert_close(net(x), expected)
        torch.testing.assert_close(gradient(net, x), gradient(model, x))


KINDS = (Block, Branching, Repeating, Sharing, Tapped, Skipping, Sliced, Weighing, Deep)
every_kind = pytest.mark.parametrize("kind", KINDS)


@every_kind
def test_a_copy_gives_the_values_and_gradients_of_its_model(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    check_alike(with_statistics(kind()))


@every_kind
def test_the_model_itself_keeps_its_layers(kind: type[nn.Module]) -> None:
    model = with_statistics(kind())
    before = list(model.named_modules()), {k: v.clone() for k, v in model.state_dict().items()}
    copied(model)(images())

    assert list(model.named_modules()) == before[0]
    assert all(torch.equal(value, before[1][key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("kind", [Block, Sliced, Weighing, Deep])
def test_a_norm_that_is_the_only_successor_of_its_convolution_is_folded(
    kind: type[nn.Module],
) -> None:
    assert norms(copied(with_statistics(kind()))) == 0


@pytest.mark.parametrize("kind", [Branching, Repeating, Sharing, Tapped])
def test_a_norm_that_is_not_the_only_successor_of_its_convolution_is_not_folded(
    kind: type[nn.Module],
) -> None:
    assert norms(copied(with_statistics(kind()))) == 1


def test_a_norm_with_a_hook_is_not_folded() -> None:
    model = with_statistics(Block())
    model.norm.register_forward_hook(lambda module, inputs, output: output * 2)

    assert norms(copied(model)) == 1
    check_alike(model)


def test_a_norm_with_a_replaced_forward_is_not_folded() -> None:
    model = with_statistics(Block())
    model.norm.forward = torch.sigmoid  # type: ignore[method-assign]

    assert norms(copied(model)) == 1
    check_alike(model)


def test_a_users_own_layer_is_called_unchanged() -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2 if len(x) > 2 else x  # a graph cannot show this

    model = with_statistics(nn.Sequential(nn.Conv2d(3, 4, 3), Odd(), nn.Flatten()))
    copy = copied(model)

    for n in (2, 3):
        torch.testing.assert_close(copy(images()[:n]), model(images()[:n]))


def test_a_model_in_data_parallel_is_folded_on_one_device() -> None:
    model = nn.DataParallel(with_statistics(Block()), device_ids=[])

    assert norms(copied(model)) == 0
    check_alike(model)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_every_kind_of_batch_norm_is_folded_exactly(affine: bool, bias: bool) -> None:
    conv, norm = nn.Conv2d(3, 4, 3, bias=bias).double(), nn.BatchNorm2d(4, affine=affine).double()
    generator = torch.Generator().manual_seed(0)
    for tensor in (norm.running_mean, norm.running_var, *norm.parameters()):
        tensor.data.uniform_(0.5, 2, generator=generator)
    model = nn.Sequential(conv, norm).eval().requires_grad_(False)

    assert norms(copied(model)) == 0
    check_alike(model, images().double())


def test_a_batch_norm_without_statistics_is_not_folded() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)).eval()
    model.double().requires_grad_(False)

    assert norms(copied(model)) == 1
    check_alike(model, images().double())


@pytest.mark.parametrize("mode", ["reflect", "circular"])
def test_a_convolution_that_does_not_pad_with_zeros_is_folded(mode: str) -> None:
    conv = nn.Conv2d(3, 4, 3, padding=1, padding_mode=mode)
    model = with_statistics(nn.Sequential(conv, nn.BatchNorm2d(4)))

    assert norms(copied(model)) == 0
    check_alike(model, images())


# No graph, or nothing to rewrite


class Deciding(Block):
    """The computation depends on the pixels."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum() > 0 else -x)


class Counting(Block):
    """The computation depends on the number of images."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if len(x) > 1 else -x)


class Hooked(Block):
    """The forward reads a value that a hook stored."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, Tensor] = {}
        self.norm.register_forward_hook(
            lambda module, inputs, output: self.kept.__setitem__("h", output)
        )

    def forward(self, x: Tensor) -> Tensor:
        super().forward(x)
        return self.kept["h"].mean((2, 3))


class Hidden(Block):
    """A convolution is held in a list that `nn.Module` does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = [nn.Conv2d(3, 3, 1)]

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.hidden[0](x))


class Locked(Block):
    """It holds an object that cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


def hooked_block() -> nn.Module:
    model = nn.Sequential(Block())
    model[0].register_forward_pre_hook(lambda module, inputs: (2 * inputs[0],))
    return model


def block_with_its_own_forward() -> nn.Module:
    model = Block()
    model.forward = lambda x: 2 * Block.forward(model, x)  # type: ignore[method-assign]
    return model


NO_GRAPH = (Deciding, Counting, Hooked, Hidden, Locked, hooked_block, block_with_its_own_forward)


@pytest.mark.parametrize("make", NO_GRAPH)
def test_a_forward_that_cannot_be_traced_has_no_copy(make: Callable[[], nn.Module]) -> None:
    assert fast_copy(with_statistics(make())) is None


def test_a_hook_on_all_modules_prevents_a_copy() -> None:
    handle = nn.modules.module.register_module_forward_hook(lambda module, inputs, output: None)
    try:
        assert fast_copy(with_statistics(Block())) is None
    finally:
        handle.remove()


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Flatten(), nn.Linear(4, 2)),
        nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4)),
        nn.Identity(),
    ],
    ids=["linear", "sequence", "nothing"],
)
def test_a_model_without_2d_convolutions_has_no_copy(model: nn.Module) -> None:
    assert fast_copy(model.eval()) is None


def test_without_channels_last_a_model_without_norms_has_no_copy() -> None:
    assert fast_copy(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval(), False) is None


def test_a_tensor_that_the_forward_reads_is_not_added_to_a_layer() -> None:
    class Reading(Block):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * self.norm.running_var + self.conv.weight.sum((1, 2, 3))

    model = with_statistics(Reading())
    model.norm.register_forward_hook(lambda module, inputs, output: output)  # so it is not folded
    model.norm.register_buffer("running_var", model.norm.running_var, persistent=False)
    before = list(model.state_dict())
    copied(model)

    assert list(model.state_dict()) == before
    check_alike(model)


def test_tracing_does_not_change_the_model() -> None:
    class Marking(Block):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))
            self.seen: list[Any] = []

        def forward(self, x: Tensor) -> Tensor:
            self.seen.append(x)
            self.last = x
            self.calls += 1
            return super().forward(x)

    model = with_statistics(Marking())
    before = set(vars(model))
    copied(model)

    assert set(vars(model)) == before
    assert model.seen == []
    assert float(model.calls) == 0


# Convolutions of images, layout, and the pool


def stem(side: int, channels: int = 1, **changes: Any) -> tuple[nn.Module, Tensor]:
    arguments = {"kernel_size": 5, "stride": 2, "padding": 2} | changes
    net = nn.Sequential(nn.Conv2d(channels, 8, **arguments), nn.BatchNorm2d(8))
    return with_statistics(net), images(side, channels)


@pytest.mark.parametrize("side", [8, 9])
@pytest.mark.parametrize("padding", [0, 1, 2, 3])
def test_a_strided_convolution_of_an_image_gives_the_same_pixels_and_gradient(
    side: int, padding: int
) -> None:
    check_alike(*stem(side, channels=3, padding=padding))


def is_dense(model: nn.Module) -> bool:
    return any(hasattr(module, "dense") for module in model.modules())


@pytest.mark.parametrize("channels_last", [True, False])
def test_a_strided_convolution_of_an_image_is_made_dense(channels_last: bool) -> None:
    assert is_dense(copied(stem(8)[0], channels_last))


@pytest.mark.parametrize(
    "changes",
    [
        {"stride": 1},
        {"dilation": 2},
        {"kernel_size": 7},  # it would double the multiplications
        {"stride": 1, "padding": "same"},
        {"channels": 16},
        {"channels": 4, "groups": 2},
    ],
    ids=str,
)
def test_other_convolutions_are_not_made_dense(changes: dict[str, Any]) -> None:
    model, x = stem(8, **changes)

    assert not is_dense(copied(model))
    check_alike(model, x)


def test_outputs_are_in_channels_last_layout() -> None:
    model = with_statistics(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)))

    assert copied(model)(images()).is_contiguous(memory_format=torch.channels_last)
    assert copied(model, channels_last=False)(images()).is_contiguous()


def test_the_gradient_of_a_global_average_is_in_channels_last_layout() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    pool = list(copied(model).children())[1]
    x = images().contiguous(memory_format=torch.channels_last).requires_grad_()
    (grad,) = torch.autograd.grad(pool(x).square().sum(), x)

    assert grad.is_contiguous(memory_format=torch.channels_last)
    check_alike(model.requires_grad_(False))


def wide() -> tuple[nn.Module, Tensor]:
    model = with_statistics(nn.Sequential(nn.Conv2d(512, 512, 3, padding=1), nn.ReLU()))
    return model, images(2, 512).contiguous(memory_format=torch.channels_last)


def test_a_wide_convolution_gives_the_same_pixels_and_gradient() -> None:
    check_alike(*wide())


def test_a_wide_convolution_keeps_channels_first_weights_in_a_channels_last_copy() -> None:
    model, x = wide()
    net, x = copied(model), x.requires_grad_()
    out = net(x)
    (grad,) = torch.autograd.grad(out.square().sum(), x)

    weights = [m.weight for m in net.modules() if isinstance(getattr(m, "weight", None), Tensor)]
    assert all(weight.is_contiguous() for weight in weights)
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert grad.is_contiguous(memory_format=torch.channels_last)


# Convolutions of a user's own class


class Same(nn.Conv2d):
    """A convolution that pads in its forward, as TensorFlow does."""

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.pad(x, (0, 1, 0, 1))
        return nn.functional.conv2d(x, self.weight, self.bias, self.stride)


class Padded(nn.Conv2d):
    """A convolution with its own layer for padding."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.pad = nn.ZeroPad2d((0, 1, 0, 1))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.pad(x))


class Standardised(nn.Conv2d):
    """A convolution whose weights are standardised first, so that nothing can be folded."""

    def forward(self, x: Tensor) -> Tensor:
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        deviation = self.weight.std((1, 2, 3), keepdim=True)
        return nn.functional.conv2d(x, (self.weight - mean) / deviation, self.bias)


class Circular(nn.Conv2d):
    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes, padding=1, padding_mode="circular")


@pytest.mark.parametrize(
    ("kind", "norms"), [(Same, 0), (Padded, 0), (Standardised, 1), (Circular, 0)]
)
@pytest.mark.parametrize("channels_last", [True, False])
def test_a_subclass_of_convolution_is_folded_if_that_is_exact(
    kind: type[nn.Conv2d], norms: int, channels_last: bool
) -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(6)
    for tensor in (norm.running_mean, norm.weight, norm.bias):
        assert tensor is not None
        nn.init.normal_(tensor)
    model = nn.Sequential(kind(3, 6, 3), norm, nn.ReLU(), kind(6, 4, 3), nn.Flatten())
    model.eval().requires_grad_(False)
    before = [one.clone() for one in model.state_dict().values()]
    x = torch.rand(2, 3, 9, 9, requires_grad=True)
    made = fast_copy(model, channels_last)

    if norms and not channels_last:
        assert made is None  # there is nothing to fold and no layout to change
        return
    assert made is not None
    assert norms == sum(isinstance(one, nn.BatchNorm2d) for one in made.modules())
    torch.testing.assert_close(made(x), model(x))
    grads = [torch.autograd.grad(one(x).sin().sum(), x)[0] for one in (made, model)]
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-4)
    assert all(map(torch.equal, model.state_dict().values(), before))
