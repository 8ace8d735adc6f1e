"""The page of one record: its numbers are consistent, and it needs no torch."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_records import FLAG, MakeRecord

from satbench.core.content import content_folder
from satbench.evaluation.record_page import breakers_of, record_lines, record_summary
from satbench.records.record import Diagnosis, Record, Sequential, read_record, write_record

VERDICTS = [0, 0, -1, 1, 1, 1, 2, 3, -1, -1]
PATH = Path("results/r.json")


@pytest.fixture
def record(make_record: MakeRecord) -> Record:
    return make_record(VERDICTS)


def text(record: Record) -> str:
    return "\n".join(record_lines(record, PATH))


def test_each_image_is_counted_in_one_row(record: Record) -> None:
    found = breakers_of(record)

    assert [one.images for one in found] == [2, 3, 1, 1, 3]
    assert sum(one.images for one in found) == record.n


def test_the_image_counts_on_the_page_add_up_to_all_images(record: Record) -> None:
    part = text(record).partition("What broke each image\n")[2].partition("\n\n")[0]
    counts = [int(line.split()[-2]) for line in part.splitlines() if line.endswith("%")]

    assert (len(counts), sum(counts)) == (5, 10)


def test_the_counts_of_long_names_are_in_one_column_of_a_terminal() -> None:
    board = content_folder("leaderboard") / "fashion-mnist-linf-0.1" / "records"
    pages = [
        text(record)
        for path in board.glob("fmnist-sat-tiny-silu-s0-*.json")
        if "transfer" in (record := read_record(path)).suite[0]
    ]
    part = pages[0].partition("What broke each image\n")[2].partition("\n\n")[0]
    lines = [line for line in part.splitlines() if line.endswith("%")]

    assert len(pages) == 1
    assert len(lines) == 6
    assert len({len(line) for line in lines}) == 1
    assert len(lines[0]) <= 80
    assert "fmnist-sat-tiny-parametric-softplus-s100 " in part


def test_stages_that_broke_no_image_are_counted_and_not_listed(make_record: MakeRecord) -> None:
    shown = text(make_record([-1] * 10))

    assert "3 more stages broke nothing" in shown
    assert "square" not in shown.partition("What broke each image")[2].partition("Flags")[0]


def test_accuracies_are_shown_with_their_intervals(record: Record) -> None:
    told = record_summary(record, PATH)

    assert (told["clean_accuracy"], told["robust_accuracy"]) == (0.8, 0.3)
    assert told["interval"] == pytest.approx([0.1078, 0.6032], abs=1e-4)
    assert "30.0%  [10.8%, 60.3%]" in text(record)


def test_a_run_that_stopped_early_has_the_interval_of_its_population(record: Record) -> None:
    told = replace(record, sequential=Sequential(0.1, 0.2, 0.3))

    assert record_summary(told, PATH)["interval"] == [0.2, 0.3]


def test_flags_are_shown_with_their_causes(record: Record) -> None:
    shown = " ".join(text(replace(record, diagnosis=Diagnosis([FLAG], 0, 0))).split())

    assert "Flags: 1" in shown
    assert FLAG.cause in shown
    assert FLAG.run in shown


def test_the_page_says_whether_flags_were_looked_for(record: Record) -> None:
    assert "Flags: none" in text(replace(record, diagnosis=Diagnosis([], 0, 0)))
    assert "Flags: not looked for" in text(replace(record, diagnosis=None))


def test_witnesses_and_claimed_survivors_are_counted_separately(record: Record) -> None:
    told = record_summary(record, PATH)

    assert (told["witnesses"], told["claimed_survivors"]) == (5, 3)
    assert told["witnesses_file"] is None


def test_the_commands_for_checking_name_the_record(record: Record) -> None:
    commands = [line.split() for line in record_summary(record, PATH)["recheck"]]

    assert [words[1] for words in commands] == ["verify", "recheck", "reproduce", "challenge"]
    assert all(words[2] == str(PATH) for words in commands)


def test_the_commands_ask_for_the_model_of_a_file(make_record: MakeRecord) -> None:
    of_file = record_summary(make_record(VERDICTS, source="file"), PATH)["recheck"]

    assert all("--model MODEL" in line for line in of_file)


def test_no_line_except_commands_is_wider_than_80(make_record: MakeRecord) -> None:
    record = make_record(VERDICTS, name="n" * 60)
    lines = record_lines(record, Path("x" * 100))

    assert [line for line in lines if len(line) > 80 and "satbench" not in line] == []


def test_a_name_cannot_send_control_characters_to_the_terminal(make_record: MakeRecord) -> None:
    shown = text(make_record(VERDICTS, name="net\x1b[2J\nall hold"))

    assert "\x1b" not in shown
    assert not re.search("^all hold", shown, re.MULTILINE)


def test_show_imports_neither_torch_nor_scipy(record: Record, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    write_record(record, path)
    code = (
        "import sys; sys.argv = ['satbench', 'show', sys.argv[1], '--json'];"
        "from satbench.cli import cli; cli.main(standalone_mode=False);"
        "print([one for one in ('torch', 'scipy.stats') if one in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True
    )

    assert json.loads(done.stdout)["n"] == 10
    assert done.stderr == "[]\n"
