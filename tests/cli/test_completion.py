"""Shells complete names in every option and argument that takes one."""

from __future__ import annotations

import os
import subprocess
import sys

import click
import pytest
from command_line import CONTEXTS

BEGINNINGS = {
    "--model": "fmnist-sat-tiny-silu-s",
    "--source": "fmnist-sat-tiny-silu-s",
    "--target": "fmnist-sat-tiny-silu-s",
    "--from": "fmnist-sat-tiny-silu-s",
    "--attack": "autoatt",
    "--trained-with": "autoatt",
    "--recipe": "fmnist-s",
    "--dataset": "fash",
    "--eval-dataset": "fash",
    "--activation": "sil",
    "--arch": "tin",
    "--preset": "trad",
    "--board": "fashion-mnist-linf-0.",
}
"""Options that take a name, with the beginning of one."""

ARGUMENTS = {
    "satbench eval": "fmnist-sat-tiny-silu-s",
    "satbench curve": "fmnist-sat-tiny-silu-s",
    "satbench certify": "fmnist-sat-tiny-silu-s",
    "satbench export": "fmnist-sat-tiny-silu-s",
    "satbench models show": "fmnist-sat-tiny-silu-s",
    "satbench leaderboard fill": "fashion-mnist-linf-0.",
    "satbench study": "activ",
}
"""Commands whose first argument is a name, with the beginning of one."""


def offered(context: click.Context, param: click.Parameter, beginning: str) -> list[str]:
    return [item.value for item in param.shell_complete(context, beginning)]


def test_every_option_that_takes_a_name_completes_it() -> None:
    count, without = 0, []
    for path, context in CONTEXTS.items():
        for option in context.command.params:
            names = BEGINNINGS.keys() & set(option.opts)
            if not names or getattr(option, "is_flag", False):
                continue
            count += 1
            (name,) = names
            beginning = BEGINNINGS[name]
            found = offered(context, option, beginning)
            if not [one for one in found if one.startswith(beginning) and one != beginning]:
                without.append(f"{path} {name}: {found}")

    assert without == []
    assert count > 50


@pytest.mark.parametrize("path", ARGUMENTS)
def test_every_argument_that_takes_a_name_completes_it(path: str) -> None:
    context, beginning = CONTEXTS[path], ARGUMENTS[path]
    argument = next(one for one in context.command.params if isinstance(one, click.Argument))
    found = offered(context, argument, beginning)

    assert [one for one in found if one.startswith(beginning) and one != beginning]


def test_every_argument_that_is_no_path_is_known_here() -> None:
    texts = {
        path
        for path, context in CONTEXTS.items()
        for one in context.command.params
        if isinstance(one, click.Argument) and one.type == click.STRING
    }

    assert texts == ARGUMENTS.keys()


def test_a_shell_gets_the_names_without_torch() -> None:
    asked = {"COMP_WORDS": "satbench train --activation sil", "COMP_CWORD": "3"}
    said = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "satbench"],
        env={**os.environ, **asked, "_SATBENCH_COMPLETE": "bash_complete"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert said.stdout == "plain,silu\n"
    assert " torch\n" not in said.stderr
