"""Shell completion of names.  Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click
from click.shell_completion import CompletionItem

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def models(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the names of the zoo and of the user's models, else files."""
    from satbench.model_zoo.card import user_names, zoo_names
    from satbench.models import MODELS

    return _offered([*zoo_names(), *user_names(), *MODELS.names()], incomplete, files=True)


def attacks(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the attacks and suites, with pgd-20 and pgd-50, else files: a suite can be a file."""
    from satbench.attacks import ATTACKS

    return _offered(["pgd-20", "pgd-50", *ATTACKS.names()], incomplete, files=True)


def datasets(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the data sets; a name that needs a path ends with a colon."""
    from satbench.data import AT_A_PATH, DATASETS

    names = [f"{name}:" if name in AT_A_PATH else name for name in DATASETS.names()]
    return _offered(names, incomplete)


def recipes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the recipes, else files: a recipe can be a file."""
    from satbench.recipes import recipe_names

    return _offered(recipe_names(), incomplete, files=True)


def activations(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer the activations."""
    from satbench.networks.registry import ACTIVATIONS

    return _offered(ACTIVATIONS.names(), incomplete)


def architectures(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer the architectures."""
    from satbench.networks.registry import ARCHITECTURES

    return _offered(ARCHITECTURES.names(), incomplete)


def presets(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the presets for files of weights."""
    from satbench.model_zoo.presets import PRESETS

    return _offered(PRESETS, incomplete)


def studies(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the studies."""
    from satbench.studies import STUDIES

    return _offered(STUDIES.names(), incomplete)


def boards(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the boards."""
    from satbench.board.definition import board_definitions

    return _offered([one.name for one in board_definitions()], incomplete)


def _offered(names: Iterable[str], incomplete: str, *, files: bool = False) -> list[CompletionItem]:
    found = [CompletionItem(name) for name in names if name.startswith(incomplete)]
    return found or ([CompletionItem(incomplete, type="file")] if files else [])
