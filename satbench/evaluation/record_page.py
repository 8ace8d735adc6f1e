"""One record on one short page: what was run, the numbers, what is proven, how to verify it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

from satbench.attacks import short_spec
from satbench.core.stats.intervals import wilson_interval
from satbench.core.text.terminal import one_line
from satbench.data import USER
from satbench.evaluation.report import notes_of, rows_of, shown_name
from satbench.models import has_a_name
from satbench.records.flags import not_diagnosed
from satbench.records.record import SURVIVED, WRONG_CLEAN, Diagnosis, Record
from satbench.records.witnesses import find_witnesses

_WIDTH = 80
_PARAMETERS = re.compile(r"^([^\s(]+)\(.*?\)(?= · | \(challenge by |$)")
_LONGEST = _WIDTH - len("    999,999  100.0%")


@dataclass(frozen=True)
class Breaker:
    """What broke images: a stage, or none (`wrong without an attack`, `survived`)."""

    name: str
    images: int


def breakers_of(record: Record) -> list[Breaker]:
    """Return how many images were wrong, broken by each stage, and survived; they sum to n."""
    counts = {verdict: record.verdicts.count(verdict) for verdict in set(record.verdicts)}
    found = [Breaker("wrong without an attack", counts.get(WRONG_CLEAN, 0))]
    for number, stage in enumerate(record.stages, 1):
        part = f" · {stage.part}" if stage.part else ""
        by = f" (challenge by {stage.by})" if stage.by else ""
        found.append(Breaker(f"{shown_name(stage.attack)}{part}{by}", counts.get(number, 0)))
    return [*found, Breaker("survived", counts.get(SURVIVED, 0))]


def recheck_commands(record: Record, path: str) -> list[str]:
    """Return the commands that check the record in the file `path`, the quickest first."""
    given = shlex.quote(path)
    if not has_a_name(record.model.source):  # the reader has to give the model
        given += " --model MODEL"
    if record.dataset.split == USER:
        given += " --data FILE"
    return [
        f"satbench verify {given}",
        f"satbench recheck {given}",
        f"satbench reproduce {given}",
        f"satbench challenge {given} --attack autoattack",
    ]


def record_lines(record: Record, path: Path) -> list[str]:
    """Return the page of the record at `path`, in lines that are safe for a terminal."""
    parts = (
        _heading(record),
        _numbers(record),
        _shares(record),
        _doubts(record),
        _proven(record, path),
        ["Check it", *(f"  {line}" for line in recheck_commands(record, str(path)))],
    )
    return [one_line(line) for part in parts for line in (*part, "")][:-1]


def record_summary(record: Record, path: Path) -> dict[str, Any]:
    """Return the page as plain data, for `--json`."""
    low, high = _interval(record)
    witnesses = _witnesses(record)
    return {
        "identity": record.identity,
        "model": record.model.name,
        "dataset": record.dataset.name,
        "n": record.n,
        "norm": record.norm,
        "eps": record.eps,
        "seed": record.seed,
        "suite": record.suite,
        "clean_accuracy": record.clean_correct / record.n,
        "robust_accuracy": record.surviving() / record.n,
        "interval": [low, high],
        "broken_by": [{"name": one.name, "images": one.images} for one in breakers_of(record)],
        "flags": record.diagnosis
        and [{"name": f.name, "cause": f.cause, "run": f.run} for f in record.diagnosis.flags],
        "notes": record.notes,
        "witnesses": witnesses,
        "witnesses_file": str(_witness_file(record, path) or "") or None,
        "claimed_survivors": record.surviving(),
        "recheck": recheck_commands(record, str(path)),
        "record": str(path),
    }


def _heading(record: Record) -> list[str]:
    data, place = record.dataset, record.environment
    which = f"{record.n:,} in random order" if data.population else f"the first {record.n:,}"
    attacks = ", then ".join(short_spec(spec) for spec in record.suite)
    return [
        record.model.name,
        *_wrapped("model", f"{record.model.architecture}, {record.model.activation}"),
        *_wrapped("images", f"{data.name}, {data.split}, {which}"),
        *_wrapped("threat", f"{record.norm.capitalize()}, eps {record.eps}, seed {record.seed}"),
        *_wrapped("attacks", attacks),
        *_wrapped(
            "made",
            f"{place.finished[:10]} with satbench {place.satbench} and torch {place.torch}, "
            f"on {place.device}",
        ),
    ]


def _numbers(record: Record) -> Iterator[str]:
    """Yield clean and robust accuracy with their 95 % intervals, and the passes of all."""
    clean, *_, overall = rows_of(record)
    low, high = _interval(record)
    passes = overall.forwards + overall.source_forwards
    passes += overall.backwards + overall.source_backwards
    yield (
        f"clean   {clean.accuracy:6.1%}  [{clean.low:.1%}, {clean.high:.1%}]  "
        f"{clean.correct:,} of {record.n:,}"
    )
    yield (
        f"robust  {overall.accuracy:6.1%}  [{low:.1%}, {high:.1%}]  "
        f"{overall.correct:,} of {record.n:,}, an upper bound"
    )
    yield f"        95 % intervals; {passes:,} passes, {passes / record.n:,.0f} an image"


def _shares(record: Record) -> Iterator[str]:
    yield "What broke each image"
    found = [one for one in breakers_of(record) if one.images or one.name == "survived"]
    names = _fitting([one.name for one in found])
    width = max(map(len, names))
    for name, one in zip(names, found, strict=True):
        yield f"  {name:<{width}}  {one.images:>7,}  {one.images / record.n:6.1%}"
    if idle := sum(1 for stage in breakers_of(record)[1:-1] if not stage.images):
        yield f"  {idle} more stages broke nothing" if idle > 1 else "  1 more stage broke nothing"


def _fitting(names: Sequence[str]) -> list[str]:
    """Return the names of stages; without the parameters of attacks if one is too long."""
    if max(map(len, names)) > _LONGEST:
        names = [_PARAMETERS.sub(r"\1", name) for name in names]
    return [name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…" for name in names]


def _doubts(record: Record) -> Iterator[str]:
    """Yield the flags with their reasons, and the notes."""
    flags = record.diagnosis.flags if record.diagnosis else []
    if record.diagnosis is None:
        yield "Flags: not looked for"
    else:
        yield f"Flags: {len(flags) or 'none'}{_looked(record.diagnosis)}"
    for flag in flags:
        yield from _indented(str(flag))
    for note in notes_of(record)[len(flags) :]:
        yield from _indented(note)


def _looked(diagnosis: Diagnosis) -> str:
    if diagnosis.images is None or not_diagnosed(diagnosis.flags):
        return ""
    if not diagnosis.images:
        return "; no image survives, so that none was looked at for signs of masked gradients"
    return f"; {diagnosis.images:,} images were looked at for signs of masked gradients"


def _proven(record: Record, path: Path) -> Iterator[str]:
    wrong, left = record.n - record.clean_correct, record.surviving()
    yield "What is proven"
    yield from _indented(
        f"{record.n - left:,} of {record.n:,} images are not robust: {_witnesses(record):,} have a "
        f"witness, a misclassified image inside the threat model, and {wrong:,} are wrong "
        "without an attack. One forward pass each checks this (verify)."
    )
    if not _witness_file(record, path):
        yield from _indented("The file of witnesses is missing, so this cannot be checked here.")
    yield from _indented(
        f"That the other {left:,} survive is claimed, not proven: a stronger attack may break more "
        "(recheck, challenge)."
    )


def _interval(record: Record) -> tuple[float, float]:
    """Return the 95 % interval of the robust accuracy, as `satbench.Record.interval`."""
    if record.sequential:
        return float(record.sequential.low), float(record.sequential.high)
    return wilson_interval(record.surviving(), record.n)


def _witnesses(record: Record) -> int:
    """Return how many images have a witness: those that a stage broke."""
    return sum(verdict > WRONG_CLEAN for verdict in record.verdicts)


def _witness_file(record: Record, path: Path) -> Path | None:
    found = find_witnesses(path, record.witnesses_digest)
    return found if found.is_file() else None


def _wrapped(what: str, text: str) -> list[str]:
    """Return `what  text` in lines of a terminal, the later ones indented."""
    first, *rest = _folded(text, _WIDTH - 11) or [""]
    return [f"  {what:<8} {first}", *(f"{'':11}{line}" for line in rest)]


def _indented(text: str) -> list[str]:
    return [f"  {line}" for line in _folded(text, _WIDTH - 2)]


def _folded(text: str, width: int) -> Sequence[str]:
    return wrap(one_line(text), width, break_long_words=False, break_on_hyphens=False)
