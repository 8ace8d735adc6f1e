"""The agreement of satbench's AutoAttack with the package that defines it, image by image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from satbench.board.cost import ModelCost, verdicts_by_activation
from satbench.board.file_names import CSV_FILE
from satbench.core.markdown import MISSING, long_table, percent
from satbench.core.templates import fill
from satbench.records.attack_run import AttackRun

PARTS = ("apgd-ce", "apgd-t", "fab-t", "square")

_COLUMNS = (
    *("Model", "Seed", "Ours", "Reference", "Images that differ"),
    *PARTS,
    *("Passes", "Reference's seeds"),
)


@dataclass(frozen=True)
class Agreement:
    """Our AutoAttack and the reference on one model; `spread` are the reference's other seeds."""

    ours: AttackRun
    reference: AttackRun
    spread: tuple[AttackRun, ...]

    @property
    def differing(self) -> int:
        """How many images survived one and were broken by the other."""
        pairs = zip(self.ours.standing, self.reference.standing, strict=True)
        return sum(ours != theirs for ours, theirs in pairs)

    @property
    def is_alike(self) -> bool:
        """Whether both ran after the same attacks and with the same parameters."""
        return _setting(self.ours) == _setting(self.reference)


def agreement_of(runs: Iterable[AttackRun]) -> Agreement | None:
    """Pair our AutoAttack with a reference of the same seed; None if the model lacks one of them.

    Runs after the same attacks and with the same parameters are preferred, then the least seed.
    """
    ordered = sorted(
        runs, key=lambda run: (run.seed, len(run.before), run.attack, run.before, run.identity)
    )
    references = [run for run in ordered if run.is_reference]
    pairs = [
        (ours, reference)
        for ours in ordered
        if ours.is_own_autoattack
        for reference in references
        if reference.seed == ours.seed
    ]
    if not pairs:
        return None
    ours, reference = min(pairs, key=lambda pair: _setting(pair[0]) != _setting(pair[1]))
    by_seed = {
        run.seed: run for run in reversed(references) if _setting(run) == _setting(reference)
    }
    return Agreement(ours, reference, tuple(by_seed[seed] for seed in sorted(by_seed)))


@dataclass(frozen=True)
class BenchmarkAgreement:
    """A benchmark's title, its models' titles and agreements, and the costs of all its models."""

    title: str
    each: Sequence[tuple[str, Agreement]]
    models: Sequence[ModelCost] = ()


def render_agreements(benchmarks: Sequence[BenchmarkAgreement]) -> str:
    """Return AGREEMENT.md of some benchmarks."""
    return fill("agreement.md", {"benchmarks": map(_benchmark, benchmarks)}).rstrip() + "\n"


def _benchmark(one: BenchmarkAgreement) -> dict[str, object]:
    each = one.each
    agreements = [one for _, one in each]
    return {
        "title": one.title,
        "models": len(agreements),
        "images": sum(len(one.ours.standing) for one in agreements),
        "equal": sum(one.ours.left == one.reference.left for one in agreements),
        "same": sum(one.differing == 0 for one in agreements),
        "differing": sum(one.differing for one in agreements),
        "table": long_table(_COLUMNS, (_line(name, one) for name, one in each), 1, CSV_FILE),
        "fast": verdicts_by_activation(one.models),
    }


def _line(title: str, one: Agreement) -> list[str]:
    ours, theirs = _broken(one.ours), _broken(one.reference)
    return [
        title if one.is_alike else f"{title} ‡",
        str(one.ours.seed),
        percent(one.ours.accuracy),
        percent(one.reference.accuracy),
        str(one.differing),
        *(f"{ours[part]} / {theirs[part]}" for part in PARTS),
        f"{_passes(one.ours)} / {_passes(one.reference)}",
        _spread(one.spread),
    ]


def _broken(run: AttackRun) -> dict[str, int]:
    found = {stage.part: stage.broken for stage in run.stages}
    return {part: found.get(part, 0) for part in PARTS}


def _passes(run: AttackRun) -> str:
    return MISSING if run.passes is None else f"{float(run.passes):,.1f}"


def _spread(runs: Sequence[AttackRun]) -> str:
    if len(runs) < 2:
        return MISSING
    shares = [run.accuracy for run in runs]
    return f"{percent(min(shares))} to {percent(max(shares))} ({len(runs)} seeds)"


def _setting(run: AttackRun) -> tuple[tuple[str, ...], str]:
    return run.before, run.arguments
