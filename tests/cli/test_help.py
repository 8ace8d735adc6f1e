"""The help of every command: examples that can be run, options under headings, 80 columns."""

from __future__ import annotations

import shlex

import click
import pytest
from command_line import CONTEXTS

from satbench.cli import cli
from satbench.cli.shell.commands import GROUPS, Command

ALL = pytest.mark.parametrize("path", CONTEXTS)


def examples_of(path: str) -> list[str]:
    """Return the commands among the examples; a line may go on in the next one."""
    text = getattr(CONTEXTS[path].command, "examples", "").replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip()]


@ALL
def test_every_help_ends_with_examples_of_the_command(path: str) -> None:
    shown = CONTEXTS[path].get_help().partition("\nExamples:\n")[2]
    commands = examples_of(path)

    assert len([line for line in shown.splitlines() if line.startswith("  satbench ")]) >= 1
    assert any(line.startswith(path) for line in commands)


@ALL
def test_every_example_is_a_command_line_that_can_be_read(path: str) -> None:
    for line in examples_of(path):
        words = shlex.split(line, comments=True)[1:]
        command: click.Command = cli
        context = click.Context(cli)
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            name = words.pop(0)
            found = command.get_command(context, name)
            assert found is not None, name
            command = found
        parser = command.make_parser(click.Context(command))
        values, left, _ = parser.parse_args(args=words)
        arguments = [one for one in command.params if isinstance(one, click.Argument)]
        needed = [one.name for one in command.params if one.required and one.opts[0][:2] == "--"]

        assert left == []
        assert [one.name for one in arguments if one.required and not values.get(one.name)] == []
        assert [name for name in needed if name not in values] == []


@ALL
def test_no_line_of_a_help_is_longer_than_a_terminal_is_wide(path: str) -> None:
    assert [line for line in CONTEXTS[path].get_help().splitlines() if len(line) > 80] == []


@ALL
def test_no_option_is_lost_among_the_headings(path: str) -> None:
    shown = CONTEXTS[path].get_help()
    options = [one for one in CONTEXTS[path].command.params if isinstance(one, click.Option)]

    assert [one.opts for one in options if not any(f" {name}" in shown for name in one.opts)] == []


def test_the_options_of_eval_are_under_every_heading_in_its_order() -> None:
    lines = CONTEXTS["satbench eval"].get_help().splitlines()
    found = [line[:-1] for line in lines if line and line[0] != " " and line.endswith(":")]

    assert found == [*GROUPS, "Examples"]


def test_a_command_of_few_options_needs_no_headings() -> None:
    @click.option("--seed", help="A seed.")
    @click.command(cls=Command)
    def small(seed: str) -> None:
        pass

    shown = click.Context(small).get_help()

    assert "Options:" in shown
    assert "Run:" not in shown


SAME = {
    "--threads": ("eval", "curve", "transfer", "train", "study", "verify", "recheck", "challenge"),
    "--device": ("eval", "curve", "transfer", "train", "study", "verify", "recheck", "demo"),
    "--batch-size": ("eval", "curve", "transfer", "recheck", "challenge", "train"),
    "--zoo": ("eval", "curve", "transfer", "train", "study", "verify", "challenge", "export"),
    "--data-dir": ("eval", "curve", "transfer", "train", "study", "verify", "images", "datasets"),
    "--seed": ("eval", "curve", "transfer", "train", "recheck", "challenge"),
    "--out": ("eval", "curve", "transfer", "train", "images", "merge", "export", "plot", "certify"),
    "--quiet": ("eval", "curve", "transfer", "train", "study", "verify", "challenge", "demo"),
    "--limit": ("eval", "curve", "transfer", "study", "certify"),
    "--n-examples": ("eval", "curve", "transfer", "study", "certify"),
}


@pytest.mark.parametrize("option", SAME)
def test_the_same_option_is_wherever_it_means_something(option: str) -> None:
    without = [
        name
        for name in SAME[option]
        if not any(option in one.opts for one in CONTEXTS[f"satbench {name}"].command.params)
    ]

    assert without == []


@ALL
def test_every_command_that_prints_a_result_can_print_json(path: str) -> None:
    command = CONTEXTS[path].command
    if path in ("satbench", "satbench leaderboard"):
        pytest.skip("a group without a result of its own")

    assert any("--json" in one.opts for one in command.params)


@pytest.mark.parametrize("name", ["eval", "curve", "transfer"])
def test_runs_share_one_list_of_options(name: str) -> None:
    def shared(command: str) -> list[tuple[object, ...]]:
        options = CONTEXTS[f"satbench {command}"].command.params
        names = {*GROUPS["Run"], *GROUPS["Images"], *GROUPS["Output"]}
        only_eval = {"--allow-training-data", "--config", "--until-interval", "--out"}
        only_eval |= {"--no-diagnosis", "--shard", "--checkpointing", "--dry-run", "--price"}
        return [
            (one.opts, one.type.to_info_dict(), str(one.default))
            for one in options
            if names & set(one.opts) and not only_eval & set(one.opts)
        ]

    assert shared(name) == shared("eval")


@ALL
def test_an_empty_path_is_refused_wherever_a_path_is_asked_for(path: str) -> None:
    context = CONTEXTS[path]
    for one in context.command.params:
        if isinstance(one.type, click.Path):
            with pytest.raises(click.BadParameter, match="expected a path, got an empty text"):
                one.type.convert("", one, context)
