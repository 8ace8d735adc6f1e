"""The label-only teacher-student attack: its budget, that it sees only labels, what it breaks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import satbench
from satbench.attacks.gradient.pgd import PGD
from satbench.attacks.transfer.distilled import Distilled
from satbench.attacks.transfer.student import smooth_net
from satbench.core.errors import SatbenchError
from satbench.core.noise import Noise
from satbench.core.threat import Threat
from satbench.data import Dataset
from satbench.engine.contract import Attack
from satbench.engine.judge import broken, check_allowed, predict
from satbench.engine.memory import CountingSurrogates
from satbench.engine.passes import CountingModel, Passes
from satbench.evaluation.surrogates import NamedSurrogates
from satbench.model_zoo import masked

LINF = Threat.parse("linf:0.1")
SMALL = Distilled(queries=400, seeds=100, rounds=3, width=4, training=60, steps=10)
TINY = Distilled(queries=60, seeds=20, rounds=2, width=4, training=4, steps=5)


class HardSides(nn.Module):
    """Three classes by the brightest third of an image's columns, one-hot times `confidence`."""

    def __init__(self, confidence: float = 1.0) -> None:
        super().__init__()
        self.confidence = confidence
        self.grads_seen = False

    def forward(self, x: Tensor) -> Tensor:
        self.grads_seen |= torch.is_grad_enabled()
        sides = torch.stack([part.flatten(1).mean(1) for part in x.split(2, dim=3)], 1)
        hard = nn.functional.one_hot(sides.argmax(1), 3).float()
        return self.confidence * hard + 0 * sides


class Surrogates:
    """Gives a pool of images, and counts the passes."""

    def __init__(self, images: NDArray[np.float32]) -> None:
        self.images, self.forwards, self.backwards = images, 0, 0

    def surrogate(self, name: str) -> nn.Module:
        raise AssertionError(f"asked for the surrogate {name}")

    def pool(self, n: int) -> NDArray[np.float32]:
        return self.images[:n]

    def spent(self, forwards: int, backwards: int) -> None:
        self.forwards += forwards
        self.backwards += backwards


def images(n: int, seed: int = 0) -> NDArray[np.float32]:
    """Return 6×6 images with one side a little brighter than the others."""
    rng = np.random.default_rng(seed)
    x = 0.4 + 0.1 * rng.random((n, 1, 6, 6), np.float32)
    for row, side in enumerate(rng.integers(3, size=n)):
        x[row, :, :, 2 * side : 2 * side + 2] += 0.05
    return x.astype(np.float32)


def prepared(
    attack: Distilled = SMALL,
    target: nn.Module | None = None,
    pool: int = 500,
    seed: int = 0,
    threat: Threat = LINF,
) -> tuple[Attack, Passes, Surrogates]:
    passes, lender = Passes(), Surrogates(images(pool))
    model = CountingModel(target or HardSides(), passes)
    return attack.prepare(model, lender, threat, seed), passes, lender


def candidates(attack: Attack, n: int = 12, threat: Threat = LINF) -> Tensor:
    x = torch.from_numpy(images(n, seed=1))
    y = HardSides()(x).argmax(1)
    return attack(HardSides(), x, y, threat, Noise(0, "distilled", tuple(range(n))))


@pytest.mark.parametrize(
    ("queries", "seeds", "rounds", "pool", "asked"),
    [
        (400, 100, 3, 500, 400),  # 100, 100, 200
        (330, 100, 3, 500, 330),  # the last round is cut
        (400, 100, 1, 500, 200),  # too few rounds to spend them
        (60, 100, 3, 500, 60),  # fewer than the seeds
        (400, 100, 9, 7, 400),  # a small pool is filled up with mixtures
        (1, 1, 0, 1, 1),
    ],
)
def test_the_target_is_asked_for_so_many_labels_and_nothing_else(
    queries: int, seeds: int, rounds: int, pool: int, asked: int
) -> None:
    attack = replace(SMALL, queries=queries, seeds=seeds, rounds=rounds, training=4)

    _, passes, _ = prepared(attack, pool=pool)

    assert passes.take() == (asked, 0)


def test_the_attack_proper_asks_the_target_nothing() -> None:
    attack, passes, _ = prepared(TINY)
    passes.take()
    x = torch.from_numpy(images(3))

    attack(CountingModel(HardSides(), passes), x, HardSides()(x).argmax(1), LINF,
           Noise(0, "distilled", (0, 1, 2)))  # fmt: skip

    assert passes.take() == (0, 0)


def test_the_target_is_asked_without_gradients() -> None:
    target = HardSides()

    prepared(TINY, target)

    assert not target.grads_seen


def test_nothing_but_the_labels_matters() -> None:
    shy, _, _ = prepared(TINY, HardSides(confidence=1e-3))
    sure, _, _ = prepared(TINY, HardSides(confidence=1e3))

    assert torch.equal(candidates(shy), candidates(sure))


def test_the_same_seed_gives_the_same_bits() -> None:
    first, _, _ = prepared(TINY)
    torch.rand(3)  # where the global generator stands does not matter
    second, _, _ = prepared(TINY)

    assert torch.equal(candidates(first), candidates(second))


def test_another_seed_gives_another_student() -> None:
    first, _, _ = prepared(TINY)
    second, _, _ = prepared(TINY, seed=1)

    assert not torch.equal(candidates(first), candidates(second))


@pytest.mark.usefixtures("global_generators")
def test_the_global_generator_is_left_alone() -> None:
    before = np.random.get_state()[1].copy()

    candidates(prepared(TINY)[0])

    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_the_students_passes_are_counted() -> None:
    # Each of 6 steps of training: 40 images move against the student, then teach it.
    attack = replace(SMALL, queries=40, seeds=40, rounds=0, training=6, steps=5, restarts=2)
    made, _, lender = prepared(attack)
    training = (lender.forwards, lender.backwards)

    candidates(made, n=12)

    assert training == (6 * 40 * 2, 6 * 40 * 2)
    # Two restarts of 5 steps, and the margin of each one's last point.
    attacking = (lender.forwards - training[0], lender.backwards - training[1])
    assert attacking == (2 * 12 * 6, 2 * 12 * 5)


def test_without_hardening_no_image_moves_against_the_student() -> None:
    attack = replace(SMALL, queries=40, seeds=40, rounds=0, training=6, hardening=0.0)

    _, _, lender = prepared(attack)

    assert (lender.forwards, lender.backwards) == (6 * 40, 6 * 40)


@pytest.mark.parametrize("threat", ["linf:0.1", "l2:0.5", "l1:3"])
def test_the_candidates_are_allowed(threat: str) -> None:
    parsed = Threat.parse(threat)
    attack, _, _ = prepared(TINY, threat=parsed)

    check_allowed(torch.from_numpy(images(12, seed=1)), candidates(attack, threat=parsed), parsed)


def test_it_breaks_a_model_of_hard_labels_that_pgd_leaves() -> None:
    target, n = HardSides(), 24
    x = torch.from_numpy(images(n, seed=1))
    y = target(x).argmax(1)
    noise = Noise(0, "pgd", tuple(range(n)))

    by_gradient = broken(
        target, x, PGD(steps=20, start="clean")(target, x, y, LINF, noise), y, LINF
    )
    by_labels = broken(target, x, candidates(prepared()[0], n), y, LINF)

    assert int(by_gradient.sum()) == 0
    assert int(by_labels.sum()) >= n - 2


def test_without_images_beside_those_evaluated_it_says_so() -> None:
    with pytest.raises(SatbenchError, match="no images to query the model with"):
        prepared(pool=0)


def test_without_its_student_it_refuses() -> None:
    with pytest.raises(SatbenchError, match="needs its student first"):
        candidates(SMALL)


@pytest.mark.parametrize("name", ["queries", "seeds", "width", "training", "steps", "restarts"])
def test_numbers_below_one_are_refused(name: str) -> None:
    with pytest.raises(SatbenchError, match=f"^distilled: expected {name} of 1 or more, got 0$"):
        replace(SMALL, **{name: 0})


@pytest.mark.parametrize("hardening", [-0.1, 1.5, float("nan")])
def test_hardening_is_a_share_of_eps(hardening: float) -> None:
    with pytest.raises(SatbenchError, match=r"^distilled: expected hardening between 0 and"):
        replace(SMALL, hardening=hardening)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 15, 17), (2, 3, 4), (3, 64, 64)])
def test_a_student_fits_images_of_any_size(shape: tuple[int, ...]) -> None:
    x = torch.rand(4, *shape, generator=torch.Generator().manual_seed(0))

    assert smooth_net(x, classes=7, width=3, seed=0)(x).shape == (4, 7)


@pytest.mark.slow
@pytest.mark.parametrize("factory", [masked.rounding, masked.hard_labels])
def test_it_breaks_shipped_masked_models_that_white_box_pgd_leaves(
    factory: object, fashion: Dataset
) -> None:
    model = factory().requires_grad_(False)  # type: ignore[operator]
    data = fashion.first(100)
    x, y = torch.from_numpy(data.pixels(np.arange(100))), torch.from_numpy(data.labels)
    noise, clean = Noise(0, "distilled", tuple(range(100))), predict(model, x) == y

    white_box = predict(model, PGD(steps=20)(model, x, y, LINF, noise)) == y
    surrogates = CountingSurrogates(NamedSurrogates(data), Passes(), torch.device("cpu"))
    attack = Distilled().prepare(model, surrogates, LINF, 0)
    black_box = predict(model, attack(model, x, y, LINF, noise)) == y

    assert int((clean & white_box).sum()) >= int(clean.sum()) - 8
    assert int((clean & black_box).sum()) <= int(clean.sum()) // 3


@pytest.mark.slow
def test_a_record_tells_the_queries_and_the_students_passes(tmp_path: object) -> None:
    record = satbench.evaluate(
        "satbench.model_zoo.masked:hard_labels",
        "fashion-mnist",
        attacks=["distilled(queries=300,seeds=100,training=40,steps=5)"],
        n_examples=20,
        eps=0.1,
        out=tmp_path,  # type: ignore[arg-type]
    )

    (stage,) = record.stages
    assert (stage.forwards, stage.backwards) == (300, 0)
    assert stage.source_forwards > 0
    assert stage.source_backwards > 0
