from __future__ import annotations

import subprocess
import sys

import pytest

from satbench.core.errors import UnknownNameError
from satbench.core.registry import Entry, Registry

LINE = Entry("line", "fractions:Fraction", "a line")
CURVE = Entry("curve", "decimal:Decimal", "a curve")


def test_names_come_in_the_order_they_were_registered() -> None:
    assert Registry("shape", (LINE, CURVE)).names() == ["line", "curve"]


def test_a_name_registered_twice_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"^shape 'line' is registered twice$"):
        Registry("shape", (LINE, CURVE, LINE))


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"^unknown shape 'lime': did you mean 'line'\?$"):
        Registry("shape", (LINE, CURVE))["lime"]


def test_a_name_like_no_other_lists_those_known() -> None:
    with pytest.raises(UnknownNameError, match=r"^unknown shape 'xyz': known: curve, line$"):
        Registry("shape", (LINE, CURVE))["xyz"]


def test_an_empty_registry_says_that_it_knows_none() -> None:
    with pytest.raises(UnknownNameError, match=r"^unknown shape 'line': known: none$"):
        Registry("shape")["line"]


def test_membership_and_iteration_see_the_entries() -> None:
    shapes = Registry("shape", (LINE, CURVE))

    assert (list(shapes), "line" in shapes, "lime" in shapes) == ([LINE, CURVE], True, False)


def test_an_entry_loads_what_it_names() -> None:
    from fractions import Fraction

    assert Registry("shape", (LINE,))["line"].load() is Fraction


def test_core_imports_neither_torch_nor_another_room() -> None:
    code = """
import pkgutil, sys, satbench.core
for module in pkgutil.iter_modules(satbench.core.__path__):
    __import__(f"satbench.core.{module.name}")
rooms = {".".join(name.split(".")[:2]) for name in sys.modules if name.startswith("satbench.")}
print("torch" in sys.modules, sorted(rooms))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "False ['satbench.core']\n"


def test_the_plugin_of_a_spec_is_known_without_importing_it() -> None:
    registry = Registry("odd", (LINE, Entry("theirs", "no.such:thing", "", plugin="some-plugin")))

    expected = {"line": "", "theirs(a=1)": "some-plugin", "unknown": "", "a b:c": ""}
    assert expected == {spec: registry.plugin_of(spec) for spec in expected}
