"""`satbench study`: the page follows from the runs, and mistakes are refused in one sentence."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from satbench.cli import cli
from satbench.core.errors import SatbenchError
from satbench.studies import STUDIES, Study
from satbench.studies.pages.page import BEGIN, END
from satbench.studies.run_file import WRONG
from satbench.studies.store import Places

pytest.importorskip("matplotlib")
# The page binds load_study when it is imported; it must not bind the one of a test below.
import_module("satbench.studies.pages.build")


@pytest.fixture
def call(
    done: Places, made_study: Study, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> list[str]:
    """Return the command line of the made-up study, in its folders."""
    monkeypatch.setattr("satbench.studies.load_study", lambda *_: made_study)
    monkeypatch.setattr("satbench.studies.pages.figures.FORMATS", (".svg",))
    monkeypatch.chdir(tmp_path)
    return [
        *("study", "made", "--n-examples", "12", "--device", "cpu", "--docs", "pages"),
        *("--store", str(done.store), "--results", str(done.results)),
    ]


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, words)


@pytest.mark.usefixtures("noise_images")
def test_check_passes_for_a_new_page_and_fails_for_changed_runs(
    call: list[str], done: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("satbench.studies.pages.build.pictures_of", lambda _: {})
    monkeypatch.setattr("satbench.studies.pages.build.write_figures", lambda *_: [])
    written = run(*call, "--only", "page")
    assert 0 == written.exit_code
    assert "wrote pages/made.md" == written.stdout.splitlines()[0]
    assert 0 == run(*call, "--check").exit_code

    one = next(iter(done.runs().values()))
    changed = replace(one.outcomes[0], verdicts=WRONG + one.outcomes[0].verdicts[1:])
    letters = [replace(o, verdicts=changed.verdicts) for o in one.outcomes]
    done.write(replace(one, outcomes=tuple(letters)))
    checked = run(*call, "--check")

    assert 1 == checked.exit_code
    assert checked.stderr == (
        "satbench: pages/made.md does not match the run files; "
        "write it again with satbench study made --n-examples 12 --only page\n"
    )


@pytest.mark.usefixtures("noise_images")
def test_check_finds_a_missing_figure(call: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("satbench.studies.pages.build.write_figures", lambda *_: [])
    run(*call, "--only", "page")
    checked = run(*call, "--check")

    assert 1 == checked.exit_code
    assert checked.stderr.startswith("satbench: pages/made.svg is missing;")


@pytest.mark.usefixtures("noise_images")
def test_a_dry_run_lists_finished_and_missing_results(
    call: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("satbench.studies.estimate._TIMED_SECONDS", 0.02)
    lines = json.loads(run(*call, "--dry-run", "--json", "--seeds", "0-2").stdout)

    assert [(line["run"], line["model"], line["done"], line["missing"]) for line in lines] == [
        ("ReLU, seed 0", "store", 2, 0),
        ("SILU, seed 0", "store", 2, 0),
        ("ReLU, seed 1", "store", 2, 0),
        ("SILU, seed 1", "store", 2, 0),
        ("ReLU, seed 2", "to train", 0, 2),
        ("SILU, seed 2", "to train", 0, 2),
    ]
    assert [False] * 4 + [True] * 2 == [line["seconds"] > 0 for line in lines]


def test_the_list_names_all_studies() -> None:
    listed = json.loads(run("study", "--list", "--json").stdout)

    assert STUDIES.names() == [line["name"] for line in listed]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("gradient-qualty",), "unknown study 'gradient-qualty': did you mean 'gradient-quality'?"),
        ((), "expected the name of a study"),
        (("activations", "--seeds", "x"), "expected seeds such as 0-4, 0,2,5 or 0"),
        (("activations", "--recipe", "sat-cifar10", "--workers", "x"), "expected --workers cuda"),
        (("activations", "--n-examples", "0"), "expected 1 example or more, got 0"),
    ],
)
def test_a_wrong_option_is_refused_in_one_sentence(words: tuple[str, ...], said: str) -> None:
    done = run("study", *words)

    assert isinstance(done.exception, SatbenchError)
    assert str(done.exception).startswith(said)


def test_the_overview_lists_studies_with_a_page_and_check_compares_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    few = {name: STUDIES[name] for name in ("activations", "elu-celu")}
    monkeypatch.setattr(STUDIES, "_entries", few)
    monkeypatch.chdir(tmp_path)
    Path("README.md").write_text(f"before\n{BEGIN}\n{END}\nafter\n")
    words = ("study", "--overview", "--results", "none")
    Path("docs/studies").mkdir(parents=True)
    written = [name for name in STUDIES.names() if name != "elu-celu"]
    for name in written:
        Path("docs/studies", f"{name}.md").touch()
    assert 0 == run(*words).exit_code
    listed = Path("docs/studies/README.md").read_text()
    assert written == [name for name in STUDIES.names() if f"[{name}]({name}.md)" in listed]
    assert "(docs/studies/activations.md)" in Path("README.md").read_text()
    assert 0 == run(*words, "--check").exit_code
    Path("README.md").write_text(f"before\n{BEGIN}\n{END}\nafter\n")
    assert 1 == run(*words, "--check").exit_code
