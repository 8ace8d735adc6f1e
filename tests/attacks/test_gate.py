"""The gate by margin, and parts that run if others broke many images: attacked images, flags.

Twenty images at different distances from the boundary of a model of two classes; attacks that break
exactly the images that a test names, by their rank by margin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from in_memory import Journal, Quiet
from numpy.typing import NDArray
from torch import Tensor, nn

import satbench
from satbench.attacks import parse_attack, suite_digests
from satbench.attacks.suites import suite_parts
from satbench.attacks.suites.suite import parse_suite
from satbench.attacks.suites.suite_file import SuiteFile, SuitePart, digest_of, read_suite
from satbench.attacks.suites.suite_parts import Chosen, Gate, Selection, noise_name, parts_of
from satbench.core.errors import SatbenchError
from satbench.core.specs import split_spec
from satbench.core.threat import Threat
from satbench.data import Dataset
from satbench.engine.contract import (
    Attack,
    CountedSurrogates,
    Found,
    Hints,
    History,
    Informed,
    Model,
    NoiseSource,
)
from satbench.engine.runner import BatchResult, Context
from satbench.engine.stage import Stage
from satbench.engine.suite_run import run_suite
from satbench.evaluation.cost.stage_costs import costs_of
from satbench.evaluation.plan import kind_of
from satbench.proofs.challenging import with_result_flags
from satbench.records.flags import WENT_ON

LINF = Threat.parse("linf:0.1")
N = 20
INDEX = np.random.default_rng(4).permutation(N)
"""The place in the data set of the image of rank 0, 1, …: of least margin, of next to least, …"""
RANK = np.argsort(INDEX)


def mean_of(rank: int) -> float:
    return 0.51 + 0.004 * rank


@dataclass(frozen=True)
class Breaks(Informed):
    """Breaks the images of these ranks; for the others it reports the margin minus `closer`."""

    ranks: tuple[int, ...] = ()
    closer: tuple[int, ...] = ()

    def follow(
        self,
        model: Model,
        x: Tensor,
        y: Tensor,
        threat: Threat,
        noise: NoiseSource,
        hints: Hints,
    ) -> Found:
        logits = model(x)
        ranks = ((x.flatten(1).mean(1) - 0.51) / 0.004).round().int()
        fall, near = (
            torch.isin(ranks, torch.tensor(some, dtype=torch.int32))
            for some in (self.ranks, self.closer)
        )
        margins = logits[:, 1] - logits[:, 0]
        return Found(x - 0.09 * fall.view(-1, 1, 1, 1), margins - near.float())


@pytest.fixture
def twenty(grey_images: Callable[..., Dataset]) -> Dataset:
    """Twenty images of class 1, in another order than that of their distances."""
    return grey_images([mean_of(int(rank)) for rank in RANK], [1] * N)


Build = Callable[..., list[Stage]]


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> Build:
    """A function from parts and the attacks that they name to the stages of a suite."""

    def make(*parts: tuple[SuitePart, Attack]) -> list[Stage]:
        known = {part.attack: attack for part, attack in parts}
        with monkeypatch.context() as patch:
            patch.setattr(suite_parts, "parse_attack", known.__getitem__)
            made = parts_of("made", SuiteFile(1, "", [part for part, _ in parts]), {})
        return [Stage("made", name, noise_name(name, one), one) for name, one in made]

    return make


def part(name: str, **more: object) -> SuitePart:
    return SuitePart(name, f"attack of {name}", **more)  # type: ignore[arg-type]


def gated(name: str, weakest: float = 0.25, **more: object) -> SuitePart:
    return part(name, weakest=weakest, escalate=0.15, **more)


def run(
    model: nn.Module,
    images: Dataset,
    suite: list[Stage],
    journal: Journal | None = None,
    **more: Any,
) -> dict[str, list[int]]:
    """Return for each stage the ranks of the images that it attacked, in order."""
    kept = Journal() if journal is None else journal
    stop = more.pop("stop_after", -1)
    run_suite(model, suite, Context(images, LINF, kept, Quiet(stop), **more))
    return {one.part: taken(kept, number) for number, one in enumerate(suite, 1)}


def taken(journal: list[BatchResult], number: int) -> list[int]:
    rows = [int(row) for result in journal if result.stage == number for row in result.indices]
    return sorted(int(RANK[row]) for row in rows)


EARLY = (part("early"), Breaks())
LAST = (part("last"), Breaks())


def test_a_gated_part_takes_on_the_weakest_and_the_gate_stays_closed(
    mean_model: nn.Module, twenty: Dataset, build: Build
) -> None:
    suite = build(EARLY, (gated("one"), Breaks((0,))), (gated("two", 0.2), Breaks((2,))), LAST)

    told = run(mean_model, twenty, suite)

    assert {
        "early": list(range(20)),
        "one": [0, 1, 2, 3, 4],
        "two": [1, 2, 3],
        "one/others": [],
        "two/others": [],
        "last": [1, *range(3, 20)],
    } == told


def test_a_late_break_beyond_the_share_opens_the_gate_for_every_gated_part(
    mean_model: nn.Module, twenty: Dataset, build: Build
) -> None:
    suite = build(
        EARLY, (gated("one"), Breaks((0, 9))), (gated("two", 0.2), Breaks((3, 4, 12))), LAST
    )

    told = run(mean_model, twenty, suite)

    assert [*range(5, 20)] == told["one/others"]
    # 9 fell to the first part meanwhile, and 4 is outside the fifth of the second part.
    assert [4, *(rank for rank in range(5, 20) if rank != 9)] == told["two/others"]
    assert [1, 2, *(rank for rank in range(5, 20) if rank not in (9, 12))] == told["last"]


@pytest.mark.parametrize(("rank", "opens"), [(0, False), (2, False), (3, True), (4, True)])
def test_the_gate_opens_beyond_its_share_and_not_before(
    rank: int, opens: bool, mean_model: nn.Module, twenty: Dataset, build: Build
) -> None:
    told = run(mean_model, twenty, build(EARLY, (gated("one"), Breaks((rank,)))))

    assert opens == bool(told["one/others"])


@pytest.mark.parametrize(
    ("ranks", "opens"),
    [((0, 1, 2, 3), False), ((3, 4), False), ((3, 4, 5), True), ((6, 7, 8), True)],
)
def test_with_late_the_gate_opens_if_more_than_a_share_fell_beyond(
    ranks: tuple[int, ...], opens: bool, mean_model: nn.Module, twenty: Dataset, build: Build
) -> None:
    one = gated("one", weakest=0.5, late=0.1)  # two of twenty may fall

    told = run(mean_model, twenty, build(EARLY, (one, Breaks(ranks))))

    assert opens == bool(told["one/others"])


def test_with_late_one_image_beyond_every_gated_part_opens_the_gate(
    mean_model: nn.Module, twenty: Dataset, build: Build
) -> None:
    one, two = gated("one", weakest=0.5, late=0.1), gated("two", weakest=0.25, late=0.1)
    near, far = (part("between"), Breaks((9,))), (part("between"), Breaks((10,)))

    assert not run(mean_model, twenty, build(EARLY, (one, Breaks()), near, (two, Breaks())))[
        "two/others"
    ]
    assert run(mean_model, twenty, build(EARLY, (one, Breaks()), far, (two, Breaks())))[
        "two/others"
    ]


def test_an_image_that_fell_before_the_gate_closed_opens_nothing(
    mean_model: nn.Module, twenty: Dataset, build: Build
) -> None:
    early = (part("early"), Breaks((5, 17)))

    told = run(mean_model, twenty, build(early, (gated("one"), Breaks((0,)))))

    # Of 18 survivors a quarter is 5, rounded up.
    assert ([0, 1, 2, 3, 4], []) == (told["one"], told["one/others"])


def test_a_part_between_gated_ones_opens_the_gate_and_does_not_change_the_ranking(
    mean_model: nn.Module, twenty: Dataset, build: Build
) -> None:
    between = (part("between"), Breaks((16,), closer=(18, 19)))
    suite = build(EARLY, (gated("one"), Breaks()), between, (gated("two"), Breaks()))

    told = run(mean_model, twenty, suite)

    assert [0, 1, 2, 3, 4] == told["one"] == told["two"]
    assert [*range(5, 16), 17, 18, 19] == told["one/others"] == told["two/others"]


def test_a_sample_beside_the_weakest_can_open_the_gate(
    mean_model: nn.Module, twenty: Dataset, build: Build
) -> None:
    suite = build(EARLY, (gated("one", sample=0.3), Breaks(tuple(range(5, 20)))))

    told = run(mean_model, twenty, suite)

    assert 5 < len(told["one"]) < 12
    assert sorted({*range(20)} - {*told["one"]}) == told["one/others"]


@dataclass(frozen=True)
class FromTwin(Breaks):
    """Breaks its ranks after it was prepared with a surrogate; without that it raises an error."""

    uses_gradients = False
    surrogates = ("twin",)
    twin: nn.Module | None = None

    def prepare(
        self, target: Model, surrogates: CountedSurrogates, threat: Threat, seed: int
    ) -> Attack:
        return replace(self, twin=surrogates.surrogate("twin"))

    def follow(
        self,
        model: Model,
        x: Tensor,
        y: Tensor,
        threat: Threat,
        noise: NoiseSource,
        hints: Hints,
    ) -> Found:
        assert self.twin is not None
        self.twin(x)
        return super().follow(model, x, y, threat, noise, hints)


@dataclass(frozen=True)
class Twins:
    net: nn.Module

    def surrogate(self, name: str) -> nn.Module:
        return self.net

    def pool(self, n: int) -> NDArray[np.float32]:
        return np.empty((0, 1, 2, 2), np.float32)


@pytest.mark.parametrize(("breaks", "others"), [((1,), []), ((4,), [*range(5, 20)])])
def test_a_prepared_attack_can_be_gated_and_its_surrogates_passes_are_counted(
    breaks: tuple[int, ...],
    others: list[int],
    mean_model: nn.Module,
    twenty: Dataset,
    build: Build,
) -> None:
    suite, journal = build(EARLY, (gated("transfer"), FromTwin(breaks))), Journal()
    lent = Twins(deepcopy(mean_model))

    told = run(mean_model, twenty, suite, journal, surrogates=lent)

    assert {"early": [*range(20)], "transfer": [*range(5)], "transfer/others": others} == told
    asked = [sum(one.source_forwards for one in journal.of_stage(k)) for k in (2, 3)]
    assert [5, len(others)] == asked
    assert {("twin",)} == {one.traits.surrogates for one in suite[1:]}
    assert ["transfer"] * 2 == [kind_of(one) for one in suite[1:]]


# Whatever the batches, the processes and the stops


def opening(build: Build) -> list[Stage]:
    return build(
        (part("early"), Breaks((1, 11), closer=(13,))),
        (gated("one"), Breaks((13, 9))),
        (part("net", weakest=0.3), Breaks((6, 2))),
        (gated("two", 0.2), Breaks((0, 17))),
        (part("more", after=["two/others"], above=0.05), Breaks((18,))),
        LAST,
    )


def spent(journal: list[BatchResult]) -> dict[int, int]:
    stages = {result.stage for result in journal}
    return {k: sum(r.forwards for r in journal if r.stage == k) for k in stages}


def test_what_is_taken_on_and_spent_is_counted_exactly(
    mean_model: nn.Module, twenty: Dataset, build: Build
) -> None:
    journal = Journal()
    told = run(mean_model, twenty, opening(build), journal)

    # Breaks asks the model once an image, and so does the judge, who is not counted.
    assert all(told.values())
    assert [20, *(len(ranks) for ranks in told.values())] == list(spent(journal).values())


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_the_batch_size_decides_nothing(
    batch_size: int, mean_model: nn.Module, twenty: Dataset, build: Build
) -> None:
    whole, small = Journal(), Journal()
    expected = run(mean_model, twenty, opening(build), whole)

    assert expected == run(mean_model, twenty, opening(build), small, batch_size=batch_size)
    assert spent(whole) == spent(small)


@pytest.mark.parametrize("stop", range(1, 46, 5))
def test_a_run_that_was_stopped_goes_on_with_the_same_images(
    stop: int, mean_model: nn.Module, twenty: Dataset, build: Build
) -> None:
    suite, whole, parts = opening(build), Journal(), Journal()
    expected = run(mean_model, twenty, suite, whole, batch_size=2)
    assert len(whole) > 46
    with pytest.raises(KeyboardInterrupt):
        run(mean_model, twenty, suite, parts, batch_size=2, stop_after=stop)

    assert expected == run(mean_model, twenty, suite, parts, batch_size=2)
    assert spent(whole) == spent(parts)


@pytest.mark.parametrize("seed", range(4))
def test_units_that_are_there_in_any_order_and_others_missing_give_the_same_run(
    seed: int, mean_model: nn.Module, twenty: Dataset, build: Build
) -> None:
    suite, whole = opening(build), Journal()
    expected = run(mean_model, twenty, suite, whole, batch_size=2)
    rng = np.random.default_rng(seed)
    left = Journal(whole[k] for k in rng.permutation(len(whole))[: len(whole) // 2])

    assert expected == run(mean_model, twenty, suite, left, batch_size=2)
    assert spent(whole) == spent(left)


class OfTwo(Journal):
    """A journal of two processes: the other's batches appear when this one asks for news."""

    def __init__(self, theirs: list[BatchResult]) -> None:
        super().__init__()
        self.theirs = theirs
        self.named = {f"{one.stage:03d}-{int(one.indices[0]):09d}" for one in theirs}

    def news(self) -> list[BatchResult]:
        come, self.theirs = self.theirs[:1], self.theirs[1:]
        return come

    @contextmanager
    def held(self, name: str) -> Iterator[bool]:
        yield name not in self.named

    def holder(self, name: str) -> str:
        return "process 4711"


@pytest.mark.parametrize("share", [0, 1, 2])
def test_two_processes_take_on_what_one_takes_on(
    share: int, mean_model: nn.Module, twenty: Dataset, build: Build
) -> None:
    suite, whole = opening(build), Journal()
    expected = run(mean_model, twenty, suite, whole, batch_size=2)
    both = OfTwo(whole[share::3])
    theirs = list(both.theirs)
    context = Context(twenty, LINF, both, Quiet(), batch_size=2, sharing=both)

    run_suite(mean_model, suite, context)

    joined = [*both, *theirs]
    assert expected == {one.part: taken(joined, k) for k, one in enumerate(suite, 1)}
    assert spent(whole) == spent(joined)


# Beside the same suite without a gate

SUITE = """
schema = 1
summary = "three searches, two of them gated"

[[parts]]
name = "gama"
attack = "cosine-pgd(loss=gama,steps=2,start=corner)"

[[parts]]
name = "malt"
attack = "malt(targets=2,steps=4)"
weakest = 0.3
escalate = 0.05

[[parts]]
name = "margin"
attack = "cosine-pgd(steps=4,step=eps/2,start=best)"
weakest = 0.3
escalate = 0.05
flag = true
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A suite with a gate, and the same one without."""
    gate, plain = tmp_path / "gate.toml", tmp_path / "plain.toml"
    gate.write_text(SUITE)
    lines = SUITE.splitlines()
    plain.write_text("\n".join(x for x in lines if not x.startswith(("weakest", "esc", "flag"))))
    return gate, plain


def of_file(
    path: Path, net: nn.Module, images: Dataset, threat: str
) -> tuple[list[str], dict[int, NDArray[np.float32]], list[int]]:
    """Return the part that broke each image, the witnesses, and the images of each stage."""
    suite, journal = parse_suite([str(path)]), Journal()
    verdicts = run_suite(net, suite, Context(images, Threat.parse(threat), journal))
    names = ["", *(one.part.removesuffix("/others") for one in suite)]
    fell = [names[k] if k >= 0 else "survived" for k in verdicts]
    witnesses = {
        int(row): witness
        for result in journal
        if result.stage
        for row, witness in zip(result.indices[result.broken], result.witnesses, strict=True)
    }
    counts = [sum(len(r.indices) for r in journal.of_stage(k)) for k in range(1, len(suite) + 1)]
    return fell, witnesses, counts


@pytest.fixture
def noisy(small_net: Callable[..., nn.Module]) -> tuple[nn.Module, Dataset]:
    """A small net, and sixty images of noise with its answers as labels."""
    net = small_net()
    x = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    return net, Dataset("tensors", "user", x.numpy(), net(x).argmax(1).numpy(), 5)


def test_with_an_open_gate_every_image_falls_as_it_does_without_a_gate(
    files: tuple[Path, Path], noisy: tuple[nn.Module, Dataset]
) -> None:
    (fell, witnesses, counts), (expected, same, _) = (
        of_file(path, *noisy, "linf:0.01") for path in files
    )

    assert expected == fell
    assert sorted(same) == sorted(witnesses)
    for row, witness in same.items():
        np.testing.assert_allclose(witnesses[row], witness, atol=1e-6)
    assert min(counts) > 0
    assert {"gama", "malt", "survived"} <= set(fell)


def test_a_gated_part_and_the_same_one_on_the_others_draw_alike() -> None:
    stages = parse_suite(["fast(source=none)"])
    others = [stage for stage in stages if stage.part.endswith("/others")]

    assert others
    for one in others:
        (inside,) = (stage for stage in stages if f"{stage.part}/others" == one.part)
        assert (inside.purpose, inside.attack.attack) == (one.purpose, one.attack.attack)  # type: ignore[attr-defined]


# Parts that run where others broke much


def history(broken: dict[str, int], attacked: dict[str, int]) -> History:
    standing, margins = np.ones(4, bool), np.zeros(4, np.float32)
    return History(standing, standing, margins, broken, attacked, margins, lambda name: margins)


@pytest.mark.parametrize(
    ("broken", "attacked", "goes_on"),
    [(2, 20, False), (3, 20, True), (0, 0, False), (1, 5, True), (1, 10, False)],
)
def test_a_part_goes_on_where_another_broke_more_than_a_share(
    broken: int, attacked: int, goes_on: bool
) -> None:
    choice = Selection(after=("apgd-t",), above=0.1)
    told = history({"gama": 9, "apgd-t": broken}, {"gama": 9, "apgd-t": attacked})

    assert goes_on == choice.selects(told).all() == choice.selects(told).any()


def test_a_star_stands_for_any_letters_of_a_part() -> None:
    choice = Selection(after=("*/others",))
    counts = {"malt": 10, "malt/others": 10}

    assert choice.selects(history({"malt": 0, "malt/others": 1}, counts)).all()
    assert not choice.selects(history({"malt": 1, "malt/others": 0}, counts)).any()


def test_a_part_goes_on_where_any_of_its_parts_broke_more_than_the_share() -> None:
    choice = Selection(after=("transfer", "square"), above=0.1)
    counts = {"transfer/a": 10, "transfer/b": 10, "square": 100}

    assert choice.selects(history({"transfer/a": 0, "transfer/b": 2, "square": 1}, counts)).all()
    assert not choice.selects(
        history({"transfer/a": 1, "transfer/b": 1, "square": 1}, counts)
    ).any()


DOUBT = """
schema = 1
summary = "one step, and more where it breaks much"

[[parts]]
name = "pgd"
attack = "pgd(steps=1,start=clean)"

[[parts]]
name = "more"
attack = "pgd(steps=3)"
after = ["pgd"]
above = 0.1
flag = true
"""


@pytest.mark.parametrize(("eps", "flagged"), [("0.02", True), ("0.0005", False)])
def test_a_record_is_flagged_where_a_part_ran_that_is_kept_for_doubt(
    eps: str, flagged: bool, noisy: tuple[nn.Module, Dataset], tmp_path: Path
) -> None:
    net, images = noisy
    (tmp_path / "doubt.toml").write_text(DOUBT)
    record = satbench.evaluate(
        net,
        torch.from_numpy(images.pixels(np.arange(60))),
        torch.from_numpy(images.labels),
        attacks=str(tmp_path / "doubt.toml"),
        norm="linf",
        eps=eps,
        out=str(tmp_path),
    )
    assert record.diagnosis is not None
    flags = {flag.name: (flag.images, flag.of) for flag in record.diagnosis.flags}

    assert flags.get(WENT_ON) == ((record.stages[1].attacked, 60) if flagged else None)
    assert flagged == bool(record.stages[1].attacked)
    assert with_result_flags(record) == record
    assert satbench.verify(record, net, images.images, images.labels).confirmed


def test_a_gate_that_opened_flags_the_record_and_a_closed_one_does_not(
    noisy: tuple[nn.Module, Dataset], files: tuple[Path, Path], tmp_path: Path
) -> None:
    net, images = noisy
    flags = []
    for eps in ("0.01", "0.0002"):
        record = satbench.evaluate(
            net,
            torch.from_numpy(images.pixels(np.arange(60))),
            torch.from_numpy(images.labels),
            attacks=str(files[0]),
            norm="linf",
            eps=eps,
            out=str(tmp_path),
        )
        assert record.diagnosis is not None
        flags.append([(f.name, f.images) for f in record.diagnosis.flags if f.name == WENT_ON])
        if flags[-1]:
            (others,) = (one for one in record.stages if one.part == "margin/others")
            assert flags[-1] == [(WENT_ON, others.attacked)]

    assert [1, 0] == [len(one) for one in flags]


# In a file


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("weakest = 0.3", "sample = 0.3", r"parts\[1\] \(malt\): escalate is for a part with weak"),
        ("escalate = 0.05", "escalate = 1.5", r"parts\[1\] \(malt\): expected weakest, sample, ab"),
        (
            "escalate = 0.05",
            'escalate = 0.05\nafter = ["gama"]',
            r"\(malt\): escalate is .* without after",
        ),
        ("escalate = 0.05", "above = 0.05", r"\(malt\): above is a share for the parts of after"),
        ("escalate = 0.05", "flag = true", r"\(malt\): flag is for a part with after or escalate"),
        ("escalate = 0.05", 'escalate = "deep"', r"parts\[1\].escalate: expected float, got str"),
    ],
)
def test_a_wrong_gate_is_refused_with_file_and_field(
    old: str, new: str, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(SUITE.replace(old, new, 1))

    with pytest.raises(SatbenchError, match=said):
        read_suite(path)


def test_a_gate_changes_the_digest_and_a_suite_without_one_keeps_its_own(
    files: tuple[Path, Path],
) -> None:
    assert digest_of(read_suite(files[0])) != digest_of(read_suite(files[1]))
    # That of committed records, from before there were gates.
    assert "cefefa7f1b2d" == suite_digests(["fast(version=2,source=none)"])["fast"][:12]


def test_a_suite_within_a_suite_keeps_its_rules(tmp_path: Path) -> None:
    path = tmp_path / "outer.toml"
    path.write_text(
        'schema = 1\nsummary = ""\n[[parts]]\nname = "inner"\nattack = "fast(source=none)"\n'
        '[[parts]]\nname = "gates"\nattack = "fast(source=none)"\n'
    )
    parts = dict(parse_attack(str(path)).parts())
    alone = dict(parse_attack("fast(source=none)").parts())
    gates = {name: one.choice.gate for name, one in alone.items() if isinstance(one, Chosen)}

    assert ("inner/transfer", "inner/square") == parts["inner/square-more"].choice.after
    for name, gate in gates.items():
        expected = gate and replace(gate, closes=f"gates/{gate.closes}")
        assert expected == parts[f"gates/{name}"].choice.gate
    assert any(gates.values())


def test_an_audit_is_no_part_of_a_suite(tmp_path: Path) -> None:
    path = tmp_path / "audited.toml"
    path.write_text('schema = 1\nsummary = ""\n[[parts]]\nname = "a"\nattack = "audit(sample=3)"\n')

    with pytest.raises(SatbenchError, match=r"part a: .* chooses among the images"):
        parse_attack(str(path))


def test_a_forecast_counts_the_share_of_a_gated_part_and_half_of_what_may_not_run(
    build: Build,
) -> None:
    attack = parse_attack("cosine-pgd(steps=5)")
    suite = build((part("early"), attack), (gated("one", sample=0.05), attack))

    # The clean pass, everybody, 30 % of the images, and the others half the time.
    assert [1.0, 1.0, 0.3, 0.35] == pytest.approx([one.share for one in costs_of(suite, 10)])


def test_a_gate_is_told_by_its_part() -> None:
    names = [split_spec(stage.spec)[0] for stage in parse_suite(["fast(source=none)"])]
    gates = [
        stage.attack.choice.gate
        for stage in parse_suite(["fast(source=none)"])
        if isinstance(stage.attack, Chosen) and stage.attack.choice.gate
    ]

    assert set(names) == {"fast"}
    assert {gate.closes for gate in gates if isinstance(gate, Gate)} == {gates[0].closes}
