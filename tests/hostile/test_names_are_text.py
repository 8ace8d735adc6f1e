"""Every name is shown as text in terminals, pages, tables and file names."""

from __future__ import annotations

import ast
import csv
import io
import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from satbench.board.board import build_board
from satbench.board.exports import benchmark_objects, render_csv, render_json
from satbench.board.formats.appendix import render_appendix
from satbench.board.formats.bibtex import imported_bibtex, render_bibtex
from satbench.board.formats.entries import About, robustbench_entries
from satbench.board.formats.latex import render_latex
from satbench.board.imported.rows import Imported, ImportedRow
from satbench.board.publish import board_files
from satbench.board.published import numbers_of
from satbench.board.tables import render_markdown, render_summary
from satbench.board.terminal import leaderboard_table
from satbench.cli import cli
from satbench.core.console import results, say, words
from satbench.core.files import file_stem
from satbench.core.markdown import cell, code
from satbench.core.text.characters import visible
from satbench.core.text.csv_text import csv_cell, csv_text
from satbench.core.text.html_text import html
from satbench.core.text.latex_text import latex
from satbench.core.text.terminal import one_line, tell
from satbench.evaluation.report import brief_table_of, table_of
from satbench.records.record import Record, identity_of, inputs_of, write_record
from satbench.website.board_page import SiteBoard
from satbench.website.build import site_files

NAMES = {
    "a terminal code": "net\x1b[2J\x1b]0;owned\x07",
    "an 8-bit terminal code": "net\x9b31m",
    "a carriage return": "weak\rstrong",
    "a backspace": "weak\x08\x08\x08\x08best",
    "a line of its own": "net\nall hold",
    "a line separator": "net\u2028all hold\u2029",
    "a mark of direction": "net\u202egnorts\u2066x\u2069",
    "letters that are not seen": "n\u200be\u00adt\ufeff",
    "half a letter": "net\ud800",
    "markup of rich": "[bold red]net[/] [link=file:///etc/passwd]x[/link] :bomb:",
    "markdown": "# **net** | `x` [y](javascript:alert(1)) ![z](http://a.b/c) ~~no~~ <!-- -->",
    "an address": "http://evil.example/x www.evil.example",
    "HTML": "<script>alert(1)</script><img src=x onerror=alert(1)>&lt;",
    "a formula": "=cmd|'/C calc'!A0",
    "other formulas": "@SUM(1+1)*cmd|' /C calc'!A0",
    "LaTeX": r"\input{/etc/passwd} $x_1^2$ ~ 5% #1 {\write18{ls}}",
    "a path": "../../etc/passwd",
    "nothing but dots": "..",
    "an empty name": "",
}
ABOUT = About("a paper", "A. Uthor", "https://arxiv.org/abs/0000.00000", "ICML 2026", False)
MakeRecord = Callable[..., Record]
Named = Callable[[str], list[Record]]
BAD = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def active(text: str) -> set[str]:
    """Return the active characters, except line ends."""
    return {one for one in text if unicodedata.category(one) in BAD} - {"\n"}


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return NAMES[request.param]


@pytest.fixture
def named(make_record: MakeRecord) -> Named:
    """A function that makes records with a name in every free-text field."""
    return partial(_named, make_record)


def _named(make: MakeRecord, name: str) -> list[Record]:
    first = make([0, 1, 1, -1, -1, -1], name=name, dataset=name, activation=name, recipe=name)
    first = replace(first, model=replace(first.model, architecture=name, source="file"))
    other = make([0, 1, -1, -1, -1, -1], name="other", dataset=name)
    return [replace(one, identity=identity_of(inputs_of(one))) for one in (first, other)]


@pytest.mark.parametrize("write", [render_markdown, lambda board: render_summary(board, "x.md")])
def test_a_page_holds_no_active_character_and_no_markup(
    write: Callable[..., str], name: str, named: Named
) -> None:
    harmless, text = (write(build_board(named(one))) for one in ("plain", name))

    assert active(text) == set()
    assert len(text.splitlines()) == len(harmless.splitlines())
    for sign in ("<", "![", "](", "http://", "https://", "www.", "~~", "`"):
        free = re.sub(r"\\.", "", text).count(sign)
        assert free == re.sub(r"\\.", "", harmless).count(sign), sign


def test_every_line_of_a_table_keeps_its_number_of_cells(name: str, named: Named) -> None:
    text = render_markdown(build_board(named(name)))
    rows = [re.sub(r"\\.", "", line) for line in text.splitlines() if line.startswith("|")]

    assert {row.count("|") for row in rows} == {
        line.count("|")
        for line in render_markdown(build_board(named("m"))).splitlines()
        if line.startswith("|")
    }


def test_every_file_of_a_board_can_be_written(name: str, tmp_path: Path, named: Named) -> None:
    for path, text in board_files(build_board(named(name)), tmp_path).items():
        path.write_text(text, encoding="utf-8")
        assert active(text) == set()


@pytest.mark.sampled(1)
def test_the_site_holds_no_active_character_and_no_markup(name: str, named: Named) -> None:
    pytest.importorskip("itables")
    sites = [
        site_files([SiteBoard("board", one) for one in build_board(named(text)).benchmarks])
        for text in ("plain(a=1)" if "(" in name else "plain", name)  # with or without a family
    ]
    harmless, found = (
        [text for place, text in site.items() if not place.startswith("assets/")] for site in sites
    )

    assert len(found) == len(harmless)
    for text, plain in zip(found, harmless, strict=True):
        assert active(text) == set()
        if "<!doctype html>" in plain:
            for sign in '<">':  # an empty text has no line in a list
                assert text.count(sign) == plain.count(sign) or not name
    assert all(re.fullmatch(r"[a-z0-9._/-]+", place) for site in sites for place in site)


def test_csv_holds_no_formula(name: str, named: Named) -> None:
    text = render_csv(build_board(named(name)))
    lines = list(csv.DictReader(io.StringIO(text)))

    assert active(text) == set()
    assert len(lines) == 2
    assert not any(one and one[0] in "=+@" for line in lines for one in line.values())
    assert all(not one.startswith("-") or float(one) < 0 for line in lines for one in line.values())


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx", "  =x", "\r=x", "−1", "a=b"])
def test_texts_that_begin_like_formulas_get_a_quote_in_csv(text: str) -> None:
    begins = text.lstrip(" ")[0] in "=+-@\t\r"
    assert str(csv_cell(text)).startswith("'") == begins
    assert csv_text([{"a": -1.5, "b": 2}]) == "a,b\n-1.5,2\n"


def test_json_keeps_the_name_and_holds_no_active_character(name: str, named: Named) -> None:
    text = render_json(build_board(named(name)))
    found = {model["model"] for one in json.loads(text)["benchmarks"] for model in one["models"]}

    assert active(text) == set()
    assert found == {name, "other"}


@pytest.mark.parametrize("table", [leaderboard_table, table_of, brief_table_of])
def test_a_table_in_the_terminal_shows_the_name_as_text(
    table: Callable[..., object], name: str, capsys: pytest.CaptureFixture[str], named: Named
) -> None:
    records = named(name)
    numbers = numbers_of(benchmark_objects(build_board(records)))
    results().print(table(numbers if table is leaderboard_table else records))
    out = capsys.readouterr().out

    assert active(out) == set()
    assert "all hold" not in [line.strip() for line in out.splitlines()]
    if name.startswith("[bold"):
        assert "[bold" in out


def test_printed_text_holds_no_active_character(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tell(name)
    tell(name, err=True)
    say(name)
    results().print(words(name))
    results().print(f"a {name} b")
    said = capsys.readouterr()

    assert active(said.out.replace("\t", "")) == active(said.err) == set()
    assert "\n" not in one_line(name)


def test_a_command_on_a_hostile_record_prints_few_lines_without_active_characters(
    tmp_path: Path, named: Named
) -> None:
    for number, (first, _) in enumerate(
        named(one) for one in NAMES.values() if "\ud800" not in one
    ):
        path = tmp_path / f"{number}\x1b[2J.json"
        write_record(first, path)
        done = CliRunner().invoke(cli, ["verify", str(path), "--quiet"])
        told = done.output + str(done.exception or "")
        assert done.exit_code in (1, 2)
        assert active(done.output) == set()
        assert len(told.splitlines()) < 12


@pytest.mark.parametrize("shown", [cell, code, latex, html, one_line, visible])
def test_escaping_does_not_change_a_harmless_name(shown: Callable[[str], str]) -> None:
    plain = "fmnist-sat-tiny-relu-s0, pgd(steps 50) é 模型"
    wanted = f"`{plain}`" if shown is code else plain
    assert shown(plain) == wanted


def test_latex_escapes_every_command(name: str) -> None:
    text = latex(name)
    for word in (r"\textbackslash{}", r"\textasciitilde{}", r"\textasciicircum{}"):
        text = text.replace(word, "")
    free = re.sub(r"\\[&%$#_{}]", "", text)

    assert not set(free) & set("\\&%$#_{}~^")
    assert active(free) == set()


def special(text: str) -> dict[str, int]:
    """Count the special characters of LaTeX that are not escaped."""
    for word in re.findall(r"\\text[a-z]+\{\}", text):
        text = text.replace(word, "")
    free = re.sub(r"\\[&%$#_{}]", "", text)
    return {sign: free.count(sign) for sign in "\\&%$#_{}~^"}


def test_a_latex_table_has_no_commands_from_names(name: str, named: Named) -> None:
    plain, text = (render_latex(build_board(named(one))) for one in ("plain", name))

    assert special(text) == special(plain)
    assert active(text) == set()
    assert len(text.splitlines()) == len(plain.splitlines())


def test_an_appendix_holds_no_markup(name: str, named: Named) -> None:
    plain, text = (render_appendix(build_board(named(one))) for one in ("plain", name))

    assert active(text) == set()
    assert len(text.splitlines()) == len(plain.splitlines())
    for sign in ("<", "![", "](", "http://", "www.", "~~", "`", "|"):
        assert re.sub(r"\\.", "", text).count(sign) == re.sub(r"\\.", "", plain).count(sign), sign


def test_the_references_of_a_board_do_not_contain_names_of_rows(name: str, named: Named) -> None:
    plain, text = (render_bibtex(build_board(named(one))) for one in ("plain", name))

    assert text == plain


def entries_of(text: str) -> list[str]:
    """Return the entries of a BibTeX file as BibTeX finds them; it also counts escaped braces."""
    entries, depth, begin = [], 0, 0
    for place, letter in enumerate(text):
        if letter == "@" and depth == 0:
            begin = place
        depth += (letter == "{") - (letter == "}")
        assert depth >= 0
        if letter == "}" and depth == 0:
            entries.append(text[begin : place + 1])
    assert depth == 0
    return entries


@pytest.mark.parametrize("text", ["{", "}", "{{", "}{", "a{b", r"\}", *NAMES.values()])
def test_an_imported_reference_is_one_bibtex_entry_under_any_name(text: str) -> None:
    row = ImportedRow("n", "cifar10", "linf", "8/255", "net", "90", "autoattack")
    hostile, harmless = (
        imported_bibtex(
            Imported(
                "t",
                "s",
                "https://a.b",
                (replace(row, paper=f"p{one}", authors=one, venue=one, link=f"https://a.b/{one}"),),
            )
        )
        for one in (text, "plain")
    )
    ours, theirs = entries_of(hostile), entries_of(harmless)

    assert len(ours) == len(theirs) == 2
    assert special(ours[-1]) == special(theirs[-1])
    assert active(hostile) == set()
    assert re.match(r"@misc\{imported-[A-Za-z0-9.-]*,\n", ours[-1])


def test_robustbench_entries_stay_in_their_folder_and_hold_the_name(
    name: str, named: Named
) -> None:
    entries = robustbench_entries(build_board(named(name)), {"default": ABOUT}, [])

    assert len(entries) == 2
    for path, text in entries.items():
        folder, norm, file = path.split("/")
        assert norm == "Linf"
        assert not {folder, file} & {"", ".", "..", ".json"}
        assert all(one.isalnum() or one in "-._" for one in folder + file)
        assert active(text) == set()
        assert json.loads(text)["name"] == ABOUT.name


def test_html_escapes_every_tag(name: str) -> None:
    assert not set(html(name)) & set("<>\"'")
    assert active(html(name)) == set()


def test_a_file_name_holds_only_letters_digits_and_a_few_signs(name: str, tmp_path: Path) -> None:
    stem = file_stem([name, "1a2b3c4d"])

    assert stem.endswith("1a2b3c4d")
    assert all(one.isalnum() or one in "-._" for one in stem)
    assert not stem.startswith((".", "-"))
    (tmp_path / f"{stem}.json").touch()
    assert [one.name for one in tmp_path.iterdir()] == [f"{stem}.json"]


@pytest.mark.slow
def test_a_figure_shows_a_dollar_sign_as_text(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from satbench.figures.drawing import heat_map

    path = tmp_path / "x.svg"
    heat_map([[0.5]], [r"$\frac{$"], [r"$x^$"], "$", path)
    assert path.stat().st_size > 0


def test_a_figure_has_no_control_characters(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from satbench.figures.sandwich import SandwichLine, sandwich_figure

    path = tmp_path / "x.svg"
    name = "net\x1b[31m\u202etxt<b>"
    sandwich_figure([SandwichLine(name, "relu", "linf", name, 9, 8, [0.1], [5], [7])], path)
    ElementTree.parse(path)
    assert not {"\x1b", "\u202e"} & set(path.read_text())


@pytest.mark.slow
def test_all_output_goes_through_the_escaping_functions() -> None:
    root = Path(__file__).parents[2] / "satbench"
    allowed = {"core/text/terminal.py", "core/console.py"}
    calls: Sequence[tuple[str, str]] = [
        (str(path.relative_to(root)), ast.unparse(node.func))
        for path in sorted(root.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    ]
    ways = {"click.echo", "click.secho", "print", "Console", "rich.print", "sys.stdout.write"}
    ways |= {"csv.writer", "csv.DictWriter", "sys.stderr.write"}
    found = {(file, call) for file, call in calls if call in ways and file not in allowed}

    assert found == {("core/text/csv_text.py", "csv.DictWriter")}


def test_the_docs_state_the_number_of_names() -> None:
    text = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert f"| {len(NAMES)} names," in text
