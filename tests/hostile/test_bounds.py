"""Numbers and texts beyond their limits are refused before any computation."""

from __future__ import annotations

import time

import pytest

from satbench.attacks import attack_spec
from satbench.core.errors import SatbenchError
from satbench.core.limits import MOST_KEY_PARTS, MOST_TOML_BYTES, MOST_VALUES
from satbench.core.schema import parse_json, parse_toml
from satbench.core.threat import Length, Threat
from satbench.data import check_name
from satbench.models._factory import make_module
from satbench.networks.build import build_network, canonical_architecture
from satbench.recipes import load_recipe
from satbench.studies.crew import parse_workers


@pytest.mark.parametrize(
    "spec",
    [
        "pgd(step=1e-400)",
        "pgd(step=1e-40)",
        "pgd(step=1e999999999)",
        "pgd(steps=4294967296)",
        f"pgd(steps={'9' * 6000})",
        f"transfer(scales={10**30})",
        "pgd" + " " * 30_000 + "x",
        "pgd" + ".toml(" * 5_000,
    ],
)
def test_an_attack_parameter_beyond_its_limit_is_refused(spec: str) -> None:
    with pytest.raises(SatbenchError):
        attack_spec(spec)


@pytest.mark.parametrize(
    "spec", ["tiny(width=100000000)", "wide-resnet(depth=1000000000)", "small(blocks=2001)"]
)
def test_an_architecture_parameter_beyond_its_limit_is_refused(spec: str) -> None:
    with pytest.raises(SatbenchError, match="at most"):
        canonical_architecture(spec)


def test_a_network_with_too_many_parameters_is_refused_before_it_is_built() -> None:
    with pytest.raises(SatbenchError, match="parameters"):
        build_network("tiny(width=99999)", "relu", 10)


@pytest.mark.parametrize(
    "change",
    [{"learning_rate": float("inf")}, {"weight_decay": float("nan")}, {"epochs": 10**10}],
)
def test_a_setting_beyond_its_limit_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(SatbenchError, match="up to"):
        load_recipe("fmnist-sat", **change)


@pytest.mark.parametrize("eps", ["1e999999999", "1e-999999999", "1e-40", "9" * 5000])
def test_a_radius_or_length_beyond_its_limit_is_refused(eps: str) -> None:
    for read, text in ((Threat.parse, f"linf:{eps}"), (Length.parse, eps)):
        with pytest.raises(SatbenchError):
            read(text)


@pytest.mark.parametrize(
    "text", ["fashion-mnist@N", "imagefolder:here@crop=N", "imagefolder:here@N"]
)
def test_a_side_of_thousands_of_digits_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(SatbenchError, match=r"^expected "):
        check_name(text.replace("N", "9" * 6000))


@pytest.mark.parametrize("text", ["9" * 6000, "99999"])
def test_too_many_workers_are_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(SatbenchError, match=r"^expected --workers"):
        parse_workers(text)


@pytest.mark.parametrize("text", [".x:y", "..:y", "x.:y", ":y", "a b:c"])
def test_an_invalid_module_name_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(SatbenchError, match=r"^expected "):
        make_module(text, "--model PACKAGE.MODULE:FACTORY")


LONG = ".".join("a" * (MOST_KEY_PARTS + 1))


@pytest.mark.parametrize(
    "text",
    [
        "a." * (MOST_TOML_BYTES // 2 - 9) + "b = 1",
        f"{LONG} = 1",
        f"[{LONG}]",
        f"b = [1, {{{LONG} = 1}}]",
        LONG.replace("a", '"\\""').replace(".", " . ") + " = 1",
        LONG.replace("a", "'#'") + " = 1",
        f'b = [{{c = """x"""", {LONG} = 1}}]',
        f"b = [{{c = '''x'''', {LONG} = 1}}]",
    ],
)
def test_a_toml_key_of_too_many_parts_is_refused_before_it_is_parsed(text: str) -> None:
    began = time.process_time()
    with pytest.raises(SatbenchError, match="parts"):
        parse_toml(text, "suite", "a.toml")
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    "text",
    [
        f'b = "{LONG}"  # {LONG}\nc = 1.5',
        f"b = '''\n{LONG}\n'''",
        f'b = """\n{LONG} \\""" {LONG}\n"""\n# {LONG}',
        f"{LONG.removesuffix('.a')} = '{LONG}'",
    ],
)
def test_dots_in_a_toml_text_or_comment_are_accepted(text: str) -> None:
    assert parse_toml(text, "suite", "a.toml")


@pytest.mark.parametrize(
    "unit",
    [
        *('"', '"""', '"\\\\', "'''x''", '"".' * (MOST_KEY_PARTS - 1) + " "),
        *("[[a]]\n", "a = [[],", "a", "{"),
    ],
)
def test_malformed_toml_of_the_largest_size_is_refused_within_a_second(unit: str) -> None:
    began = time.process_time()
    with pytest.raises(SatbenchError):
        parse_toml(unit * (MOST_TOML_BYTES // len(unit)) + '"', "suite", "a.toml")
    assert time.process_time() - began < 1


@pytest.mark.parametrize("unit", ["1,", "[],", '{"a":1},'])
def test_a_json_file_of_too_many_values_is_refused_before_it_is_parsed(unit: str) -> None:
    text = "[" + unit * MOST_VALUES + "1]"
    began = time.process_time()
    with pytest.raises(SatbenchError, match="values"):
        parse_json(text, "record", "a.json")
    assert time.process_time() - began < 0.5
