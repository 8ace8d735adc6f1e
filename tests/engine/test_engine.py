from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from contract.cases import SIMPLE
from hypothesis import given, settings
from hypothesis import strategies as st
from in_memory import Journal, Quiet, run_suite
from numpy.typing import NDArray
from torch import Tensor, nn

from satbench.attacks.suites.suite import parse_suite
from satbench.core.noise import Noise
from satbench.core.progress.receiver import NoProgress
from satbench.core.threat import Threat
from satbench.data import Dataset
from satbench.engine.contract import Model, NoiseSource
from satbench.engine.judge import NonFiniteLogitsError, OutsideBallError, predict
from satbench.engine.runner import CLEAN, SURVIVED, passes_of
from satbench.engine.stage import Stage
from satbench.models import LoadedModel

LINF = Threat.parse("linf:0.1")

# Under LINF the first attack reaches 0.025 from the clean image, the second the whole ball.
SHORT = "pgd(steps=1,start=clean)"
FULL = "pgd(steps=5,start=clean)"
# Wrong when clean, broken by SHORT, by FULL, and out of reach.
MEANS, LABELS = (0.49, 0.51, 0.55, 0.61), (1, 1, 1, 1)


@dataclass
class Told(NoProgress):
    """Progress that records its calls, and can stop the run after some batches."""

    stop_after: int = -1
    stages: list[tuple[str, int, int]] = field(default_factory=list)
    batches: list[tuple[int, int]] = field(default_factory=list)
    passes: list[int] = field(default_factory=list)

    def passed(self, passes: int) -> None:
        self.passes.append(passes)

    def stage(self, title: str, total: int, done: int) -> None:
        self.stages.append((title, total, done))

    def advance(self, images: int, survivors: int) -> None:
        self.batches.append((images, survivors))
        if len(self.batches) == self.stop_after:
            raise KeyboardInterrupt


@dataclass(frozen=True)
class Watcher:
    """An attack that changes nothing and records its arguments."""

    seen: list[tuple[Noise, Tensor]]
    block: int | None = None

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource
    ) -> Tensor:
        assert isinstance(noise, Noise)
        self.seen.append((noise, x.clone()))
        return x.clone()


def watch(block: int | None = None) -> tuple[tuple[Stage, ...], list[tuple[Noise, Tensor]]]:
    seen: list[tuple[Noise, Tensor]] = []
    return (Stage("pgd", "", "watcher", Watcher(seen, block)),), seen


def run(
    model: nn.Module,
    images: Dataset,
    attacks: Sequence[str] | tuple[Stage, ...],
    *,
    threat: Threat = LINF,
    seed: int = 0,
    batch_size: int = 250,
    journal: Journal | None = None,
    progress: Told | None = None,
) -> list[int]:
    suite = tuple(attacks) if isinstance(attacks[0], Stage) else parse_suite(attacks)  # type: ignore[arg-type]
    verdicts: NDArray[np.int16] = run_suite(
        model,
        images,
        threat,
        suite,  # type: ignore[arg-type]
        seed,
        batch_size,
        Journal() if journal is None else journal,
        progress or Told(),
    )
    return verdicts.tolist()


@pytest.fixture
def four(grey_images: Callable[..., Dataset]) -> Dataset:
    """Four images: wrong when clean, broken by SHORT, broken by FULL, out of reach."""
    return grey_images(MEANS, LABELS)


# Verdicts


def test_a_verdict_names_the_first_stage_that_broke_the_image(
    mean_model: nn.Module, four: Dataset
) -> None:
    assert run(mean_model, four, [SHORT, FULL]) == [CLEAN, 1, 2, SURVIVED]


def test_each_stage_attacks_the_survivors_of_the_previous_one(
    mean_model: nn.Module, four: Dataset
) -> None:
    journal = Journal()
    run(mean_model, four, [SHORT, FULL], journal=journal)

    attacked = [[i for r in journal.of_stage(k) for i in r.indices.tolist()] for k in range(3)]
    assert attacked == [[0, 1, 2, 3], [1, 2, 3], [2, 3]]


def test_every_broken_verdict_has_a_witness_that_the_model_gets_wrong(
    mean_model: nn.Module, four: Dataset
) -> None:
    journal = Journal()
    run(mean_model, four, [SHORT, FULL], journal=journal)

    for result in (r for r in journal if r.stage != CLEAN):
        rows = result.indices[result.broken]
        witnesses = torch.from_numpy(result.witnesses)
        assert len(witnesses) == len(rows) == 1
        assert (predict(mean_model, witnesses).numpy() != four.labels[rows]).all()


def test_the_clean_pass_has_no_witness(mean_model: nn.Module, four: Dataset) -> None:
    journal = Journal()
    run(mean_model, four, [SHORT], journal=journal)

    assert [result.witnesses.shape for result in journal.of_stage(CLEAN)] == [(0, 1, 2, 2)]


def test_progress_gets_each_stage_with_its_number_of_images(
    mean_model: nn.Module, four: Dataset
) -> None:
    told = Told()
    run(mean_model, four, [SHORT, FULL], progress=told, batch_size=2)

    titles = [stage.title for stage in parse_suite([SHORT, FULL])]
    assert told.stages == [("clean", 4, 0), (titles[0], 3, 0), (titles[1], 2, 0)]
    assert told.batches == [(2, 3), (2, 3), (2, 2), (1, 2), (2, 1)]


def test_progress_gets_every_pass_during_the_run(mean_model: nn.Module, four: Dataset) -> None:
    told, journal = Told(), Journal()
    run(mean_model, four, [FULL], progress=told, journal=journal, batch_size=2)

    assert sum(told.passes) == sum(map(passes_of, journal))
    assert len(told.passes) > len(journal)


@pytest.mark.parametrize(
    "attack",
    [
        "pgd(steps=3,restarts=2)",
        "apgd-ce(steps=3)",
        "apgd-t(steps=3)",
        "fab-t(steps=2)",
        "square(queries=10)",
    ],
)
@pytest.mark.parametrize("threat", ["linf:0.5", "l2:2"])
def test_a_model_that_is_always_right_is_never_broken(
    attack: str, threat: str, fashion: Dataset
) -> None:
    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.eye(4)[torch.full((len(x),), 2)] + 0 * x.sum((1, 2, 3))[:, None]

    images = replace(fashion.first(5), labels=np.full(5, 2), classes=4)

    assert run(Constant(), images, [attack], threat=Threat.parse(threat)) == [SURVIVED] * 5


ALL = (SHORT, "pgd(steps=2)", "square(queries=3)", FULL)


@settings(max_examples=15, deadline=None, derandomize=True, database=None)
@given(attacks=st.lists(st.sampled_from(ALL), min_size=2, max_size=4, unique=True))
def test_verdicts_only_get_worse_when_attacks_are_added(attacks: list[str]) -> None:
    pixels = np.linspace(0.48, 0.62, 30, dtype=np.float32).repeat(4).reshape(-1, 1, 2, 2)
    images = Dataset("tensors", "user", pixels, np.ones(30, np.int64), 2)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[-1.0] * 4, [1.0] * 4]))  # type: ignore[union-attr, operator]
        model[1].bias.copy_(torch.tensor([2.0, -2.0]))  # type: ignore[union-attr, operator]

    fewer, more = run(model, images, attacks[:-1]), run(model, images, attacks)

    assert all(after in (before, len(attacks)) for before, after in zip(fewer, more, strict=True))
    assert all(b == a for b, a in zip(fewer, more, strict=True) if b != SURVIVED)


# Batches, blocks and noise


def test_all_batch_sizes_give_the_same_verdicts(shipped: LoadedModel, fashion: Dataset) -> None:
    attacks = ["pgd-4", "square(queries=20)"]
    found = [
        run(shipped.module, fashion.first(30), attacks, batch_size=size) for size in (1, 7, 250)
    ]

    assert found[1:] == found[:1] * 2
    assert set(found[0]) == {SURVIVED, CLEAN, 1, 2} or set(found[0]) == {SURVIVED, CLEAN, 1}


def test_the_noise_of_an_image_does_not_depend_on_its_batch(
    mean_model: nn.Module, four: Dataset
) -> None:
    drawn = []
    for size in (1, 2, 4):
        suite, seen = watch()
        run(mean_model, four, suite, batch_size=size, seed=5)
        drawn.append(np.concatenate([noise.uniform((1, 2, 2)) for noise, _ in seen]))

    assert len(drawn[0]) == 3
    np.testing.assert_array_equal(drawn[1], drawn[0])
    np.testing.assert_array_equal(drawn[2], drawn[0])


def test_an_attack_gets_the_pixels_and_the_noise_of_the_same_images(
    mean_model: nn.Module, four: Dataset
) -> None:
    suite, seen = watch()
    run(mean_model, four, suite, batch_size=2, seed=5)

    assert [noise for noise, _ in seen] == [
        Noise(5, "watcher", (1, 2), 0),
        Noise(5, "watcher", (3,), 0),
    ]
    assert [x[:, 0, 0, 0].tolist() for _, x in seen] == [
        four.images[[1, 2], 0, 0, 0].tolist(),
        four.images[[3], 0, 0, 0].tolist(),
    ]


@pytest.mark.parametrize("batch_size", [1, 3, 250])
def test_an_attack_with_blocks_gets_images_grouped_by_index(
    batch_size: int, mean_model: nn.Module, grey_images: Callable[..., Dataset]
) -> None:
    wrong = {1, 4, 5, 6, 7}
    images = grey_images([0.4 if i in wrong else 0.6 for i in range(10)], [1] * 10)
    suite, seen = watch(block=4)
    run(mean_model, images, suite, batch_size=batch_size)

    assert [(noise.indices, noise.block) for noise, _ in seen] == [((0, 2, 3), 0), ((8, 9), 2)]


def test_additional_images_do_not_change_the_verdicts_of_earlier_blocks(
    shipped: LoadedModel, fashion: Dataset
) -> None:
    attack = "square(queries=30,block=20)"
    fewer = run(shipped.module, fashion.first(40), [attack])
    more = run(shipped.module, fashion.first(60), [attack])

    assert more[:40] == fewer


# Resumed runs


def test_batches_in_the_journal_are_not_run_again(mean_model: nn.Module, four: Dataset) -> None:
    journal = Journal()
    expected = run(mean_model, four, [SHORT, FULL], journal=journal)
    before, told = list(journal), Told()

    assert run(mean_model, four, [SHORT, FULL], journal=journal, progress=told) == expected
    assert len(journal) == len(before)
    assert [(total, done) for _, total, done in told.stages] == [(4, 4), (3, 3), (2, 2)]


@pytest.mark.parametrize("stop", range(1, 9))
def test_a_stopped_run_continues_with_the_same_batches(
    stop: int, mean_model: nn.Module, four: Dataset
) -> None:
    whole, journal = Journal(), Journal()
    expected = run(mean_model, four, [SHORT, FULL], journal=whole, batch_size=1)
    with pytest.raises(KeyboardInterrupt):
        run(
            mean_model,
            four,
            [SHORT, FULL],
            journal=journal,
            batch_size=1,
            progress=Told(stop_after=stop),
        )

    assert len(journal) == stop
    assert run(mean_model, four, [SHORT, FULL], journal=journal, batch_size=1) == expected
    assert [(r.stage, r.indices.tolist()) for r in journal] == [
        (r.stage, r.indices.tolist()) for r in whole
    ]


def test_a_journal_in_any_order_gives_the_same_verdicts(
    mean_model: nn.Module, four: Dataset
) -> None:
    journal = Journal()
    expected = run(mean_model, four, [SHORT, FULL], journal=journal, batch_size=1)
    journal.reverse()

    assert run(mean_model, four, [SHORT, FULL], journal=journal) == expected


# Gradients


@pytest.mark.parametrize("spec", ["pgd-3", "fab-t(steps=2)", "malt(steps=2)", "square(queries=5)"])
@pytest.mark.parametrize("globally", [False, True])
def test_a_run_inside_no_grad_equals_one_outside(
    globally: bool, spec: str, small_net: Callable[..., nn.Module], fashion: Dataset
) -> None:
    net, images = small_net(classes=10), fashion.first(12)
    outside, inside = Journal(), Journal()
    expected = run(net, images, [spec, SHORT], journal=outside)
    before = torch.is_grad_enabled()
    try:
        if globally:
            torch.set_grad_enabled(False)
            got = run(net, images, [spec, SHORT], journal=inside)
        else:
            with torch.no_grad():
                got = run(net, images, [spec, SHORT], journal=inside)
        after = torch.is_grad_enabled()
    finally:
        torch.set_grad_enabled(before)

    assert got == expected
    assert after == (before and not globally)
    assert [(r.forwards, r.backwards) for r in inside] == [
        (r.forwards, r.backwards) for r in outside
    ]


@dataclass(frozen=True)
class Plain:
    """An attack that takes a gradient and expects that the engine turned gradients on."""

    block: int | None = None

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource
    ) -> Tensor:
        leaf = x.clone().requires_grad_()
        loss = nn.functional.cross_entropy(model(leaf), y)
        step = threat.radius * torch.autograd.grad(loss, leaf)[0].sign()
        return (x + step).clamp(x - threat.radius, x + threat.radius).clamp(0, 1)


def test_gradients_are_on_during_every_attack(mean_model: nn.Module, four: Dataset) -> None:
    suite = (Stage("plain", "", "plain", Plain()),)
    with torch.no_grad():
        got = run(mean_model, four, suite)
        assert not torch.is_grad_enabled()

    assert got == run(mean_model, four, suite) == [0, 1, 1, -1]


# Logits that are not finite


class Strange(nn.Module):
    """Right on the clean images; elsewhere its first class has a strange logit."""

    def __init__(self, mean: float, strange: float, always: bool = False) -> None:
        super().__init__()
        self.mean, self.strange, self.always = mean, strange, always
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        score = self.scale * x.flatten(1).mean(1)
        logits = torch.stack([0 * score, -score, score - 0.3, -2 * score, -3 * score], 1)
        elsewhere = (x[:, 0, 0, 0] - self.mean).abs() > 1e-4
        odd = torch.ones_like(elsewhere) if self.always else elsewhere
        first = torch.where(odd, self.strange, logits[:, 0])
        return torch.cat([first[:, None], logits[:, 1:]], 1)


@pytest.mark.parametrize("strange", [torch.nan, torch.inf])
@pytest.mark.parametrize("spec", SIMPLE)
def test_a_nan_logit_is_refused_for_every_attack(spec: str, strange: float) -> None:
    pixels = np.random.default_rng(0).uniform(0.4, 0.8, (3, 1, 8, 8)).astype(np.float32)
    pixels[:, 0, 0, 0] = 0.6
    images = Dataset("tensors", "user", pixels, np.array([2, 0, 2]), 5)  # image 1 is wrong
    norms = parse_suite([spec])[0].traits.norms
    threat = Threat.parse("linf:0.1" if "linf" in norms else "l2:1")

    place = rf"\(images? (0|2|0 and 2), under {spec.partition('(')[0]}"
    with pytest.raises(NonFiniteLogitsError, match=rf"^expected finite logits, .*{place}"):
        run(Strange(0.6, strange), images, [spec], threat=threat)


def test_a_class_that_is_masked_for_every_image_does_not_change_verdicts() -> None:
    pixels = np.linspace(0.16, 0.4, 8, dtype=np.float32).repeat(64).reshape(-1, 1, 8, 8)
    images = Dataset("tensors", "user", pixels, np.full(8, 2), 5)
    attacks = ["pgd-3", "fab-t(steps=3)", "square(queries=20)"]
    unmasked = run(Strange(0, -9, always=True), images, attacks)

    assert run(Strange(0, -torch.inf, always=True), images, attacks) == unmasked
    assert len(set(unmasked)) > 1


# The model


def test_a_model_in_train_mode_is_in_train_mode_after_a_run(
    mean_model: nn.Module, four: Dataset
) -> None:
    mean_model.train()
    run(mean_model, four, [SHORT])

    assert mean_model.training
    assert all(p.requires_grad and p.grad is None for p in mean_model.parameters())


def test_a_model_is_restored_after_an_interrupt(mean_model: nn.Module, four: Dataset) -> None:
    mean_model.train()
    with pytest.raises(KeyboardInterrupt):
        run(mean_model, four, [SHORT], progress=Told(stop_after=2))

    assert mean_model.training
    assert all(p.requires_grad for p in mean_model.parameters())


def test_a_model_in_train_mode_is_judged_in_eval_mode(
    small_net: Callable[..., nn.Module], fashion: Dataset
) -> None:
    net = nn.Sequential(small_net(classes=10), nn.Dropout(0.9))
    expected = run(net.eval(), fashion.first(20), ["pgd-1"])

    assert run(net.train(), fashion.first(20), ["pgd-1"]) == expected


def test_an_attack_that_leaves_the_ball_is_named(mean_model: nn.Module, four: Dataset) -> None:
    @dataclass(frozen=True)
    class Cheat:
        def __call__(self, model: Any, x: Tensor, y: Any, threat: Any, noise: Any) -> Tensor:
            return x - 0.11

    stage = Stage("autoattack", "part", "cheat", Cheat())
    with pytest.raises(OutsideBallError, match=r"^attack autoattack/part: expected perturbations"):
        run(mean_model, four, (stage,))


def test_another_default_dtype_does_not_affect_attacks(
    four: Dataset, mean_model: nn.Module
) -> None:
    suite = parse_suite(["apgd-ce(steps=3)", "square(queries=3)"])
    small, found = Threat.parse("linf:0.001"), []
    for dtype in (torch.float32, torch.float64):
        torch.set_default_dtype(dtype)
        try:
            found.append(run_suite(mean_model, four, small, suite, 0, 4, Journal(), Quiet()))
        finally:
            torch.set_default_dtype(torch.float32)

    np.testing.assert_array_equal(*found)


def test_logits_that_are_not_finite_are_named_with_image_and_stage(four: Dataset) -> None:
    class Faulty(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            score = x.flatten(1).mean(1) - 0.5
            return torch.stack([-score, torch.where(score < 0.007, torch.nan, score)], 1)

    with pytest.raises(NonFiniteLogitsError, match=r"\(image 0, under pgd-1\(start=clean\)\)$"):
        run(Faulty(), replace(four, images=four.images + np.float32(0.02)), [SHORT])
