"""A program that atheris guides by coverage: bytes as a record, a card, a suite, a board, a spec.

Run it as `python atheris_files.py -runs=N`.  The exit code is not 0 if an input raises another
error than SatbenchError, or takes more than a second.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["satbench.core", "satbench.records"]):
    from satbench.attacks.suites.suite_file import read_suite
    from satbench.board.definition import read_definition
    from satbench.core.errors import SatbenchError
    from satbench.core.specs import split_spec
    from satbench.core.threat import Length, Threat
    from satbench.model_zoo.card import parse_card
    from satbench.records.check import check_record
    from satbench.records.record import parse_record

FOLDER = Path(tempfile.mkdtemp())


def one_input(data: bytes) -> None:
    """Read the bytes as each kind of file and of text."""
    text = data.decode("utf-8", errors="ignore")
    path = FOLDER / "file.toml"
    path.write_bytes(data)
    read_suite.cache_clear()
    for read in (split_spec, Threat.parse, Length.parse):
        with contextlib.suppress(SatbenchError):
            read(text)
    for parse in (parse_card, parse_record):
        with contextlib.suppress(SatbenchError):
            parse(text, "a test")
    with contextlib.suppress(SatbenchError):
        check_record(parse_record(text, "a test"))
    for read_file in (read_suite, read_definition):
        with contextlib.suppress(SatbenchError):
            read_file(path)


if __name__ == "__main__":
    atheris.Setup([*sys.argv, "-timeout=1"], one_input)
    atheris.Fuzz()
