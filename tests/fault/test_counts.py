"""docs/reliability.md has the counts of the committed results."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from writing_commands import COMMANDS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")


def results(name: str) -> Any:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


def rows(heading: str) -> dict[str, list[str]]:
    """Return the rows of the first table below a heading, by their first cell."""
    table = PAGE.split(f"## {heading}\n")[1].split("\n|---")[1].split("\n\n")[0]
    cells = [re.sub(r"\*\*|`|,(?=\d{3})", "", line).split("|")[1:-1] for line in table.splitlines()]
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in cells[1:]}


def test_the_kills_and_faults_of_each_command_are_those_that_were_counted() -> None:
    kills = {one["command"]: one for one in results("kill_points")}
    disks = {one["command"]: one for one in results("disk_faults")}
    assert list(kills) == list(disks) == list(COMMANDS)
    told = rows("Kills and faults of the disk")
    total = told.pop("all")

    assert told == {
        name: [
            *(str(one["operations"]), str(one["kills"]), str(disks[name]["disk faults"])),
            str(len(one["faults"]) + len(disks[name]["faults"])),
        ]
        for name, one in kills.items()
    }
    columns = list(zip(*told.values(), strict=True))
    assert total == [str(sum(map(int, column))) for column in columns]
    assert int(total[1]) + int(total[2]) >= 1_000
    assert total[3] == "0"


@pytest.mark.parametrize(
    ("group", "heading"), [("one field changed", "One field changed"), ("random", "Random inputs")]
)
def test_the_counts_of_malformed_files_are_those_that_were_counted(
    group: str, heading: str
) -> None:
    counted = results("malformed")[group]
    told = {name.partition(" (")[0]: cells for name, cells in rows(heading).items()}
    total = told.pop("all")

    assert told == {
        name: [str(one[key]) for key in ("inputs", "refused", "read")] + ["0"]
        for name, one in counted.items()
    }
    assert total == [str(sum(int(row[k]) for row in told.values())) for k in range(4)]


def test_more_than_a_hundred_thousand_random_inputs_were_tried() -> None:
    assert sum(one["inputs"] for one in results("malformed")["random"].values()) >= 100_000


def test_the_loads_are_those_that_were_measured() -> None:
    load = results("load")
    loop, classes, mapped, board = (
        load[k] for k in ("evaluations", "classes", "mapped", "records")
    )

    assert list(rows("Load").items()) == [
        (
            f"{loop['times']} evaluations of small networks in one process, after ten",
            [
                f"{loop['megabytes_more']} MB, {loop['handles_more']} handles, "
                f"{loop['threads_more']} threads and {loop['temporary_files_more']} temporary "
                "folders more"
            ],
        ),
        (
            f"a linear model on {classes['images']} images and {classes['classes']} classes, PGD-3",
            [f"{classes['seconds']} s of CPU, {classes['megabytes']:.0f} MB in all"],
        ),
        (
            f"{mapped['images']} images in a mapped file of {mapped['file_megabytes']} MB, one "
            f"step of PGD, with at most {mapped['allowed_megabytes_more']} MB of memory more",
            [
                f"{mapped['anonymous_megabytes_more']:.0f} MB of memory more than before, "
                f"{mapped['seconds']} s of CPU"
            ],
        ),
        (
            f"a board of {board['records']} records with its pages",
            [f"{board['seconds']} s of CPU, {board['page_megabytes']} MB of pages"],
        ),
    ]
    assert board["seconds"] < 10
