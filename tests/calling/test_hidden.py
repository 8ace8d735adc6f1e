from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from satbench.calling.hidden import HiddenModuleError, hidden_modules, watched

X = torch.rand(4, 3, 4, 4)


def net() -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(48, 10))


SHARED = net()  # reached by its global name


@dataclass
class Held:
    inner: nn.Module


class In(nn.Module):
    """A model that keeps a Python object, and calls a part of it."""

    def __init__(self, kept: object, call: Callable[[object, Tensor], Tensor]) -> None:
        super().__init__()
        self.kept, self.call = kept, call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self.kept, x)


class ByGlobal(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = SHARED(x)
        return logits


def by_closure() -> nn.Module:
    inner = net()

    class ByClosure(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = inner(x)
            return logits

    return ByClosure()


def unregistered() -> nn.Module:
    model = In(None, lambda _, x: vars(model)["inner"](x))
    vars(model)["inner"] = net()
    return model


CASES: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "list": (lambda: In([net()], lambda kept, x: kept[0](x)), "kept[0]"),
    "tuple of lists": (lambda: In(([], [net()]), lambda kept, x: kept[1][0](x)), "kept[1][0]"),
    "dict": (lambda: In({"a": net()}, lambda kept, x: kept["a"](x)), "kept['a']"),
    "object": (lambda: In(Held(net()), lambda kept, x: kept.inner(x)), "kept.inner"),
    "closure": (by_closure, "inner"),
    "global": (ByGlobal, "SHARED"),
    "partial": (lambda: In(functools.partial(net()), lambda kept, x: kept(x)), "kept[0]"),
    "lambda": (lambda: In((lambda one: lambda x: one(x))(net()), lambda kept, x: kept(x)), "one"),
    "bound method": (lambda: In(net().forward, lambda kept, x: kept(x)), "kept.0"),
    "forward itself": (lambda: In([net()], lambda kept, x: kept[0].forward(x)), "kept[0]"),
    "attribute past Module": (unregistered, "inner"),
    "made in the forward": (
        lambda: In(
            net, lambda make, x: nn.Linear(10, 2)(SHARED[1](x).mean(1, True).expand(-1, 10))
        ),
        "a Linear",
    ),
}


@pytest.mark.parametrize(("make", "place"), CASES.values(), ids=CASES)
def test_a_layer_with_weights_that_the_model_does_not_know_is_named_before_it_changes(
    make: Callable[[], nn.Module], place: str
) -> None:
    model = make().eval()
    before = [tensor.clone() for tensor in SHARED.state_dict().values()]

    with pytest.raises(HiddenModuleError) as caught, watched(model):
        model(X)

    assert f"got {place}" in str(caught.value)
    after = SHARED.state_dict().values()
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize(("make", "place"), CASES.values(), ids=CASES)
def test_the_watch_leaves_nothing_behind(make: Callable[[], nn.Module], place: str) -> None:
    model = make()
    with pytest.raises(HiddenModuleError), watched(model):
        model(X)

    assert all(
        "forward" not in vars(part) for _, one in hidden_modules(model) for part in one.modules()
    )
    assert model(X).shape[0] == len(X)


def test_an_error_that_the_models_own_code_catches_is_raised_in_the_end() -> None:
    class Catches(In):
        def forward(self, x: Tensor) -> Tensor:
            try:
                return super().forward(x)
            except ValueError:
                return x.flatten(1)

    model = Catches([net()], lambda kept, x: kept[0](x))
    with pytest.raises(HiddenModuleError), watched(model):
        model(X)


def test_hidden_dropout_is_named_though_it_has_no_weights() -> None:
    model = In([nn.Dropout()], lambda kept, x: kept[0](x))

    with pytest.raises(HiddenModuleError, match=r"got kept\[0\]"), watched(model):
        model(X)


def known_twice() -> nn.Module:
    model = nn.Sequential(net())
    vars(model)["again"] = [nn.Sequential(*model[0])]
    return model


def with_parent() -> nn.Module:
    model = nn.Sequential(net())
    vars(model[0])["parent"] = [model]
    return model


class WithTeacher(In):
    def __init__(self) -> None:
        super().__init__([net()], lambda kept, x: x)
        self.own = net()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.own(x)
        return logits


HONEST: dict[str, Callable[[], nn.Module]] = {
    "plain": net,
    "stateless in a list": lambda: In([nn.ReLU()], lambda kept, x: kept[0](x)),
    "made in the forward": lambda: In(None, lambda _, x: nn.Softmax(1)(nn.Flatten()(x))),
    "known elsewhere": known_twice,
    "reference to its parent": with_parent,
    "a teacher it never calls": WithTeacher,
}


@pytest.mark.parametrize("make", HONEST.values(), ids=HONEST)
def test_registered_modules_and_modules_without_state_are_accepted(
    make: Callable[[], nn.Module],
) -> None:
    model = make().eval()
    with watched(model) as hidden:
        model(X)

    assert hidden.called == {}


def test_hidden_layers_in_eval_mode_are_listed() -> None:
    model = In([net().eval()], lambda kept, x: kept[0](x))
    with watched(model) as hidden:
        model(X)

    assert list(hidden.called) == ["kept[0]"]
