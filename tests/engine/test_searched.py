"""The model that a search calls: a copy that passes its checks, otherwise the model itself."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from in_memory import Journal, Quiet, run_suite
from torch import Tensor, nn

import satbench
from satbench.attacks import parse_attack
from satbench.attacks.suites.suite import parse_suite
from satbench.core.errors import SatbenchError
from satbench.core.noise import Noise
from satbench.core.threat import Threat
from satbench.data import Dataset
from satbench.engine import proof, searched
from satbench.engine.contract import Attack, CountedSurrogates, Model, NoiseSource
from satbench.engine.fast_copy import fast_copy
from satbench.engine.journal import RunStore
from satbench.engine.passes import CountingModel, Passes
from satbench.engine.proof import KINKS
from satbench.engine.searched import Searched, Trial
from satbench.engine.stage import Stage
from satbench.records.record import parse_record, read_record

LINF = Threat.parse("linf:0.1")
SEARCHES = ("pgd(steps=4)", "apgd-ce(steps=4)", "fab-t(steps=2)", "square(queries=12)")


def small(seed: int = 0) -> nn.Module:
    """A net with norms to fold, in eval mode, frozen; its classes are balanced on `images`."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1, bias=False),
            nn.BatchNorm2d(6),
            nn.Softplus(),
            nn.Conv2d(6, 6, 3, stride=2),
            nn.BatchNorm2d(6),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 4),
        )
        net(images(64))
        with torch.no_grad():
            net[-1].bias -= net.eval()(images(64)).mean(0)
    return net.requires_grad_(False)


def images(n: int = 6) -> Tensor:
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(3))


def noise(n: int = 6) -> Noise:
    return Noise(0, "searched", tuple(range(n)))


def search(model: Searched | nn.Module, spec: str, x: Tensor, threat: Threat = LINF) -> Tensor:
    """Search on all images that the model gets right."""
    plain = model.model if isinstance(model, Searched) else model
    with torch.no_grad():
        y = plain(x).argmax(1)
    attack, trial = parse_attack(spec), Trial([model] if isinstance(model, Searched) else [])
    counted = CountingModel(model, Passes())
    return trial.run(lambda: attack(counted, x, y, threat, noise(len(x))), lambda: None)


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[nn.Module], Any]], None]:
    """A function that replaces the making of copies in both layouts."""

    def made_by(make: Callable[[nn.Module], Any]) -> None:
        monkeypatch.setattr(searched, "fast_copy", lambda model, channels_last: make(model))

    return made_by


@pytest.mark.parametrize("spec", SEARCHES)
def test_a_copy_that_equals_its_model_is_searched(spec: str) -> None:
    model = Searched(small())
    search(model, spec, images())

    assert model.kind == "folded"


def test_no_model_counts_as_searched_before_the_first_call() -> None:
    model = Searched(small())
    model.get_ready()

    assert model.kind == ""
    assert Trial([model]).kind == ""


def test_a_model_without_a_copy_is_searched_directly() -> None:
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).requires_grad_(False)
    model = Searched(plain)

    assert torch.equal(model(images()), plain(images()))
    assert model.kind == "plain"


# Copies that compute another function


class Copy(nn.Module):
    """A copy of a model that is wrong in one way."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.right = (model,)  # in a tuple: no submodule
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        logits: Tensor = self.right[0](x)
        return self.wrong(logits, x)

    def wrong(self, logits: Tensor, x: Tensor) -> Tensor:
        raise NotImplementedError


class Off(Copy):
    """Its logits are off by a thousandth of the largest."""

    def wrong(self, logits: Tensor, x: Tensor) -> Tensor:
        return logits + 1e-3 * logits.detach().abs().max()


class OffAlone(Copy):
    """Only a single image gets other logits."""

    def wrong(self, logits: Tensor, x: Tensor) -> Tensor:
        return -logits if len(x) == 1 else logits


class OffTogether(Copy):
    """Only batches of several images get other logits."""

    def wrong(self, logits: Tensor, x: Tensor) -> Tensor:
        return logits if len(x) == 1 else logits.roll(1, 0)


class OffLater(Copy):
    """Its second output differs."""

    def wrong(self, logits: Tensor, x: Tensor) -> Tensor:
        return logits if self.calls == 1 else logits.flip(1)


class OffWithoutGradients(Copy):
    """Its output differs while gradients are off."""

    def wrong(self, logits: Tensor, x: Tensor) -> Tensor:
        return logits if torch.is_grad_enabled() else logits.flip(1)


class NotANumber(Copy):
    """It returns NaN."""

    def wrong(self, logits: Tensor, x: Tensor) -> Tensor:
        return logits * torch.nan


class Squeezed(Copy):
    """It drops a dimension."""

    def wrong(self, logits: Tensor, x: Tensor) -> Tensor:
        return logits[:, :-1]


class Raising(Copy):
    """It cannot be called."""

    def wrong(self, logits: Tensor, x: Tensor) -> Tensor:
        raise RuntimeError("view size is not compatible")


class RaisingLater(Copy):
    """It can be called once."""

    def wrong(self, logits: Tensor, x: Tensor) -> Tensor:
        if self.calls > 1:
            raise RuntimeError("now")
        return logits


class Detached(Copy):
    """It gives no gradient."""

    def wrong(self, logits: Tensor, x: Tensor) -> Tensor:
        return logits.detach() + 0 * x.sum()


class Leaking(Copy):
    """A fiftieth of the gradient is lost."""

    def wrong(self, logits: Tensor, x: Tensor) -> Tensor:
        return 0.98 * logits + 0.02 * logits.detach()


class Refusing(Copy):
    """Its backward fails."""

    def wrong(self, logits: Tensor, x: Tensor) -> Tensor:
        return Refusal.apply(logits)


class Refusal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        raise RuntimeError("no backward")


WRONG_VALUES = (
    Off, OffAlone, OffTogether, OffLater, OffWithoutGradients, NotANumber, Squeezed, Raising,
    RaisingLater,
)  # fmt: skip
WRONG_GRADIENTS = (Detached, Leaking, Refusing)


@pytest.mark.parametrize("spec", SEARCHES)
@pytest.mark.parametrize("wrong", [*WRONG_VALUES, *WRONG_GRADIENTS])
def test_a_search_with_a_wrong_copy_gives_the_result_of_the_model(
    wrong: type[Copy], spec: str, copies: Callable[[Callable[[nn.Module], Any]], None]
) -> None:
    copies(wrong)
    model, x = Searched(small()), images()

    assert torch.equal(search(model, spec, x), search(small(), spec, x))
    harmless = wrong in WRONG_GRADIENTS and spec.startswith("square")
    without = wrong is OffWithoutGradients and spec.startswith("pgd")  # which never turns them off
    unseen = wrong is OffAlone and model.kind == "folded"  # no image came alone
    assert model.kind == "plain" or harmless or without or unseen


def test_a_copy_that_is_wrong_for_a_single_image_is_detected(
    copies: Callable[[Callable[[nn.Module], Any]], None],
) -> None:
    copies(OffAlone)
    model, x = Searched(small()), images(1)

    assert torch.equal(search(model, "pgd(steps=4)", x), search(small(), "pgd(steps=4)", x))
    assert model.kind == "plain"


def test_a_wrong_gradient_is_detected_in_a_search_of_one_step(
    copies: Callable[[Callable[[nn.Module], Any]], None],
) -> None:
    copies(Leaking)
    model, x = Searched(small()), images()

    assert torch.equal(search(model, "pgd(steps=1)", x), search(small(), "pgd(steps=1)", x))
    assert model.kind == "plain"


def test_a_gradient_near_a_kink_is_checked_again(
    copies: Callable[[Callable[[nn.Module], Any]], None],
) -> None:
    class Kinked(Copy):
        """Its first gradients are wrong, as if rounding moved activations across kinks."""

        def wrong(self, logits: Tensor, x: Tensor) -> Tensor:
            share = 0.02 if self.calls < KINKS else 0
            return (1 - share) * logits + share * logits.detach()

    copies(Kinked)
    model = Searched(small())
    search(model, f"pgd(steps={KINKS + 2})", images(), Threat.parse("linf:0.001"))

    assert model.kind == "folded"


def test_gradients_are_compared_even_if_the_loss_is_saturated(
    copies: Callable[[Callable[[nn.Module], Any]], None],
) -> None:
    net = nn.Sequential(small(), nn.Hardtanh(-1e9, 1e9))
    net[0][-1].weight.data *= 1e4  # so that the cross-entropy is 0 in float32
    with torch.no_grad():
        net[0][-1].bias -= net(images()).mean(0)
    for wrong, kind in ((fast_copy, "folded"), (Leaking, "plain")):
        copies(wrong)
        model = Searched(net)
        search(model, "pgd(steps=3,start=clean)", images(), Threat.parse("linf:1e-6"))

        assert model.kind == kind


@pytest.mark.parametrize("spec", SEARCHES)
@pytest.mark.parametrize("wrong", [Off, OffTogether, Raising, Leaking, fast_copy])
def test_full_precision_passes_check_a_copy_if_the_search_rounds_coarsely(
    wrong: Any,
    spec: str,
    copies: Callable[[Callable[[nn.Module], Any]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(proof, "_is_coarse", lambda x: True)
    copies(wrong)
    model, x = Searched(small()), images()
    found = search(model, spec, x)

    if wrong is fast_copy or (wrong is Leaking and spec.startswith("square")):
        assert model.kind == "folded"
    else:
        assert torch.equal(found, search(small(), spec, x))
        assert model.kind == "plain"


# Models whose rewriting would compute another function


class Body(nn.Module):
    """A net that can be copied; other models use it in different ways."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits


class WithoutGradientInside(Body):
    """No gradient passes the first layers; a graph does not show it."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            h = self.net[:3](x)
        return self.net[3:](h) + 0.1 * super().forward(x)


class HalfPrecision(Body):
    """It computes in bfloat16; a graph does not show it."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(x).float()


class OtherwiseInGraphs(Body):
    """It takes another path while it is traced."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return logits if isinstance(x, Tensor) else logits.flip(1)


class OtherwiseWithoutGradients(Body):
    """Its output differs while gradients are off."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return logits if torch.is_grad_enabled() else 0.5 * logits


class OtherwiseAlone(Body):
    """Its output for a single image differs; a graph cannot show it."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        try:
            return 0.9 * logits if len(x) == 1 else logits
        except RuntimeError:  # a proxy has no length
            return logits


class DependsOnOthers(Body):
    """The output for an image depends on the other images."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - 0.5 * x.mean(0, keepdim=True))


class DrawnOnce(Body):
    """Noise that is constant in a graph."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + 0.1 * torch.randn(1, 1, 8, 8))


class Drawing(Body):
    """Noise that is also drawn in a graph."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + 0.1 * torch.randn_like(x))


class DrawingByNumpy(Body):
    """Noise of NumPy's."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + float(np.random.normal()) + random.random()


class Remembering(Body):
    """It reads a value that a hook stored on the model."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Tensor] = []
        self.net[2].register_forward_hook(lambda module, inputs, output: self.kept.append(output))

    def forward(self, x: Tensor) -> Tensor:
        super().forward(x)
        return self.net[3:](self.kept.pop())


class Closed(Body):
    """Its forward is a closure over itself."""

    def __init__(self) -> None:
        super().__init__()
        self.ways = [lambda x: self.net[4:](self.net[:4](x)), lambda x: self.net(x)]

    def forward(self, x: Tensor) -> Tensor:
        return self.ways[0](x) + self.ways[1](x)


class Flattened(Body):
    """It flattens with view, which fails on channels last memory."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.net[:6](x)
        return self.net[8](h.view(h.size(0), -1).view(h.size(0), 6, -1).mean(2))


HARD: tuple[type[Body], ...] = (
    WithoutGradientInside,
    HalfPrecision,
    OtherwiseInGraphs,
    OtherwiseWithoutGradients,
    OtherwiseAlone,
    DependsOnOthers,
    Drawing,
    DrawingByNumpy,
    DrawnOnce,
    Remembering,
)


def run(net: nn.Module, spec: str, n: int = 6, size: int = 250) -> tuple[list[int], Journal]:
    """Run an attack on images that the net gets right; return verdicts and journal."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        labels = net(images(n)).argmax(1)
    data = Dataset("tensors", "user", images(n).numpy(), labels.numpy(), 4)
    journal = Journal()
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    verdicts = run_suite(net, data, LINF, parse_suite([spec]), 0, size, journal, Quiet())
    return verdicts.tolist(), journal


@pytest.mark.parametrize("spec", ["pgd(steps=4)", "square(queries=12)"])
@pytest.mark.parametrize("kind", HARD)
def test_a_model_that_differs_from_its_graph_is_searched_directly(
    kind: type[Body], spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = kind().eval().requires_grad_(False)
    verdicts, journal = run(net, spec)
    monkeypatch.setattr(searched, "fast_copy", lambda model, channels_last: None)
    expected, plain = run(net, spec)

    assert verdicts == expected
    shown = spec.startswith("square") and kind is WithoutGradientInside
    shown |= spec.startswith("pgd") and kind is OtherwiseWithoutGradients
    for mine, other in zip(journal, plain, strict=True):  # a copy rounds differently
        assert shown or np.array_equal(mine.witnesses, other.witnesses)
        assert shown or (mine.forwards, mine.backwards) == (other.forwards, other.backwards)
    assert {r.search for r in journal if r.stage and len(r.indices)} <= {
        "plain",
        *["folded"][:shown],
    }


def test_a_model_whose_forward_is_a_closure_can_be_copied() -> None:
    net = Closed().eval().requires_grad_(False)
    verdicts, journal = run(net, "pgd(steps=4)")

    assert journal[-1].search == "folded"
    assert verdicts == run(nn.Sequential(net, nn.Flatten()), "pgd(steps=4)")[0]


def test_a_model_that_uses_view_is_searched_by_a_channels_first_copy() -> None:
    net = Flattened().eval().requires_grad_(False)
    verdicts, journal = run(net, "pgd(steps=4)")

    assert journal[-1].search == "folded"
    assert verdicts == run(Body().eval().requires_grad_(False), "pgd(steps=4)")[0]


# Runs


@dataclass(frozen=True)
class Borrowing:
    """An attack that calls only a surrogate: steps along the gradient of its logits."""

    surrogates: tuple[str, ...] = ("surrogate",)

    def prepare(
        self, target: Model, surrogates: CountedSurrogates, threat: Threat, seed: int
    ) -> Attack:
        source = surrogates.surrogate("surrogate")

        def attack(
            model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource
        ) -> Tensor:
            leaf = x.clone().requires_grad_()
            (grad,) = torch.autograd.grad(F.cross_entropy(source(leaf), y, reduction="sum"), leaf)
            return (x + threat.radius * grad.sign()).clamp(0, 1).detach()

        return attack

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource
    ) -> Tensor:
        raise AssertionError("it must be prepared first")


@dataclass(frozen=True)
class NamedSurrogates:
    """Gives one model, and no images."""

    model: nn.Module

    def surrogate(self, name: str) -> nn.Module:
        return self.model

    def pool(self, n: int) -> Any:
        return images(0).numpy()


BORROWS = (Stage("borrowing()", "", "borrowing", Borrowing()),)


def data(net: nn.Module, n: int = 6) -> Dataset:
    """Images that the net gets right."""
    with torch.no_grad():
        labels = net(images(n)).argmax(1)
    return Dataset("tensors", "user", images(n).numpy(), labels.numpy(), 4)


def kinds(journal: Journal) -> list[str]:
    return [result.search for result in journal if result.stage]


def test_each_stage_checks_the_copy_again_with_uncounted_passes() -> None:
    net, asked, journal = small(), [], Journal()
    images_ = data(net)
    # The copy uses the model's own layer if it has a hook, so the hook sees all passes.
    net[0].register_forward_pre_hook(lambda module, inputs: asked.append(len(inputs[0])))
    suite = parse_suite(["pgd(steps=3,keep=last,start=clean)", "square(queries=9)"])
    run_suite(net, images_, Threat.parse("linf:1e-3"), suite, 0, 250, journal, Quiet())

    assert kinds(journal) == ["folded", "folded"]
    assert asked[:7] == [6, 6, 1, 6, 1, 6, 6]  # clean; three steps, two of them with a proof; judge
    assert asked.count(1) == 4
    assert [(r.forwards, r.backwards) for r in journal][:2] == [(6, 0), (18, 18)]


@pytest.mark.parametrize("size", [1, 4, 250])
def test_a_run_makes_one_copy_and_none_if_nothing_is_attacked(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[nn.Module] = []

    def make(model: nn.Module, channels_last: bool) -> nn.Module | None:
        made.append(model)
        return fast_copy(model, channels_last)

    monkeypatch.setattr(searched, "fast_copy", make)
    net = small()
    suite = parse_suite(["pgd-1", "pgd-2", "square(queries=3)", "pgd-3"])
    run_suite(net, data(net), Threat.parse("linf:1e-3"), suite, 0, size, Journal(), Quiet())
    assert len(made) == 1

    wrong = replace(data(net), labels=(data(net).labels + 1) % 4)
    run_suite(net, wrong, LINF, suite, 0, size, Journal(), Quiet())
    assert len(made) == 1


def test_only_the_surrogate_is_copied_if_no_attack_calls_the_target() -> None:
    target, source, journal = small(), small(1), Journal()
    run_suite(target, data(target), LINF, BORROWS, 0, 4, journal, Quiet(), NamedSurrogates(source))

    assert kinds(journal) == ["", "folded", "folded"]


@pytest.mark.parametrize("wrong", [Off, Leaking, Raising])
def test_a_surrogate_whose_copy_differs_is_searched_directly(
    wrong: type[Copy], copies: Callable[[Callable[[nn.Module], Any]], None]
) -> None:
    target, source = small(), small(1)
    found = []
    for make in (wrong, lambda model: None):
        copies(make)
        journal = Journal()
        run_suite(
            target, data(target), LINF, BORROWS, 0, 4, journal, Quiet(), NamedSurrogates(source)
        )
        found.append(journal)

        assert kinds(journal)[1:] == ["plain", "plain"]
    for mine, other in zip(*found, strict=True):
        assert np.array_equal(mine.witnesses, other.witnesses)
        assert mine.source_forwards == other.source_forwards
        assert mine.source_backwards == other.source_backwards


@pytest.mark.parametrize("net", [small(), nn.Sequential(nn.Flatten(), nn.Linear(64, 4))])
def test_the_record_says_which_kind_of_model_each_stage_searched(
    net: nn.Module, tmp_path: Path
) -> None:
    images_ = data(net)
    record = satbench.evaluate(
        net,
        torch.from_numpy(images_.images),
        torch.from_numpy(images_.labels),
        attacks=["pgd-2", "square(queries=3)"],
        eps="0.001",
        out=tmp_path,
    )
    kind = "folded" if isinstance(net[0], nn.Conv2d) else "plain"
    (file,) = tmp_path.glob("*.json")

    assert [stage.search for stage in record.stages] == [kind, kind]
    assert [stage.search for stage in read_record(file).stages] == [kind, kind]


def test_a_resumed_run_records_which_kind_of_model_was_searched(tmp_path: Path) -> None:
    net = small()
    x, y = torch.from_numpy(data(net).images), torch.from_numpy(data(net).labels)
    settings = {"attacks": ["pgd-2", "square(queries=3)"], "eps": "0.001", "batch_size": 2}
    expected = satbench.evaluate(net, x, y, out=tmp_path / "whole", **settings)
    store, limit = RunStore.write, iter(range(5))

    def write(self: RunStore, result: Any) -> None:
        store(self, result)
        if next(limit) == 4:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunStore, "write", write)
        with pytest.raises(KeyboardInterrupt):
            satbench.evaluate(net, x, y, out=tmp_path / "stopped", **settings)
    record = satbench.evaluate(net, x, y, out=tmp_path / "stopped", **settings)

    assert record.stages == expected.stages
    assert [stage.search for stage in record.stages] == ["folded", "folded"]


def test_an_older_record_has_no_field_search() -> None:
    path = next(
        (Path(__file__).parents[2] / "leaderboard/fashion-mnist-linf-0.1").rglob("records/*.json")
    )
    text = path.read_text(encoding="utf-8")

    assert '"search"' not in text
    assert '"search"' not in parse_record(text, "it").to_json()


def test_a_record_with_an_unknown_kind_of_search_is_refused() -> None:
    path = next((Path(__file__).parents[2] / "leaderboard").rglob("records/*.json"))
    values = json.loads(path.read_text(encoding="utf-8"))
    values["stages"][0]["search"] = "guessed"

    with pytest.raises(SatbenchError, match=r"stages\[0\].search: expected"):
        parse_record(json.dumps(values), "it")
