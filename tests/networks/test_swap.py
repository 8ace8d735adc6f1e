"""Swapping the activations of any model, and the report of what was and what cannot be swapped."""

from __future__ import annotations

import copy
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models

import satbench
from satbench.core.errors import SatbenchError
from satbench.networks.activations import SmoothReLUModule
from satbench.networks.swap import Site, Swapped, swap_activation

X = torch.linspace(-1, 1, 8).reshape(2, 1, 2, 2)


def net(*activations: nn.Module) -> nn.Sequential:
    """(B, 1, 2, 2) -> (B, 2), with some activations between linear layers."""
    parts = [part for act in activations for part in (nn.Linear(4, 4), act)]
    return nn.Sequential(nn.Flatten(), *parts, nn.Linear(4, 2))


def kinds(model: nn.Module, kind: type[nn.Module]) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, kind)]


def refused(model: nn.Module, activation: str = "silu", **options: object) -> str:
    """Return why a swap is refused, after a check that the model is unchanged."""
    before = [(name, id(m), m.training) for name, m in model.named_modules(remove_duplicate=False)]
    with pytest.raises(SatbenchError) as caught:
        swap_activation(model, activation, **options)  # type: ignore[arg-type]

    assert before == [
        (name, id(m), m.training) for name, m in model.named_modules(remove_duplicate=False)
    ]
    return str(caught.value)


class Reused(nn.Module):
    """Its activation under two names, and run three times."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(4, 4), nn.Linear(4, 2)
        self.act = self.alias = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc2(self.act(self.act(self.alias(self.fc1(x.flatten(1))))))
        return logits


class Functional(nn.Module):
    """A module and a function."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc2(F.relu(self.act(self.fc1(x.flatten(1)))))
        return logits


class Hidden(nn.Module):
    """Keeps an activation where named_modules() does not look."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.act = nn.Linear(4, 2), nn.ReLU()
        self.more = [nn.ReLU()]

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.more[0](self.act(self.fc(x.flatten(1))))
        return logits


class Unused(nn.Module):
    """Lets its activation work in place and takes no result."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x.flatten(1))
        self.act(x)
        logits: Tensor = self.fc2(x)
        return logits


class Swish(nn.Module):
    """An activation of a user's own."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)


def test_the_swapped_model_is_the_one_built_with_the_activation() -> None:
    model = net(nn.ReLU(), nn.ReLU(inplace=True))
    built = copy.deepcopy(model)
    built[2], built[4] = nn.SiLU(), nn.SiLU()

    swap_activation(model, "silu")

    assert torch.equal(model(X), built(X))


def test_it_says_what_it_swapped_and_where() -> None:
    swapped = swap_activation(net(nn.ReLU(inplace=True), nn.GELU()), "elu(alpha=1.5)")

    assert swapped == Swapped(
        (
            Site("2", "ReLU(inplace=True)", "ELU(alpha=1.5)", 1),
            Site("4", "GELU(approximate='none')", "ELU(alpha=1.5)", 1),
        )
    )


@pytest.mark.parametrize(
    "activation",
    [
        nn.ReLU(), nn.ReLU6(), nn.LeakyReLU(), nn.PReLU(), nn.RReLU(), nn.ELU(), nn.CELU(),
        nn.SELU(), nn.SiLU(), nn.GELU(), nn.Mish(), nn.Softplus(), nn.Hardswish(),
        SmoothReLUModule(400, True),
    ],
    ids=lambda module: type(module).__name__,
)  # fmt: skip
def test_every_activation_is_swapped(activation: nn.Module) -> None:
    model = net(activation)
    swap_activation(model, "celu(alpha=3)")

    assert repr(model[2]) == "CELU(alpha=3.0)"


def test_places_of_every_kind_are_found() -> None:
    model = net(nn.Sequential(OrderedDict(relu=nn.ReLU())), nn.Sequential(nn.Sequential(nn.ReLU())))
    model[2].add_module("more", nn.ModuleDict({"never": nn.ModuleList([nn.ReLU()])}))
    model[2].forward = lambda x: model[2].relu(x)

    swapped = swap_activation(model, "mish")

    assert {site.name: site.calls for site in swapped.sites} == {
        "2.relu": 1,
        "2.more.never.0": 0,
        "4.0.0": 1,
    }
    assert kinds(model, nn.ReLU) == []


def test_gates_are_not_swapped() -> None:
    model = net(nn.ReLU(), nn.Sigmoid(), nn.Hardsigmoid(), nn.Tanh())

    assert [site.name for site in swap_activation(model, "silu").sites] == ["2"]


def test_further_classes_are_swapped_on_request() -> None:
    model = net(Swish(), nn.Sigmoid())
    swap_activation(model, "silu", also=(Swish, nn.Sigmoid))

    assert kinds(model, nn.SiLU) == ["2", "4"]


def test_a_module_to_keep_is_unchanged_with_its_submodules() -> None:
    model = net(nn.ReLU(), nn.Sequential(nn.ReLU(), Swish()), nn.ReLU())
    swapped = swap_activation(model, "silu", keep=["4"])

    assert [site.name for site in swapped.sites] == ["2", "6"]
    assert kinds(model, nn.ReLU) == ["4.0"]


def test_a_shared_instance_becomes_one_that_is_shared() -> None:
    model = Reused()
    swapped = swap_activation(model, "smooth-relu")

    assert model.act is model.alias
    assert [(site.name, site.calls) for site in swapped.sites] == [("act", 3), ("alias", 3)]


def test_the_sites_of_pssilu_share_what_it_learns() -> None:
    model = net(nn.ReLU(), nn.ReLU())
    before = sum(p.numel() for p in model.parameters())
    swap_activation(model, "pssilu")

    assert sum(p.numel() for p in model.parameters()) == before + 2


def test_a_model_can_be_swapped_back() -> None:
    model = net(nn.ReLU(), nn.ReLU())
    before = model(X)
    swap_activation(model, "silu")
    assert not torch.equal(model(X), before)
    swap_activation(model, "relu")

    assert torch.equal(model(X), before)


def test_weights_mode_gradients_hooks_and_random_state_are_unchanged() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(), nn.ReLU()).train()
    model[1].eval()
    state, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    swap_activation(model, "smooth-relu")

    assert [module.training for module in model] == [True, False, True, True]
    assert all(torch.equal(model.state_dict()[name], value) for name, value in state.items())
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(module._forward_hooks for module in model.modules())


def test_the_new_activation_has_the_mode_of_the_old() -> None:
    model = net(nn.ReLU()).eval()
    swap_activation(model, "silu")

    assert not model[2].training


def test_a_model_without_storage_is_swapped() -> None:
    with torch.device("meta"):
        model = net(nn.ReLU(), nn.ReLU())
    swap_activation(model, "pssilu")

    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert sum(p.shape == (1,) for p in model.parameters()) == 2


def test_an_example_is_needed_only_where_the_shape_is_not_guessed() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 3), nn.ReLU(), nn.Flatten(), nn.Linear(35, 2))

    assert refused(model) == (
        "expected a model that takes zeros of a usual shape, so give example=images (B, C, H, W); "
        "its forward pass ended with RuntimeError: "
        "mat1 and mat2 shapes cannot be multiplied (1x145924 and 35x2)"
    )
    assert len(swap_activation(model, "silu", example=torch.zeros(3, 1, 7, 9)).sites) == 1


def test_calls_are_those_of_the_shape_that_was_taken_alone() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 3), nn.ReLU(), nn.Flatten(), nn.Linear(26 * 26, 2))

    assert [site.calls for site in swap_activation(model, "silu").sites] == [1]


def test_a_model_that_does_not_take_the_example_is_handed_back() -> None:
    assert refused(net(nn.ReLU()), example=torch.zeros(1, 5)).startswith(
        "expected a model that takes example=images (B, C, H, W); its forward pass ended with "
    )


# What cannot be swapped


def test_an_activation_called_as_a_function_is_refused_with_its_place() -> None:
    line = Functional.forward.__code__.co_firstlineno + 1

    assert refused(Functional(), example=X) == (
        "expected activations to be modules that can be swapped, found relu in the model "
        f"(Functional.forward, test_swap.py line {line}); for a function, make self.act = "
        "nn.ReLU() in __init__ and call it, for a class of your own pass also=(CLASS,), or pass "
        "unswappable='leave' to leave them"
    )


def test_it_is_left_on_request_and_reported() -> None:
    model = Functional()
    swapped = swap_activation(model, "silu", unswappable="leave")

    assert kinds(model, nn.SiLU) == ["act"]
    assert [text.split(",")[0] for text in swapped.left] == [
        "relu in the model (Functional.forward"
    ]


def test_a_model_that_has_only_functions_is_refused_for_them() -> None:
    model = nn.TransformerEncoderLayer(4, 1, 4)

    assert "found relu in the model (TransformerEncoderLayer._ff_block, " in refused(
        model, example=torch.zeros(1, 3, 4)
    )


def test_an_activation_that_no_name_leads_to_is_refused() -> None:
    assert "found relu outside named_modules() (ReLU.forward, " in refused(Hidden())


def test_a_class_that_is_called_like_an_activation_is_refused() -> None:
    assert f"found 2 ({__name__}.Swish); " in refused(net(Swish(), nn.ReLU()))


@pytest.mark.parametrize("frozen", [False, True])
def test_an_activation_in_place_whose_result_is_not_taken_is_refused(frozen: bool) -> None:
    assert refused(Unused().requires_grad_(not frozen)) == (
        "the forward pass runs act in place and takes no result, so a module that is not in place "
        "would do nothing there; write x = self.act(x)"
    )


def test_hooks_on_an_activation_are_not_lost() -> None:
    model = net(nn.ReLU())
    model[2].register_forward_hook(lambda module, inputs, output: None)

    assert refused(model) == (
        "the activation 2 has hooks, which would be lost; remove them before the swap"
    )


def test_a_model_without_activations_is_refused() -> None:
    assert refused(net(nn.Sigmoid())) == (
        "expected a model with activation modules in it, got none; if it has ones of your own "
        "making, pass also=(CLASS,)"
    )


def test_a_bare_activation_is_refused() -> None:
    assert refused(nn.ReLU()) == "expected a model with activations in it, got just ReLU()"


def test_an_unknown_name_to_keep_is_refused() -> None:
    assert refused(nn.Sequential(OrderedDict(relu=nn.ReLU())), keep=["rellu"]) == (
        "unknown module 'rellu': did you mean 'relu'?"
    )


def test_an_unknown_activation_is_refused() -> None:
    assert "unknown activation 'sillu'" in refused(net(nn.ReLU()), "sillu")


def test_an_error_while_the_model_runs_undoes_the_swap() -> None:
    class Stopped(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise KeyboardInterrupt

    model = net(nn.ReLU(), Stopped())
    with pytest.raises(KeyboardInterrupt):
        swap_activation(model, "silu")

    assert kinds(model, nn.ReLU) == ["2"]


# Other people's models


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("build", "sites", "calls"),
    [(models.resnet18, 9, 17), (models.resnet50, 17, 49), (models.efficientnet_b0, 49, 49),
     (models.mobilenet_v3_small, 33, 33)],
    ids=["resnet18", "resnet50", "efficientnet_b0", "mobilenet_v3_small"],
)  # fmt: skip
def test_a_torchvision_model_is_swapped(build: type, sites: int, calls: int) -> None:
    with torch.device("meta"):
        model = build()
    gates = kinds(model, (nn.Sigmoid, nn.Hardsigmoid))  # type: ignore[arg-type]
    swapped = swap_activation(model, "celu")

    assert len(swapped.sites) == sites
    assert sum(site.calls for site in swapped.sites) == calls
    assert kinds(model, nn.CELU) == [site.name for site in swapped.sites]
    assert kinds(model, (nn.Sigmoid, nn.Hardsigmoid)) == gates  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_function_in_torchvisions_densenet_is_found() -> None:
    with torch.device("meta"):
        model = models.densenet121()

    assert "found relu in the model (DenseNet.forward, densenet.py line " in refused(model)


@pytest.mark.parametrize(
    ("name", "sites"),
    [("resnet18", 17), ("efficientnet_b0", 49), ("resnetv2_50", 49), ("vit_tiny_patch16_224", 12)],
)
@pytest.mark.slow
def test_a_timm_model_is_swapped(name: str, sites: int) -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model(name)
    swapped = swap_activation(model, "smooth-relu")

    assert [site.calls for site in swapped.sites] == [1] * sites
    assert kinds(model, SmoothReLUModule) == [site.name for site in swapped.sites]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", ["Swish", "GELU", "GELUTanh", "QuickGELU", "HardSwish", "Mish"])
def test_timms_own_activations_are_swapped(name: str) -> None:
    layers = pytest.importorskip("timm.layers.activations")
    model = net(getattr(layers, name)())
    swap_activation(model, "silu")

    assert type(model[2]) is nn.SiLU


def test_it_is_a_part_of_the_package() -> None:
    assert satbench.swap_activation is swap_activation
