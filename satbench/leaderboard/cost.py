"""What a verdict costs: the fast suite beside AutoAttack, model by model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from satbench.leaderboard.attack_run import AttackRun
from satbench.leaderboard.markdown import MISSING, percent, signed, table

ALLOWED = Fraction(1, 1000)
"""How far above AutoAttack's robust accuracy the fast suite's may lie, a share of all images."""

CHEAPER = 12
"""How many times fewer passes it must need."""

_HEAD = f"""\
# What a verdict costs: fast beside AutoAttack

Passes are counted, not estimated: forwards plus backwards of one image each, those of models
that an attack borrowed included, for each image that was right when clean.  `fast` is to reach
a robust accuracy no more than {100 * float(ALLOWED):g} points above AutoAttack's, for {CHEAPER}
times fewer passes or better.  Where it does not, the table says so.

This page is generated from records alone; do not edit it.  `satbench leaderboard build` makes it
again.

- **AutoAttack**, **fast**: percent of all images that are still right behind it.  AutoAttack is
  the one of our own engine; `fast` counts where no other attack ran before it.
- **Difference**: fast minus AutoAttack, in points; below 0 `fast` found more.
- **Ratio**: passes of AutoAttack by those of fast.
- **by pyautoattack**: passes of AutoAttack where the package that defines it ran it, and their
  ratio to those of fast.
- **†**: AutoAttack ran behind PGD, on its survivors alone, and the passes are those for these.
  This favours AutoAttack: alone it would have spent passes on the other images too.
- **–**: not measured, or nothing was left for AutoAttack to run on.
"""

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
)


@dataclass(frozen=True)
class Cost:
    """The runs of one model whose cost is compared; None for what no record holds."""

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
        """Passes of AutoAttack by passes of fast."""
        return _ratio(self.autoattack, self.fast)

    @property
    def reference_ratio(self) -> Fraction | None:
        """Passes of pyautoattack's AutoAttack by passes of fast."""
        return _ratio(self.reference, self.fast)

    @property
    def is_as_strong(self) -> bool | None:
        """Whether fast is no more than `ALLOWED` above AutoAttack; None if not measured."""
        return None if self.difference is None else self.difference <= ALLOWED

    @property
    def is_cheap(self) -> bool | None:
        """Whether fast needs at least `CHEAPER` times fewer passes; None if not measured."""
        return None if self.ratio is None else self.ratio >= CHEAPER


def cost_of(runs: Iterable[AttackRun]) -> Cost:
    """Choose from the runs of a model those to compare: the least behind others, the least seed."""
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
    sections = (
        f"## {title}\n\n{_summary(costs)}\n\n{table(_COLUMNS, map(_line, costs), words=1)}\n"
        f"{_specs(costs)}"
        for title, costs in benchmarks
    )
    return "\n".join((_HEAD, *sections))


def _summary(costs: Sequence[tuple[str, Cost]]) -> str:
    accuracy = _counted(
        f"Accuracy no more than {100 * float(ALLOWED):g} points above AutoAttack's",
        costs,
        lambda cost: cost.is_as_strong,
    )
    passes = _counted(f"At least {CHEAPER} times fewer passes", costs, lambda cost: cost.is_cheap)
    return f"{accuracy}\n{passes}"


def _counted(
    what: str, costs: Sequence[tuple[str, Cost]], holds: Callable[[Cost], bool | None]
) -> str:
    told = [(title, holds(cost)) for title, cost in costs]
    measured = [verdict for _, verdict in told if verdict is not None]
    failed = [title for title, verdict in told if verdict is False]
    missing = len(told) - len(measured)
    text = f"- {what}: holds on {sum(measured)} of {len(measured)} models measured"
    text += f", not on {', '.join(failed)}" if failed else ""
    return text + (f"; {missing} not measured." if missing else ".")


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
    ]


def _accuracy(run: AttackRun | None) -> str:
    return MISSING if run is None else percent(run.accuracy)


def _passes(run: AttackRun | None) -> str:
    if run is None or run.passes is None:
        return MISSING
    return f"{float(run.passes):,.1f}{' †' if run.before else ''}"


def _times(ratio: Fraction | None) -> str | None:
    if ratio is None:
        return None
    # Rounded down: 11.96 must not read as 12.
    return f"{int(10 * ratio) / 10:,.1f}"


def _judged(text: str | None, holds: bool | None) -> str:
    if text is None:
        return MISSING
    return f"{text}, holds" if holds else f"{text}, **does not hold**"


def _specs(costs: Sequence[tuple[str, Cost]]) -> str:
    runs = (run for _, cost in costs for run in (cost.autoattack, cost.fast, cost.reference))
    specs = sorted({run.attack for run in runs if run})
    return f"\nAttacks: {', '.join(f'`{spec}`' for spec in specs)}.\n" if specs else ""


def _ratio(dear: AttackRun | None, cheap: AttackRun | None) -> Fraction | None:
    if dear is None or cheap is None or not dear.passes or not cheap.passes:
        return None
    return dear.passes / cheap.passes
