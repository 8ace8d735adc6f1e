"""The cost of a verdict: the fast suite compared with AutoAttack, model by model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import mean, median

from satbench.board.file_names import CSV_FILE
from satbench.core.markdown import MISSING, code, long_list, long_table, percent, signed, table
from satbench.core.templates import fill
from satbench.records.attack_run import AttackRun

ALLOWED = Fraction(1, 1000)
"""How far the fast suite's robust accuracy may be above AutoAttack's, a share of all images."""

OVERLOOKED = Fraction(1, 500)
"""Which share of all images it may miss that AutoAttack broke."""

CHEAPER = 25
"""By which factor it must need fewer passes."""

_COLUMNS = (
    "Model",
    "AutoAttack",
    "fast",
    "Difference",
    "Passes: AutoAttack",
    "Passes: fast",
    "Ratio",
    "Missed by fast",
    "Missed by AutoAttack",
    "Passes: by pyautoattack",
    "Its ratio",
    "ms: AutoAttack",
    "ms: fast",
    "Ratio of ms",
)

_GROUP_COLUMNS = (
    "Activation",
    "Models",
    "AutoAttack",
    "fast",
    "Difference",
    "Greatest difference",
    "As strong",
    "Missed by fast",
    "Most of a model",
    "Missed by AutoAttack",
    "Median ratio of passes",
)


_IMAGE_COLUMNS = (
    *("Activation", "Models", "Images", "Same verdict"),
    *("Missed by fast", "Missed by AutoAttack"),
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
    def missed(self) -> tuple[int, int] | None:
        """How many images only AutoAttack broke, and how many only fast; None if not measured."""
        if self.autoattack is None or self.fast is None:
            return None
        pairs = [*zip(self.autoattack.standing, self.fast.standing, strict=True)]
        by_fast = sum(survived and not other for other, survived in pairs)
        by_autoattack = sum(survived and not other for survived, other in pairs)
        return by_fast, by_autoattack

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
    def is_complete(self) -> bool | None:
        """Whether fast missed at most `OVERLOOKED` of the images; None if not measured."""
        if self.missed is None or self.fast is None:
            return None
        return self.missed[0] <= OVERLOOKED * len(self.fast.standing)

    @property
    def is_cheap(self) -> bool | None:
        """Whether fast needs at least `CHEAPER` times fewer passes; None if not measured."""
        return None if self.ratio is None else self.ratio >= CHEAPER


def cost_of(runs: Iterable[AttackRun]) -> Cost:
    """Choose the runs of a model to compare: those after the fewest others, with the least seed.

    Of `fast` the newest version counts.
    """
    alone_or_behind_pgd = [
        run for run in runs if all(attack.startswith("pgd(") for attack in run.before)
    ]
    ordered = sorted(
        alone_or_behind_pgd, key=lambda run: (len(run.before), run.seed, run.attack, run.identity)
    )
    return Cost(
        autoattack=next((run for run in ordered if run.is_own_autoattack), None),
        fast=max(
            (run for run in ordered if run.is_fast and not run.before),
            key=lambda run: run.version,
            default=None,
        ),
        reference=next((run for run in ordered if run.is_reference), None),
    )


@dataclass(frozen=True)
class ModelCost:
    """The cost of one model, its title as markdown, and its activation."""

    title: str
    activation: str
    cost: Cost


def verdicts_by_activation(models: Sequence[ModelCost]) -> str:
    """Return a table of fast beside AutoAttack, image by image; empty if no model has both."""
    groups = _by_activation(models)
    return table(_IMAGE_COLUMNS, [_image_line(*group) for group in groups], 1) if groups else ""


def render_costs(benchmarks: Sequence[tuple[str, Sequence[ModelCost]]]) -> str:
    """Return COST.md from each benchmark's title and the costs of its models."""
    values = {
        "allowed": f"{100 * float(ALLOWED):g}",
        "cheaper": CHEAPER,
        "overlooked": str(1 / OVERLOOKED),
        "benchmarks": [
            {
                "title": title,
                "aims": _goals(models),
                "medians": _medians(models),
                "groups": _groups(models),
                "table": long_table(_COLUMNS, map(_line, models), 1, CSV_FILE),
                "attacks": long_list(_specs(models), CSV_FILE),
            }
            for title, models in benchmarks
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


def _goals(models: Sequence[ModelCost]) -> tuple[Goal, ...]:
    points = f"{100 * float(ALLOWED):g}"
    return (
        _goal(
            f"Accuracy at most {points} points above AutoAttack's",
            models,
            lambda cost: cost.is_as_strong,
        ),
        _goal(
            f"At most one image in {1 / OVERLOOKED} missed that AutoAttack broke",
            models,
            lambda cost: cost.is_complete,
        ),
        _goal(f"At least {CHEAPER} times fewer passes", models, lambda cost: cost.is_cheap),
    )


def _goal(what: str, models: Sequence[ModelCost], holds: Callable[[Cost], bool | None]) -> Goal:
    answers = [(one.title, holds(one.cost)) for one in models]
    measured = [answer for _, answer in answers if answer is not None]
    missed = tuple(title for title, answer in answers if answer is False)
    return Goal(
        what,
        sum(measured),
        len(measured),
        long_list(missed, CSV_FILE),
        len(answers) - len(measured),
    )


def _medians(models: Sequence[ModelCost]) -> dict[str, object] | None:
    """Return the median ratios of passes and of times over models that have both; None if none."""
    costs = [one.cost for one in models]
    pairs = [(float(c.ratio), c.time_ratio) for c in costs if c.ratio and c.time_ratio]
    if not pairs:
        return None
    passes, times = zip(*pairs, strict=True)
    return {
        "models": len(pairs),
        "passes": f"{median(passes):,.1f}",
        "times": f"{median(times):,.1f}",
    }


def _groups(models: Sequence[ModelCost]) -> str:
    """Return the table by activation, of the models with both suites; empty if there are none."""
    groups = _by_activation(models)
    return table(_GROUP_COLUMNS, [_group_line(*group) for group in groups], 1) if groups else ""


def _by_activation(models: Sequence[ModelCost]) -> list[tuple[str, list[Cost]]]:
    """Return the costs of the models with both suites by activation, and all at the end."""
    measured = [one for one in models if one.cost.missed is not None]
    if not measured:
        return []
    activations = sorted({one.activation for one in measured})
    return [
        *((name, [one.cost for one in measured if one.activation == name]) for name in activations),
        ("**all**", [one.cost for one in measured]),
    ]


def _image_line(name: str, costs: Sequence[Cost]) -> list[str]:
    images = sum(len(one.fast.standing) for one in costs if one.fast)
    by_fast, by_autoattack = (
        sum(counts) for counts in zip(*(one.missed for one in costs if one.missed), strict=True)
    )
    same = images - by_fast - by_autoattack
    counts = (len(costs), images, same, by_fast, by_autoattack)
    return [name, *(f"{count:,}" for count in counts)]


def _group_line(name: str, costs: Sequence[Cost]) -> list[str]:
    pairs = [(one.autoattack, one.fast) for one in costs if one.autoattack and one.fast]
    differences = [one.difference for one in costs if one.difference is not None]
    missed = [one.missed for one in costs if one.missed is not None]
    ratios = [one.ratio for one in costs if one.ratio is not None]
    return [
        name,
        str(len(costs)),
        percent(mean(autoattack.accuracy for autoattack, _ in pairs)),
        percent(mean(fast.accuracy for _, fast in pairs)),
        signed(float(mean(differences))),
        signed(float(max(differences))),
        f"{sum(bool(one.is_as_strong) for one in costs)} of {len(costs)}",
        str(sum(by_fast for by_fast, _ in missed)),
        str(max(by_fast for by_fast, _ in missed)),
        str(sum(by_autoattack for _, by_autoattack in missed)),
        _times(median(ratios) if ratios else None) or MISSING,
    ]


def _line(one: ModelCost) -> list[str]:
    cost = one.cost
    return [
        one.title,
        _accuracy(cost.autoattack),
        _accuracy(cost.fast),
        _judged(
            None if cost.difference is None else signed(float(cost.difference)), cost.is_as_strong
        ),
        _passes(cost.autoattack),
        _passes(cost.fast),
        _judged(_times(cost.ratio), cost.is_cheap),
        *([MISSING] * 2 if cost.missed is None else map(str, cost.missed)),
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


def _specs(models: Sequence[ModelCost]) -> list[str]:
    costs = [one.cost for one in models]
    runs = (run for one in costs for run in (one.autoattack, one.fast, one.reference))
    return [code(spec) for spec in sorted({run.attack for run in runs if run})]


def _ratio(dear: AttackRun | None, cheap: AttackRun | None) -> Fraction | None:
    if dear is None or cheap is None or not dear.passes or not cheap.passes:
        return None
    return dear.passes / cheap.passes
