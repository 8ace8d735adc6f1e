"""Attacks that use results of earlier stages, select images, or prepare surrogates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from in_memory import Journal, Quiet, run_suite
from numpy.typing import NDArray
from torch import Tensor, nn

from satbench.core.errors import SatbenchError
from satbench.core.threat import Threat
from satbench.data import Dataset
from satbench.engine.contract import (
    Attack,
    CountedSurrogates,
    Found,
    Hints,
    History,
    Model,
    NoiseSource,
)
from satbench.engine.stage import Stage

LINF = Threat.parse("linf:0.1")


@dataclass(frozen=True)
class Shift:
    """Moves every pixel down by `by`, and reports the margin of a two-class model there."""

    by: float
    told: list[Hints] = field(default_factory=list)

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource
    ) -> Tensor:
        raise AssertionError("an informed attack is asked to follow")

    def follow(
        self,
        model: Model,
        x: Tensor,
        y: Tensor,
        threat: Threat,
        noise: NoiseSource,
        hints: Hints,
    ) -> Found:
        self.told.append(hints)
        x_adv = (x - self.by).clamp(0, 1)
        logits = model(x_adv)
        return Found(x_adv, logits[:, 1] - logits[:, 0])


@dataclass(frozen=True)
class Choosy:
    """Attacks the images whose margin is below `below`, and changes nothing."""

    below: float
    seen: list[History] = field(default_factory=list)

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource
    ) -> Tensor:
        return x.clone()

    def selects(self, history: History) -> NDArray[np.bool_]:
        self.seen.append(history)
        return history.margins < self.below


def stage(part: str, attack: Attack) -> Stage:
    return Stage("fast", part, part, attack)


def run(
    model: nn.Module,
    images: Dataset,
    suite: list[Stage],
    journal: Journal,
    batch_size: int = 250,
    surrogates: CountedSurrogates | None = None,
    stop_after: int = -1,
) -> list[int]:
    verdicts = run_suite(
        model, images, LINF, suite, 0, batch_size, journal, Quiet(stop_after), surrogates
    )
    return verdicts.tolist()


@pytest.fixture
def three(grey_images: Callable[..., Dataset]) -> Dataset:
    """Three images of class 1: 0.02, 0.06 and 0.3 from the boundary."""
    return grey_images((0.52, 0.56, 0.8), (1, 1, 1))


def test_an_informed_attack_gets_the_smallest_margin_so_far_and_its_point(
    mean_model: nn.Module, three: Dataset
) -> None:
    last = Shift(0.0)
    run(
        mean_model,
        three,
        [stage("a", Shift(0.05)), stage("b", Shift(0.01)), stage("c", last)],
        Journal(),
    )

    (hints,) = last.told
    x = torch.from_numpy(three.pixels(np.array([1, 2])))
    assert torch.allclose(hints.points, x - 0.05)
    assert torch.allclose(hints.margins, 2 * torch.tensor([0.01, 0.25]), atol=1e-6)


def test_the_first_informed_attack_gets_the_clean_images(
    mean_model: nn.Module, three: Dataset
) -> None:
    first = Shift(0.0)
    run(mean_model, three, [stage("a", first)], Journal())

    assert torch.equal(first.told[0].points, torch.from_numpy(three.pixels(np.arange(3))))
    assert torch.equal(first.told[0].margins, torch.full((3,), torch.inf))


def test_a_selective_attack_attacks_only_its_selection_of_the_survivors(
    mean_model: nn.Module, three: Dataset
) -> None:
    journal = Journal()
    suite = [stage("a", Shift(0.05)), stage("b", Choosy(0.1))]

    assert [1, -1, -1] == run(mean_model, three, suite, journal)
    assert [[1]] == [r.indices.tolist() for r in journal if r.stage == 2]


def test_a_selective_attack_gets_the_counts_of_attacked_and_broken_images(
    mean_model: nn.Module, three: Dataset
) -> None:
    choosy = Choosy(np.inf)
    run(mean_model, three, [stage("a", Shift(0.05)), stage("b", choosy)], Journal())

    (history,) = choosy.seen
    assert {"a": 3} == history.attacked
    assert {"a": 1} == history.broken
    assert [False, True, True] == history.survivors.tolist()


def test_the_share_of_an_image_does_not_depend_on_the_number_of_images(
    mean_model: nn.Module, three: Dataset
) -> None:
    many, few = Choosy(np.inf), Choosy(np.inf)
    run(mean_model, three, [stage("b", many)], Journal())
    run(mean_model, three.first(2), [stage("b", few)], Journal())

    assert many.seen[0].share[:2].tolist() == few.seen[0].share.tolist()
    assert len(set(many.seen[0].share.tolist())) == 3


@pytest.mark.parametrize("stop_after", range(1, 8))
def test_a_stopped_run_gives_the_later_stages_the_same_hints(
    mean_model: nn.Module, three: Dataset, stop_after: int
) -> None:
    def suite(last: Shift) -> list[Stage]:
        parts = [Shift(0.01), Shift(0.05), Choosy(0.6), last]
        return [stage(str(k), part) for k, part in enumerate(parts)]

    whole, journal, resumed, again = Shift(0.0), Journal(), Shift(0.0), Journal()
    verdicts = run(mean_model, three, suite(whole), journal, batch_size=1)
    with pytest.raises(KeyboardInterrupt):
        run(mean_model, three, suite(resumed), again, batch_size=1, stop_after=stop_after)

    assert verdicts == run(mean_model, three, suite(resumed), again, batch_size=1)
    assert torch.equal(
        torch.cat([hints.points for hints in whole.told]),
        torch.cat([hints.points for hints in resumed.told]),
    )


class Surrogates:
    """Gives one model, and no images."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def surrogate(self, name: str) -> nn.Module:
        if name != "twin":
            raise SatbenchError(f"unknown model {name!r}")
        return self.model

    def pool(self, n: int) -> NDArray[np.float32]:
        return np.empty((0, 1, 2, 2), np.float32)

    def spent(self, forwards: int, backwards: int) -> None: ...


@dataclass(frozen=True)
class FromTwin:
    """Calls the source once in preparation, and once per batch."""

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource
    ) -> Tensor:
        raise AssertionError("it must be prepared first")

    def prepare(
        self, target: Model, surrogates: CountedSurrogates, threat: Threat, seed: int
    ) -> Attack:
        twin = surrogates.surrogate("twin")
        twin(torch.zeros(7, 1, 2, 2))
        surrogates.spent(5, 3)

        def search(
            model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource
        ) -> Tensor:
            twin(x)
            return (x - threat.radius).clamp(0, 1)

        return search


def test_passes_of_a_surrogate_are_counted_separately_including_preparation(
    mean_model: nn.Module, three: Dataset
) -> None:
    journal = Journal()
    run(mean_model, three, [stage("t", FromTwin())], journal, surrogates=Surrogates(mean_model))

    made, used = (r for r in journal if r.stage == 1)
    assert (0, 0, 12, 3) == (
        made.forwards,
        made.backwards,
        made.source_forwards,
        made.source_backwards,
    )
    assert (0, 3) == (used.forwards, used.source_forwards)
    assert 0 == len(made.indices)


def test_preparation_is_recorded_once_even_if_a_run_is_stopped(
    mean_model: nn.Module, three: Dataset
) -> None:
    journal, surrogates = Journal(), Surrogates(mean_model)
    with pytest.raises(KeyboardInterrupt):
        run(
            mean_model,
            three,
            [stage("t", FromTwin())],
            journal,
            batch_size=1,
            surrogates=surrogates,
            stop_after=4,
        )
    run(mean_model, three, [stage("t", FromTwin())], journal, batch_size=1, surrogates=surrogates)

    prepared = [r for r in journal if r.stage == 1 and not len(r.indices)]
    assert 1 == len(prepared)
    assert 12 + 3 == sum(r.source_forwards for r in journal)


def test_an_attack_that_needs_surrogates_is_refused_without_them(
    mean_model: nn.Module, three: Dataset
) -> None:
    with pytest.raises(SatbenchError, match="needs surrogates"):
        run(mean_model, three, [stage("t", FromTwin())], Journal())
