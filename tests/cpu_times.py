"""A plug-in of pytest: CPU seconds of each test, by folder, by file, by test.

`PYTHONPATH=tests pytest -n 2 -p cpu_times`.  Wall-clock times (`--durations`) say little on a
machine that does other work too.  Processes that a test starts and waits for are counted.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

_PREFIX = "cpu seconds of "
_SPENT: Counter[str] = Counter()
_PROCESSES: list[float] = []


def _now() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    yield from _timed(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    yield from _timed(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    yield from _timed(item)


def _timed(item: pytest.Item) -> Iterator[None]:
    begin = _now()
    try:
        yield
    finally:
        item.user_properties.append((_PREFIX, _now() - begin))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "teardown":
        for name, value in report.user_properties:
            if name == _PREFIX:
                _SPENT[report.nodeid] += float(value)


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["cpu"] = _now()


def pytest_testnodedown(node: object) -> None:
    _PROCESSES.append(float(getattr(node, "workeroutput", {}).get("cpu", 0)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    say = terminalreporter.write_line
    folders: Counter[str] = Counter()
    files: Counter[str] = Counter()
    for test, seconds in _SPENT.items():
        file = test.partition("::")[0]
        folders[str(Path(file).parent)] += seconds
        files[file] += seconds
    for title, times, least in (
        ("folders", folders, 0.1),
        ("files", files, 1.0),
        ("tests", _SPENT, 0.1),
    ):
        terminalreporter.section(f"CPU seconds of {title}")
        for name, seconds in times.most_common():
            if seconds >= least:
                say(f"{seconds:8.2f}  {name}")
    own = os.times()
    processes = [own.user + own.system, *_PROCESSES] if _PROCESSES else [_now()]
    say(f"tests {sum(_SPENT.values()):.1f} CPU s; processes {sum(processes):.1f} CPU s: ")
    say("  " + ", ".join(f"{seconds:.1f}" for seconds in processes))
