"""What share of the breaks and of the passes of `fast` its first parts make, in records.

python benchmarks/early_breaks.py [FOLDER …] [--parts 3] [--version 2]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from satbench.core.content import content_folder
from satbench.records.attack_run import version_of
from satbench.records.record import Record, read_records


def shares(records: Iterable[Record], parts: int, version: int = 2) -> tuple[int, float, float]:
    """Return how many records have `fast`, and the shares of breaks and passes of its first parts.

    Passes are those of the model and of surrogates.  Raises SystemExit where no record has it.
    """
    found, broken, passes = 0, [0, 0], [0, 0]
    for record in records:
        stages = [stage for stage in record.stages if _is_fast(stage.attack, version)]
        found += bool(stages)
        for number, stage in enumerate(stages):
            spent = stage.forwards + stage.backwards + stage.source_forwards
            late = number >= parts
            broken[late] += stage.broken
            passes[late] += spent + stage.source_backwards
    if not found or not sum(broken) or not sum(passes):
        raise SystemExit("expected records in which fast broke images, got none")
    return found, broken[0] / sum(broken), passes[0] / sum(passes)


def _is_fast(attack: str, version: int) -> bool:
    return attack.startswith("fast(") and version_of(attack) == version


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    board = content_folder("leaderboard") / "fashion-mnist-linf-0.1" / "records"
    parser.add_argument("folders", nargs="*", type=Path, default=[board])
    parser.add_argument("--parts", type=int, default=3)
    parser.add_argument("--version", type=int, default=2, help="of fast; decision 20 is about 2")
    asked = parser.parse_args(arguments)
    records = [record for folder in asked.folders for record in read_records(folder)]
    found, broken, passes = shares(records, asked.parts, asked.version)
    print(
        f"{found} records of version {asked.version}: the first {asked.parts} parts of fast make "
        f"{broken:.1%} of its breaks with {passes:.1%} of its passes"
    )


if __name__ == "__main__":
    main()
