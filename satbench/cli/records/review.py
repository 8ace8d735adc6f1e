"""The command `satbench review`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from satbench.cli import options
from satbench.cli.shell.commands import command
from satbench.cli.shell.paths import FILE, FOLDER
from satbench.core.text.terminal import one_line, tell

if TYPE_CHECKING:
    from satbench.submissions.reviewing import Review


@command(
    examples="""
    satbench review my-submission
    satbench review submissions/NAME --fetch --comment comment.md
    satbench review submissions/NAME --accept
    """,
)
@click.argument("folder", type=FOLDER)
@click.option(
    "--fetch", is_flag=True, help="Download a public model by its name, to check its witnesses."
)
@click.option("--comment", type=FILE, help="File to write the review to, as markdown.")
@click.option(
    "--changed",
    type=FILE,
    help="File with the paths that a pull request changes, each ended by NUL. FOLDER is then its "
    "checkout, with one submission in submissions/NAME; nothing else may change.",
)
@click.option(
    "--accept", is_flag=True, help="If it is acceptable, copy it to the board and the zoo."
)
@options.data_dir
@options.as_json
@click.pass_context
def review(
    ctx: click.Context,
    folder: Path,
    fetch: bool,
    comment: Path | None,
    changed: Path | None,
    accept: bool,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Review the submission in FOLDER without running its code, and say what it changes.

    Files, digests, schema, card, suites and images are checked.  Each witness is judged if the
    model is available: shipped with satbench, with its weights in FOLDER, or with --fetch from a
    public zoo.  Exits 1 if the submission is refused.
    """
    from satbench.core.files import write_text
    from satbench.submissions.accepting import accept as bring
    from satbench.submissions.accepting import go_on
    from satbench.submissions.comment import render_review
    from satbench.submissions.pull_request import review_pull_request
    from satbench.submissions.reviewing import Review
    from satbench.submissions.reviewing import review as review_folder

    written = go_on(folder) if accept and not changed else None
    if written is not None:
        done = Review(folder, None, (), ("it was accepted before; now all of it is copied",))
    elif changed:
        done = review_pull_request(folder, changed, fetch=fetch, data_dir=data_dir)
    else:
        done = review_folder(folder, fetch=fetch, data_dir=data_dir)
    if comment:
        write_text(comment, render_review(done))
    if written is None:
        written = bring(done) if accept and done.is_acceptable else []
    if as_json:
        tell(json.dumps({**summary(done), "written": [str(path) for path in written]}, indent=2))
    else:
        tell_review(done)
        for path in written:
            tell(f"wrote {one_line(path)}")
    if not done.is_acceptable:
        ctx.exit(1)


def summary(done: Review) -> dict[str, object]:
    """Return a review as JSON values."""
    change = done.change
    return {
        "folder": str(done.folder),
        "acceptable": done.is_acceptable,
        "refusals": done.refusals,
        "notes": done.notes,
        "proven_broken": sum(one.broken for one in done.confirmed),
        "row": change
        and {
            "model": change.row.model.name,
            "mark": change.row.mark,
            "rank": [change.row.rank.best, change.row.rank.worst],
            "best_known": change.row.best_known.value,
            "before": change.before and change.before.best_known.value,
            "moved": len(change.moved),
        },
    }


def tell_review(done: Review) -> None:
    """Print a review."""
    for one in done.refusals:
        tell(f"refused: {one_line(one)}")
    for one in done.notes:
        tell(f"to look at: {one_line(one)}")
    if not done.is_acceptable or done.manifest is None:
        return
    broken = sum(one.broken for one in done.confirmed)
    tell(f"acceptable: {len(done.confirmed)} records, {broken} images proven broken")
    if change := done.change:
        row = change.row
        before = f", before {change.before.best_known.value:.1%}" if change.before else ""
        tell(
            f"{one_line(row.model.name)}: best known {row.best_known.value:.1%}{before}, rank "
            f"{row.rank} of {change.models}, {row.mark}; {len(change.moved)} other ranks change"
        )
