"""Rewrite a copy of a model so that searches run faster: the same function, rounded differently.

Each rewrite is exact in real arithmetic.  None of them may be used by the judge.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from typing import Any, TypeGuard, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

_AGREE = 1e-4  # of the largest logit; float32 rounding of a ResNet-18 moves it by some 1e-6
_FEW = 4  # input channels for which oneDNN's backward of a strided convolution is slow
_WIDE = 2**21  # weights from which oneDNN is faster with channels first: 512×512×3×3 has more

_Module = TypeVar("_Module", bound=nn.Module)
_Conv = TypeVar("_Conv", bound=nn.Conv2d)


def speed_up(twin: nn.Module, model: nn.Module) -> nn.Module:
    """Rewrite `twin`, a copy of `model` in eval mode with frozen parameters; return what to use.

    Batch-norms are folded into the convolutions before them, strided convolutions of images
    become dense ones, and the memory layout is channels last, in the backward pass too.
    """
    for module in twin.modules():
        if type(module) is nn.Sequential:
            _fold_along_a_chain(module)
    guessed = _fold_along_the_graph(twin)
    for module in list(twin.modules()):
        if _plain(module, nn.AdaptiveAvgPool2d) and module.output_size in (1, (1, 1)):
            _replace(twin, module, _GlobalAverage())
        elif _plain(module, nn.Conv2d):
            _replace(twin, module, _faster(module) or module)
    for module in twin.modules():
        if not isinstance(module, _ChannelsFirst):
            _lay_channels_last(module)
    return _Probed(twin, model) if guessed else twin


def _lay_channels_last(module: nn.Module) -> None:
    for tensor in (*module._parameters.values(), *module._buffers.values()):
        if tensor is not None and tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)


def _plain(module: nn.Module, kind: type[_Module]) -> TypeGuard[_Module]:
    """Whether a module is of just this kind, and its forward its kind's own, with no hooks."""
    hooked = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks
    return type(module) is kind and "forward" not in vars(module) and not hooked


def _replace(root: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put `new` wherever a module within `root` holds `old`."""
    for module in list(root.modules()):
        for name, child in module._modules.items():
            if child is old:
                module._modules[name] = new


def _fused(conv: nn.Module, norm: nn.Module) -> nn.Conv2d | None:
    """Return the convolution that does what `conv` and then `norm` do, None if they are others."""
    if not (_plain(conv, nn.Conv2d) and _plain(norm, nn.BatchNorm2d)):
        return None
    if conv.training or norm.training or norm.running_mean is None or norm.running_var is None:
        return None
    scale = torch.rsqrt(norm.running_var + norm.eps)
    scale = scale if norm.weight is None else scale * norm.weight
    shift = -norm.running_mean if conv.bias is None else conv.bias - norm.running_mean
    shift = shift * scale if norm.bias is None else shift * scale + norm.bias
    return _with_weights(nn.Conv2d, conv, conv.weight * scale.view(-1, 1, 1, 1), shift)


def _fold_along_a_chain(chain: nn.Sequential) -> None:
    """Fold each batch-norm that directly follows a convolution: nothing happens between the two."""
    for number in range(len(chain) - 1):
        fused = _fused(chain[number], chain[number + 1])
        if fused is not None:
            chain[number], chain[number + 1] = fused, nn.Identity()


def _fold_along_the_graph(twin: nn.Module) -> bool:
    """Fold the batch-norms whose convolution torch.fx sees them follow; return whether any was.

    The graph is only read; the model's own forward goes on running.
    """
    if not any(type(module) is nn.BatchNorm2d for module in twin.modules()):
        return False
    try:
        # Tracing calls the forward, which may leave its marks: a copy takes them.
        shared: dict[int, Any] = {id(weights): weights for weights in twin.parameters()}
        nodes = fx.Tracer().trace(copy.deepcopy(twin, shared)).nodes
    except Exception:  # control flow that follows the data, or anything else that is not a graph
        return False
    modules = dict(twin.named_modules())
    calls = [node for node in nodes if node.op == "call_module"]
    times = Counter(str(node.target) for node in calls)
    folded = False
    for node in calls:
        source = node.args[0] if len(node.args) == 1 else None
        if (
            isinstance(source, fx.Node)
            and source.op == "call_module"
            and len(source.users) == 1
            and times[str(source.target)] == times[str(node.target)] == 1
        ):
            conv, norm = modules[str(source.target)], modules[str(node.target)]
            fused = _fused(conv, norm)
            if fused is not None:
                _replace(twin, conv, fused)
                _replace(twin, norm, nn.Identity())
                folded = True
    return folded


class _Probed(nn.Module):
    """A twin that is held against its model on the first image it sees, and drops out if wrong.

    A graph shows one way through a forward; code that now and then takes another is caught here.
    """

    def __init__(self, twin: nn.Module, model: nn.Module) -> None:
        super().__init__()
        self.twin = twin
        self._original: nn.Module | None
        object.__setattr__(self, "_original", model)  # not a part of this module

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, K)."""
        if self._original is not None and len(x):
            if not _agree(self.twin, self._original, x[:1].detach()):
                self.twin = copy.deepcopy(self._original)
            object.__setattr__(self, "_original", None)
        logits: Tensor = self.twin(x)
        return logits


@torch.no_grad()
def _agree(twin: nn.Module, model: nn.Module, x: Tensor) -> bool:
    expected, got = model(x), twin(x)
    return bool((got - expected).abs().max() <= _AGREE * expected.abs().max())


def _faster(conv: nn.Conv2d) -> nn.Conv2d | None:
    """Return what does the same faster than oneDNN does `conv` channels last, None if nothing."""
    if conv.weight.device.type != "cpu" or isinstance(conv.padding, str):
        return None
    if _SpaceToDepth.suits(conv):
        return _SpaceToDepth.of(conv)
    if conv.weight.numel() >= _WIDE and conv.stride == (1, 1):
        return _with_weights(_ChannelsFirst, conv, conv.weight.contiguous(), conv.bias)
    return None


def _with_weights(kind: type[_Conv], conv: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> _Conv:
    """Return a frozen convolution that is as `conv`, of another kind and with other weights."""
    made = kind(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        conv.dilation,  # type: ignore[arg-type]
        conv.groups,
        bias is not None,
        conv.padding_mode,
        device="meta",
    )
    made.weight = nn.Parameter(weight.detach(), requires_grad=False)
    made.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
    return made.train(conv.training)


class _ChannelsFirst(nn.Conv2d):
    """A convolution done channels first among others done channels last."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D, H', W')."""
        h: Tensor = super().forward(_ToChannelsFirst.apply(x))
        return h.contiguous(memory_format=torch.channels_last)


class _ToChannelsFirst(torch.autograd.Function):
    """The identity, which changes the memory layout on the way in and back on the way out."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.contiguous()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.contiguous(memory_format=torch.channels_last)


class _SpaceToDepth(nn.Conv2d):
    """A strided convolution of few channels as a dense one of s² times as many pixels a place.

    Its backward pass is several times as fast: oneDNN's strided one works channel by channel.
    An image whose size the stride does not divide goes the usual way.
    """

    dense: Tensor
    reach: int

    @classmethod
    def of(cls, conv: nn.Conv2d) -> _SpaceToDepth:
        """Make the dense convolution of a strided one that `suits`."""
        made = _with_weights(cls, conv, conv.weight, conv.bias)
        kernel, stride, made.reach = conv.kernel_size[0], conv.stride[0], _reach(conv)
        wide = (2 * made.reach + 1) * stride
        first = made.reach * stride - int(conv.padding[0])
        taps = conv.weight.new_zeros(conv.out_channels, conv.in_channels, wide, wide)
        taps[..., first : first + kernel, first : first + kernel] = conv.weight.detach()
        made.register_buffer("dense", F.pixel_unshuffle(taps, stride), persistent=False)
        return made

    @staticmethod
    def suits(conv: nn.Conv2d) -> bool:
        """Whether the rewrite is exact and costs at most half as many multiplications again."""
        kernel, stride = conv.kernel_size[0], conv.stride[0]
        square = all(len(set(pair)) == 1 for pair in (conv.kernel_size, conv.stride, conv.padding))
        usual = conv.groups == 1 and conv.dilation == (1, 1) and conv.padding_mode == "zeros"
        if not (square and usual and conv.in_channels <= _FEW and 1 < stride < kernel):
            return False
        return ((2 * _reach(conv) + 1) * stride) ** 2 <= 1.5 * kernel**2

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D, H / stride, W / stride)."""
        stride, kernel, pad = self.stride[0], self.kernel_size[0], int(self.padding[0])
        for size in x.shape[-2:]:
            if size % stride or (size + 2 * pad - kernel) // stride + 1 != size // stride:
                return super().forward(x)
        return F.conv2d(F.pixel_unshuffle(x, stride), self.dense, self.bias, padding=self.reach)


def _reach(conv: nn.Conv2d) -> int:
    """How many places of the output's grid a kernel reaches to a side."""
    before, stride = int(conv.padding[0]), conv.stride[0]
    return max(math.ceil(before / stride), (conv.kernel_size[0] - 1 - before) // stride)


class _GlobalAverage(nn.Module):
    """AdaptiveAvgPool2d(1), whose gradient keeps the memory layout.

    The usual one answers channels-last images with a gradient in the other layout, and then each
    activation before it is a slow copy: on a small net 5 % of the backward pass.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 1, 1)."""
        return F.avg_pool2d(x, (x.shape[-2], x.shape[-1]))
