"""Count the results of malformed files and texts: one changed field, and random inputs.

    PYTHONPATH=tests python -m hostile.malformed [--inputs N] [--json FILE] [KIND ...]

Each file of `kinds_of_files.py` is read with each field changed to each odd value, and each kind of
`fuzzing.py` is read from N random inputs.  The program fails if the
result is neither one sentence nor a value, and if an input takes too long.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from satbench.core.errors import SatbenchError

from .fuzzing import KINDS as TEXTS
from .fuzzing import fuzz
from .kinds_of_files import KINDS as FILES
from .odd_values import every_change

INPUTS = 5_500
"""Random inputs of each kind: 100,000 in all, and more."""


def one_field_changes(kind: str, folder: Path, most: int | None = None) -> dict[str, int]:
    """Read a file with one changed field, in every way or in `most` ways; return the counts.

    Fail if the result is neither one sentence nor a value.
    """
    original, read = FILES[kind]
    read(original(), folder)  # the unchanged file is read
    texts = every_change(json.loads(original()))
    if most is not None:
        texts = random.Random(0).sample(texts, min(most, len(texts)))
    told: list[str] = []
    for text in texts:
        began = time.process_time()
        try:
            read(text, folder)
        except SatbenchError as error:
            told.append(str(error))
        assert time.process_time() - began < 5
    assert all(10 < len(said) < 2_000 and "\n" not in said for said in told)
    return {"inputs": len(texts), "refused": len(told), "read": len(texts) - len(told)}


def main() -> None:
    """Count the requested kinds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join((*FILES, *TEXTS)))
    parser.add_argument("--inputs", type=int, default=INPUTS, help="random inputs of each kind")
    parser.add_argument("--json", type=Path, help="write the counts there, beside those of others")
    asked = parser.parse_args()
    path: Path | None = asked.json
    told: dict[str, dict[str, Any]] = {"one field changed": {}, "random": {}}
    if path and path.exists():
        told = json.loads(path.read_text())
    with tempfile.TemporaryDirectory() as folder:
        for group, kinds in (("one field changed", FILES), ("random", TEXTS)):
            for kind in kinds:
                if asked.kinds and kind not in asked.kinds:
                    continue
                if group == "random":
                    told[group][kind] = fuzz(kind, Path(folder), asked.inputs)
                else:
                    told[group][kind] = one_field_changes(kind, Path(folder))
                sys.stdout.write(f"{group}, {kind}: {told[group][kind]}\n")
                sys.stdout.flush()
                if path:
                    path.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
