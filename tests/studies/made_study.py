"""Made-up studies: letters of verdicts without a model or an attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from satbench.core.digests import digest_json
from satbench.records.audit import AuditCounts
from satbench.studies.design import Arm, Pair, PaperNumbers, Study, StudyColumn
from satbench.studies.run_file import Outcome, StudyRun
from satbench.studies.sheet import ArmRuns, Column, Sheet

OPTIONAL = {"axes", "primary", "about", "masked"}
PGD, FAST = ("pgd(steps=50)",), ("fast(version=1)",)
COLUMNS = (
    Column("PGD-50", PGD, "linf:0.1"),
    Column("fast", FAST, "linf:0.1"),
    Column("worse", worst_of=("PGD-50", "fast")),
)


def made_outcome(suite: Sequence[str], letters: str, images: str = "images") -> Outcome:
    n = len(letters)
    return Outcome(tuple(suite), "linf:0.1", "shapes", images, 0, letters, 20 * n, 10 * n, "r")


def made_audit(
    letters: str, weakest: int, weakest_broken: int, sampled: int, sampled_broken: int
) -> Outcome:
    """Return the outcome of FAST with the counts of an audit after it."""
    survivors = letters.count("o") + weakest_broken + sampled_broken
    counts = AuditCounts(survivors, weakest, weakest_broken, sampled, sampled_broken)
    return replace(made_outcome(FAST, letters), audit=counts)


def made_run(arm: str, seed: int, pgd: str, fast: str | None = None, **changes: Any) -> StudyRun:
    """Return a run with the letters of two suites; without `fast` both are equal."""
    key = digest_json([arm, seed])
    values: dict[str, Any] = {
        "key": key,
        "model": f"{arm}-s{seed}",
        "architecture": "tiny(width=8)",
        "activation": arm.lower(),
        "parameters": 15682,
        "seed": seed,
        "training": {},
        "weights_digest": digest_json(key),
        "command": f"satbench train --activation {arm.lower()} --seed {seed}",
        "outcomes": (made_outcome(PGD, pgd), made_outcome(FAST, fast or pgd)),
    }
    return StudyRun(**{**values, **changes})


def made_sheet(
    arms: Mapping[str, Sequence[StudyRun]], asked: Sequence[tuple[str, str]] = (), **changes: Any
) -> Sheet:
    """Return a study of the given runs by arm; three seeds are planned for each."""
    n = next((run.outcomes[0].n for runs in arms.values() for run in runs if run.outcomes), 4)
    columns = changes.pop("columns", COLUMNS)
    study: dict[str, Any] = {
        "name": "made",
        "title": "A made-up study",
        "section": "section 4.1",
        "question": "Is one more robust than the other?",
        "setup": "Only the activation differs.",
        "arms": tuple(map(Arm, arms)),
        "seeds": 3,
        "evaluations": tuple(StudyColumn(one.name, one.suite, 1, one.worst_of) for one in columns),
        "verdict": "worse",
        "paper_verdict": "PGD-50",
        "contrasts": tuple(Pair(*pair) for pair in asked),
        "paper": PaperNumbers(("activation", "robust (%)"), (("ReLU", "33.00"),), "ResNet-50."),
    }
    of_study = {key: changes.pop(key) for key in [*changes] if key in {*study, *OPTIONAL}}
    values: dict[str, Any] = {
        "study": Study(**{**study, **of_study}),
        "rows": tuple(
            ArmRuns(name, f"activation {name.lower()}", tuple(runs), 3, "shapes")
            for name, runs in arms.items()
        ),
        "columns": columns,
        "n": n,
        "commands": ("satbench study made",),
        "facts": (("recipe", "`fmnist-sat`"),),
        "caveats": ("The net is small.",),
        "measures": {"cosine": "of gradients nearby"},
    }
    return Sheet(**{**values, **changes})


def with_study(sheet: Sheet, **changes: Any) -> Sheet:
    """Return the sheet of a study that differs in some fields."""
    return replace(sheet, study=replace(sheet.study, **changes))


def letters(survived: int, broken: int, wrong: int = 0) -> str:
    return "o" * survived + "x" * broken + "-" * wrong


def graded_sheet(lifts: Mapping[str, int], **changes: Any) -> Sheet:
    """Return a study of 1000 images in which an arm keeps 50 + `lift` percent.

    Seeds of all arms except the first differ by a percent, so that the differences have noise.
    """
    first, *others = lifts
    arms = {}
    for name, lift in lifts.items():
        kept = [500 + 10 * (lift + wobble * (name != first)) for wobble in (0, 1, -1)]
        arms[name] = [
            made_run(name, seed, letters(600, 300, 100), letters(n, 900 - n, 100))
            for seed, n in enumerate(kept)
        ]
    return made_sheet(arms, [(name, first) for name in others], **changes)
