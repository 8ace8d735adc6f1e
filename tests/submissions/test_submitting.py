"""The steps of SUBMITTING.md in an empty folder pass the review command of the workflow.

The board has the same name but is small, so that this takes seconds.
"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from satbench.board.definition import BoardDefinition
from satbench.cli import cli

ROOT = Path(__file__).parents[2]
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "submission.yml").read_text())
NAME = "fashion-mnist-linf-0.1"


def commands_of(heading: str) -> list[list[str]]:
    """Return the commands under a heading of SUBMITTING.md."""
    text = (ROOT / "SUBMITTING.md").read_text(encoding="utf-8")
    section = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    block = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert block
    lines = [shlex.split(line, comments=True) for line in block[1].splitlines()]
    return [words for words in lines if words]


def run(words: list[str]) -> str:
    """Run a command of satbench and expand `*` as a shell does; it must succeed."""
    filled = [
        str(path)
        for word in words[1:]
        for path in (sorted(Path().glob(word)) if "*" in word else [word])
    ]
    done = CliRunner().invoke(cli, filled)
    assert done.exit_code == 0, (words, done.output, done.exception)
    return done.output


@pytest.fixture
def empty(
    tmp_path: Path, board: BoardDefinition, own_card: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder with only the weights, where the small board has the name of the large one."""
    leaderboard = board.folder.parent
    board.folder.rename(leaderboard / NAME)
    monkeypatch.setattr("satbench.board.definition.content_folder", lambda _: leaderboard)
    folder = tmp_path / "empty"
    folder.mkdir()
    shutil.copy(own_card.parent / "net.safetensors", folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.slow
def test_a_submission_that_follows_the_page_passes_the_review_of_the_workflow(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in commands_of("A new model"):
        run(words)
    names = sorted(path.name for path in (empty / "submissions" / "my-net").iterdir())
    (step,) = [
        one for one in WORKFLOW["jobs"]["review"]["steps"] if "Review" in one.get("name", "")
    ]
    words = shlex.split(step["run"])
    checkout = empty.parent / "runner"
    (checkout / step["working-directory"]).mkdir(parents=True)
    shutil.copytree(empty / "submissions", checkout / "head" / "submissions")
    changed = "".join(f"submissions/my-net/{name}\0" for name in names)
    (checkout / "changed").write_text(changed)
    monkeypatch.chdir(checkout / step["working-directory"])
    run(words)
    comment = (checkout / "comment" / "comment.md").read_text()

    assert words[0].endswith("env/bin/satbench")
    assert len(names) == 5
    assert "can be accepted" in comment
    assert "my-net" in comment


def test_the_workflow_runs_no_code_of_a_pull_request() -> None:
    jobs = WORKFLOW["jobs"]
    steps = jobs["review"]["steps"]
    checkouts = [one["with"] for one in steps if one.get("uses", "").startswith("actions/checkout")]
    commands = [one["run"] for one in steps if "run" in one]

    assert WORKFLOW["permissions"] == {}
    assert jobs["review"]["permissions"] == {"contents": "read"}
    assert jobs["comment"]["permissions"] == {"pull-requests": "write"}
    assert [one["path"] for one in checkouts] == ["base", "head"]
    assert all(one["persist-credentials"] is False for one in checkouts)
    assert not any("checkout" in one.get("uses", "") for one in jobs["comment"]["steps"])
    # No command contains a value that the submitter chooses.
    assert not any("${{" in one for one in commands)
    assert not any("cache" in one.get("with", {}) for one in steps)
    assert all("head/" not in one for one in commands)
    installs = [one for one in commands if "install" in one]
    assert len(installs) == 1
    assert "'base[" in installs[0]


def test_the_issue_forms_are_valid_and_the_page_names_every_term() -> None:
    page = (ROOT / "SUBMITTING.md").read_text(encoding="utf-8")
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text())
        assert {"name", "description", "body"} <= form.keys()
        ids = [one["id"] for one in form["body"] if "id" in one]
        assert len(ids) == len(set(ids)) > 0
    for word in ("threat model", "closed", "open", "McNemar", "supersede", "unverified"):
        assert word in page
