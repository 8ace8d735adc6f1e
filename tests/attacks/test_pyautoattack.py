"""The reference against the package that it runs: the same bits on the same block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import pytest
import torch
from in_memory import Journal, Quiet, run_suite
from pyautoattack import AutoAttack as Package
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from torch import Tensor, nn

from satbench.attacks.packages.pyautoattack_attacks import (
    AutoAttackReference,
    ReferenceAPGDCE,
    ReferenceAPGDDLR,
    ReferenceAPGDT,
    ReferenceFABT,
    ReferenceSquare,
)
from satbench.attacks.suites.suite import parse_suite
from satbench.calling.borrow import borrowed
from satbench.core.errors import SatbenchError
from satbench.core.noise import Noise
from satbench.core.threat import Threat
from satbench.data import Dataset
from satbench.engine.contract import Attack
from satbench.engine.judge import broken, predict
from satbench.engine.runner import CLEAN, SURVIVED
from satbench.engine.searched import Searched
from satbench.models import LoadedModel

LINF, L2, L1 = Threat.parse("linf:0.1"), Threat.parse("l2:1"), Threat.parse("l1:5")
NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}
FEW = {"apgd-ce": 5, "apgd-t": 3, "fab-t": 3, "square": 60}  # steps or queries
TARGETS = 3
SHORT: dict[str, Attack] = {
    "apgd-ce": ReferenceAPGDCE(steps=FEW["apgd-ce"]),
    "apgd-t": ReferenceAPGDT(steps=FEW["apgd-t"], targets=TARGETS),
    "fab-t": ReferenceFABT(steps=FEW["fab-t"], targets=TARGETS),
    "square": ReferenceSquare(queries=FEW["square"]),
}


def package(
    model: nn.Module, threat: Threat, attacks: Sequence[str], seed: int, *, short: bool = True
) -> Package:
    """Configure the package by hand like its version 'standard', with fewer steps if `short`.

    Only 'custom' allows a choice of attacks; it has five restarts where 'standard' has one.
    """
    norm = NORMS[threat.norm]
    made = Package(
        model,
        norm=norm,
        eps=threat.radius,
        version="custom",
        attacks=list(attacks),
        seed=seed,
        device="cpu",
    )
    common: dict[str, Any] = {"norm": norm, "eps": threat.radius, "eot_iter": 1, "rho": 0.75}
    common |= {"verbose": False, "seed": seed, "device": "cpu", "logger": made.logger}
    if short:  # its constructors derive the checkpoints from the number of steps
        made.apgd = APGDAttack(model, n_iter=FEW["apgd-ce"], **common)
        made.apgd_targeted = APGDAttack_targeted(model, n_iter=FEW["apgd-t"], **common)
        made.fab.n_iter = FEW["fab-t"]
    made.apgd.n_restarts = made.apgd_targeted.n_restarts = made.fab.n_restarts = 1
    made.apgd_targeted.n_target_classes = made.fab.n_target_classes = TARGETS if short else 9
    made.square.n_queries = FEW["square"] if short else 5000
    if threat.norm == "l1":
        made.apgd.use_largereps = made.apgd_targeted.use_largereps = True
        made.apgd.n_restarts = 5
    return made


def by_package(made: Package, x: Tensor, y: Tensor) -> Tensor:
    """Return the package's images: adversarial if it broke one, else the image itself."""
    with torch.random.fork_rng():
        x_adv: Tensor = made.run_standard_evaluation(x, y, batch_size=len(x))[0]
    return x_adv


def correct_images(model: nn.Module, images: Dataset, n: int) -> tuple[Tensor, Tensor]:
    x, y = torch.from_numpy(images.pixels(np.arange(n))), torch.from_numpy(images.labels[:n])
    right = predict(model, x) == y
    return x[right], y[right]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("threat", [LINF, L2, L1], ids=str)
@pytest.mark.parametrize("name", SHORT)
def test_a_part_returns_what_the_package_itself_returns_bit_for_bit(
    name: str, threat: Threat, shipped: LoadedModel, fashion: Dataset
) -> None:
    model = shipped.module.requires_grad_(False)
    x, y = correct_images(model, fashion, 12)
    noise = Noise(0, name, tuple(range(len(x))), block=3)
    expected = by_package(package(model, threat, [name], noise.block_seed()), x, y)

    got = SHORT[name](model, x, y, threat, noise)

    fooled = broken(model, x, got, y, threat)
    assert fooled.any()
    # In L1 the package's own images are off the box by the last bit.
    assert torch.equal(torch.where(fooled.view(-1, 1, 1, 1), got, x), expected.clamp(0, 1))


@pytest.mark.parametrize("threat", [LINF, L2, L1], ids=str)
@pytest.mark.parametrize("name", SHORT)
def test_a_part_leaves_images_model_and_global_generators_alone(
    name: str, threat: Threat, small_net: Callable[..., nn.Module], global_generators: None
) -> None:
    net = small_net()
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = net(x).argmax(1)
    before = (x.clone(), y.clone(), {k: v.clone() for k, v in net.state_dict().items()})

    SHORT[name](net, x, y, threat, Noise(0, name, (0, 1, 2, 3))).add_(1)

    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])
    assert all(torch.equal(tensor, before[2][k]) for k, tensor in net.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in net.parameters())


PARTS = {
    "standard": {
        "apgd-ce": "apgd",
        "apgd-t": "apgd_targeted",
        "fab-t": "fab",
        "square": "square",
    },
    "rand": {"apgd-ce": "apgd", "apgd-dlr": "apgd"},
}


@pytest.mark.parametrize("threat", [LINF, L2, L1], ids=str)
@pytest.mark.parametrize(
    ("version", "part"), [(version, part) for version, parts in PARTS.items() for part in parts]
)
def test_a_part_has_the_settings_of_the_package_of_that_version_and_norm(
    version: Literal["standard", "rand"],
    part: str,
    threat: Threat,
    shipped: LoadedModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    got: dict[str, object] = {}

    def remember(attack: object, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        got.update(vars(attack))
        return x

    monkeypatch.setattr("satbench.attacks.packages.pyautoattack_attacks._perturb", remember)
    model, x = shipped.module, torch.zeros(1, 1, 28, 28)
    attack = dict(AutoAttackReference(version).parts())[part]
    attack(model, x, torch.zeros(1, dtype=torch.int64), threat, Noise(0, "", (0,)))
    package = Package(
        model, norm=NORMS[threat.norm], eps=threat.radius, version=version, seed=0, device="cpu"
    )
    package.fab.targeted = True  # what its run sets before 'fab-t'
    package.apgd.loss = part.removeprefix("apgd-")  # and before these
    wanted = dict(vars(getattr(package, PARTS[version][part])))
    if part == "apgd-t":
        wanted["loss"] = "dlr-targeted"

    # Ours asks the model apart from its weights.
    other = {"device", "model", "predict"}
    assert {k: v for k, v in got.items() if k not in other} == {
        k: v for k, v in wanted.items() if k not in other
    }


@pytest.mark.parametrize("version", ["standard", "rand"])
def test_the_reference_runs_the_parts_of_the_package_in_its_order(
    version: Literal["standard", "rand"], shipped: LoadedModel
) -> None:
    package = Package(shipped.module, norm="Linf", eps=0.1, version=version, seed=0)

    assert [name for name, _ in AutoAttackReference(version).parts()] == package.attacks_to_run


def by_parts(model: nn.Module, images: Dataset, threat: Threat, block: int, short: bool) -> Any:
    """Drive the package part after part, block after block, and return the verdicts."""
    n = len(images)
    x, y = torch.from_numpy(images.pixels(np.arange(n))), torch.from_numpy(images.labels)
    verdicts = np.full(n, SURVIVED)
    verdicts[(predict(model, x) != y).numpy()] = CLEAN
    for number, name in enumerate(("apgd-ce", "apgd-t", "fab-t", "square"), 1):
        for first in range(0, n, block):
            rows = first + np.flatnonzero(verdicts[first : first + block] == SURVIVED)
            if not len(rows):
                continue
            seed = Noise(0, name, (), first // block).block_seed()
            made = package(Searched(model), threat, [name], seed, short=short)
            x_adv = by_package(made, x[rows], y[rows])
            verdicts[rows[broken(model, x[rows], x_adv, y[rows], threat).numpy()]] = number
    return verdicts.tolist()


@pytest.mark.slow
def test_the_reference_gives_the_verdicts_of_the_package_driven_part_after_part(
    shipped: LoadedModel, fashion: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        AutoAttackReference,
        "parts",
        lambda self: [
            ("apgd-ce", ReferenceAPGDCE(steps=1, block=self.block)),
            ("apgd-t", ReferenceAPGDT(steps=FEW["apgd-t"], targets=TARGETS, block=self.block)),
            ("fab-t", ReferenceFABT(steps=FEW["fab-t"], targets=TARGETS, block=self.block)),
            ("square", ReferenceSquare(queries=FEW["square"], block=self.block)),
        ],
    )
    monkeypatch.setitem(FEW, "apgd-ce", 1)  # so that something is left for the others
    images = fashion.first(16)
    with borrowed(shipped.module) as judged:
        expected = by_parts(judged, images, LINF, 7, short=True)

    suite = parse_suite(["autoattack-reference(block=7)"])
    got = run_suite(shipped.module, images, LINF, suite, 0, 7, Journal(), Quiet())

    assert got.tolist() == expected
    assert {SURVIVED, CLEAN, 1} <= set(expected)


@pytest.mark.slow
def test_the_full_reference_gives_the_verdicts_of_the_package_driven_part_after_part(
    shipped: LoadedModel, fashion: Dataset
) -> None:
    images = fashion.first(50)
    with borrowed(shipped.module) as judged:
        expected = by_parts(judged, images, LINF, 25, short=False)

    suite = parse_suite(["autoattack-reference(block=25)"])
    got = run_suite(shipped.module, images, LINF, suite, 0, 250, Journal(), Quiet())

    assert got.tolist() == expected


@pytest.mark.sampled(3)
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("attack", ["apgd-t", "autoattack", "autoattack-reference"])
def test_fewer_than_four_classes_are_refused_with_what_to_use(
    attack: str, classes: int, small_net: Callable[..., nn.Module]
) -> None:
    images = Dataset(
        "tensors", "user", np.random.default_rng(0).random((8, 1, 8, 8), np.float32),
        np.zeros(8, np.int64), classes,
    )  # fmt: skip
    net = small_net(classes=classes)
    net[-1].bias[0] += 100  # type: ignore[index, operator, union-attr]
    with pytest.raises(
        SatbenchError,
        match=rf"^autoattack's targeted DLR loss needs at least 4 classes, got {classes}; "
        r"run apgd-ce, fab-t and square instead$",
    ):
        run_suite(net, images, LINF, parse_suite([attack]), 0, 8, Journal(), Quiet())


@pytest.mark.parametrize("name", SHORT)
def test_five_classes_are_enough(name: str, small_net: Callable[..., nn.Module]) -> None:
    net = small_net(classes=5)
    x = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = net(x).argmax(1)
    x_adv = SHORT[name](net, x, y, Threat.parse("linf:0.3"), Noise(0, name, tuple(range(6))))

    assert broken(net, x, x_adv, y, Threat.parse("linf:0.3")).any()


@pytest.mark.parametrize(
    "attack",
    [ReferenceAPGDCE(steps=3), ReferenceFABT(steps=3), ReferenceSquare(queries=20)],
    ids=lambda a: type(a).__name__,
)
def test_two_classes_are_enough_for_all_but_the_targeted_dlr_loss(
    attack: Attack, small_net: Callable[..., nn.Module]
) -> None:
    net, threat = small_net(classes=2), Threat.parse("linf:0.3")
    x = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = net(x).argmax(1)

    x_adv = attack(net, x, y, threat, Noise(0, "", tuple(range(6))))

    assert broken(net, x, x_adv, y, threat).any()


def test_two_classes_are_too_few_for_the_dlr_loss(small_net: Callable[..., nn.Module]) -> None:
    net = small_net(classes=2)
    with pytest.raises(
        SatbenchError, match=r"^autoattack's DLR loss needs at least 3 classes, got 2; run apgd-ce"
    ):
        ReferenceAPGDDLR()(net, torch.rand(1, 1, 8, 8), torch.tensor([0]), LINF, Noise(0, "", (0,)))


def test_the_seed_of_a_block_is_not_that_of_its_neighbour() -> None:
    seeds = [Noise(0, "square", (), block).block_seed() for block in range(20)]

    assert len(set(seeds)) == 20
