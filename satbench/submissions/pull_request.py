"""The review of a pull request with a submission, which may change only its own folder."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from satbench.board.definition import BoardDefinition
from satbench.core.errors import SatbenchError
from satbench.core.schema import read_text
from satbench.submissions.reviewing import Review, review

FOLDER = "submissions"


def review_pull_request(
    root: Path,
    changed: Path,
    *,
    fetch: bool = False,
    data_dir: Path | None = None,
    definition: BoardDefinition | None = None,
) -> Review:
    """Review the one submission that a pull request brings, as `review` does.

    `root` is its checkout, which is only read, and `changed` is a file with the changed paths, each
    ended by NUL, as written by `git diff --name-only -z`.  Raises SatbenchError if that file is
    missing.
    """
    paths = [PurePosixPath(path) for path in _paths(changed)]
    names = sorted({path.parts[1] for path in paths if _is_within(path)})
    stray = [str(path) for path in paths if not _is_within(path)]
    faults = tuple(
        f"the pull request changes {path[:200]!r}: a submission changes only files directly in "
        f"{FOLDER}/NAME, and only the maintainer adds rechecks"
        for path in stray
    )
    if len(names) != 1:
        fault = f"expected one folder in {FOLDER}/ that the pull request brings, got {len(names)}"
        return Review(root, None, (*faults, fault))
    folder = root / FOLDER / names[0]
    if faults or folder.parent.is_symlink():
        return Review(folder, None, faults or (f"{FOLDER} is a link",))
    try:
        return review(folder, fetch=fetch, data_dir=data_dir, definition=definition)
    except SatbenchError as error:
        return Review(folder, None, (str(error),))


def _is_within(path: PurePosixPath) -> bool:
    return len(path.parts) == 3 and path.parts[0] == FOLDER and ".." not in path.parts


def _paths(changed: Path) -> list[str]:
    return [path for path in read_text(changed, "list of changed paths").split("\0") if path]
