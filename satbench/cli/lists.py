"""The commands that list what there is: `satbench attacks`, `activations`, `datasets`, …"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stderr
from io import StringIO
from pathlib import Path

import click

from satbench.cli import options
from satbench.cli.shell.commands import command
from satbench.core.registry import Registry
from satbench.core.text.terminal import tell


@command(
    examples="""
    satbench attacks
    satbench attacks --json
    """,
)
@click.option(
    "--catalogue", is_flag=True, help="Write attacks/README.md and defaults.json, in a checkout."
)
@click.option("--check", is_flag=True, help="With --catalogue: exit 1 if it is out of date.")
@options.as_json
def attacks(catalogue: bool, check: bool, as_json: bool) -> None:
    """List the attacks, with the defaults of their parameters and where they were published."""
    from satbench.attacks import ATTACKS, default_spec
    from satbench.core.errors import SatbenchError

    if catalogue:
        write_catalogue(check)
        return

    rows, faults = [], list(ATTACKS.faults)
    for entry in ATTACKS:
        try:
            defaults = default_spec(entry.name)
        except SatbenchError as error:  # list the other attacks when a plug-in is broken
            faults.append(str(error))
            continue
        about = {"what": entry.summary, "source": entry.source}
        rows.append({"name": entry.name, "defaults": defaults, **about})
    for fault in faults:
        tell(f"satbench: {fault}", err=True)
    show_rows(rows, as_json)
    if not as_json:
        tell(
            "\npgd-K is pgd(steps=K).  The SAT paper uses pgd-200 with a step of 1/255 at\n"
            "eps 4/255, that is eps/4, the default step (Xie et al., 2020, arXiv:2006.14536):\n"
            "  satbench eval --eps 4/255 --attack 'pgd-200(step=1/255,keep=last)' …"
        )


def write_catalogue(check: bool) -> None:
    """Write the list of suites and the defaults of attacks; with `check`, exit 1 if out of date."""
    from satbench.attacks.suites.catalogue import catalogue_files
    from satbench.core.files import write_text

    for path, text in catalogue_files().items():
        if not check:
            write_text(path, text)
            tell(f"wrote {path}")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            tell(f"satbench: out of date: {path}; run satbench attacks --catalogue", err=True)
            raise SystemExit(1)


@command(
    examples="""
    satbench datasets
    satbench datasets --get cifar10
    satbench datasets --data-dir /data --json
    """,
)
@click.option(
    "--get",
    "wanted",
    multiple=True,
    metavar="NAME",
    type=click.Choice(["cifar10", "cifar100"]),
    help="Download cifar10 or cifar100 into the data folder, and print the digest of each split. "
    "May be given several times.",
)
@options.data_dir
@options.how_to_tell
def datasets(wanted: tuple[str, ...], data_dir: Path | None, as_json: bool, quiet: bool) -> None:
    """List the data sets, and say which of them are on this machine.

    NAME@SIDE is a data set resized, such as fashion-mnist@20.
    """
    from satbench.data.folders import data_folder
    from satbench.data.present import presence_of

    folder = data_folder(data_dir)
    if wanted:
        _get(wanted, folder, as_json, quiet)
        return
    from satbench.data import DATASETS, SIDES

    for fault in DATASETS.faults:
        tell(f"satbench: {fault}", err=True)
    rows: list[dict[str, object]] = []
    for entry in DATASETS:
        presence = presence_of(entry.name, folder)
        about = {"name": entry.name, "what": entry.summary, "source": entry.source}
        rows.append({**about, "present": presence.is_present, "where": presence.where})
    if as_json:
        tell(json.dumps(rows, indent=2))
        return
    shown = [{key: str(row[key]) for key in ("name", "what", "source", "where")} for row in rows]
    show_rows(shown, as_json)
    tell(
        f"\nNAME@SIDE is a data set with its images resized to SIDE×SIDE, {SIDES[0]} to "
        f"{SIDES[-1]} pixels:\n"
        "  satbench train --recipe fmnist-sat --set dataset=fashion-mnist@20"
    )


def _get(wanted: Sequence[str], folder: Path, as_json: bool, quiet: bool) -> None:
    from satbench.data.present import download

    told = []
    for name in dict.fromkeys(wanted):
        with redirect_stderr(StringIO()) if quiet else nullcontext():  # torchvision's own bar
            digests = download(name, folder)
        told.append({"name": name, "folder": str(folder), "digests": digests})
        if not as_json:
            for split, digest in digests.items():
                tell(f"{name}, {split}: {digest}")
            tell(f"{name} is in {folder}, checked against the published MD5s")
    if as_json:
        tell(json.dumps(told, indent=2))


@command(
    examples="""
    satbench recipes
    satbench train --recipe fmnist-sat
    """,
)
@options.as_json
def recipes(as_json: bool) -> None:
    """List the training recipes."""
    from satbench.recipes import recipe_names, recipe_summary

    show_rows([{"name": name, "what": recipe_summary(name)} for name in recipe_names()], as_json)


@command(
    examples="""
    satbench activations
    satbench train --recipe fmnist-sat --activation 'celu(alpha=2)'
    """,
)
@options.as_json
def activations(as_json: bool) -> None:
    """List the activations, with their formulas and where they were published."""
    from satbench.networks.registry import ACTIVATIONS

    _show_registry(ACTIVATIONS, as_json)


@command(
    examples="""
    satbench architectures
    satbench train --recipe fmnist-sat --arch 'tiny(width=12)'
    """,
)
@options.as_json
def architectures(as_json: bool) -> None:
    """List the architectures that can be trained, or named for a file of weights."""
    from satbench.networks.registry import ARCHITECTURES

    _show_registry(ARCHITECTURES, as_json)


def _show_registry(registry: Registry, as_json: bool) -> None:
    for fault in registry.faults:
        tell(f"satbench: {fault}", err=True)
    show_rows([{"name": e.name, "what": e.summary, "source": e.source} for e in registry], as_json)


def show_rows(rows: Sequence[dict[str, str]], as_json: bool) -> None:
    """Print rows as a table for people, or as JSON."""
    if as_json:
        tell(json.dumps(rows, indent=2))
        return
    from rich.table import Table

    from satbench.core.console import results

    # One column of names and one of lines can be read at any width.
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 1, 0))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for row in rows:
        name, *lines = row.values()
        table.add_row(name, "\n".join(line for line in lines if line))
    results().print(table)
