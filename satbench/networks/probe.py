"""Find which activations a forward pass of a model runs, and where in the code."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from satbench.core.errors import SatbenchError

_FUNCTIONS = frozenset(
    {
        "relu", "relu_", "relu6", "leaky_relu", "leaky_relu_", "prelu", "rrelu", "rrelu_", "elu",
        "elu_", "celu", "celu_", "selu", "selu_", "silu", "gelu", "mish", "softplus", "hardswish",
    }
)  # fmt: skip
_SIZES = (32, 28, 64, 224, 299, 384)  # usual image sizes of models


class Probe:
    """The result of one forward pass of a model with the activation modules `known`."""

    def __init__(self, model: nn.Module, known: Collection[nn.Module]) -> None:
        self._model = model
        self._names = {id(module): name for name, module in model.named_modules()}
        self._known = set(known)
        self._outputs: dict[nn.Module, list[Tensor]] = {module: [] for module in known}
        self._logits: list[Tensor] = []
        self.functions: Counter[str] = Counter()
        """The number of runs of activations outside the known modules, by place in the code."""

    def run(self, example: Tensor | None) -> None:
        """Run the model on `example`, or on zeros of a shape that it accepts; it is not changed.

        Raises SatbenchError if it accepts no such images.
        """
        error: Exception = SatbenchError("it has no convolution and no linear layer")
        for x in _guesses(self._model) if example is None else (example[:1],):
            try:
                self._forward(x)
            except Exception as problem:
                error = problem
            else:
                return
        told = "zeros of a usual shape, so give example=" if example is None else "example="
        raise SatbenchError(
            f"expected a model that takes {told}images (B, C, H, W); its forward pass ended with "
            f"{type(error).__name__}: {error}"
        ) from error

    def calls(self, module: nn.Module) -> int:
        """Return the number of runs of a known module."""
        return len(self._outputs[module])

    def unused(self, modules: Collection[nn.Module]) -> list[nn.Module]:
        """Return the known modules that ran, but whose output does not reach the logits."""
        runs = [(m, out) for m in modules for out in self._outputs[m] if out.requires_grad]
        logits = [part.sum() for part in self._logits if part.requires_grad]
        if not runs or not logits:
            return []
        total = torch.stack(logits).sum()
        grads = torch.autograd.grad(total, [out for _, out in runs], allow_unused=True)
        return [m for (m, _), grad in zip(runs, grads, strict=True) if grad is None]

    def _forward(self, x: Tensor) -> None:
        for outputs in self._outputs.values():
            outputs.clear()
        self.functions.clear()
        x = x.detach().clone()
        if x.is_floating_point():
            x.requires_grad_()  # works for a frozen model too
        with ExitStack() as stack:
            stack.enter_context(_in_eval_mode(self._model))
            stack.enter_context(torch.random.fork_rng(devices=[]))
            stack.enter_context(torch.enable_grad())
            for module in self._known:
                stack.callback(module.register_forward_hook(self._note).remove)
            stack.enter_context(_Watch(self._called))
            self._logits = list(_tensors(self._model(x)))

    def _note(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        self._outputs[module].append(output)

    def _called(self, function: str) -> None:
        frame = inspect.currentframe()
        while frame and not isinstance(frame.f_locals.get("self"), nn.Module):
            frame = frame.f_back
        if not frame:
            self.functions[f"{function} called as a function"] += 1
            return
        owner = frame.f_locals["self"]
        if owner in self._known:
            return
        kind, code = type(owner).__name__, frame.f_code
        name = self._names.get(id(owner))
        where = "outside named_modules()" if name is None else f"in {name or 'the model'}"
        place = f"{kind}.{code.co_name}, {Path(code.co_filename).name} line {frame.f_lineno}"
        self.functions[f"{function} {where} ({place})"] += 1


class _Watch(TorchFunctionMode):
    """Reports every activation that torch computes."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__()
        self._tell = tell

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in _FUNCTIONS or getattr(func, "is_activation", False):
            self._tell(name)
        return func(*args, **(kwargs or {}))


@contextmanager
def _in_eval_mode(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)


def _guesses(model: nn.Module) -> Iterator[Tensor]:
    """Yield zeros of shapes that a model may accept, judging by its first layer with weights."""
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    config = getattr(model, "pretrained_cfg", None)  # timm's
    size = config.get("input_size") if isinstance(config, Mapping) else None
    shapes = [tuple(size)] if size else []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            usual = [(module.in_channels, side, side) for side in _SIZES]
            shapes = [*usual[:3], *shapes, *usual[3:]]
            break
        if isinstance(module, nn.Linear):
            shapes.append((1, 1, module.in_features))
            break
    yield from (like.new_zeros(1, *shape) for shape in shapes)
