"""Random texts of specs, radii, settings and files, and the functions that read them."""

from __future__ import annotations

import contextlib
import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from satbench.attacks import attack_spec
from satbench.attacks.suites.suite_file import read_suite
from satbench.board.definition import read_definition
from satbench.core.errors import SatbenchError
from satbench.core.threat import Length, Threat
from satbench.model_zoo.card import parse_card
from satbench.networks.build import canonical_activation, canonical_architecture
from satbench.recipes import load_recipe, parse_overrides
from satbench.recipes.values import show_override
from satbench.records.record import parse_record

from .kinds_of_files import KINDS as FILES
from .odd_values import places

_numbers = st.one_of(
    st.sampled_from(
        ["1e999999999", "1e-400", "1e-999999999", "inf", "nan", "-0", "0", "1/0", "9" * 5000]
    ),
    st.integers().map(str),
    st.floats().map(str),
    st.fractions().map(str),
    st.text("0123456789.e+-/_ ", max_size=30),
)
_words = st.one_of(
    st.sampled_from(["steps", "step", "eps/4", "restarts", "width", "depth", "source", "true"]),
    _numbers,
    st.text(max_size=20),
)
_names = st.sampled_from(
    [
        "pgd",
        "pgd-10",
        "square",
        "fast",
        "transfer",
        "apgd-t",
        "tiny",
        "small",
        "wide-resnet",
        "he-cifar-resnet",
        "softplus",
        "leaky-relu",
        "celu",
        "cosine-pgd",
        "autoattack",
    ]
)
_specs = st.one_of(
    st.tuples(_names, st.lists(st.tuples(_words, _words), max_size=3)).map(
        lambda two: f"{two[0]}({','.join(f'{k}={v}' for k, v in two[1])})"
    ),
    st.tuples(_names, st.integers(0, 40_000)).map(lambda two: two[0] + " " * two[1] + "x"),
    st.text(max_size=60),
    _names,
)
_keys = st.sampled_from(
    [
        "epochs",
        "learning_rate",
        "attack",
        "architecture",
        "threat",
        "milestones",
        "nesterov",
        "crop",
    ]
)
_plain = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9)),
    lambda one: st.one_of(st.lists(one, max_size=4), st.dictionaries(st.text(max_size=9), one)),
    max_leaves=12,
)
_json = st.one_of(
    st.dictionaries(
        st.sampled_from(["schema", "kind", "model", "name", "training", "verdicts", "seed"]), _plain
    ).map(lambda values: json.dumps({"schema": 1, **values})),
    st.text(max_size=80),
    st.integers(0, 200_000).map(lambda depth: '{"schema": ' + "[" * depth),
    st.tuples(st.sampled_from(["[],", "1,", '{"a":1},', '"",']), st.integers(0, 10_000)).map(
        lambda two: '{"schema": 2, "verdicts": [' + two[0] * two[1] + "1]}"
    ),
)
_toml = st.one_of(
    st.text(max_size=80),
    st.tuples(_keys, _numbers).map(lambda two: f"{two[0]} = {two[1]}"),
    st.tuples(_keys, st.integers(0, 20_000)).map(lambda two: f"{two[0]} = " + "[" * two[1]),
    st.integers(0, 20_000).map(lambda depth: "a." * depth + "b = 1"),
    st.tuples(
        st.lists(
            st.sampled_from(
                ["[a.b]\n", "[[a]]\n", "a = {", "}", "a.", "= [", "]", '"".', '"""', "''", "#\n"]
            ),
            min_size=1,
            max_size=4,
        ),
        st.integers(0, 20_000),
    ).map(lambda two: "".join(two[0]) * two[1]),
)


_odd = st.one_of(_plain, _numbers, _words, _specs)


def _changed(original: Callable[[], str]) -> st.SearchStrategy[str]:
    """Return texts of a file with some fields changed, removed, or copied from elsewhere."""
    text = original()
    values = json.loads(text)
    paths = list(places(values))
    kinds = st.sampled_from(["set", "remove", "move"])
    changes = st.lists(
        st.tuples(kinds, st.sampled_from(paths), _odd, st.sampled_from(paths)),
        min_size=1,
        max_size=4,
    )
    return changes.map(lambda changes: _with_changes(text, changes))


def _changed_later(original: Callable[[], str]) -> st.SearchStrategy[str]:
    """Do the same as `_changed`, but read no file before a text is drawn."""

    def strategy() -> st.SearchStrategy[str]:
        return _changed(original)

    return st.deferred(strategy)


def _with_changes(
    text: str, changes: list[tuple[str, tuple[str | int, ...], object, tuple[str | int, ...]]]
) -> str:
    values = json.loads(text)
    for kind, path, odd, other in changes:
        with contextlib.suppress(LookupError, TypeError):  # an earlier change removed this place
            new = copy.deepcopy(_at(values, other)) if kind == "move" else odd
            there = _at(values, path[:-1])
            if kind == "remove":
                del there[path[-1]]
            else:
                there[path[-1]] = new
    return json.dumps(values)


def _at(values: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        values = values[step]
    return values


def _reads_back(read: Callable[[str], object]) -> Callable[[str, Path], None]:
    def check(text: str, folder: Path) -> None:
        once = str(read(text))
        assert str(read(once)) == once

    return check


def _setting(text: str, folder: Path) -> None:
    for key, value in parse_overrides([text]).items():
        assert parse_overrides([show_override(key, value)]) == {key: value}
        load_recipe("fmnist-sat", **{key: value})


def _in_file(read: Callable[[Path], object]) -> Callable[[str, Path], None]:
    def check(text: str, folder: Path) -> None:
        read_suite.cache_clear()
        path = folder / "file.toml"
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        read(path)

    return check


def _as_each_kind_of_toml(text: str, folder: Path) -> None:
    """Read a text as a suite, a board and a recipe; raise SatbenchError if it is none of them."""
    told: list[SatbenchError] = []
    for read in (read_suite, read_definition, lambda path: load_recipe(str(path))):
        try:
            _in_file(read)(text, folder)
        except SatbenchError as error:
            told.append(error)
    if len(told) == 3:
        raise told[0]


KINDS: dict[str, tuple[st.SearchStrategy[str], Callable[[str, Path], None]]] = {
    "attack": (_specs, _reads_back(attack_spec)),
    "network": (_specs, _reads_back(canonical_architecture)),
    "activation": (_specs, _reads_back(canonical_activation)),
    "threat": (_numbers.map(lambda number: f"linf:{number}"), _reads_back(Threat.parse)),
    "length": (st.one_of(_numbers, _words), _reads_back(Length.parse)),
    "setting": (st.tuples(_keys, st.one_of(_words, _specs)).map("=".join), _setting),
    "record": (_json, lambda text, _: str(parse_record(text, "a test")) and None),
    "card": (_json, lambda text, _: str(parse_card(text, "a test")) and None),
    "toml": (_toml, _as_each_kind_of_toml),
}
KINDS |= {
    f"changed {name}": (_changed_later(original), read) for name, (original, read) in FILES.items()
}


def fuzz(kind: str, folder: Path, inputs: int) -> dict[str, int]:
    """Read random texts of a kind; return how many were refused in one sentence, and how many read.

    Fail for any other error, and for a text that takes more than a second of processor time on
    each reading; a single slow reading may be due to the garbage collector.
    """
    texts, check = KINDS[kind]
    counts = {"inputs": 0, "refused": 0, "read": 0}

    @settings(
        max_examples=inputs,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(texts)
    def run(text: str) -> None:
        for _ in range(3):
            began = time.process_time()
            refused = _is_refused(check, text, folder)
            if time.process_time() - began < 1:
                break
        else:
            raise AssertionError(f"more than a second for {text[:80]!r}")
        counts["inputs"] += 1
        counts["refused" if refused else "read"] += 1

    run()
    return counts


def _is_refused(check: Callable[[str, Path], None], text: str, folder: Path) -> bool:
    try:
        check(text, folder)
    except SatbenchError:
        return True
    return False
