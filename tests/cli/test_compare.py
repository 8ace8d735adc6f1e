"""`satbench compare`: two records, image by image."""

from __future__ import annotations

import json
import re
from pathlib import Path

from click.testing import CliRunner

from satbench.board.comparison import compare
from satbench.cli import cli
from satbench.records.record import write_record

SILU = [-1, -1, -1, 0, 1, 2, -1, 3]
RELU = [-1, 0, 1, -1, 1, 1, 3, -1]


def records(make_record, tmp_path: Path) -> list[Path]:  # type: ignore[no-untyped-def]
    paths = [tmp_path / f"{name}.json" for name in ("silu", "relu")]
    for path, verdicts in zip(paths, (SILU, RELU), strict=True):
        write_record(make_record(verdicts, name=path.stem, activation=path.stem), path)
    return paths


def test_churn_says_which_images_only_one_has_right_and_what_the_other_fell_to(
    make_record, tmp_path: Path
) -> None:
    done = compare(*records(make_record, tmp_path))

    assert [(one.stands, one.broken_by, one.images) for one in done.churn] == [
        (0, "no attack", (1,)),
        (0, "pgd", (2,)),
        (0, "autoattack/square", (6,)),
        (1, "no attack", (3,)),
        (1, "autoattack/square", (7,)),
    ]
    assert sum(len(one.images) for one in done.churn) == done.only_first + done.only_second


def test_the_command_prints_the_test_and_the_churn(make_record, tmp_path: Path) -> None:
    paths = [str(path) for path in records(make_record, tmp_path)]
    shown = CliRunner().invoke(cli, ["compare", *paths])
    told = json.loads(CliRunner().invoke(cli, ["compare", *paths, "--json"]).output)

    assert shown.exit_code == 0
    assert told["p"] == 1.0
    assert (told["only_first"], told["only_second"], told["n"], told["shown"]) == (3, 2, 8, False)
    assert len(told["churn"]) == 5
    assert re.search(r"p = 1\b", shown.output)
    assert "\n  relu is wrong without an attack on 1: image 1\n" in shown.output
    assert "\n  silu fell to autoattack/square on 1: image 7\n" in shown.output
    assert shown.output.count("image ") == 5


def test_records_that_do_not_belong_together_are_refused(make_record, tmp_path: Path) -> None:
    paths = records(make_record, tmp_path)
    write_record(make_record(RELU, eps="0.2"), paths[1])
    done = CliRunner().invoke(cli, ["compare", *map(str, paths)])

    assert done.exit_code != 0
    assert "threat model" in str(done.exception)
