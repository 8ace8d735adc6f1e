"""Files into dataclasses: everything that is wrong is one sentence with file and field."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from satbench.core.errors import SatbenchError
from satbench.core.schema import convert, parse_json, read_text


@dataclass(frozen=True)
class Inner:
    x: int
    y: float = 0.5


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner | None = None
    many: list[Inner] = field(default_factory=list)
    named: dict[str, str] = field(default_factory=dict)


def test_values_become_a_dataclass_with_its_defaults() -> None:
    made = convert({"name": "a", "inner": {"x": 1}, "named": {"k": "v"}}, Outer, "thing", "f")

    assert Outer("a", Inner(1), [], {"k": "v"}) == made


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "the thing f is wrong: missing field name"),
        ({"name": 1}, "name: expected str, got int"),
        ({"name": "a", "inner": {"x": "1"}}, "inner.x: expected int, got str"),
        ({"name": "a", "inner": {"x": True}}, "inner.x: expected int, got bool"),
        ({"name": "a", "many": [{"x": 1}, {"x": 1.5}]}, r"many\[1\].x: expected int, got float"),
        ({"name": "a", "many": [{"x": 1}, {"x": 1, "z": 2}]}, r"not known, many\[1\].z$"),
        ({"name": "a", "inner": {"x": 1, "z": 2}}, "not known, inner.z$"),
        ({"name": "a", "surplus": 1}, "not known, surplus$"),
        ({"name": "a", "named": {"k": 1}}, r"named\[...\]: expected str, got int"),
        ([], "expected object, got array"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(values: object, said: str) -> None:
    with pytest.raises(SatbenchError, match=said):
        convert(values, Outer, "thing", "f")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": NaN}', "NaN is not a JSON number"),
        ('{"a": -Infinity}', "-Infinity is not a JSON number"),
        ('{"a": 1, "a": 2}', "the name 'a' is given twice"),
        ("[" * 100_000, "nested too deep|is not JSON"),
        ("9" * 6000, "is not JSON"),
        ('{"a": "\0"}', "is not JSON"),
        ("", "is not JSON"),
    ],
)
def test_text_that_is_not_strict_json_is_refused(text: str, said: str) -> None:
    with pytest.raises(SatbenchError, match=said):
        parse_json(text, "thing", "f")


def test_a_file_that_is_no_text_or_missing_or_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    for name, said in (("bytes", "not text"), ("none", "missing"), (".", "cannot be read")):
        with pytest.raises(SatbenchError, match=said):
            read_text(tmp_path / name, "thing")
