from __future__ import annotations

import pytest

from satbench.board.board import build_board
from satbench.board.definition import board_definitions
from satbench.board.publish import (
    BEGIN,
    END,
    PAGE,
    board_files,
    published_files,
    read_board,
    stale_files,
    write_files,
)
from satbench.core.content import content_folder
from satbench.core.errors import SatbenchError
from satbench.records.record import write_record

PGD50 = "pgd(steps=50,step=eps/4,restarts=1,start=uniform,keep=any)"


@pytest.fixture(scope="module")
def board(make_record):
    """A board of one record."""
    return build_board([make_record([0, 1, 3, -1])])


@pytest.fixture
def readme(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(f"# Title\n{BEGIN}\nold\n{END}\nmore\n", encoding="utf-8")
    return path


def test_files_just_written_are_not_stale(tmp_path, board, readme) -> None:
    contents = board_files(board, tmp_path, readme)
    write_files(contents)

    assert stale_files(board_files(board, tmp_path, readme)) == []


def test_the_files_are_the_pages_the_csv_and_the_json(tmp_path, board) -> None:
    expected = ["LEADERBOARD.md", "COST.md", "AGREEMENT.md", "leaderboard.csv", "leaderboard.json"]

    assert expected == [path.name for path in board_files(board, tmp_path)]


def test_the_pages_on_cost_and_agreement_can_lie_elsewhere_and_are_linked(tmp_path, board) -> None:
    contents = board_files(board, tmp_path / "leaderboard", docs=tmp_path / "docs")

    assert {tmp_path / "docs" / "COST.md", tmp_path / "docs" / "AGREEMENT.md"} < contents.keys()
    page = contents[tmp_path / "leaderboard" / "LEADERBOARD.md"]
    assert "[COST.md](../docs/COST.md)" in page
    assert "[AGREEMENT.md](../docs/AGREEMENT.md)" in page


@pytest.mark.parametrize(
    "name", ["LEADERBOARD.md", "COST.md", "AGREEMENT.md", "leaderboard.csv", "leaderboard.json"]
)
@pytest.mark.parametrize("how", ["missing", "changed"])
def test_a_file_that_is_missing_or_changed_is_stale(tmp_path, board, name, how) -> None:
    contents = board_files(board, tmp_path)
    write_files(contents)
    if how == "missing":
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(contents[tmp_path / name] + " ", encoding="utf-8")

    assert [tmp_path / name] == stale_files(contents)


def test_a_readme_with_an_old_table_is_stale(tmp_path, board, readme) -> None:
    contents = board_files(board, tmp_path, readme)
    write_files(board_files(board, tmp_path))

    assert [readme] == stale_files(contents)


def test_nothing_of_a_readme_outside_the_markers_is_touched(tmp_path, board, readme) -> None:
    text = board_files(board, tmp_path, readme)[readme]

    ends = (f"# Title\n{BEGIN}\n\n**shapes", f"\n{END}\nmore\n")
    assert ends == (text[: len(ends[0])], text[-len(ends[1]) :])


def test_the_readme_links_to_the_page_where_it_lies(tmp_path, board, readme) -> None:
    text = board_files(board, tmp_path / "leaderboard", readme)[readme]

    assert "(leaderboard/LEADERBOARD.md)" in text


@pytest.mark.parametrize(
    "text", ["", BEGIN, END, f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}", f"{BEGIN}{END}{END}"]
)
def test_a_readme_without_the_two_markers_is_refused(tmp_path, board, readme, text) -> None:
    readme.write_text(text, encoding="utf-8")

    with pytest.raises(SatbenchError, match=f"expected the markers {BEGIN} and {END}, once each"):
        board_files(board, tmp_path, readme)


def test_a_missing_readme_is_refused(tmp_path, board) -> None:
    with pytest.raises(SatbenchError, match=r"expected a README as text at .*NO\.md"):
        board_files(board, tmp_path, tmp_path / "NO.md")


def test_the_names_of_the_record_files_do_not_matter(tmp_path, small_records, small_board) -> None:
    for number, record in enumerate(reversed(small_records)):
        write_record(record, tmp_path / f"{number}.json")

    assert small_board == read_board(tmp_path)


def test_records_beside_the_folder_in_reference_are_compared_with_and_enter_no_column(
    tmp_path, make_record
) -> None:
    reference = "autoattack-reference(version=standard,block=100)"
    write_record(make_record([0, 1, -1, -1]), tmp_path / "records/own.json")
    write_record(make_record([0, 1, 2, -1], [PGD50, reference]), tmp_path / "reference/r.json")
    (row,) = read_board(tmp_path / "records").benchmarks[0].rows

    assert (2, 1, 1) == (row.best_known.count, row.cost.reference.left, row.agreement.differing)


def test_a_folder_without_records_is_refused_with_the_command_that_makes_one(tmp_path) -> None:
    with pytest.raises(SatbenchError, match=f"found none; make one with .* --out {tmp_path}"):
        read_board(tmp_path)


@pytest.mark.slow
def test_the_files_of_the_checkout_are_those_of_each_board_and_of_all_together() -> None:
    root = content_folder("leaderboard").parent
    names = {path.relative_to(root).as_posix() for path in published_files()}
    filled = {f"leaderboard/{one.name}" for one in board_definitions() if one.is_filled}
    ready = {one.name for one in board_definitions() if not one.is_filled}

    assert "leaderboard/fashion-mnist-linf-0.1" in filled
    assert {
        *(f"{b}/{name}" for b in filled for name in (PAGE, "leaderboard.csv", "leaderboard.json")),
        *(
            "docs/COST.md",
            "docs/AGREEMENT.md",
            "docs/FLAGS.md",
            "README.md",
            "leaderboard/README.md",
        ),
        *(f"leaderboard/{name}/{PAGE}" for name in ready),
        "leaderboard/leaderboard.schema.json",
    } == names
    assert {"cifar10-linf-8-255", "imagenet-linf-4-255"} <= ready
