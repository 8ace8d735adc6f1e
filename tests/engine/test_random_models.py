"""Random models: attacks are as strong in searches on fast copies as on the model."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from in_memory import Journal, Quiet, run_suite
from torch import Tensor, nn

from satbench.attacks.suites.suite import parse_suite
from satbench.core.threat import Threat
from satbench.data import Dataset
from satbench.engine import searched
from satbench.engine.proof import Proof

ATTACKS = ("pgd(steps=4)", "apgd-ce(steps=5)", "fab-t(steps=2)", "square(queries=20)")
CHANNELS, CLASSES = 6, 4


class Part(nn.Module):
    """A convolution, a norm and an activation; subclasses combine them."""

    def __init__(self, draw: random.Random) -> None:
        super().__init__()
        groups, self.flag = draw.choice([1, 1, 2]), draw.random() < 0.5
        mode = draw.choice(["zeros", "zeros", "zeros", "reflect"])
        self.conv = nn.Conv2d(
            CHANNELS, CHANNELS, 3, 1, 1, groups=groups, bias=draw.random() < 0.5, padding_mode=mode
        )
        self.norm = nn.BatchNorm2d(CHANNELS, affine=draw.random() < 0.8)
        self.act = draw.choice([nn.ReLU(), nn.ReLU(inplace=True), nn.SiLU(), nn.Softplus()])


class Usual(Part):
    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))


class Residual(Part):
    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.conv(x))
        h += x
        return self.act(h)


class Shared(Part):
    """A layer is called twice."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.norm(self.conv(x)))
        return self.norm(self.conv(h)) if self.flag else self.norm(h)


class Tapped(Part):
    """A chain is called layer by layer, and a value in between is used too."""

    def __init__(self, draw: random.Random) -> None:
        super().__init__(draw)
        self.chain = nn.Sequential(self.conv, self.norm, self.act)

    def forward(self, x: Tensor) -> Tensor:
        taps, h = [], x
        for layer in self.chain:
            h = layer(h)
            taps.append(h.clone())
        return taps[-1] + 0.3 * taps[0] if self.flag else self.chain[1:](self.conv(x))


class Viewing(Part):
    """Views between convolutions and their norms."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x)
        flat = h.view(h.size(0), -1) if self.flag else h.reshape(h.shape[0], -1)
        return self.act(self.norm(flat.view(x.shape)))


class Hooked(Part):
    """A hook stores a value that the forward reads, or changes the output of a layer."""

    def __init__(self, draw: random.Random) -> None:
        super().__init__(draw)
        self.kept: dict[str, Tensor] = {}
        if self.flag:
            self.norm.register_forward_hook(lambda module, args, out: self.kept.update(h=out))
        else:
            self.conv.register_forward_hook(lambda module, args, out: 1.5 * out)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.conv(x))
        return self.act(self.kept.pop("h") if self.flag else h)


class InPlace(Part):
    """It works in place on its input, and after the norm."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.clone().clamp_(-1, 1)
        return self.act(self.norm(self.conv(x)).mul_(1.2).add_(x))


class Mixed(Part):
    """Other dtypes in between, visible or invisible to a graph."""

    def forward(self, x: Tensor) -> Tensor:
        if self.flag:
            with torch.autocast("cpu", torch.bfloat16):
                return self.act(self.norm(self.conv(x)).float())
        wide = F.conv2d(x.double(), self.conv.weight.double(), padding=1, groups=self.conv.groups)
        return self.act(self.norm(wide.float()))


class Closed(Part):
    """Closures over the module, and layers in a plain list."""

    def __init__(self, draw: random.Random) -> None:
        super().__init__(draw)
        self.way = lambda x: self.norm(self.conv(x))
        self.hidden = [nn.Conv2d(CHANNELS, CHANNELS, 1).requires_grad_(False).eval()]

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.way(x if self.flag else self.hidden[0](x)))


class Deciding(Part):
    """The computation depends on the image or the number of images, but not on other images."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.flag:
            parts = [self.act(self.norm(self.conv(part))) for part in x.split(3)]
            return torch.cat(parts) if len(x) > 3 else parts[0]
        bright = x.mean((1, 2, 3), keepdim=True) > 0.2
        h = self.norm(self.conv(x)) if bool(bright.any()) else self.conv(x)
        return self.act(torch.where(bright, h, self.conv(x)))


class Halted(Part):
    """A part without gradient next to one with a gradient."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            halted = self.norm(self.conv(x.detach()))
        return self.act(self.norm(self.conv(x)) + 0.5 * halted)


class Reading(Part):
    """The forward reads tensors of its own layers."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.norm(self.conv(x)))
        return h * self.norm.running_var.view(1, -1, 1, 1).sqrt() + self.conv.weight.mean()


PARTS = (
    Usual, Residual, Shared, Tapped, Viewing, Hooked, InPlace, Mixed, Closed, Deciding, Halted,
    Reading,
)  # fmt: skip


class Net(nn.Module):
    """A stem, some parts, a pool, and a linear layer."""

    def __init__(self, draw: random.Random) -> None:
        super().__init__()
        kernel, stride = draw.choice([(3, 1), (5, 2), (3, 2)])
        stem = nn.Conv2d(3, CHANNELS, kernel, stride, kernel // 2)
        first = draw.choice([nn.Identity(), nn.ReLU(inplace=True), nn.Hardtanh(0, 1, inplace=True)])
        parts = [draw.choice(PARTS)(draw) for _ in range(draw.randint(1, 3))]
        self.features = nn.Sequential(first, stem, nn.BatchNorm2d(CHANNELS), *parts)
        self.pool = draw.choice([nn.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool2d(2)])
        width = CHANNELS * (4 if self.pool.output_size == 2 else 1)
        self.head, self.flatten = nn.Linear(width, CLASSES), draw.choice(["flatten", "view"])

    def forward(self, x: Tensor) -> Tensor:
        h = self.pool(self.features(x))
        h = h.view(h.size(0), -1) if self.flatten == "view" else h.flatten(1)
        logits: Tensor = self.head(h)
        return logits

    def names(self) -> list[str]:
        """Return the names of its parts."""
        return [type(part).__name__ for part in self.features[3:]]


def made(seed: int) -> Net:
    """Build a net with norm statistics and evenly distributed classes."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net, x = Net(random.Random(seed)), torch.rand(48, 3, 8, 8)
        with torch.no_grad():
            net(x)
            net.eval().requires_grad_(False)
            z = net(x)
            net.head.weight.mul_(4 / z.std())
            net.head.bias.sub_(net(x).mean(0))
    return net


def images(net: nn.Module, seed: int) -> Dataset:
    x = torch.rand(10, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        labels = net(x.clone()).argmax(1)
    return Dataset("tensors", "user", x.numpy(), labels.numpy(), CLASSES)


def run(net: Net, data: Dataset, spec: str, eps: float) -> tuple[list[int], str]:
    """Return the verdicts, and the kind of model that was searched."""
    journal = Journal()
    suite, threat = parse_suite([spec]), Threat.of("linf", eps)
    verdicts = run_suite(net, data, threat, suite, 0, 7, journal, Quiet())
    return verdicts.tolist(), journal[-1].search


def check(seeds: Sequence[int], monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Compare verdicts from searches with those on the plain models; count the searched kinds."""
    found: Counter[str] = Counter()
    for seed in seeds:
        net = made(seed)
        data = images(net, seed)
        for spec in ATTACKS:
            eps = 0.02 if spec.startswith(("pgd", "apgd", "fab")) else 0.06
            verdicts, kind = run(net, data, spec, eps)
            with monkeypatch.context() as patch:
                patch.setattr(searched, "fast_copy", lambda model, channels_last: None)
                expected, plain = run(net, data, spec, eps)
            found[kind] += 1
            found["broken"] += expected.count(1)
            found["survived"] += expected.count(-1)
            assert (verdicts, plain) == (expected, "plain"), (seed, spec, kind, net.names())
    return found


SEEDS = (9, 12, 18, 19, 21, 24)
"""Together they have every kind of part; of 10, 12 and 18 torch.fx draws another function."""

FEW = (9, 21, 12)


def test_attacks_on_copies_and_models_give_the_same_verdicts_for_a_few_models(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = check(FEW, monkeypatch)

    assert min(found["folded"], found["plain"]) > 1
    assert min(found["broken"], found["survived"]) > 10


@pytest.mark.slow
def test_attacks_on_copies_and_models_give_the_same_verdicts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = check(SEEDS, monkeypatch)

    assert {name for seed in SEEDS for name in made(seed).names()} == {
        part.__name__ for part in PARTS
    }
    assert min(found["folded"], found["plain"]) > 3
    assert min(found["broken"], found["survived"]) > 30


@pytest.mark.sampled(1)
@pytest.mark.parametrize("seed", [10, 12, 18])
def test_unproven_copies_would_give_other_verdicts(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(proof: Proof, x: Tensor) -> Tensor:
        logits: Tensor = proof.copy(x)
        return logits

    monkeypatch.setattr(Proof, "ask", ask)
    with pytest.raises(AssertionError, match="'folded'"):
        check([seed], monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("hundred", range(4))
def test_attacks_on_copies_and_models_give_the_same_verdicts_for_many_models(
    hundred: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(range(100 * hundred, 100 * hundred + 100), monkeypatch)
