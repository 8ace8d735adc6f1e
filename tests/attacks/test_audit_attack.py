"""The audit: which images are audited, and that this is fixed when the audit begins."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from in_memory import Journal, Quiet, run_suite
from torch import Tensor, nn

from satbench.attacks import attack_spec, parse_attack
from satbench.attacks.gradient.pgd import PGD
from satbench.attacks.suites import audit as _audit
from satbench.attacks.suites.audit import Audit, AuditPart
from satbench.cli import cli
from satbench.core.errors import SatbenchError
from satbench.core.threat import Threat
from satbench.data import Dataset
from satbench.engine.contract import Attack, Found, Hints, History, Model, NoiseSource
from satbench.engine.runner import SURVIVED
from satbench.engine.stage import Stage
from satbench.records.audit import audit_of
from satbench.records.record import read_record

LINF = Threat.parse("linf:0.1")
SPEC = "audit(sample=3,weakest=2)"
# Out of the reach of nothing, of a step of 0.02, of the whole ball; the last is wrong when clean.
MEANS = (0.9, 0.8, 0.515, 0.7, 0.61, 0.85, 0.55, 0.75, 0.62, 0.4)


@dataclass(frozen=True)
class Down:
    """Moves every pixel down by `by`; it reports the margin of a model of two classes."""

    by: float

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource
    ) -> Tensor:
        return (x - self.by).clamp(0, 1)


class Telling(Down):
    def follow(
        self,
        model: Model,
        x: Tensor,
        y: Tensor,
        threat: Threat,
        noise: NoiseSource,
        hints: Hints,
    ) -> Found:
        x_adv = self(model, x, y, threat, noise)
        logits = model(x_adv)
        return Found(x_adv, logits[:, 1] - logits[:, 0])


def suite(*parts: Attack, telling: bool = True) -> list[Stage]:
    """Return an attack that reports margins, then an audit whose AutoAttack has other parts."""
    audit = Audit(sample=3, weakest=2)
    rules = {"weakest": audit._weakest, "sample": audit._sample}
    stages = [
        Stage(SPEC, f"{name}/{k}", f"{name}/{k}", AuditPart(part, rule))
        for name, rule in rules.items()
        for k, part in enumerate(parts)
    ]
    first = Telling(0.02) if telling else Down(0.02)
    return [Stage("fast", "", "fast", first), *stages]


def taken(journal: Journal, number: int) -> list[int]:
    """Return the images that a stage attacked, in order."""
    mine = [result.indices for result in journal.of_stage(number)]
    return np.concatenate(mine).tolist() if mine else []


def run(
    model: nn.Module,
    images: Dataset,
    stages: list[Stage],
    journal: Journal,
    seed: int = 0,
    batch_size: int = 2,
    stop_after: int = -1,
) -> list[int]:
    return run_suite(
        model, images, LINF, stages, seed, batch_size, journal, Quiet(stop_after)
    ).tolist()


@pytest.fixture
def ten(grey_images: Callable[..., Dataset]) -> Dataset:
    """Nine images at several distances from the boundary, and one that is wrong when clean."""
    return grey_images(MEANS, (1,) * len(MEANS))


def history_of(margins: list[float], entered: list[bool], survivors: list[bool]) -> History:
    share = np.array([0.9, 0.1, 0.5, 0.3, 0.7, 0.2])[: len(margins)]
    told = np.array(margins, np.float32)
    standing, began = np.array(survivors), np.array(entered)
    return History(standing, began, told, {}, {}, share, lambda part: told)


# Who is audited


def test_the_weakest_are_those_of_least_margin_among_who_entered() -> None:
    history = history_of([3, 1, 2, 0, 5, 4], [True, True, True, False, True, True], [True] * 6)

    assert [False, True, True, False, False, False] == Audit(3, 2)._weakest(history).tolist()


def test_the_sample_is_drawn_by_the_images_shares_from_the_others() -> None:
    history = history_of([3, 1, 2, 0, 5, 4], [True, True, True, False, True, True], [True] * 6)

    # Image 1 has the least share, but is among the weakest; image 3 did not enter.
    assert [False, False, False, False, True, True] == Audit(2, 2)._sample(history).tolist()


def test_who_is_audited_does_not_depend_on_who_still_survives() -> None:
    margins, entered = [3.0, 1, 2, 0, 5, 4], [True, True, True, False, True, True]
    before = history_of(margins, entered, [True] * 6)
    after = history_of(margins, entered, [True, False, True, True, False, True])

    for rule in (Audit(2, 2)._weakest, Audit(2, 2)._sample):
        assert rule(before).tolist() == rule(after).tolist()


def test_an_audit_larger_than_the_survivors_takes_all_on_once() -> None:
    history = history_of([3, 1, 2, 0, 5, 4], [True] * 5 + [False], [True] * 6)
    weakest, sample = (rule(history) for rule in (Audit(9, 2)._weakest, Audit(9, 2)._sample))

    assert (weakest | sample).tolist() == [True] * 5 + [False]
    assert not (weakest & sample).any()


def test_each_stratum_gets_autoattack_in_full() -> None:
    parts = parse_attack("autoattack").parts()

    assert [(f"{s}/{name}", part) for s in ("weakest", "sample") for name, part in parts] == [
        (name, audited.attack)
        for name, audited in Audit().parts()
        if isinstance(audited, AuditPart)
    ]


def test_an_audited_part_is_cut_and_checked_as_the_part_itself() -> None:
    inner = dict(parse_attack("autoattack").parts())
    found = {name: (part.block, part.uses_gradients) for name, part in Audit().parts()}  # type: ignore[attr-defined]

    assert found["sample/apgd-ce"] == (inner["apgd-ce"].block, True)  # type: ignore[attr-defined]
    assert found["sample/square"] == (inner["square"].block, False)  # type: ignore[attr-defined]


@pytest.mark.parametrize("numbers", [(0, 5), (-1, 5), (3, -1), (3, 1, -1)])
def test_an_audit_of_no_sample_is_refused(numbers: tuple[int, ...]) -> None:
    with pytest.raises(SatbenchError, match=r"^audit: expected a sample of 1 or more, 0 "):
        Audit(*numbers)


# Under the engine


def test_the_weakest_survivors_are_audited_first_then_a_sample_of_the_others(
    mean_model: nn.Module, ten: Dataset
) -> None:
    journal = Journal()
    verdicts = run(mean_model, ten, suite(Down(0.0)), journal)

    # 2 falls to the first attack; 6 and 4 are left nearest to the boundary.
    assert (verdicts[2], verdicts[9]) == (1, 0)
    assert taken(journal, 2) == [4, 6]
    assert len(taken(journal, 3)) == 3
    assert not {2, 4, 6, 9} & set(taken(journal, 3))


def test_later_parts_take_on_no_image_that_the_first_part_was_not_given(
    mean_model: nn.Module, ten: Dataset
) -> None:
    journal = Journal()
    # The first part breaks image 6, so that another would be among the two weakest survivors.
    verdicts = run(mean_model, ten, suite(Down(0.06), Down(0.0), Down(0.0)), journal)

    assert verdicts[6] == 2
    assert [taken(journal, k) for k in (2, 3, 4)] == [[4, 6], [4], [4]]
    assert taken(journal, 5) == taken(journal, 6) == taken(journal, 7)
    assert len(taken(journal, 5)) == 3


def test_what_the_audit_breaks_is_broken(mean_model: nn.Module, ten: Dataset) -> None:
    verdicts = run(mean_model, ten, suite(Down(0.06)), Journal())

    assert [k for k, verdict in enumerate(verdicts) if verdict > 1] == [6]


@pytest.mark.parametrize("stop", range(1, 16, 2))
def test_an_audit_that_was_stopped_goes_on_with_the_same_images(
    stop: int, mean_model: nn.Module, ten: Dataset
) -> None:
    stages = suite(Down(0.06), Down(0.0))
    whole, parts = Journal(), Journal()
    verdicts = run(mean_model, ten, stages, whole)
    assert len(whole) == 16
    with pytest.raises(KeyboardInterrupt):
        run(mean_model, ten, stages, parts, stop_after=stop)

    assert verdicts == run(mean_model, ten, stages, parts)
    assert [taken(whole, k) for k in range(6)] == [taken(parts, k) for k in range(6)]


def test_another_seed_draws_another_sample(mean_model: nn.Module, ten: Dataset) -> None:
    drawn = set()
    for seed in range(8):
        journal = Journal()
        run(mean_model, ten, suite(Down(0.0)), journal, seed)
        drawn.add(tuple(taken(journal, 3)))

    assert len(drawn) > 1


def test_another_draw_takes_another_sample_and_the_same_weakest(
    mean_model: nn.Module, ten: Dataset
) -> None:
    samples = set()
    for draw in range(8):
        journal = Journal()
        drawn = f"{SPEC[:-1]},draw={draw})"
        stages = [replace(s, spec=s.spec.replace(SPEC, drawn)) for s in suite(Down(0.0))]
        run(mean_model, ten, stages, journal)
        assert taken(journal, 2) == [4, 6]
        samples.add(tuple(taken(journal, 3)))

    assert len(samples) > 1


def test_the_draw_is_a_part_of_the_text_where_it_is_not_the_first() -> None:
    specs = [attack_spec(f"audit(sample=3{more})") for more in ("", ",draw=0", ",draw=12")]

    assert specs == [*["audit(sample=3,weakest=50)"] * 2, "audit(sample=3,weakest=50,draw=12)"]


def test_where_no_attack_told_a_margin_survivors_are_audited_all_the_same(
    mean_model: nn.Module, ten: Dataset
) -> None:
    journal = Journal()
    verdicts = run(mean_model, ten, suite(Down(0.0), telling=False), journal)

    assert (len(taken(journal, 2)), len(taken(journal, 3))) == (2, 3)
    assert {verdicts[k] for k in taken(journal, 2) + taken(journal, 3)} == {SURVIVED}


# On the command line


@pytest.fixture
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make AutoAttack of two short attacks, only for the audit."""

    class Tiny:
        def parts(self) -> tuple[tuple[str, Attack], ...]:
            return (("apgd-ce", PGD(1)), ("square", PGD(10)))

    monkeypatch.setattr(_audit, "_autoattack", Tiny().parts)


@pytest.mark.slow
@pytest.mark.usefixtures("_tiny")
def test_the_command_line_audits_behind_the_attacks_and_the_record_holds_the_bound(
    tmp_path: Path,
) -> None:
    words = "eval --model fmnist-sat-tiny-relu-s0 --attack pgd-1 --n-examples 75 --quiet --json"
    done = CliRunner().invoke(cli, [*words.split(), "--audit", "4", "--out", str(tmp_path)])
    assert (done.exit_code, done.exception) == (0, None)
    (path,) = tmp_path.glob("*.json")
    record = read_record(path)

    assert record.suite[1:] == ["audit(sample=4,weakest=50)"]
    assert [stage.part for stage in record.stages[1:]] == [
        f"{stratum}/{part}" for stratum in ("weakest", "sample") for part in ("apgd-ce", "square")
    ]
    found = audit_of(record)
    assert found is not None
    assert (found.survivors, found.sampled) == (record.surviving(1), 4)
    assert json.loads(done.stdout)[0]["audit"]["text"] == str(found)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--audit", "0"), r"^expected an audit of 1 image or more, got 0$"),
        (("--audit", "-5"), r"^expected an audit of 1 image or more, got -5$"),
        (("--audit", "5", "--until-interval", "2%"), r"^an audit draws from all survivors at once"),
    ],
    ids=" ".join,
)
def test_an_audit_that_cannot_be_is_refused_in_one_sentence(
    words: tuple[str, ...], said: str
) -> None:
    done = CliRunner().invoke(cli, ["eval", "--model", "fmnist-sat-tiny-relu-s0", *words])

    assert isinstance(done.exception, SatbenchError)
    assert done.exception.args[0].count("\n") == 0
    with pytest.raises(SatbenchError, match=said):
        raise done.exception
