"""Suites as files: those that ship, and a user's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from satbench.attacks import (
    ATTACKS,
    attack_spec,
    check_attack_name,
    default_spec,
    parse_attack,
    suite_digests,
)
from satbench.attacks.defaults import shipped_defaults
from satbench.attacks.suites.catalogue import catalogue_files
from satbench.attacks.suites.suite import parse_suite
from satbench.attacks.suites.suite_file import (
    digest_of,
    older_versions,
    read_suite,
    shipped_suites,
)
from satbench.core.errors import SatbenchError

TEXT = """
schema = 1
summary = "mine"

[parameters]
version = ["1", "2"]
steps = { default = 5, least = 2 }
source = "none"

[[parts]]
name = "first"
attack = "pgd(steps={steps})"

[[parts]]
name = "weak"
attack = "apgd-ce(steps=3)"
weakest = 0.5

[[parts]]
name = "lent"
attack = "transfer(source={source})"
unless = { source = "none" }
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my suite.toml"
    path.write_text(TEXT)
    return path


def test_a_file_is_an_attack_whose_name_has_its_digest(file: Path) -> None:
    name = f"suite.my-suite-{digest_of(read_suite(file))[:12]}"
    spec = attack_spec(f"{file}(steps=7)")
    stages = parse_suite([f"{file}(steps=7)"])

    assert f"{name}(version=1,steps=7,source=none)" == spec
    assert [(spec, "first", 7), (spec, "weak", 3)] == [
        (stage.spec, stage.part, getattr(stage.attack, "attack", stage.attack).steps)
        for stage in stages
    ]
    assert {name: digest_of(read_suite(file))} == suite_digests([spec])


def test_a_part_made_of_others_gives_one_part_each(file: Path) -> None:
    names = [name for name, _ in parse_attack(f"{file}(source=fmnist-pgd2-tiny-relu-s100)").parts()]

    assert ["first", "weak"] == names[:2]
    assert all(name.startswith("lent/") for name in names[2:])
    assert len(names) > 2


def test_the_digest_is_of_what_a_suite_does_and_not_of_its_words(
    file: Path, tmp_path: Path
) -> None:
    other, worded = tmp_path / "other.toml", tmp_path / "worded.toml"
    other.write_text(TEXT.replace("weakest = 0.5", "weakest = 0.25"))
    worded.write_text(TEXT.replace('"mine"', '"another summary"'))
    first, second, third = (digest_of(read_suite(path)) for path in (file, other, worded))

    assert first == third != second


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("schema = 1", "schema = 2", "schema: expected 1, got 2"),
        ("weakest = 0.5", "weakest = 1.5", r"parts\[1\] \(weak\): expected weakest, sample"),
        ("weakest = 0.5", "late = 0.5", r"parts\[1\] \(weak\): late is a share beyond that of"),
        ("weakest = 0.5", 'weakest = "all"', r"parts\[1\].weakest: expected float, got str"),
        ("weakest = 0.5", "weekest = 0.5", r"not known, parts\[1\].weekest"),
        ("{steps}", "{stops}", "the suite has no parameter 'stops'"),
        ('"weak"', '"first"', "of different names"),
        (
            'version = ["1", "2"]',
            "version = []",
            "parameters.version: expected a name and a default",
        ),
        ('summary = "mine"', 'summary = "mine"\nnorms = ["l3"]', r"norms\[0\]: invalid enum"),
    ],
)
def test_a_wrong_file_is_refused_with_file_and_field(
    file: Path, old: str, new: str, said: str
) -> None:
    file.write_text(TEXT.replace(old, new))

    with pytest.raises(SatbenchError, match=said):
        read_suite(file)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("(steps=1)", "expected steps of 2 or more, got 1"),
        ("(version=3)", "expected one of 1, 2, got '3'"),
        ("(stops=3)", "unknown parameter of suite.my-suite-"),
    ],
)
def test_a_wrong_parameter_is_refused(file: Path, text: str, said: str) -> None:
    with pytest.raises(SatbenchError, match=said):
        parse_attack(f"{file}{text}")


def test_a_part_that_is_no_attack_is_named(file: Path) -> None:
    file.write_text(TEXT.replace("apgd-ce(steps=3)", "apgd-cee"))

    with pytest.raises(SatbenchError, match="part weak: unknown attack 'apgd-cee'"):
        parse_attack(str(file))


def test_a_missing_file_is_said_before_torch_is_imported(tmp_path: Path) -> None:
    with pytest.raises(SatbenchError, match=r"expected a suite at .*none\.toml, which is missing"):
        check_attack_name(str(tmp_path / "none.toml"))


def test_the_committed_list_of_suites_and_the_defaults_of_attacks_are_up_to_date() -> None:
    for path, text in catalogue_files().items():
        assert text == path.read_text(encoding="utf-8"), "run satbench attacks --catalogue"


@pytest.mark.parametrize("name", [one.name for one in ATTACKS if not one.plugin])
def test_a_default_that_was_read_is_that_of_the_attack(name: str) -> None:
    assert name in shipped_defaults()
    assert default_spec(name) == attack_spec(name)


def test_an_attack_that_no_file_knows_is_asked_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("satbench.attacks.registry.shipped_defaults", dict)

    assert default_spec("square") == attack_spec("square")


@pytest.mark.parametrize("name", shipped_suites())
def test_a_shipped_suite_has_words_for_people_and_parts(name: str) -> None:
    suite = read_suite(shipped_suites()[name])

    assert all((suite.summary, suite.source, suite.cost, suite.use, suite.parameters))
    assert parse_attack(name).parts()


# Older versions


def test_an_older_version_of_a_suite_keeps_its_digest() -> None:
    old, now = "fast(version=2,source=none)", attack_spec("fast(source=none)")
    digest = "cefefa7f1b2dd029f4c2c55e6e7fb5521681dab733e63c9c843ab772817b0231"

    assert {"fast": digest} == suite_digests([old])
    assert suite_digests([now])["fast"] not in ("", digest)
    assert old != now


@pytest.mark.parametrize("name", shipped_suites())
def test_every_older_version_has_a_file_with_the_parameters_of_the_current_one(name: str) -> None:
    path = shipped_suites()[name]
    versions = read_suite(path).parameters.get("version")

    for version, old in older_versions(path).items():
        assert [version] == old.parameters["version"]
        assert old.parameters.keys() == read_suite(path).parameters.keys()
    if isinstance(versions, list):
        assert [*older_versions(path)] == versions[1:]


@pytest.mark.parametrize(
    ("versions", "older", "said"),
    [
        ('["2", "1"]', '"3" = "old.toml"', r"older\.3: expected a value of the parameter version"),
        ('["2", "1"]', '"2" = "old.toml"', r"older\.2: expected a value of the parameter version"),
        ('["2", "1"]', '"1" = "old.toml"', "older: expected no older versions in a suite of your"),
    ],
)
def test_older_versions_that_are_none_and_those_of_an_own_suite_are_refused(
    file: Path, versions: str, older: str, said: str
) -> None:
    (file.parent / "old.toml").write_text(TEXT)
    text = TEXT.replace('["1", "2"]', versions).replace(
        "[[parts]]", f"[older]\n{older}\n[[parts]]", 1
    )
    file.write_text(text)

    with pytest.raises(SatbenchError, match=said):
        parse_attack(str(file))
