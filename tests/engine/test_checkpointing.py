"""Gradients with less memory: the same numbers with fewer stored activations."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import satbench
from satbench.core.errors import SatbenchError
from satbench.data import Dataset
from satbench.engine.backward import Backward
from satbench.engine.machine.checkpointing import Checkpointed, parts_of
from satbench.models import LoadedModel
from satbench.networks.build import build_network


class InPlace(nn.Module):
    """A residual block whose activations write into their inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.act = nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.act(self.first(x)))
        return out + x


class ChangesWhatOthersHold(nn.Module):
    """A part that writes into its input, which is used again after it."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Sequential(nn.SiLU(inplace=True), nn.Conv2d(4, 4, 3, padding=1))
        self.more = nn.Sequential(*(nn.Conv2d(4, 4, 3, padding=1) for _ in range(6)))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(4 * 36, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = x.expand(-1, 4, -1, -1) * 1.0
        out = self.part(x)
        logits: Tensor = self.head(self.more(out) + x)
        return logits


def flat() -> nn.Module:
    blocks = [nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.SiLU(inplace=True)) for _ in range(9)]
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), *blocks, nn.Flatten(), nn.Linear(4 * 36, 3))


def residual() -> nn.Module:
    blocks = (InPlace() for _ in range(6))
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), *blocks, nn.Flatten(), nn.Linear(4 * 36, 3))


def rectified() -> nn.Module:
    blocks = [nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()) for _ in range(9)]
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), *blocks, nn.Flatten(), nn.Linear(4 * 36, 3))


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]] = {
    "flat": (flat, (1, 6, 6)),
    "residual": (residual, (1, 6, 6)),
    "changes what others hold": (ChangesWhatOthersHold, (1, 6, 6)),
    "resnet": (lambda: build_network("he-cifar-resnet(depth=20)", "silu", 3), (3, 32, 32)),
    "tiny": (lambda: build_network("tiny", "relu", 3), (1, 28, 28)),
}


@pytest.fixture(params=list(NETS))
def given(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor]:
    """A network in one of several forms, in eval mode, frozen, and two images."""
    make, shape = NETS[request.param]
    return made(make), images(*shape)


def made(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().eval().requires_grad_(False)


def images(*shape: int) -> Tensor:
    return torch.rand(2, *shape, generator=torch.Generator().manual_seed(1))


def gradient(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    leaf = x.clone().requires_grad_()
    logits = model(leaf)
    (grad,) = torch.autograd.grad(logits.square().sum(), leaf)
    return logits.detach(), grad


def test_values_and_gradients_equal_those_of_the_model(given: tuple[nn.Module, Tensor]) -> None:
    net, x = given
    logits, grad = gradient(net, x)
    again, same = gradient(Checkpointed(net), x)

    torch.testing.assert_close(again, logits, rtol=0, atol=0)
    torch.testing.assert_close(same, grad, rtol=0, atol=0)
    assert grad.abs().max() > 0


@contextmanager
def kept() -> Iterator[list[int]]:
    """Count the bytes that are stored for the gradient."""
    total = [0]

    def pack(x: Tensor) -> Tensor:
        total[0] += x.numel() * x.element_size()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        yield total


def test_a_deep_network_stores_less_than_a_quarter_of_the_bytes() -> None:
    net = nn.Sequential(
        *(nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.SiLU()) for _ in range(64)), nn.Flatten()
    ).requires_grad_(False)
    x = torch.rand(1, 1, 64, 64).requires_grad_()
    with kept() as plain:
        net(x)
    wrapped = Checkpointed(net)
    wrapped(x)  # the first call compares
    with kept() as less:
        wrapped(x)

    assert 0 < less[0] < plain[0] / 4


def test_the_softplus_backward_also_applies_to_the_recomputation() -> None:
    # ReLU stores only its result, which is not enough for the gradient of softplus.
    net, x = made(rectified), images(1, 6, 6)
    found = []
    for model in (net, Checkpointed(net)):
        leaf = x.clone().requires_grad_()
        with Backward.parse("softplus(3)").applied():
            logits = model(leaf)
        found.append(torch.autograd.grad(logits.square().sum(), leaf)[0])
    _, own = gradient(net, x)

    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
    assert not torch.allclose(found[0], own)


def test_the_model_is_unchanged_after_a_forward(given: tuple[nn.Module, Tensor]) -> None:
    net, x = given
    before = {id(one): dict(vars(one)) for one in net.modules()}
    gradient(Checkpointed(net), x)

    assert {id(one): dict(vars(one)) for one in net.modules()} == before


def test_parts_hold_about_the_square_root_of_the_number_of_layers() -> None:
    net = build_network("he-cifar-resnet(depth=20)", "silu", 3)
    layers = [one for one in net.modules() if not list(one.children())]
    parts = parts_of(net)

    assert len(parts) >= 8
    for part in parts:
        inside = [one for one in part.module.modules() if not list(one.children())]
        assert part.runs or len(inside) ** 2 <= len(layers) + 2 * len(layers) ** 0.5 + 1


def test_an_evaluation_has_the_same_verdicts(shipped: LoadedModel, fashion: Dataset) -> None:
    some = fashion.first(6)
    x, y = some.pixels(torch.arange(6).numpy()), some.labels
    attacks = ["pgd-2", "cosine-pgd(steps=2,backward=softplus(5))", "square(queries=5)"]
    plain, less = (
        satbench.evaluate(
            shipped.module, x, y, attacks=attacks, eps="0.1", out=None, checkpointing=on
        )
        for on in (False, True)
    )

    assert less.verdicts == plain.verdicts
    assert less.diagnosis == plain.diagnosis
    assert less.identity == plain.identity
    assert {stage.search for stage in less.stages if stage.attacked} == {"plain"}


def test_checkpointing_together_with_bpda_is_refused(
    shipped: LoadedModel, fashion: Dataset
) -> None:
    some = fashion.first(4)
    x, y = some.pixels(torch.arange(4).numpy()), some.labels
    layer = next(name for name, one in shipped.module.named_modules() if isinstance(one, nn.ReLU))
    with pytest.raises(SatbenchError, match="checkpointing"):
        satbench.evaluate(
            shipped.module, x, y, eps="0.1", out=None, checkpointing=True, bpda={layer: "identity"}
        )


IN_A_GIB = """
import resource, sys, torch
from torch import nn
import satbench
torch.manual_seed(0)
layers = [nn.Conv2d(1, 64, 1), *(m for _ in range(40) for m in (nn.Conv2d(64, 64, 1), nn.SiLU()))]
net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(1024, 3)).eval()
x = torch.rand(1, 1, 256, 256)
y = net(x).argmax(1).detach()
given = dict(attacks="pgd(steps=2)", eps="1/255", out=None, diagnose=False, progress=False)
given["checkpointing"] = sys.argv[1] == "checkpointing"
satbench.evaluate(net, x[:, :, :64, :64], y, **given)  # all is loaded now
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**30,) * 2)
try:
    print(len(satbench.evaluate(net, x, y, **given).verdicts))
except satbench.SatbenchError as error:
    print(type(error).__name__)
"""
"""One image whose activations are 1.3 GiB, in a process that may take 1 GiB more."""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs the limits of Linux")
@pytest.mark.parametrize(("how", "told"), [("plain", "NoRoomError"), ("checkpointing", "1")])
def test_an_image_too_large_for_1_gib_fits_with_checkpointing(how: str, told: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IN_A_GIB, how], capture_output=True, text=True, check=False
    )

    assert done.stdout.strip() == told, done.stderr
