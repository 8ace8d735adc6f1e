"""How commands fail: in a sentence that says what to do, as JSON under --json, with a code."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from command_line import CONTEXTS, Run, Said

from satbench.cli.shell.failures import sentence
from satbench.cli.shell.paths import FOLDER
from satbench.core.errors import SatbenchError, UnknownNameError


@pytest.mark.parametrize(
    ("words", "nearest"),
    [
        (("evl",), "eval"),
        (("models", "shw"), "show"),
        (("leaderboard", "biuld"), "build"),
        (("eval", "--atack", "pgd-2"), "--attack"),
        (("eval", "--n-exampels", "3"), "--n-examples"),
        (("verify", "--modle=x"), "--model"),
        (("leaderboard", "show", "--record"), "--records"),
    ],
    ids=" ".join,
)
def test_a_misspelt_command_or_option_is_answered_with_the_nearest(
    words: tuple[str, ...], nearest: str, run: Run
) -> None:
    said = run(*words)

    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert said.err.endswith(f": did you mean {nearest!r}?\n")


def test_a_word_like_no_command_names_the_help(run: Run) -> None:
    assert "see satbench eval --help" in run("eval", "--0123456789").err


@pytest.mark.parametrize("out", ["eval", "curve", "transfer", "train", "demo", "study"])
def test_an_empty_folder_is_refused(out: str, run: Run, tmp_path: Path) -> None:
    name = "--results" if out == "study" else "--out"
    said = run(out, f"{name}=")

    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert name in said.err
    assert list(tmp_path.iterdir()) == []


def test_the_name_of_a_file_is_refused_by_every_option_out_that_is_a_folder(run: Run) -> None:
    folders = [
        (path, option)
        for path, context in CONTEXTS.items()
        for option in context.command.params
        if "--out" in option.opts and "Folder" in str(getattr(option, "help", ""))
    ]
    for path, option in folders:
        with pytest.raises(click.BadParameter, match=r"expected a folder, got 'x/p\.PNG', which"):
            option.type.convert("x/p.PNG", option, None)
        assert option.type.convert("runs/v1.2", option, None) == Path("runs/v1.2"), path

    assert len(folders) > 15
    said = run("plot", "runs/none", "--out", "p.png")
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)


def test_a_folder_of_entries_is_not_named_like_a_file(run: Run) -> None:
    said = run("leaderboard", "export", "--format", "robustbench", "--out", "entries.json")

    assert said.code == 2
    assert said.err.endswith("got 'entries.json': it is the name of a file\n")


def test_an_error_of_the_system_names_the_path_that_was_given(run: Run, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    words = ("leaderboard", "export", "--format", "csv", "--out", tmp_path / "there")

    assert run(*words).err == (
        f"satbench: is a directory: '{tmp_path / 'there'}'; give the path of a file\n"
    )


def test_a_folder_that_exists_may_be_named_like_a_file(tmp_path: Path) -> None:
    (tmp_path / "model.pt").mkdir()

    assert FOLDER.convert(str(tmp_path / "model.pt"), None, None) == tmp_path / "model.pt"


def test_a_missing_option_lists_its_choices_in_one_line(run: Run) -> None:
    said = run("leaderboard", "export")

    assert "choose from: csv, json, json-schema, " in said.err.lower()
    assert "\\" not in said.err


KINDS = "model attack dataset recipe study activation architecture preset command"


@pytest.mark.parametrize("kind", KINDS.split())
def test_a_long_list_of_names_ends_with_a_command_that_exists(kind: str) -> None:
    names = [f"{letter}{letter}" for letter in "abcdefghijkl"]
    said = str(UnknownNameError(kind, "0" * 9, names))
    words = said.partition(" more: ")[2].split()

    assert " ".join(word for word in words if word[0] != "-") in CONTEXTS
    assert len(words) > 1


def test_a_short_name_of_a_peers_attack_is_answered_with_the_whole_one(run: Run) -> None:
    said = run("eval", "fmnist-sat-tiny-relu-s0", "--attack", "cw")

    assert said.err.endswith(": did you mean 'foolbox.cw'?\n")


# JSON


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (("eval", "no-such-model"), "unknown name"),
        (("eval", "--atack"), "usage"),
        (("eval",), "usage"),
        (("verify", "none.json"), "mistake"),
        (("evl",), "usage"),
    ],
    ids=str,
)
def test_a_mistake_is_json_where_json_is_asked_for(
    words: tuple[str, ...], kind: str, run: Run
) -> None:
    plain, said = run(*words), run(*words, "--json")
    told = json.loads(said.out)

    assert (said.code, said.err) == (2, "")
    assert told["error"]["kind"] == kind
    assert plain.err == f"satbench: {told['error']['message']}\n"


def test_json_as_an_argument_behind_two_dashes_is_no_option(run: Run) -> None:
    assert run("verify", "--", "--json").out == ""


def test_a_full_disk_is_json_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **more: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "out/x.json")

    monkeypatch.setattr("satbench.evaluation.config.eval_config", full)
    said = run("eval", "m", "--json")

    assert (said.code, said.err) == (2, "")
    assert json.loads(said.out)["error"]["kind"] == "system"


def test_a_stop_is_json_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*args: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("satbench.evaluation.config.eval_config", stop)
    said = run("eval", "m", "--json")

    assert (said.code, json.loads(said.out)["error"]["kind"]) == (130, "stopped")


# Errors of the system


@pytest.mark.parametrize(
    "code",
    [
        *("ENOSPC", "EDQUOT", "EACCES", "EPERM", "EROFS", "ENOENT", "ENOTDIR", "EISDIR"),
        *("EEXIST", "ENAMETOOLONG", "EMFILE", "ENOMEM", "EIO", "ECONNREFUSED", "ETIMEDOUT"),
    ],
)
def test_an_error_of_the_system_names_the_path_and_what_to_do(code: str) -> None:
    number = getattr(errno, code)
    said = sentence(OSError(number, "Said by the system", "a/b"))
    what, semicolon, advice = said.partition("; ")

    assert what == "said by the system: 'a/b'"
    assert (semicolon, len(advice.split()) > 2) == ("; ", True)
    assert "Errno" not in said


def test_an_error_of_the_system_without_a_number_is_its_text() -> None:
    assert sentence(OSError("odd")) == "odd"
    assert sentence(OSError()) == "OSError"


def test_a_folder_that_cannot_be_written_ends_in_a_sentence(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said: Said = run("eval", "fmnist-sat-tiny-relu-s0", "--limit", "2", "--out", "file/below")

    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "file" in said.err
    assert "Errno" not in said.err


def test_a_closed_pipe_ends_without_a_message(tmp_path: Path) -> None:
    code = (
        "import os, sys; sys.argv = ['satbench', 'models', '--names'];"
        "from satbench.cli import main; read, write = os.pipe(); os.close(read);"
        "os.dup2(write, 1); main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.PIPE, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (1, "")


# Long lists


def test_a_long_list_of_names_ends_after_ten_with_the_command_that_lists_all(run: Run) -> None:
    said = run("eval", "zzzzzzzzzzzz")
    names = said.err.partition("known: ")[2].split(", ")
    total = len(run("models", "--names").out.split())

    assert len(names) == 11
    assert names[-1] == f"… and {total - 10} more: satbench models\n"


def test_a_short_list_of_names_is_whole() -> None:
    assert str(UnknownNameError("model", "zz", "abc")) == "unknown model 'zz': known: a, b, c"


def test_a_usage_error_without_a_command_is_its_message() -> None:
    assert sentence(click.UsageError("Give one.")) == "give one"
    assert sentence(SatbenchError("Give one.")) == "Give one."
