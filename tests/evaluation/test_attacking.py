"""`satbench.attack`, also targeted, and a user's own attacks wherever a spec is accepted."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import satbench
from satbench.attacks.gradient.pgd import PGD
from satbench.attacks.score.square import Square
from satbench.attacks.targeted import VIEWS
from satbench.calling.code_digest import code_digest
from satbench.core.errors import SatbenchError
from satbench.core.threat import Threat
from satbench.engine.contract import Attack, Model, NoiseSource
from satbench.evaluation.own_code import attack_text


def small_net(scale: float = 1.0) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 12), nn.Tanh(), nn.Linear(12, 5))
    net[3].weight.data.mul_(scale)
    return net.eval()


X = torch.rand(12, 1, 6, 6, generator=torch.Generator().manual_seed(1))
NET = small_net()
Y = NET(X).argmax(1)


def test_attack_returns_the_adversarial_images_of_an_evaluation() -> None:
    found = satbench.evaluate(NET, X, Y, attacks="pgd-10", eps=0.1, out=None)
    x_adv = satbench.attack(NET, X, Y, "pgd-10", eps=0.1)

    assert x_adv.shape == X.shape
    assert x_adv.device == X.device
    assert float((x_adv - X).abs().max()) <= 0.1 + 1e-6
    right = (NET(x_adv).argmax(1) == Y).tolist()
    assert right == [verdict == -1 for verdict in found.verdicts]
    assert 0 < sum(right) < 12
    images = found.adversarial()
    assert np.array_equal(x_adv.numpy()[images.indices], images.images)


@dataclass(frozen=True)
class Suite:
    """Two short attacks, the second on the survivors of the first."""

    def parts(self) -> tuple[tuple[str, Attack], ...]:
        return (("pgd", PGD(steps=1)), ("square", Square(queries=20)))


def test_attack_keeps_the_witnesses_of_earlier_stages_of_a_suite() -> None:
    x_adv = satbench.attack(NET, X, Y, Suite(), eps="0.1")
    found = satbench.evaluate(NET, X, Y, attacks=Suite(), eps="0.1", out=None)

    assert (NET(x_adv).argmax(1) == Y).sum() == found.surviving() < len(X)


def test_an_image_that_is_wrong_when_clean_is_returned_unchanged() -> None:
    wrong = (Y + 1) % 5

    assert torch.equal(satbench.attack(NET, X, wrong, "pgd-3", eps=0.1), X)


def plain_targeted_pgd(net: nn.Module, target: int, steps: int, eps: float) -> Tensor:
    """Descend the cross-entropy of the target by signs, from the clean image."""
    x_adv = X.clone()
    for _ in range(steps):
        leaf = x_adv.clone().requires_grad_()
        loss = F.cross_entropy(net(leaf), torch.full((len(X),), target), reduction="sum")
        (grad,) = torch.autograd.grad(loss, leaf)
        moved = (x_adv - eps / 4 * grad.sign()).clamp(X - eps, X + eps).clamp(0, 1)
        x_adv = torch.where(
            (net(x_adv).softmax(1)[:, target] > 0.5).view(-1, 1, 1, 1), x_adv, moved
        )
    return x_adv


@pytest.mark.parametrize("scale", [1.0, 1e4])  # confident: the target has probability 0
def test_targeted_pgd_descends_the_cross_entropy_of_the_target(scale: float) -> None:
    net = small_net(scale)
    labels = net(X).argmax(1)
    target = int((labels[0] + 1) % 5)
    rows = labels != target
    spec = "pgd(steps=6,start=clean)"

    x_adv = satbench.attack(net, X, labels, spec, eps=0.3, target=target)

    expected = plain_targeted_pgd(net, target, 6, 0.3)
    assert torch.allclose(x_adv[rows], expected[rows], atol=1e-6)
    assert torch.equal(x_adv[~rows], X[~rows])


FAST = {"square": "square(queries=100)", "fab-t": "fab-t(steps=10)", "pgd": "pgd-10"}
FAST |= {"apgd-ce": "apgd-ce(steps=10)", "foolbox.boundary": "foolbox.boundary(steps=100)"}
FAST |= {
    "foolbox.hopskipjump": "foolbox.hopskipjump(steps=3)",
    "foolbox.cw": "foolbox.cw(steps=50)",
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", VIEWS)
def test_an_attack_that_can_be_targeted_reaches_the_target(name: str) -> None:
    norm = "l2" if name in ("foolbox.ddn", "foolbox.cw", "foolbox.boundary") else "linf"
    eps = 3.0 if norm == "l2" else 0.4
    target = (Y + 1 + torch.arange(12) % 3) % 5  # one per image, never the label

    x_adv = satbench.attack(NET, X, Y, FAST.get(name, name), norm=norm, eps=eps, target=target)

    delta = (x_adv - X).flatten(1)
    sizes = delta.norm(dim=1) if norm == "l2" else delta.abs().amax(1)
    assert float(sizes.max()) <= eps + 1e-5
    hit = int((NET(x_adv).argmax(1) == target).sum())
    assert hit >= 6, hit


@pytest.mark.parametrize("spec", ["autoattack", "apgd-t", "apgd-dlr", "malt", "fast", "own"])
def test_an_attack_that_cannot_be_targeted_refuses_a_target(spec: str) -> None:
    given = fixed if spec == "own" else spec

    with pytest.raises(SatbenchError, match=r" cannot be aimed at a class: with target= use pgd"):
        satbench.attack(NET, X, Y, given, eps=0.1, target=1)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (5, r"^expected a target in 0…4, got 5$"),
        (-1, r"^expected a target in 0…4, got -1$"),
        (
            torch.ones(3, dtype=torch.int64),
            r"one for each image, \(12,\) whole numbers, got int64 of",
        ),
        (1.5, r"whole numbers, got float64"),
    ],
)
def test_a_target_that_is_no_class_is_refused(target: Any, said: str) -> None:
    with pytest.raises(SatbenchError, match=said):
        satbench.attack(NET, X, Y, "pgd-2", eps=0.1, target=target)


# A user's own attacks


def to_black(model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource) -> Tensor:
    return (x - threat.radius).clamp(0, 1)


def by_eps(model: Model, x: Tensor, y: Tensor, eps: float) -> Tensor:
    return (x - eps).clamp(0, 1)


def fixed(model: Model, x: Tensor, y: Tensor) -> Tensor:
    return (x - 0.3).clamp(0, 1)


@dataclass(frozen=True)
class Darken:
    """A user's attack as an object with a parameter."""

    share: float = 1.0

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource
    ) -> Tensor:
        return (x - self.share * threat.radius).clamp(0, 1)


def shifted(model: Model, x: Tensor, y: Tensor, by: float) -> Tensor:
    return (x - by).clamp(0, 1)


OWN: list[Any] = [to_black, by_eps, fixed, Darken(), functools.partial(shifted, by=0.3)]


@pytest.mark.parametrize("own", OWN, ids=["contract", "eps", "plain", "object", "partial"])
def test_a_users_attack_is_judged_like_any_other(own: Any) -> None:
    dark = (NET((X - 0.3).clamp(0, 1)).argmax(1) == Y).tolist()
    found = satbench.evaluate(NET, X, Y, attacks=own, eps=0.3, out=None)

    assert [verdict == -1 for verdict in found.verdicts] == dark
    assert found.suite[0].startswith("own.")
    assert "code=" in found.suite[0]
    assert satbench.verify(found).confirmed
    assert torch.allclose(
        satbench.attack(NET, X, Y, own, eps=0.3)[0], (X[0] - 0.3).clamp(0, 1), atol=1e-6
    )


def test_specs_and_a_users_attacks_can_be_in_one_list() -> None:
    found = satbench.evaluate(NET, X, Y, attacks=["pgd-2", by_eps], eps=0.3, out=None)

    assert len(found.stages) == 2
    assert found.stages[1].attack.startswith("own.by_eps(code=")


def test_an_object_of_a_named_attack_is_recorded_as_its_spec() -> None:
    found = satbench.evaluate(NET, X, Y, attacks=PGD(steps=7), eps=0.1, out=None)

    assert found.suite == ["pgd(steps=7,step=eps/4,restarts=1,start=uniform,keep=any)"]


def test_other_code_or_other_parameters_make_another_attack() -> None:
    def make(by: float) -> Callable[..., Tensor]:
        return lambda model, x, y: (x - by).clamp(0, 1)

    texts = {attack_text(one) for one in (make(0.1), make(0.2), Darken(), Darken(0.5), fixed)}

    assert len(texts) == 5
    assert attack_text(make(0.1)) in texts
    assert attack_text(Darken(0.5)) in texts


SHIFT = 0.1


def calls_another(model: Model, x: Tensor, y: Tensor) -> Tensor:
    return fixed(model, x, y) + 0 * SHIFT


def test_the_digest_of_a_function_covers_the_functions_and_globals_it_uses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = code_digest(calls_another)
    monkeypatch.setitem(globals(), "SHIFT", 0.2)
    value = code_digest(calls_another)
    monkeypatch.setitem(globals(), "fixed", by_eps)

    assert len({before, value, code_digest(calls_another)}) == 3


def test_the_digest_of_a_function_covers_arrays_but_not_comments_or_line_numbers() -> None:
    code = "def f(model, x, y):\n    return x\n"
    spaces: list[dict[str, Any]] = [{"__name__": "mine"} for _ in range(2)]
    exec(code, spaces[0])
    exec(f"# a comment\n\n{code}", spaces[1])

    assert code_digest(spaces[0]["f"]) == code_digest(spaces[1]["f"])
    one, other = (functools.partial(fixed, model=torch.full((2,), v)) for v in (0.0, 1.0))
    assert code_digest(one) != code_digest(other)


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (Darken, r"^expected an attack, got the class Darken: make an instance of it$"),
        (lambda x: x, r"^expected an attack as attack\(model, x, y, threat, noise\), .*\(x\)$"),
        (5, r"^expected attacks as a name such as 'pgd-50', an attack, or a list of them, got 5$"),
        (lambda model, x, y: None, r"return adversarial images as a tensor, got NoneType"),
        (lambda model, x, y: x + 0.5, r"expected perturbations within linf:0.1|pixels in \[0, 1\]"),
        (lambda model, x, y: x / 0 * torch.nan, r"finite adversarial pixels"),
    ],
)
def test_an_invalid_attack_is_refused_in_one_sentence(own: Any, said: str) -> None:
    with pytest.raises(SatbenchError, match=said):
        satbench.evaluate(NET, X, Y, attacks=own, eps=0.1, out=None)


def test_an_error_in_a_users_attack_is_reported_with_its_name() -> None:
    def broken_attack(model: Model, x: Tensor, y: Tensor) -> Tensor:
        raise RuntimeError("no luck")

    with pytest.raises(SatbenchError, match=r"own\.broken_attack.*no luck|no luck.*broken_attack"):
        satbench.evaluate(NET, X, Y, attacks=broken_attack, eps=0.1, out=None)


def test_random_numbers_in_a_users_attack_depend_only_on_the_seed() -> None:
    def drawn(model: Model, x: Tensor, y: Tensor, eps: float) -> Tensor:
        return (x + eps * torch.randn_like(x).sign()).clamp(0, 1)

    one, other = (satbench.attack(NET, X, Y, drawn, eps=0.1) for _ in range(2))

    assert torch.equal(one, other)
    assert not torch.equal(one, satbench.attack(NET, X, Y, drawn, eps=0.1, seed=1))
