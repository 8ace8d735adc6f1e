"""A command that is killed or disturbed leaves no trace after the next run of the command."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import pytest
from writing_commands import COMMANDS

from satbench.cli import cli
from satbench.cli.shell.failures import STOPPED
from satbench.cli.shell.stops import Stops
from satbench.core.files import atomic_folder, atomic_path, remove_folder, sweep, write_text

KILLS, DISK = (Path(__file__).with_name(f"{name}.py") for name in ("kill_points", "disk_faults"))
BOTH = DISK.with_name("both_faults.py")


def examine(*words: str, out: Path, program: Path = KILLS) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, str(program), *words, "--json", str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "SHOW": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told: list[dict[str, Any]] = json.loads(out.read_text())
    return told


def leaves(command: click.Command = cli, words: tuple[str, ...] = ()) -> set[str]:
    """Return the commands that are not groups, such as `models card`."""
    if not isinstance(command, click.Group):
        return {" ".join(words)}
    context = click.Context(command)
    found = ((name, command.get_command(context, name)) for name in command.list_commands(context))
    return {leaf for name, one in found if one for leaf in leaves(one, (*words, name))}


def test_every_command_that_writes_files_is_examined() -> None:
    examined = {name.partition(" --")[0] for name in COMMANDS}

    assert leaves() - examined == {
        *("verify", "compare", "reproduce", "show", "datasets", "recipes"),
        *("activations", "architectures"),
        *("models list", "models show", "models presets", "leaderboard show"),
    }
    assert all(set(name.split()) <= set(case.words) for name, case in COMMANDS.items())


@pytest.fixture(scope="module")
def of_one_command(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a kill, and one disk fault of each kind, did to one command: counts and faults."""
    out = tmp_path_factory.mktemp("told") / "told.json"
    (told,) = examine("models card", "--sample", "1", program=BOTH, out=out)
    return told


def test_a_killed_command_leaves_no_trace_after_the_next_run(
    of_one_command: dict[str, Any],
) -> None:
    told = of_one_command["kill"]

    assert (told["kills"], told["faults"]) == (1, [])


def test_a_disk_fault_gives_one_sentence_and_leaves_no_trace_after_the_next_run(
    of_one_command: dict[str, Any],
) -> None:
    told = of_one_command["disk"]

    assert (told["disk faults"], told["refused"] + told["ended well"], told["faults"]) == (4, 4, [])
    assert told["refused"] >= 3


@pytest.mark.slow
def test_no_disk_fault_in_any_command_leaves_a_trace(tmp_path: Path) -> None:
    told = examine("--sample", "12", program=DISK, out=tmp_path / "told.json")

    assert {one["command"]: one["faults"] for one in told} == {name: [] for name in COMMANDS}
    assert sum(one["disk faults"] for one in told) >= 1_000


@pytest.mark.slow
def test_no_kill_at_any_file_operation_leaves_a_trace(tmp_path: Path) -> None:
    told = examine(out=tmp_path / "told.json")

    assert {one["command"]: one["faults"] for one in told} == {name: [] for name in COMMANDS}
    assert all(
        one["kills"] == min(one["operations"], COMMANDS[one["command"]].most or one["operations"])
        for one in told
    )
    assert sum(one["kills"] for one in told) >= 1_000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "ctrl_c"),
    [
        (signal.SIGINT, 130, signal.SIG_DFL),
        (signal.SIGTERM, 143, signal.SIG_DFL),
        (signal.SIGTERM, 143, signal.SIG_IGN),
        (signal.SIGHUP, 129, signal.SIG_DFL),
    ],
)
def test_a_signal_ends_a_command_cleanly_and_it_says_how_to_continue(
    number: signal.Signals, code: int, ctrl_c: signal.Handlers, tmp_path: Path
) -> None:
    def start() -> None:  # nohup and & ignore some
        signal.signal(signal.SIGINT, ctrl_c)
        signal.signal(number, signal.SIG_DFL)

    words = ["eval", "--model", "fmnist-sat-tiny-relu-s0", "--attack", "autoattack", "--quiet"]
    command = [sys.executable, "-m", "satbench", *words, "--batch-size", "20", "--out", "out"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=start,
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("out/.runs/*/*.npz")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(number)
    if number == signal.SIGINT:  # and again, while it ends
        time.sleep(0.01)
        process.send_signal(number)
    said = process.communicate(timeout=60)[1]

    assert process.returncode == code
    assert said.lstrip("\n") == f"satbench: {STOPPED}\n"  # click ends the line with ^C
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("ctrl_c", [signal.SIG_IGN, signal.SIG_DFL, signal.default_int_handler])
def test_sigterm_stops_a_command_even_if_ctrl_c_is_ignored(
    ctrl_c: signal.Handlers, request: pytest.FixtureRequest
) -> None:
    before = signal.signal(signal.SIGINT, ctrl_c)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))

    with Stops() as stops, pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)

    assert signal.SIGTERM == stops.number


@pytest.mark.parametrize("ended", ["stdin", "signal"])
def test_a_worker_stops_even_if_ctrl_c_is_ignored_where_it_starts(ended: str) -> None:
    code = (
        "import sys, time\n"
        "from satbench.core.stopping import stop_at_the_end_of_stdin\n"
        "stop_at_the_end_of_stdin()\n"
        "try:\n    print(flush=True)\n    time.sleep(20)\n"
        "except KeyboardInterrupt:\n    sys.exit(130)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    ) as process:
        assert process.stdin
        assert process.stdout
        process.stdout.readline()
        if ended == "stdin":
            process.stdin.close()
        else:
            process.send_signal(signal.SIGINT)

        assert 130 == process.wait(timeout=15)


def test_files_of_a_dead_writer_are_removed_and_those_of_a_live_one_stay(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.json"
    with atomic_path(path) as temporary:
        mine = temporary.name
        dead = tmp_path / mine.replace(f"_{os.getpid()}-", f"_{2**22 + 1}-")
        dead.touch()
        sweep(path)
        left = [one.name for one in tmp_path.iterdir()]
        temporary.write_text("{}")

    assert left == [mine]
    assert [one.name for one in tmp_path.iterdir()] == ["a.json"]


def test_an_atomic_folder_appears_complete_or_not_at_all(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a"
    with contextlib.suppress(KeyboardInterrupt), atomic_folder(path) as temporary:
        (temporary / "b").touch()
        dead = tmp_path / temporary.name.replace(f"_{os.getpid()}-", f"_{2**22 + 1}-")
        (dead / "c").mkdir(parents=True)
        raise KeyboardInterrupt
    left = list(tmp_path.iterdir())
    with atomic_folder(path) as temporary:
        (temporary / "b").touch()

    assert left == [dead]
    assert sorted(tmp_path.rglob("*")) == [path, path / "b"]


def test_a_folder_disappears_in_one_step_when_it_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    (path / "b").mkdir(parents=True)
    remove_folder(tmp_path / "none")
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda *_, **__: None)  # as if it were killed before this
        remove_folder(path)

    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".a.")
    left.rename(tmp_path / left.name.replace(f"_{os.getpid()}-", f"_{2**22 + 1}-"))
    sweep(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("age", "stays"), [(0, True), (7200, False)])
def test_files_of_a_writer_on_another_machine_are_removed_when_they_are_old(
    age: int, stays: bool, tmp_path: Path
) -> None:
    foreign = tmp_path / ".a.json.00000000_1-abc.part"
    foreign.touch()
    os.utime(foreign, (time.time() - age,) * 2)

    write_text(tmp_path / "a.json", socket.gethostname())

    assert foreign.exists() is stays
