from __future__ import annotations

import json

import pytest

from satbench.board.publish import BEGIN, END
from satbench.cli import main
from satbench.records.record import write_record


@pytest.fixture
def run(monkeypatch, capsys):
    """A function that runs satbench and gives exit code, stdout and stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["satbench", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def folder(tmp_path, monkeypatch, make_record):
    """A working folder with one record in `board/records`."""
    monkeypatch.chdir(tmp_path)
    write_record(make_record([0, 1, 3, -1], name="one"), tmp_path / "board/records/one.json")
    return tmp_path


def test_build_writes_beside_the_records_by_default(run, folder) -> None:
    names = ["LEADERBOARD.md", "COST.md", "AGREEMENT.md", "leaderboard.csv", "leaderboard.json"]
    expected = "".join(f"written: board/{name}\n" for name in names)

    assert (0, expected, "") == run("leaderboard", "build", "--records", "board/records")


def test_build_writes_to_the_given_folder(run, folder) -> None:
    run("leaderboard", "build", "--records", "board/records", "--out", "elsewhere")

    assert (folder / "elsewhere/LEADERBOARD.md").read_text(encoding="utf-8").startswith("# Lead")


def test_check_accepts_what_build_wrote(run, folder) -> None:
    run("leaderboard", "build", "--records", "board/records")

    assert run("leaderboard", "build", "--records", "board/records", "--check")[0] == 0


def test_check_names_the_stale_file_and_the_command_and_exits_with_1(run, folder) -> None:
    run("leaderboard", "build", "--records", "board/records")
    (folder / "board/leaderboard.csv").write_text("old", encoding="utf-8")

    code, _, err = run("leaderboard", "build", "--records", "board/records", "--check")
    expected = (
        "satbench: out of date: board/leaderboard.csv; run\n"
        "  satbench leaderboard build --records board/records\n"
    )
    assert (1, expected) == (code, err)


def test_check_writes_nothing(run, folder) -> None:
    run("leaderboard", "build", "--records", "board/records", "--check")

    assert [path.name for path in (folder / "board").iterdir()] == ["records"]


def test_a_new_record_makes_what_is_committed_stale(run, folder, make_record) -> None:
    run("leaderboard", "build", "--records", "board/records")
    write_record(make_record([0, 1, 1, -1], name="two"), folder / "board/records/two.json")

    assert run("leaderboard", "build", "--records", "board/records", "--check")[0] == 1


def test_build_twice_writes_the_same_bytes(run, folder) -> None:
    run("leaderboard", "build", "--records", "board/records")
    expected = [path.read_bytes() for path in sorted((folder / "board").glob("*.*"))]
    run("leaderboard", "build", "--records", "board/records")

    assert expected == [path.read_bytes() for path in sorted((folder / "board").glob("*.*"))]


def test_check_looks_at_the_readme_too(run, folder) -> None:
    (folder / "README.md").write_text(f"{BEGIN}{END}", encoding="utf-8")
    run("leaderboard", "build", "--records", "board/records")

    command = ("leaderboard", "build", "--records", "board/records", "--readme", "README.md")
    expected = f"satbench: out of date: README.md; run\n  satbench {' '.join(command)}\n"
    assert run(*command, "--check")[2] == expected


def test_build_as_json_tells_the_state_of_each_file(run, folder) -> None:
    run("leaderboard", "build", "--records", "board/records")
    (folder / "board/leaderboard.csv").unlink()
    _, out, _ = run("leaderboard", "build", "--records", "board/records", "--check", "--json")

    fresh = ("LEADERBOARD.md", "COST.md", "AGREEMENT.md", "leaderboard.json")
    expected = {f"board/{name}": "up to date" for name in fresh}
    assert {**expected, "board/leaderboard.csv": "out of date"} == json.loads(out)


def test_a_missing_marker_exits_with_2_and_writes_nothing(run, folder) -> None:
    (folder / "README.md").write_text("no markers", encoding="utf-8")
    command = ("leaderboard", "build", "--records", "board/records", "--readme", "README.md")
    code, _, err = run(*command)

    assert (
        code,
        err.startswith("satbench: expected the markers"),
        [path.name for path in (folder / "board").iterdir()],
    ) == (2, True, ["records"])


def test_a_folder_without_records_exits_with_2(run, folder) -> None:
    (folder / "empty").mkdir()

    assert run("leaderboard", "build", "--records", "empty")[0] == 2


def test_show_prints_the_models(run, folder) -> None:
    code, out, _ = run("leaderboard", "show", "--records", "board/records")

    assert (code, " one " in out) == (0, True)


def test_show_as_json_prints_the_whole_board(run, folder) -> None:
    run("leaderboard", "build", "--records", "board/records")
    expected = (folder / "board/leaderboard.json").read_text(encoding="utf-8")

    assert (0, expected, "") == run("leaderboard", "show", "--records", "board/records", "--json")
