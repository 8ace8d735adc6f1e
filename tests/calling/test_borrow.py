from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from satbench.calling.borrow import borrowed
from satbench.core.errors import SatbenchError


class Counter(nn.Module):
    """A model that writes into a buffer at every call, in eval mode too."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(3))
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        logits: Tensor = self.net(x)
        return logits


@pytest.fixture
def model() -> Counter:
    """A model in train mode, except its batch norm; one parameter frozen, one with a grad."""
    model = Counter()
    model.net[2].eval()
    model.net[1].bias.requires_grad_(False)
    model.net[1].weight.grad = torch.ones(3, 4)
    return model


def modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


def test_the_model_is_in_eval_mode_with_frozen_parameters_while_borrowed(model: Counter) -> None:
    with borrowed(model) as judged:
        found = (any(modes(judged)), any(p.requires_grad for p in judged.parameters()))

    assert found == (False, False)


def test_the_borrowed_model_is_the_model_itself(model: Counter) -> None:
    with borrowed(model) as judged:
        assert judged is model


def test_the_mode_of_every_module_comes_back(model: Counter) -> None:
    before = modes(model)
    with borrowed(model):
        pass

    assert modes(model) == before
    assert (model.training, model.net[2].training) == (True, False)


def test_a_mode_that_the_borrower_changes_is_restored(model: Counter) -> None:
    before = modes(model)
    with borrowed(model) as judged:
        judged.train()

    assert modes(model) == before


def test_requires_grad_of_every_parameter_comes_back(model: Counter) -> None:
    with borrowed(model):
        pass

    assert [p.requires_grad for p in model.parameters()] == [True, False, True, True]


def test_the_very_same_grads_come_back(model: Counter) -> None:
    grad = model.net[1].weight.grad
    with borrowed(model) as judged:
        judged.net[1].weight.grad = None
        judged.net[1].bias.grad = torch.ones(3)

    assert model.net[1].weight.grad is grad
    assert model.net[1].bias.grad is None


def test_a_backward_pass_leaves_no_grad_in_the_parameters(model: Counter) -> None:
    with borrowed(model) as judged:
        judged(torch.rand(2, 4, requires_grad=True)).sum().backward()

    assert torch.equal(model.net[1].weight.grad, torch.ones(3, 4))
    assert model.net[2].weight.grad is None


def test_the_contents_of_buffers_come_back(model: Counter) -> None:
    seen = model.seen
    with borrowed(model) as judged:
        judged(torch.rand(2, 4))

    assert model.seen is seen
    assert torch.equal(seen, torch.zeros(3))


def test_batch_statistics_come_back(model: Counter) -> None:
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with borrowed(model) as judged:
        judged.train()(torch.rand(2, 4))

    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


def test_buffers_with_nan_come_back(model: Counter) -> None:
    model.seen[1] = torch.nan
    with borrowed(model) as judged:
        judged(torch.rand(2, 4))

    assert torch.equal(model.seen.nan_to_num(7), torch.tensor([0.0, 7, 0]))


def test_everything_comes_back_after_an_error(model: Counter) -> None:
    before = modes(model)
    with pytest.raises(RuntimeError, match="shapes"), borrowed(model) as judged:
        judged(torch.rand(2, 5))

    assert modes(model) == before
    assert [p.requires_grad for p in model.parameters()] == [True, False, True, True]
    assert torch.equal(model.seen, torch.zeros(3))


def test_borrowing_twice_at_once_brings_everything_back(model: Counter) -> None:
    before = modes(model)
    with borrowed(model) as outer, borrowed(outer):
        pass

    assert modes(model) == before
    assert [p.requires_grad for p in model.parameters()] == [True, False, True, True]


class Reassigning(nn.Module):
    """A model whose forward puts another tensor in the place of a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls = self.calls + 1
        return x


def test_a_buffer_that_the_forward_reassigns_comes_back_itself() -> None:
    model = Reassigning()
    before = model.calls
    with borrowed(model) as judged:
        judged(torch.ones(1))

    assert model.calls is before
    assert float(model.calls) == 0


# Whatever happens


class Net(nn.Module):
    """A net with everything that a model can contain, and a given forward."""

    def __init__(self, forward: Callable[[Any, Tensor], object]) -> None:
        super().__init__()
        self.layer, self.other = nn.Linear(4, 3), nn.Linear(4, 3)
        self.layer.weight.grad = torch.ones(3, 4)
        self.layer.bias.requires_grad_(False)
        self.scale = nn.Parameter(torch.ones(3))
        self.register_buffer("seen", torch.arange(3.0))
        self.register_buffer("cache", torch.zeros(2), persistent=False)
        self.layer.register_forward_hook(lambda module, inputs, output: output)
        self.do = (forward,)  # in a tuple: it is no method

    def forward(self, x: Tensor) -> Tensor:
        self.do[0](self, x)
        logits: Tensor = self.layer(x)
        return logits


def held(net: nn.Module) -> dict[str, object]:
    """Return everything that must be restored: names, objects, contents, switches."""
    found: dict[str, object] = {}
    for name, module in net.named_modules():
        found |= {
            f"{name} mode": module.training,
            f"{name} hooks": list(module._forward_hooks.values()),
            f"{name} state": list(module.state_dict()),
        }
    for name, tensor in (*net.named_parameters(), *net.named_buffers()):
        found |= {
            name: (id(tensor), tensor.dtype, tensor.requires_grad),
            f"{name} memory": tensor.data_ptr() if isinstance(tensor, nn.Parameter) else None,
            f"{name} grad": id(tensor.grad) if tensor.requires_grad else None,
            f"{name} values": tensor.tolist(),
        }
    return found


def delete_buffer(net: Any, x: Tensor) -> None:
    del net.seen
    net.seen = None


def other_kind_of_buffer(net: Any, x: Tensor) -> None:
    net.seen.data = torch.zeros(7, dtype=torch.float64)


def buffer_with_a_graph(net: Any, x: Tensor) -> None:
    net.seen.mul_(x.sum())


def parameter_with_a_graph(net: Any, x: Tensor) -> None:
    net.scale = nn.Parameter(torch.zeros(2))
    net.other.weight.requires_grad_(True)


def other_memory(net: Any, x: Tensor) -> None:
    net.layer.weight.data = net.layer.weight.data.bfloat16().float()


def other_modules(net: Any, x: Tensor) -> None:
    net.other = nn.Identity()
    net.third = nn.Linear(2, 2)


def other_hooks(net: Any, x: Tensor) -> None:
    net.layer._forward_hooks.clear()
    net.other.register_forward_hook(lambda module, inputs, output: output * 2)


def other_names(net: Any, x: Tensor) -> None:
    net.register_buffer("late", torch.zeros(1))
    net.extra = nn.Parameter(torch.zeros(1))
    del net.other
    net.register_buffer("cache", net.cache, persistent=True)


def other_switches(net: Any, x: Tensor) -> None:
    net.train()
    net.requires_grad_(True)
    net.layer.weight.grad = torch.zeros(3, 4)
    net.scale.grad = torch.zeros(3)


def other_size(net: Any, x: Tensor) -> None:
    net.seen.resize_(100)
    net.seen.fill_(7)


DEEDS = (
    delete_buffer,
    other_kind_of_buffer,
    buffer_with_a_graph,
    parameter_with_a_graph,
    other_memory,
    other_modules,
    other_hooks,
    other_names,
    other_switches,
    other_size,
)


@pytest.mark.parametrize("deed", DEEDS, ids=lambda deed: deed.__name__)
@pytest.mark.parametrize("end", [None, RuntimeError, KeyboardInterrupt])
def test_whatever_a_forward_does_to_its_model_everything_comes_back(
    deed: Callable[[Any, Tensor], object], end: type[BaseException] | None
) -> None:
    def forward(net: Any, x: Tensor) -> None:
        deed(net, x)
        if end:
            raise end

    net = Net(forward)
    before = held(net)
    with pytest.raises(end or ZeroDivisionError), borrowed(net) as judged:  # noqa: PT012
        judged(torch.rand(2, 4, requires_grad=True))
        raise ZeroDivisionError

    assert held(net) == before


def test_a_buffer_whose_memory_is_freed_comes_back_with_its_contents() -> None:
    net = Net(lambda net, x: net.seen.untyped_storage().resize_(0))
    seen = net.seen
    with borrowed(net) as judged:
        judged(torch.rand(2, 4))

    assert net.seen is seen
    assert seen.tolist() == [0, 1, 2]


def test_everything_else_is_restored_if_one_thing_cannot_be() -> None:
    class Stubborn(nn.Module):
        def __setattr__(self, name: str, value: object) -> None:
            if name == "training" and "kept" in vars(self):
                raise AttributeError(name)
            super().__setattr__(name, value)

    net = nn.Sequential(Stubborn(), Net(other_switches), nn.Dropout())
    net[0].kept = True  # type: ignore[assignment]
    net[0].__dict__["training"] = False
    before = held(net)
    with pytest.raises(AttributeError), borrowed(net) as judged:
        judged[1](torch.rand(2, 4))

    assert held(net) == before


def draw() -> tuple[float, float, float]:
    return float(torch.rand(())), float(np.random.random()), random.random()


@pytest.mark.parametrize("end", [None, KeyboardInterrupt])
def test_the_generators_of_torch_numpy_and_python_come_back(
    end: type[BaseException] | None,
) -> None:
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        with borrowed(nn.Identity()):
            drawn = draw()
            if end:
                raise end
    except KeyboardInterrupt:
        pass
    assert draw() == drawn
    torch.set_rng_state(states[0])
    np.random.set_state(states[1])
    random.setstate(states[2])


class Trained(nn.Module):
    """A net whose `train` is the user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Dropout()

    def train(self, mode: bool = True) -> Any:
        raise NotImplementedError("this net is for inference")


def test_an_error_of_train_is_reported_and_leaves_the_model_unchanged() -> None:
    net = nn.Sequential(Trained(), nn.Dropout())
    before = modes(net)
    with pytest.raises(SatbenchError, match=r"fix its train\(\)"), borrowed(net):
        pass

    assert modes(net) == before


def test_a_train_that_raises_is_not_called_on_a_model_in_eval_mode() -> None:
    net = Trained()
    net.training = net.part.training = False
    with borrowed(net) as judged:
        judged.part.training = True

    assert modes(net) == [False, False]


def test_a_train_that_returns_nothing_is_accepted() -> None:
    class Silent(Trained):
        def train(self, mode: bool = True) -> None:
            self.training = self.part.training = mode

    net = Silent()
    with borrowed(net) as judged:
        assert modes(judged) == [False, False]

    assert modes(net) == [True, True]


def test_weights_made_under_inference_mode_are_borrowed_as_they_are() -> None:
    with torch.inference_mode():
        net = nn.BatchNorm1d(3)
    with borrowed(net) as judged:
        judged.running_mean.data_ptr()

    assert net.training
    assert net.weight.requires_grad


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")
def test_buffers_of_a_compiled_script_come_back() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls = self.calls + 1
            self.seen += 1
            return x

    net = torch.jit.script(Counting())
    with borrowed(net) as judged:
        judged(torch.ones(1))

    assert (float(net.calls), float(net.seen), net.training) == (0, 0, True)
