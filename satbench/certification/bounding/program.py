"""A network as a program: steps in order, each a linear operation, a sum or an activation.

It is read from the graph of the forward that torch.fx traces.  An unknown step is refused by its
name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from satbench.calling.borrow import borrowed
from satbench.certification.bounding.layers import UnknownLayerError, layer_of, sum_of
from satbench.certification.bounding.operations import Affine, batch_norm
from satbench.certification.bounding.shapes import ActivationShape
from satbench.core.errors import SatbenchError
from satbench.engine.fast_copy import drawn


@dataclass(frozen=True)
class Source:
    """The image."""


@dataclass(frozen=True)
class Signed:
    """The sum of several steps of one shape, each with its sign."""

    signs: tuple[int, ...]


@dataclass(frozen=True)
class ProgramStep:
    """One step: its operation, the earlier steps that it uses, and its shape for one image.

    `norm` is the batch-norm that the operation was read from, if it is one.
    """

    does: Source | Affine | Signed | ActivationShape
    takes: tuple[int, ...]
    shape: tuple[int, ...]
    name: str
    norm: nn.BatchNorm2d | None = None


@dataclass(frozen=True)
class Program:
    """The steps of a network, ordered so that each comes after those that it uses."""

    steps: tuple[ProgramStep, ...]

    @property
    def sites(self) -> list[int]:
        """The steps that are activations, in order."""
        return [k for k, step in enumerate(self.steps) if isinstance(step.does, ActivationShape)]

    def shape_at(self, site: int) -> ActivationShape:
        """Return the shape of an activation."""
        return cast(ActivationShape, self.steps[site].does)

    @property
    def classes(self) -> int:
        """The number of logits."""
        return self.steps[-1].shape[0]

    @property
    def neurons(self) -> int:
        """The number of inputs of all activations."""
        return sum(prod(self.steps[site].shape) for site in self.sites)

    @property
    def largest(self) -> int:
        """The largest number of elements of a step, or of terms of a sum, times 4.

        A sum over the rows, columns and steps of a bound has no more terms.
        """
        sizes = [prod(step.shape) for step in self.steps]
        terms = [getattr(step.does, "terms", 0) for step in self.steps]
        return 4 * max(*sizes, *terms, len(sizes)) + 1000

    def with_statistics(self, known: Mapping[int, tuple[Tensor, Tensor]]) -> Program:
        """Return the program whose batch-norms, by step, use these means and variances, (C,)."""
        steps = list(self.steps)
        for number, (mean, variance) in known.items():
            norm = cast(nn.BatchNorm2d, steps[number].norm)
            steps[number] = replace(steps[number], does=batch_norm(norm, mean, variance))
        return Program(tuple(steps))


def read_program(model: nn.Module, shape: tuple[int, ...]) -> Program:
    """Read the program of a model for images of a shape (C, H, W); it shares the model's weights.

    The model is not changed.  Raises SatbenchError for a forward that is no graph, and for a layer
    without known bounds.
    """
    with borrowed(model) as calm, torch.no_grad():
        found = drawn(calm)
        if found is None:
            raise SatbenchError(
                "expected a network whose forward is one graph (no branches on pixels, no hooks), "
                "got one that torch.fx cannot draw: no bounds of it are known here"
            )
        graph, layers, tensors = found
        parameters = [*model.parameters(), *model.buffers(), torch.empty(0)]
        example = torch.full(
            (1, *shape), 0.5, dtype=parameters[0].dtype, device=parameters[0].device
        )
        return _Reading(layers, tensors).read(graph, example)


class _Reading:
    """The conversion of a graph into a program: an example goes through it, step by step."""

    def __init__(self, layers: Mapping[str, nn.Module], tensors: Mapping[str, Any]) -> None:
        self._layers, self._tensors = layers, tensors
        self._steps: list[ProgramStep] = []
        self._values: dict[fx.Node, Any] = {}
        self._places: dict[fx.Node, int] = {}

    def read(self, graph: fx.Graph, example: Tensor) -> Program:
        """Read all nodes."""
        for node in graph.nodes:
            if node.op == "placeholder":
                self._take(node, example)
            elif node.op == "get_attr":
                self._values[node] = self._tensors[str(node.target)]
            elif node.op == "output":
                return self._ended(node.args[0])
            else:
                self._call(node)
        raise AssertionError("a graph ends with its output")

    def _take(self, node: fx.Node, example: Tensor) -> None:
        if self._steps:  # another argument, which has a default
            self._values[node] = node.args[0] if node.args else None
            return
        self._values[node] = example
        self._add(node, Source(), (), example, "the image")

    def _call(self, node: fx.Node) -> None:
        args = map_arg(node.args, self._values.__getitem__)
        kwargs = map_arg(node.kwargs, self._values.__getitem__)
        name = str(node.target) if node.op == "call_module" else node.name
        module = self._layers[str(node.target)] if node.op == "call_module" else None
        try:
            value = _called(node, module, args, kwargs)
        except SatbenchError:
            raise
        except Exception as error:
            raise SatbenchError(f"the model fails at {name}: {error}") from error
        self._values[node] = value
        places = [self._places[one] for one in node.all_input_nodes if one in self._places]
        if not places or not isinstance(value, Tensor):
            return  # a constant, or a size
        if value.dim() < 2 or len(value) != 1:
            raise UnknownLayerError(name, "a step without one row for each image")
        self._follow(node, module, name, args, kwargs, value)

    def _follow(
        self,
        node: fx.Node,
        module: nn.Module | None,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        value: Tensor,
    ) -> None:
        if module is None and (signs := sum_of(node.target)) is not None and not kwargs:
            both = [place for one in node.args if (place := self._place(one)) is not None]
            if len(both) == 2 == len(node.args):
                if {self._steps[place].shape for place in both} != {tuple(value.shape[1:])}:
                    raise UnknownLayerError(name, "a sum that broadcasts")
                self._add(node, Signed(signs), tuple(both), value, name)
                return
        moving = [k for k, one in enumerate(node.args) if self._place(one) is not None]
        # Values that depend on the image only inside a list, or by keyword, are not found.
        if (
            len(moving) != 1
            or len([one for one in node.all_input_nodes if one in self._places]) > 1
        ):
            raise UnknownLayerError(name, _title(node, module))
        place = cast(int, self._place(node.args[moving[0]]))
        found = layer_of(node.target if module is None else module, args, kwargs, moving[0], value)
        if found is None:
            raise UnknownLayerError(name, _title(node, module))
        if found == "same":
            self._places[node] = place
            return
        norm = module if isinstance(module, nn.BatchNorm2d) else None
        self._add(node, found, (place,), value, name, norm)

    def _place(self, node: Any) -> int | None:
        """Return the step of a node; None if it does not depend on the image."""
        return self._places.get(node) if isinstance(node, fx.Node) else None

    def _add(
        self,
        node: fx.Node,
        does: Source | Affine | Signed | ActivationShape,
        takes: tuple[int, ...],
        value: Tensor,
        name: str,
        norm: nn.BatchNorm2d | None = None,
    ) -> None:
        self._places[node] = len(self._steps)
        self._steps.append(ProgramStep(does, takes, tuple(value.shape[1:]), name, norm))

    def _ended(self, node: Any) -> Program:
        place = self._place(node)
        if place is None or len(self._steps[place].shape) != 1:
            raise SatbenchError("expected a network that answers with logits (N, K)")
        return Program(tuple(self._steps[: place + 1]))


def _called(
    node: fx.Node, module: nn.Module | None, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    if module is not None:
        return module(*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    return cast(Callable[..., Any], node.target)(*args, **kwargs)


def _title(node: fx.Node, module: nn.Module | None) -> str:
    if module is not None:
        return type(module).__name__
    return getattr(node.target, "__name__", str(node.target))
