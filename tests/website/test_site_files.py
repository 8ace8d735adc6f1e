"""The files of the site: the same records give the same bytes; foreign texts are escaped."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import pytest
from click.testing import CliRunner

from satbench.board.board import Board, build_board
from satbench.board.exports import render_csv, render_json
from satbench.cli import cli
from satbench.core.errors import SatbenchError
from satbench.core.templates import fill_html
from satbench.core.text.characters import visible
from satbench.records.record import ModelInfo, Record, write_record
from satbench.website import bundle
from satbench.website.board_page import SiteBoard, board_values
from satbench.website.build import LISTED, chosen_boards, site_files, write_site
from satbench.website.looks import Looks
from satbench.website.places import model_place

pytestmark = pytest.mark.skipif(find_spec("itables") is None, reason="needs satbench[page]")


class Texts(HTMLParser):
    """Gathers the texts of the cells of a table, row by row."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: object) -> None:
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        self.inside = self.inside or tag in ("td", "th")

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.rows[-1][-1] += data


def boards(records: Sequence[Record]) -> list[SiteBoard]:
    built = build_board(records).benchmarks
    return [SiteBoard(f"board-{number}", one) for number, one in enumerate(built)]


@pytest.fixture(scope="module")
def files(small_records: list[Record]) -> dict[str, str]:
    return site_files(boards(small_records))


def test_the_same_records_in_another_order_give_the_same_bytes(
    files: dict[str, str], small_records: list[Record]
) -> None:
    assert site_files(boards(small_records[::-1])) == files


def test_a_row_of_the_table_has_the_numbers_of_the_board(
    files: dict[str, str], small_board: Board
) -> None:
    benchmark = small_board.benchmarks[1]
    head, *rows = Texts(files["boards/board-1.html"].split("</table>")[0]).rows
    at = {title: head.index(title) for title in ("Rank", "Model", "Clean", "Best known", "Flags")}

    assert len(rows) == len(benchmark.rows)
    for cells, row in zip(rows, benchmark.rows, strict=True):
        assert cells[at["Rank"]] == str(row.rank)
        assert cells[at["Model"]].startswith(row.model.name)
        assert float(cells[at["Clean"]].split()[0]) == round(100 * row.clean.value, 1)
        assert float(cells[at["Best known"]].split()[0]) == round(100 * row.best_known.value, 1)
        assert cells[at["Flags"]] == ("–" if row.flags is None else f"† {len(row.flags)}")


def test_downloads_are_the_exports_of_the_board(files: dict[str, str], small_board: Board) -> None:
    one = Board((small_board.benchmarks[1],))
    held = json.loads(files["boards/board-1.rows.js"].partition("=")[2].rstrip(";\n"))

    assert files["boards/board-1.csv"] == render_csv(one)
    assert files["boards/board-1.json"] == render_json(one)
    assert "\n".join([held["head"], *held["csv"]]) + "\n" == render_csv(one)
    assert held["json"] == json.loads(render_json(one))["benchmarks"][0]["models"]


def test_values_in_a_template_are_escaped() -> None:
    values = {"title": "<b>&\u202e\x1b", "root": "", "trail": [('"', '"')], "version": "'"}
    page = fill_html("website/base.html", values)

    assert "<title>&lt;b&gt;&amp;\\u202e\\x1b" in page
    assert visible(page, keep="\n") == page
    assert '<a href="&#34;">&#34;</a>' in page


@pytest.mark.parametrize("name", ["../../x", "", "CON", "a/b", "é", "x" * 400, "A", "\u202e<"])
def test_the_page_of_a_model_has_a_safe_file_name(name: str) -> None:
    model = ModelInfo(name, "file", "tiny", "relu", 9, "0" * 64, {})
    place = model_place(model)

    assert re.fullmatch(r"models/[a-z0-9._-]{8,230}\.html", place)
    assert ".." not in place
    assert place != model_place(replace(model, activation="silu"))


def test_writing_again_removes_old_pages_and_no_other_file(
    files: dict[str, str], tmp_path: Path
) -> None:
    write_site(files, tmp_path / "site")
    (tmp_path / "site" / "mine.html").touch()
    (tmp_path / "outside").touch()
    listed = tmp_path / "site" / LISTED
    listed.write_text(
        listed.read_text() + "../outside\n/etc/passwd\nboards/../../outside\nmine.html\n"
    )
    kept = {place: text for place, text in files.items() if "board-0" not in place}
    write_site(kept, tmp_path / "site")
    found = {
        path.relative_to(tmp_path / "site").as_posix()
        for path in (tmp_path / "site").rglob("*")
        if path.is_file()
    }

    assert found == {*kept, LISTED, "mine.html"}
    assert (tmp_path / "outside").exists()


@pytest.mark.parametrize(
    "module",
    ["", "var a=1;", "export{a as b};", "export{a as default};\nexport{a as default};"],
)
def test_an_unknown_form_of_datatables_is_refused(module: str) -> None:
    with pytest.raises(SatbenchError, match="expected DataTables as one module"):
        bundle.as_script(module)


def test_the_datatables_module_is_converted_to_a_script() -> None:
    made = bundle.as_script("var a=1,$b=2;export{a as x,$b as default};\n/* licence */")

    assert made == "(function(){\nvar a=1,$b=2;window.DataTable=$b;\n/* licence */\n})();\n"


def test_a_site_without_itables_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "find_spec", lambda name: None)
    with pytest.raises(SatbenchError, match=r"pip install 'satbench\[page\]'"):
        bundle.assets()


# The command


def page(*words: str | Path):
    return CliRunner().invoke(cli, ["leaderboard", "page", *map(str, words)])


def test_the_command_writes_the_site_of_records(
    small_records: list[Record], tmp_path: Path
) -> None:
    for number, record in enumerate(small_records):
        write_record(record, tmp_path / "records" / f"{number}.json")
    (tmp_path / "records" / "bad.json").write_text("{}")
    done = page("--records", tmp_path / "records", "--out", tmp_path / "site", "--json")
    told = json.loads(done.stdout)

    assert done.exit_code == 0
    assert [Path(path).is_file() for path in told["files"]] == [True] * len(told["files"])
    assert len([path for path in told["files"] if path.endswith(".html")]) >= 3
    assert len(told["left_out"]) == 1
    assert "bad.json" in done.stderr


def test_bad_input_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for words, said in (
        (("--out", tmp_path / "file"), "is a file"),
        (("--board", "gone", "--out", tmp_path / "new"), "gone"),
        (("--records", tmp_path / "none", "--out", tmp_path / "new"), "none"),
        (("--board", "fashion-mnist-l2-1", "--records", tmp_path), "got both"),
    ):
        done = page(*words)
        assert done.exit_code == 2 or isinstance(done.exception, SatbenchError)
        assert said in done.output + str(done.exception)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_a_board_without_records_says_how_to_fill_it() -> None:
    left_out: list[str] = []
    (board,) = chosen_boards("imagenet-linf-4-255", None, left_out)
    values = board_values(board, Looks([]))

    assert left_out == []
    assert values["models"] is None
    assert str(values["command"]).startswith("satbench leaderboard fill imagenet-linf-4-255")
    assert len(values["imported"]) == 1
