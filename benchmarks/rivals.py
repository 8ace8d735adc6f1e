"""Suites and their rivals on the same images: what each misses that another one breaks.

python benchmarks/rivals.py MODEL … --held-out 5 --n 2000

Every evaluation is a record in the folder --out, so a second call goes on where the first stopped.
An image is missed by a suite where another suite of the table broke it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))

from harness import finish, log, parser
from nets import DATASET, Subject, held_out_nets, shipped, trained
from tables import table

from satbench.attacks import attack_spec
from satbench.core.threat import Threat
from satbench.data import Dataset, load_dataset
from satbench.evaluation.plan import Evaluation
from satbench.evaluation.run import run_evaluation
from satbench.records.record import SURVIVED, WRONG_CLEAN, Record

SUITES = ("fast", "autoattack", "pma", "pma-plus", "malt-apgd", "a3")
MODELS = (
    *("fmnist-sat-tiny-relu-s0", "fmnist-sat-tiny-silu-s0", "fmnist-sat-tiny-elu-s0"),
    *("fmnist-sat-tiny-celu-s0", "fmnist-pgd2-tiny-relu-s0", "fmnist-pgd2-tiny-celu-s0"),
)
LINF = Threat.parse("linf:0.1")


@dataclass(frozen=True)
class Where:
    """On which images suites are compared, and in which folder the records lie."""

    images: Dataset
    threat: Threat
    out: Path
    seed: int = 0


def records_of(subject: Subject, suites: Iterable[str], where: Where) -> dict[str, Record]:
    """Return the record of each suite on one net, made now or found."""
    found = {}
    for suite in suites:
        log(f"{subject.info.name}: {suite}, {len(where.images)} images, seed {where.seed}")
        evaluation = Evaluation(where.images, where.threat, [suite], where.seed, diagnose=False)
        done = run_evaluation(
            subject.module, subject.info, evaluation, torch.device("cpu"), where.out / "records"
        )
        found[suite] = done.record
    return found


def compared(records: Mapping[str, Record]) -> list[dict[str, Any]]:
    """Return a row a suite, of records of one net: what is left, missed, broken by it alone, spent.

    `missed` and `alone` are images: those that another suite broke and this one did not, and those
    that no other one broke.  Passes are those of all stages, of surrogates too.
    """
    broken = {suite: fallen(record) for suite, record in records.items()}
    rows = []
    for suite, record in records.items():
        others = set().union(*(fell for other, fell in broken.items() if other != suite))
        rows.append(
            {
                "suite": suite,
                "images": record.n,
                "clean": record.clean_correct,
                "robust": record.surviving(),
                "missed": sorted(others - broken[suite]),
                "alone": sorted(broken[suite] - others),
                "passes": passes_of(record),
                "flags": [flag.name for flag in record.diagnosis.flags] if record.diagnosis else [],
            }
        )
    return rows


def fallen(record: Record) -> set[int]:
    """Return the images that attacks broke, by their places."""
    verdicts = enumerate(record.verdicts)
    return {place for place, verdict in verdicts if verdict not in (SURVIVED, WRONG_CLEAN)}


def passes_of(record: Record) -> int:
    """Return all passes of the stages of a record."""
    return sum(
        one.forwards + one.backwards + one.source_forwards + one.source_backwards
        for one in record.stages
    )


def page(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of rivals: a group a kind of net, and one of all."""
    head = ["suite", "nets", "robust", "missed", "worst net", "alone", "passes / image"]
    kinds = dict.fromkeys(row["kind"] for row in rows)
    groups = {"all": list(rows)} | {
        kind: [row for row in rows if row["kind"] == kind] for kind in kinds
    }
    parts = []
    for title, group in groups.items():
        suites = dict.fromkeys(row["suite"] for row in group)
        lines = [_line(suite, [row for row in group if row["suite"] == suite]) for suite in suites]
        parts.append(f"**{title}**\n\n{table(head, lines)}")
    return "\n\n".join(parts)


def _line(suite: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    images = sum(row["images"] for row in rows)
    missed = [len(row["missed"]) for row in rows]
    return [
        suite,
        str(len(rows)),
        f"{sum(row['robust'] for row in rows) / images:.2%}",
        str(sum(missed)),
        str(max(missed)),
        str(sum(len(row["alone"]) for row in rows)),
        f"{sum(row['passes'] for row in rows) / images:,.0f}",
    ]


def rivals(
    subjects: Iterable[Subject], suites: Sequence[str], where: Where
) -> list[dict[str, Any]]:
    """Return the rows of all nets."""
    return [
        {"net": subject.info.name, "kind": subject.kind, **row}
        for subject in subjects
        for row in compared(records_of(subject, suites, where))
    ]


def add_options(made: argparse.ArgumentParser, n: int, out: str) -> None:
    """Add what every comparison of suites asks."""
    made.add_argument("--n", type=int, default=n, help="the first images of the test set")
    made.add_argument("--threat", type=Threat.parse, default=LINF)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--out", type=Path, default=Path(out), help="nets and records lie there")
    made.add_argument("--epochs", type=int, help="of trainings; default: the recipe's")
    made.add_argument("--subset", type=int, help="training images; default: all")


def settings_of(options: argparse.Namespace) -> dict[str, object]:
    """Return what the options change of a recipe."""
    asked = {"epochs": options.epochs, "subset": options.subset}
    return {name: value for name, value in asked.items() if value is not None}


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, evaluate, and print the table."""
    made = parser(__doc__ or "")
    made.add_argument("models", nargs="*", default=MODELS, help="default: six that ship")
    made.add_argument(
        "--held-out", type=int, default=0, metavar="K", help="and K nets of own seeds"
    )
    made.add_argument("--suites", nargs="+", default=SUITES)
    add_options(made, 500, "runs/rivals")
    options = made.parse_args(arguments)
    for suite in options.suites:
        attack_spec(suite)  # a misspelt one is refused before a net is trained
    torch.set_num_threads(1)
    nets, settings = held_out_nets(options.held_out), settings_of(options)
    subjects = [
        *(shipped(name) for name in options.models),
        *(trained(net, options.out / "nets", **settings) for net in nets),
    ]
    images = load_dataset(DATASET, "test", options.n)
    where = Where(images, options.threat, options.out, options.seed)
    rows = rivals(subjects, options.suites, where)
    shown = {"threat": str(options.threat), "n": options.n, "seed": options.seed}
    finish(rows, options.json, **shown, settings=settings)
    print(page(rows))


if __name__ == "__main__":
    main()
