"""The cost of a verdict: the fast suite compared with AutoAttack, model by model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import median

from satbench.board.file_names import CSV_FILE
from satbench.core.markdown import MISSING, code, long_list, long_table, percent, signed
from satbench.core.templates import fill
from satbench.records.attack_run import AttackRun

ALLOWED = Fraction(1, 1000)
"""How far the fast suite's robust accuracy may be above AutoAttack's, a share of all images."""

CHEAPER = 12
"""By which factor it must need fewer passes."""

_COLUMNS = (
    "Model",
    "AutoAttack",
    "fast",
    "Difference",
    "Passes: AutoAttack",
    "Passes: fast",
    "Ratio",
    "Passes: by pyautoattack",
    "Its ratio",
    "ms: AutoAttack",
    "ms: fast",
    "Ratio of ms",
)


@dataclass(frozen=True)
class Cost:
    """The runs of one model whose cost is compared; None if no record has the run."""

    autoattack: AttackRun | None
    fast: AttackRun | None
    reference: AttackRun | None

    @property
    def difference(self) -> Fraction | None:
        """Robust accuracy under fast minus that under AutoAttack, a share of all images."""
        if self.autoattack is None or self.fast is None:
            return None
        return Fraction(self.fast.left - self.autoattack.left, len(self.fast.standing))

    @property
    def ratio(self) -> Fraction | None:
        """Passes of AutoAttack divided by passes of fast."""
        return _ratio(self.autoattack, self.fast)

    @property
    def reference_ratio(self) -> Fraction | None:
        """Passes of pyautoattack's AutoAttack divided by passes of fast."""
        return _ratio(self.reference, self.fast)

    @property
    def time_ratio(self) -> float | None:
        """Time of AutoAttack divided by time of fast, both on one kind of device and threads."""
        dear, cheap = self.autoattack, self.fast
        if dear is None or cheap is None or dear.machine != cheap.machine:
            return None
        if not dear.milliseconds or not cheap.milliseconds:
            return None
        return dear.milliseconds / cheap.milliseconds

    @property
    def is_as_strong(self) -> bool | None:
        """Whether fast is at most `ALLOWED` above AutoAttack; None if not measured."""
        return None if self.difference is None else self.difference <= ALLOWED

    @property
    def is_cheap(self) -> bool | None:
        """Whether fast needs at least `CHEAPER` times fewer passes; None if not measured."""
        return None if self.ratio is None else self.ratio >= CHEAPER


def cost_of(runs: Iterable[AttackRun]) -> Cost:
    """Choose the runs of a model to compare: those after the fewest others, with the least seed."""
    alone_or_behind_pgd = [
        run for run in runs if all(attack.startswith("pgd(") for attack in run.before)
    ]
    ordered = sorted(
        alone_or_behind_pgd, key=lambda run: (len(run.before), run.seed, run.attack, run.identity)
    )
    return Cost(
        autoattack=next((run for run in ordered if run.is_own_autoattack), None),
        fast=next((run for run in ordered if run.is_fast and not run.before), None),
        reference=next((run for run in ordered if run.is_reference), None),
    )


def render_costs(benchmarks: Sequence[tuple[str, Sequence[tuple[str, Cost]]]]) -> str:
    """Return COST.md from each benchmark's title and its models' titles and costs, as markdown."""
    values = {
        "allowed": f"{100 * float(ALLOWED):g}",
        "cheaper": CHEAPER,
        "benchmarks": [
            {
                "title": title,
                "aims": _goals(costs),
                "medians": _medians(costs),
                "table": long_table(_COLUMNS, map(_line, costs), 1, CSV_FILE),
                "attacks": long_list(_specs(costs), CSV_FILE),
            }
            for title, costs in benchmarks
        ],
    }
    return fill("cost.md", values).rstrip() + "\n"


@dataclass(frozen=True)
class Goal:
    """A goal of `fast`: how many of the `measured` models `reached` it, and which `missed` it.

    `unmeasured` is the number of models without the needed numbers.
    """

    what: str
    reached: int
    measured: int
    missed: str
    unmeasured: int


def _goals(costs: Sequence[tuple[str, Cost]]) -> tuple[Goal, Goal]:
    points = f"{100 * float(ALLOWED):g}"
    return (
        _goal(
            f"Accuracy at most {points} points above AutoAttack's",
            costs,
            lambda cost: cost.is_as_strong,
        ),
        _goal(f"At least {CHEAPER} times fewer passes", costs, lambda cost: cost.is_cheap),
    )


def _goal(
    what: str, costs: Sequence[tuple[str, Cost]], holds: Callable[[Cost], bool | None]
) -> Goal:
    answers = [(title, holds(cost)) for title, cost in costs]
    measured = [answer for _, answer in answers if answer is not None]
    missed = tuple(title for title, answer in answers if answer is False)
    return Goal(
        what,
        sum(measured),
        len(measured),
        long_list(missed, CSV_FILE),
        len(answers) - len(measured),
    )


def _medians(costs: Sequence[tuple[str, Cost]]) -> dict[str, object] | None:
    """Return the median ratios of passes and of times over models that have both; None if none."""
    pairs = [(float(c.ratio), c.time_ratio) for _, c in costs if c.ratio and c.time_ratio]
    if not pairs:
        return None
    passes, times = zip(*pairs, strict=True)
    return {
        "models": len(pairs),
        "passes": f"{median(passes):,.1f}",
        "times": f"{median(times):,.1f}",
    }


def _line(titled: tuple[str, Cost]) -> list[str]:
    title, cost = titled
    return [
        title,
        _accuracy(cost.autoattack),
        _accuracy(cost.fast),
        _judged(
            None if cost.difference is None else signed(float(cost.difference)), cost.is_as_strong
        ),
        _passes(cost.autoattack),
        _passes(cost.fast),
        _judged(_times(cost.ratio), cost.is_cheap),
        _passes(cost.reference),
        _times(cost.reference_ratio) or MISSING,
        _milliseconds(cost.autoattack),
        _milliseconds(cost.fast),
        _times(cost.time_ratio) or MISSING,
    ]


def _accuracy(run: AttackRun | None) -> str:
    return MISSING if run is None else percent(run.accuracy)


def _passes(run: AttackRun | None) -> str:
    if run is None or run.passes is None:
        return MISSING
    return f"{float(run.passes):,.1f}{' †' if run.before else ''}"


def _milliseconds(run: AttackRun | None) -> str:
    if run is None or run.milliseconds is None:
        return MISSING
    return f"{run.milliseconds:,.1f}{' †' if run.before else ''}"


def _times(ratio: Fraction | float | None) -> str | None:
    if ratio is None:
        return None
    # Rounded down, so that 11.96 is not shown as 12.
    return f"{int(10 * ratio) / 10:,.1f}"


def _judged(text: str | None, holds: bool | None) -> str:
    if text is None:
        return MISSING
    return f"{text}, holds" if holds else f"{text}, **does not hold**"


def _specs(costs: Sequence[tuple[str, Cost]]) -> list[str]:
    runs = (run for _, cost in costs for run in (cost.autoattack, cost.fast, cost.reference))
    return [code(spec) for spec in sorted({run.attack for run in runs if run})]


def _ratio(dear: AttackRun | None, cheap: AttackRun | None) -> Fraction | None:
    if dear is None or cheap is None or not dear.passes or not cheap.passes:
        return None
    return dear.passes / cheap.passes
