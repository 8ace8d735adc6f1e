from __future__ import annotations

import json

from click.testing import CliRunner

from satbench.cli import cli
from satbench.model_zoo.card import board_names, zoo_names


def _lines(*arguments: str) -> list[str]:
    return CliRunner().invoke(cli, ["models", *arguments]).output.splitlines()


def test_the_board_leaves_out_just_the_benchmarks_surrogates() -> None:
    left_out = set(zoo_names()) - set(board_names())

    assert left_out == {
        "fmnist-pgd2-tiny-relu-s100",
        "fmnist-pgd2-tiny-silu-s100",
        "fmnist-sat-tiny-parametric-softplus-s100",
        "fmnist-standard-tiny-relu-s100",
    }


def test_names_are_printed_one_a_line() -> None:
    assert zoo_names() == _lines("--names")


def test_names_of_the_board_alone() -> None:
    assert board_names() == _lines("--board", "--names")


def test_names_as_json() -> None:
    assert board_names() == json.loads("".join(_lines("--board", "--names", "--json")))


def test_the_table_of_the_board_has_no_surrogate() -> None:
    assert not any("-s100" in line for line in _lines("--board"))
