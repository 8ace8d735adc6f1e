"""The fast copy: a model rewritten so that searches run faster, with other rounding.

The copy is the graph of the model's forward as torch.fx traces it, without the model's own Python
code.  It calls the layers as the model does, and most of them are the model's own.  Each rewrite is
exact in real arithmetic, but none is trusted: `satbench.engine.proof` compares every copy with its
model.  The judge never uses a copy.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Mapping
from operator import attrgetter
from typing import Any, TypeGuard, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.module import _has_any_global_hook
from torch.nn.utils.fusion import fuse_conv_bn_weights

_FEW = 4  # input channels for which oneDNN's backward of a strided convolution is slow
_ALIKE = 1e-4  # how far a folded layer's values may be off, in shares of the largest
_WIDE = 2**21  # weights from which oneDNN is faster with channels first: 512×512×3×3 has more

_Module = TypeVar("_Module", bound=nn.Module)


def fast_copy(model: nn.Module, channels_last: bool = True) -> nn.Module | None:
    """Rewrite a model in eval mode with frozen parameters; None if that would change nothing.

    Batch-norms are folded into the convolutions before them, strided convolutions of images become
    dense ones, and with `channels_last` the memory layout changes.  The result is also None if the
    forward is not a graph, for example if it branches on pixels or reads what a hook has stored.
    The copy shares the model's own layers, and does not change its weights.
    """
    if type(model) is nn.DataParallel and len(model.device_ids) < 2 and is_bare(model):
        return fast_copy(model.module, channels_last)  # with one device it does nothing itself
    if not any(isinstance(module, nn.Conv2d) for module in model.modules()):
        return None
    found = drawn(model)
    if found is None:
        return None
    graph, layers, others = found
    rewritten = _with_folded_batch_norms(graph, layers)
    rewritten = {name: _faster(one, channels_last) or one for name, one in rewritten.items()}
    if all(one is layers[name] for name, one in rewritten.items()):
        return None
    return _put_together(graph, {**others, **rewritten})


class _Tracer(fx.Tracer):
    """Draws the calls of layers: a module without children is a layer, whoever wrote it.

    So is a convolution, which may have a layer of its own that pads.
    """

    def path_of_module(self, mod: nn.Module) -> str:
        try:
            return super().path_of_module(mod)
        except NameError:
            if self.is_leaf_module(mod, ""):
                raise
            return ""  # a slice, chain[1:], is made when it is called; its layers have names

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, nn.Conv2d) or not any(True for _ in m.children()):
            return True
        return super().is_leaf_module(m, module_qualified_name)


Drawn = tuple[fx.Graph, dict[str, nn.Module], dict[str, Any]]
"""The graph of a forward, and by name the layers that it calls and the tensors that it reads."""


def drawn(model: nn.Module) -> Drawn | None:
    """Trace the graph of a model's forward; None if there is none.

    A hook or a forward that is set on a module itself may refer to it, so then there is no graph.
    """
    tracer = _Tracer()
    modules = list(model.named_modules())
    layers = [module for name, module in modules if name and tracer.is_leaf_module(module, name)]
    known = {id(layer) for layer in layers}
    hooked = _has_any_global_hook()  # type: ignore[no-untyped-call]
    if hooked or not all(is_bare(one) for _, one in modules if id(one) not in known):
        return None
    # Tracing calls the forward, which may store things on the model.  So a copy is traced, which
    # shares only the layers and parameters.
    shared: dict[int, Any] = {id(one): one for one in (*layers, *model.parameters())}
    try:
        root = copy.deepcopy(model, shared)
        graph = tracer.trace(root)
    except Exception:  # a model that cannot be copied, control flow that depends on the data, …
        return None
    called = {str(node.target) for node in graph.nodes if node.op == "call_module"}
    read = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
    found = {name: attrgetter(name)(root) for name in called | read}
    return graph, {k: found[k] for k in called}, {k: found[k] for k in read}


def _put_together(graph: fx.Graph, held: Mapping[str, Any]) -> fx.GraphModule:
    """Make a module from a graph and the layers and tensors that it uses.

    All get new names, so that no tensor is stored in one of the model's layers.
    """
    names = {target: f"held_{number}" for number, target in enumerate(held)}
    for node in graph.nodes:
        if node.op in ("call_module", "get_attr"):
            node.target = names[str(node.target)]
    return fx.GraphModule({names[target]: one for target, one in held.items()}, graph)


def is_bare(module: nn.Module) -> bool:
    """Whether a module runs only the forward of its class."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
    return not any(hooks) and not module._backward_pre_hooks and "forward" not in vars(module)


def _plain(module: nn.Module, kind: type[_Module]) -> TypeGuard[_Module]:
    return type(module) is kind and is_bare(module)


def _with_folded_batch_norms(
    graph: fx.Graph, layers: Mapping[str, nn.Module]
) -> dict[str, nn.Module]:
    """Fold each batch-norm into the convolution that only it follows; return the layers."""
    left = dict(layers)
    calls = [node for node in graph.nodes if node.op == "call_module"]
    times = Counter(node.target for node in calls)
    for node in calls:
        source = node.args[0] if len(node.args) == 1 and not node.kwargs else None
        if not isinstance(source, fx.Node) or source.op != "call_module":
            continue
        if len(source.users) > 1 or times[source.target] > 1 or times[node.target] > 1:
            continue
        fused = _fused(left[str(source.target)], left[str(node.target)])
        if fused is not None:
            left[str(source.target)] = fused
            del left[str(node.target)]
            node.replace_all_uses_with(source)
            graph.erase_node(node)
    return left


def _fused(conv: nn.Module, norm: nn.Module) -> nn.Module | None:
    """Return the convolution that does what `conv` and then `norm` do, None if they are others."""
    if not (isinstance(conv, nn.Conv2d) and is_bare(conv) and _plain(norm, nn.BatchNorm2d)):
        return None
    if norm.training or norm.running_mean is None or norm.running_var is None:
        return None
    means, variances = norm.running_mean, norm.running_var
    weight, bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, means, variances, norm.eps, norm.weight, norm.bias
    )
    if _is_usual(conv):
        return _Convolution(conv, weight, bias)
    fused = _reweighted(conv, weight, bias)
    return fused if _do_the_same(fused, nn.Sequential(conv, norm), conv) else None


def _is_usual(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether a module is torch's convolution, with zeros around."""
    return _plain(module, nn.Conv2d) and module.padding_mode == "zeros"


def _reweighted(conv: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """Return a convolution that does with other weights what the forward of `conv` does."""
    made = copy.copy(conv)
    frozen = {"weight": weight, "bias": bias}
    made._parameters = {
        **conv._parameters,
        **{
            name: None if one is None else nn.Parameter(one.detach(), requires_grad=False)
            for name, one in frozen.items()
        },
    }
    return made


def _do_the_same(fused: nn.Module, two: nn.Module, conv: nn.Conv2d) -> bool:
    """Whether a layer does what two do: a convolution of its user's may change its weights first.

    They are compared on one image of waves, which is as large as the kernel and some strides.
    """
    sizes = zip(conv.kernel_size, conv.dilation, conv.stride, strict=True)
    shape = (
        1,
        conv.in_channels,
        *(kernel * dilated + stride + 2 for kernel, dilated, stride in sizes),
    )
    x = torch.arange(math.prod(shape), device=conv.weight.device).to(conv.weight.dtype)
    x = x.mul_(0.7).sin_().view(shape)
    try:
        with torch.no_grad():
            got, wanted = fused(x), two(x)
    except Exception:  # whatever a user's forward raises
        return False
    if not (isinstance(got, Tensor) and got.shape == wanted.shape):
        return False
    return bool((got - wanted).abs().max() <= _ALIKE * wanted.abs().max())


def _faster(module: nn.Module, channels_last: bool) -> nn.Module | None:
    """Return a faster equivalent of a layer; None if none is known."""
    if channels_last and _plain(module, nn.AdaptiveAvgPool2d):
        return _GlobalAverage() if module.output_size in (1, (1, 1)) else None
    if _is_usual(module):
        module = _Convolution(module, module.weight, module.bias)
    if isinstance(module, nn.Conv2d) and is_bare(module):  # of its user's own kind
        return _laid_channels_last(module) if channels_last else None
    if not isinstance(module, _Convolution):
        return None
    on_cpu = module.weight.device.type == "cpu"
    if on_cpu and _SpaceToDepth.suits(module):
        return _SpaceToDepth(module, channels_last)
    if not channels_last:
        return None
    if on_cpu and module.weight.numel() >= _WIDE and module.stride == (1, 1):
        return _ChannelsFirst(module)
    module.weight = module.weight.contiguous(memory_format=torch.channels_last)
    return module


def _laid_channels_last(conv: nn.Conv2d) -> nn.Conv2d | None:
    if conv.weight.dim() != 4:
        return None
    weight = conv.weight.detach().contiguous(memory_format=torch.channels_last)
    return _reweighted(conv, weight, conv.bias)


class _Convolution(nn.Module):
    """A zero-padded convolution like `like`, with other weights, which are not parameters."""

    def __init__(self, like: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight, self.bias = weight.detach(), None if bias is None else bias.detach()
        self.stride, self.padding = _pair(like.stride), like.padding
        self.dilation, self.groups = _pair(like.dilation), like.groups

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D, H', W')."""
        return F.conv2d(
            x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )


def _pair(sizes: tuple[int, ...]) -> tuple[int, int]:
    return sizes[0], sizes[1]


class _ChannelsFirst(nn.Module):
    """A convolution that runs channels first while the others run channels last.

    Measured: docs/decisions/0015-libraries.md.
    """

    def __init__(self, conv: _Convolution) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D, H', W')."""
        h: Tensor = self.conv(_ToChannelsFirst.apply(x))
        return h.contiguous(memory_format=torch.channels_last)


class _ToChannelsFirst(torch.autograd.Function):
    """The identity; it changes the memory layout forward, and back in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.contiguous()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.contiguous(memory_format=torch.channels_last)


class _SpaceToDepth(nn.Module):
    """A strided convolution of few channels, as a dense one with s² times as many channels.

    Its backward pass is several times as fast, because oneDNN's strided one works channel by
    channel.  An image whose size the stride does not divide uses the original convolution.
    Measured: docs/decisions/0015-libraries.md.
    """

    def __init__(self, conv: _Convolution, channels_last: bool) -> None:
        super().__init__()
        kernel, (stride, _), pad = conv.weight.shape[2], conv.stride, int(conv.padding[0])
        self.conv, self.reach = conv, _reach(kernel, stride, pad)
        wide, first = (2 * self.reach + 1) * stride, self.reach * stride - pad
        taps = conv.weight.new_zeros(*conv.weight.shape[:2], wide, wide)
        taps[..., first : first + kernel, first : first + kernel] = conv.weight
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.dense = F.pixel_unshuffle(taps, stride).contiguous(memory_format=layout)

    @staticmethod
    def suits(conv: _Convolution) -> bool:
        """Whether the rewrite is exact and needs at most 1.5 times the multiplications."""
        channels, kernel, stride = *conv.weight.shape[1:3], conv.stride[0]
        pairs = (conv.weight.shape[2:], conv.stride, conv.padding)
        square = not isinstance(conv.padding, str) and all(len(set(pair)) == 1 for pair in pairs)
        usual = conv.groups == 1 and conv.dilation == (1, 1)
        if not (square and usual and channels <= _FEW and 1 < stride < kernel):
            return False
        wide = (2 * _reach(kernel, stride, int(conv.padding[0])) + 1) * stride
        return wide**2 <= 1.5 * kernel**2

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D, H / stride, W / stride)."""
        stride, pad = self.conv.stride[0], int(self.conv.padding[0])
        kernel = self.conv.weight.shape[2]
        for size in x.shape[-2:]:
            if size % stride or (size + 2 * pad - kernel) // stride + 1 != size // stride:
                usual: Tensor = self.conv(x)
                return usual
        return F.conv2d(
            F.pixel_unshuffle(x, stride), self.dense, self.conv.bias, padding=self.reach
        )


def _reach(kernel: int, stride: int, pad: int) -> int:
    """How many places of the output's grid a kernel reaches to one side."""
    return max(math.ceil(pad / stride), (kernel - 1 - pad) // stride)


class _GlobalAverage(nn.Module):
    """AdaptiveAvgPool2d(1) with a gradient that keeps the memory layout.

    For channels-last images, torch's own returns a gradient in the other layout, and then each
    activation before it makes a slow copy (measured: docs/decisions/0015-libraries.md).
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 1, 1)."""
        return F.avg_pool2d(x, (x.shape[-2], x.shape[-1]))
