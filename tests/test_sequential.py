"""Evaluations that stop once the interval is narrow: in a random order, chunk by chunk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from in_memory import Journal, run_suite
from numpy.typing import NDArray
from torch import Tensor, nn

import satbench
from satbench.attacks.suites.suite import parse_suite
from satbench.cli import cli
from satbench.core.errors import SatbenchError
from satbench.core.progress.receiver import NoProgress
from satbench.core.stats.intervals import confidence_sequence
from satbench.core.threat import Threat
from satbench.data import Dataset, load_dataset
from satbench.engine.contract import History, Model, NoiseSource
from satbench.engine.stage import Stage
from satbench.evaluation.config import eval_config, parse_interval
from satbench.evaluation.plan import Evaluation
from satbench.evaluation.run import Finished, run_evaluation
from satbench.evaluation.surrogates import NamedSurrogates
from satbench.models import LoadedModel
from satbench.proofs.verification import verify_record
from satbench.records.check import check_record
from satbench.records.record import Record, read_record
from satbench.records.witnesses import read_witnesses, witnesses_path

pytestmark = pytest.mark.sampled(2)

CPU = torch.device("cpu")
LINF = Threat.parse("linf:0.1")
SHIPPED = "fmnist-sat-tiny-relu-s0"
CHUNK, POPULATION = 20, 100
ATTACKS = ("pgd-1", "pgd-2")


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("satbench.evaluation.run.CHUNK", CHUNK)


@dataclass
class StopsAfter(NoProgress):
    """Progress that remembers survivors, and stops when so many batches are written down."""

    batches: int = -1
    last: int = -1

    def advance(self, images: int, survivors: int) -> None:
        self.batches -= 1
        self.last = survivors
        if self.batches == 0:
            raise KeyboardInterrupt


Run = Callable[..., Finished]


@pytest.fixture
def hundred(fashion: Dataset) -> Dataset:
    """The first 100 test images of Fashion-MNIST."""
    return fashion.first(POPULATION)


@pytest.fixture
def run(shipped: LoadedModel, hundred: Dataset) -> Run:
    """Return a function that evaluates the shipped model on 100 images or fewer."""

    def run(
        out: Path, until: float | None, stop_after: int = -1, dataset: Dataset = hundred
    ) -> Finished:
        evaluation = Evaluation(dataset, LINF, ATTACKS, batch_size=15, until=until)
        progress = StopsAfter(stop_after)
        return run_evaluation(shipped.module, shipped.info, evaluation, CPU, out, progress)

    return run


@pytest.fixture(scope="module")
def finished(
    _shipped_once: LoadedModel, fashion: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Finished]:
    """Return a function that evaluates the model on 100 images once, into a folder to read only."""

    @cache
    def finished(until: float | None, shuffled: bool = False) -> Finished:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("satbench.evaluation.run.CHUNK", CHUNK)
            hundred = fashion.first(POPULATION)
            dataset = hundred.shuffled() if shuffled else hundred
            evaluation = Evaluation(dataset, LINF, ATTACKS, batch_size=15, until=until)
            loaded, out = _shipped_once, tmp_path_factory.mktemp("finished")
            return run_evaluation(loaded.module, loaded.info, evaluation, CPU, out, NoProgress())

    return finished


def timeless(record: Record, like: Record) -> str:
    """Return a record's JSON with the environment of another one."""
    return replace(record, environment=like.environment).to_json()


def images_of(dataset: Dataset) -> list[bytes]:
    return [image.tobytes() for image in dataset.images]


# The order of the images


def test_the_order_is_a_function_of_the_digest_alone(hundred: Dataset) -> None:
    twin = replace(hundred, name="other", split="train", images=hundred.images.copy())
    assert images_of(hundred.shuffled()) == images_of(twin.shuffled())
    assert images_of(hundred.shuffled())[:5] != images_of(hundred)[:5]


def test_another_digest_is_another_order(hundred: Dataset) -> None:
    relabelled = replace(hundred, labels=hundred.labels[::-1].copy())

    assert images_of(hundred.shuffled()) != images_of(relabelled.shuffled())


def test_a_random_order_holds_each_image_with_its_label_once(hundred: Dataset) -> None:
    order = hundred.shuffled()

    assert order.population == POPULATION
    assert sorted(zip(images_of(hundred), hundred.labels.tolist(), strict=True)) == sorted(
        zip(images_of(order), order.labels.tolist(), strict=True)
    )


# When it stops


@pytest.mark.sampled(1)
@pytest.mark.parametrize("width", [0.6, 0.4, 0.2, 0.01])
def test_it_stops_as_soon_as_the_interval_is_narrow_and_not_before(
    width: float, finished: Run
) -> None:
    whole = finished(None, shuffled=True).record
    looks = [
        (n, confidence_sequence(whole.verdicts[:n].count(-1), n, POPULATION))
        for n in range(CHUNK, POPULATION + 1, CHUNK)
    ]
    n, interval = next((n, ends) for n, ends in looks if ends[1] - ends[0] <= width)
    record = finished(width).record

    assert record.sequential is not None
    assert (n, POPULATION) == (record.n, record.dataset.population)
    assert interval == (record.sequential.low, record.sequential.high)
    assert width == record.sequential.width


def test_the_verdicts_are_those_of_the_same_images_in_a_run_of_all(
    finished: Run,
) -> None:
    whole, some = finished(None, shuffled=True), finished(0.25)
    mine, theirs = (read_witnesses(witnesses_path(done.path)) for done in (some, whole))

    assert 0 < some.record.n < POPULATION
    assert whole.record.verdicts[: some.record.n] == some.record.verdicts
    assert np.array_equal(theirs.images[: len(mine.indices)], mine.images)


def test_a_width_that_is_never_reached_before_takes_on_all_images(finished: Run) -> None:
    record = finished(1e-9).record

    assert record.sequential is not None
    assert record.n == POPULATION
    assert record.sequential.low == record.sequential.high == record.surviving() / POPULATION


def test_the_last_chunk_may_be_smaller(run: Run, hundred: Dataset, tmp_path: Path) -> None:
    assert run(tmp_path, 1e-9, dataset=hundred.first(47)).record.n == 47


# Stopped, found, and checked


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "stop",
    [
        1,
        pytest.param(3, marks=pytest.mark.slow),
        5,
        pytest.param(6, marks=pytest.mark.slow),
        pytest.param(9, marks=pytest.mark.slow),
        14,
    ],
)
def test_a_run_that_was_stopped_ends_in_the_same_record(
    stop: int, run: Run, finished: Run, tmp_path: Path
) -> None:
    whole = finished(0.25)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", 0.25, stop_after=stop)
    assert list((tmp_path / "parts").glob("*.json")) == []
    parts = run(tmp_path / "parts", 0.25)

    assert whole.path.name == parts.path.name
    assert whole.record.to_json() == timeless(parts.record, whole.record)
    assert not list((tmp_path / "parts").rglob("*.npz.tmp"))


def test_what_a_stopped_run_for_a_narrower_interval_did_more_does_not_count(
    run: Run, finished: Run, tmp_path: Path
) -> None:
    alone = finished(0.5)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "both", 1e-9, stop_after=22)
    both = run(tmp_path / "both", 0.5)

    assert alone.record.n <= 2 * CHUNK
    assert alone.record.to_json() == timeless(both.record, alone.record)


def test_the_same_command_finds_the_record_again(run: Run, tmp_path: Path) -> None:
    first, second = run(tmp_path, 0.25), run(tmp_path, 0.25)

    assert (False, True) == (first.found, second.found)
    assert first.record == second.record


def test_another_width_is_another_command(run: Run, tmp_path: Path) -> None:
    wide, narrow = run(tmp_path, 0.5), run(tmp_path, 0.12)

    assert not narrow.found
    assert wide.record.n < narrow.record.n
    assert (wide.record, narrow.record) == (run(tmp_path, 0.5).record, run(tmp_path, 0.12).record)


def test_a_run_in_the_order_of_the_split_is_another(run: Run, tmp_path: Path) -> None:
    run(tmp_path, 1e-9)
    plain = run(tmp_path, None)

    assert (plain.found, plain.record.sequential, plain.record.dataset.population) == (
        False,
        None,
        0,
    )


def test_the_record_holds_and_so_do_its_witnesses(finished: Run) -> None:
    done = finished(0.25)
    verified = verify_record(done.path)

    assert done.record.n < POPULATION
    assert (done.record.n, []) == (verified.images, verified.faults)
    assert verified.witnesses > 0


@pytest.mark.parametrize(
    "change",
    [{"population": 0}, {"population": POPULATION - 1}, {"population": 10}],
    ids=str,
)
def test_a_record_of_another_population_does_not_hold(
    change: dict[str, int], finished: Run, tmp_path: Path
) -> None:
    place = shutil.copytree(finished(0.25).path.parent, tmp_path / "changed")
    path = place / finished(0.25).path.name
    assert not verify_record(path).faults
    values = json.loads(path.read_text(encoding="utf-8"))
    values["dataset"] |= change
    path.write_text(json.dumps(values), encoding="utf-8")

    assert verify_record(path).faults


def test_a_record_whose_interval_was_narrowed_does_not_hold(finished: Run) -> None:
    record = finished(0.25).record
    assert record.sequential is not None
    narrowed = replace(record, sequential=replace(record.sequential, low=0.5))

    assert check_record(record) == []
    assert check_record(narrowed) == ["the interval of the sequence is not that of the survivors"]


def test_images_of_the_population_are_lent_to_nobody(hundred: Dataset) -> None:
    whole = load_dataset("fashion-mnist", "test", POPULATION + 3)
    surrogates = NamedSurrogates(hundred.shuffled().first(CHUNK)).pool(3)

    assert np.array_equal(whole.pixels(np.arange(POPULATION, POPULATION + 3)), surrogates)


# One chunk tells another nothing


@dataclass(frozen=True)
class Half:
    """Takes on the half of the survivors with the least shares, if anything broke before."""

    seen: list[tuple[int, ...]]

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource
    ) -> Tensor:
        return (x - 0.1).clamp(0, 1)

    def selects(self, history: History) -> NDArray[np.bool_]:
        chosen = history.survivors & (history.share < np.median(history.share[history.survivors]))
        chosen &= sum(history.broken.values()) > 0
        self.seen.append(tuple(np.flatnonzero(chosen).tolist()))
        return chosen


def test_the_verdicts_of_a_chunk_do_not_depend_on_the_other_chunks(
    mean_model: nn.Module, grey_images: Callable[..., Dataset]
) -> None:
    means = np.random.default_rng(0).uniform(0.5, 0.64, 60)
    means[40:] += 0.3  # the last chunk is out of reach of everything
    images = grey_images(means, (1,) * 60)

    def chunks(*spans: slice) -> tuple[list[int], list[tuple[int, ...]]]:
        journal, half = Journal(), Half([])
        suite = (*parse_suite(["pgd-1"]), Stage("half", "", "half", half))
        for span in spans:
            verdicts = run_suite(
                mean_model, images, LINF, suite, 0, 7, journal, NoProgress(), span=span
            )
        return verdicts.tolist(), half.seen

    first, second, third = slice(0, 20), slice(20, 40), slice(40, 60)
    together, chosen = chunks(first, second, third)

    assert {1, 2, -1} == set(together[20:40])
    assert chunks(second)[0][20:40] == together[20:40]
    assert chunks(third, second)[0][20:40] == together[20:40]
    assert ([-1] * 20, ()) == (together[40:], chosen[2])
    assert [chunks(span)[1][0] for span in (first, second, third)] == chosen


def test_images_outside_the_span_are_not_run(
    mean_model: nn.Module, grey_images: Callable[..., Dataset]
) -> None:
    images, journal, progress = grey_images((0.4, 0.9) * 5, (1,) * 10), Journal(), StopsAfter()
    suite = parse_suite(["pgd-1"])
    verdicts = run_suite(mean_model, images, LINF, suite, 0, 2, journal, progress, span=slice(4, 8))

    assert [-1] * 4 + [0, -1, 0, -1] + [-1] * 2 == verdicts.tolist()
    assert {4, 5, 6, 7} == {index for result in journal for index in result.indices.tolist()}
    assert progress.last == 2


# What is asked for


@pytest.mark.parametrize(
    ("text", "width"),
    [("2%", 0.02), ("0.02", 0.02), (" 2.5 % ", 0.025), ("100%", 1.0), ("1", 1.0), (0.3, 0.3)],
)
def test_a_width_is_a_percentage_or_a_share(text: str | float, width: float) -> None:
    assert parse_interval(text) == pytest.approx(width, abs=1e-15)


@pytest.mark.parametrize("text", ["0", "0%", "-2%", "101%", "2", "x", "", "%", "nan", "2%%", "inf"])
def test_a_width_that_is_none_is_refused_in_one_sentence(text: str) -> None:
    said = rf"^expected an interval above 0 and at most 100 %, such as 2% or 0\.02, got '{text}'$"
    with pytest.raises(SatbenchError, match=said):
        eval_config(SHIPPED, until=text)


@pytest.mark.parametrize("width", [0.0, -0.1, 1.5, float("nan")])
def test_an_evaluation_until_a_width_that_is_none_is_refused(
    width: float, hundred: Dataset
) -> None:
    with pytest.raises(SatbenchError, match=r"^expected an interval above 0 and at most 100 %"):
        Evaluation(hundred, LINF, ATTACKS, until=width)


@pytest.mark.slow
def test_without_a_number_of_examples_the_population_is_the_whole_split(tmp_path: Path) -> None:
    record = satbench.evaluate(SHIPPED, attacks=["pgd-1"], until="60%", out=tmp_path)

    assert (CHUNK, 10_000) == (record.n, record.dataset.population)


def test_tensors_of_the_user_are_a_population_too(mean_model: nn.Module, tmp_path: Path) -> None:
    x, y = torch.full((90, 1, 2, 2), 0.55), torch.ones(90, dtype=torch.int64)
    record = satbench.evaluate(
        mean_model, x, y, attacks=["pgd-9"], eps="0.1", until=0.5, n_examples=80, out=tmp_path
    )

    assert (CHUNK, 80) == (record.n, record.dataset.population)


def test_the_command_line_stops_once_the_interval_is_narrow(tmp_path: Path) -> None:
    words = f"eval --model {SHIPPED} --attack pgd-1 --n-examples 60 --until-interval 45% --quiet"
    done = CliRunner().invoke(cli, [*words.split(), "--json", "--out", str(tmp_path)])
    assert (done.exit_code, done.exception) == (0, None)
    (path,) = tmp_path.glob("*.json")
    record = read_record(path)

    assert record.sequential is not None
    assert (record.sequential.width, record.dataset.population) == (0.45, 60)
    assert CHUNK <= record.n < 60
    assert json.loads(done.stdout)[0]["sequential"]["population"] == 60
