"""The kinds of files that strangers send: one example of each, its reader and its writer."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from satbench.attacks.suites.suite_file import read_suite, suite_class
from satbench.board.board import build_board
from satbench.board.definition import board_definition, read_definition
from satbench.board.exports import render_csv, render_json
from satbench.board.marks import countable_rechecks
from satbench.board.tables import render_markdown
from satbench.core.content import content_folder
from satbench.core.errors import SatbenchError
from satbench.core.threat import Threat
from satbench.model_zoo.card import Card, parse_card
from satbench.recipes import load_recipe
from satbench.records.certificates import Certificate, certificate_identity, parse_certificate
from satbench.records.check import check_record
from satbench.records.curves import Curve, parse_curve, reach_of
from satbench.records.rechecks import check_recheck, read_recheck
from satbench.records.record import parse_record
from satbench.submissions.manifest import Manifest, check_manifest, read_manifest
from satbench.training.saved.checkpoint import Checkpoint, CorruptError, _place


def _record_text() -> str:
    folder = board_definition("fashion-mnist-linf-0.1").records
    return sorted(folder.glob("*.json"))[0].read_text()


def _curve_text() -> str:
    record = parse_record(_record_text(), "a test")
    distances = [0.1 * k for k in range(record.n)]
    curve = Curve(
        "i", record.model, record.dataset, [1, 28, 28], 0.1, "linf", 0, [], [],
        reach_of(distances), [*distances[:-1], None], "d", record.environment,
    )  # fmt: skip
    return curve.to_json()


def _certificate_text() -> str:
    record = parse_record(_record_text(), "a test")
    verdicts = [(0, 1, -1)[k % 3] for k in range(record.n)]
    margins = [None if verdict == 0 else 0.25 * verdict for verdict in verdicts]
    threat = Threat.of("linf", "1/255")
    told = (record.model, record.dataset)
    identity = certificate_identity(*told, threat, "bab", 60.0)
    certificate = Certificate(
        identity, *told, "linf", "1/255", "bab", 60.0, verdicts, margins, 3, "0" * 64,
        record.environment,
    )  # fmt: skip
    return certificate.to_json()


def _read_certificate(text: str, folder: Path) -> None:
    certificate = parse_certificate(text, "a test")
    assert parse_certificate(certificate.to_json(), "a test") == certificate


def _read_record(text: str, folder: Path) -> None:
    record = parse_record(text, "a test")
    if not check_record(record):
        board = build_board([record])
        for made in (render_markdown(board), render_csv(board), render_json(board)):
            made.encode()
    assert parse_record(record.to_json(), "a test") == record


def _read_card(text: str, folder: Path) -> None:
    card: Card = parse_card(text, "a test")
    assert parse_card(card.to_json(), "a test") == card


def _read_curve(text: str, folder: Path) -> None:
    curve = parse_curve(text, "a test")
    curve.masking_sign()
    assert parse_curve(curve.to_json(), "a test") == curve


def _read_place(text: str, folder: Path) -> None:
    """Read the place in a checkpoint, which comes from torch; any fault in it is corruption."""
    try:
        _place({"place": json.loads(text)})
    except (CorruptError, RecursionError, ValueError):
        raise SatbenchError("the place is corrupt") from None


def _read_suite(text: str, folder: Path) -> None:
    suite_class("test", read_suite(_toml(text, folder)))
    read_suite.cache_clear()


def _board_text() -> str:
    return _values_of(board_definition("fashion-mnist-linf-0.1").folder / "board.toml")


def _read_board(text: str, folder: Path) -> None:
    read_definition(_toml(text, folder))


def _read_recipe(text: str, folder: Path) -> None:
    load_recipe(str(_toml(text, folder)))


def _recheck_text() -> str:
    folder = board_definition("fashion-mnist-linf-0.1").rechecks
    return sorted(folder.glob("*.json"))[0].read_text()


def _read_recheck(text: str, folder: Path) -> None:
    path = folder / "recheck.json"
    path.write_text(text)
    recheck = read_recheck(path)
    records = board_definition("fashion-mnist-linf-0.1").records
    record = parse_record((records / _record_of_the_recheck()).read_text(), "a test")
    list(check_recheck(recheck, record))
    countable_rechecks([recheck], [record])


def _record_of_the_recheck() -> str:
    folder = board_definition("fashion-mnist-linf-0.1").rechecks
    return sorted(folder.glob("*.json"))[0].stem.rpartition("-s")[0] + ".json"


def _submission_text() -> str:
    files = {"card.json": "0" * 64, "m-1.json": "1" * 64, "m-1.witnesses.npz": "2" * 64}
    told = Manifest("fashion-mnist-linf-0.1", "open", "x", "shipped", files, supersedes=["3" * 64])
    return json.dumps(asdict(told))


def _read_submission(text: str, folder: Path) -> None:
    (folder / "submission.json").write_text(text)
    list(check_manifest(read_manifest(folder), folder))


def _toml(text: str, folder: Path) -> Path:
    """Write JSON values as TOML, each as an inline value."""
    read_suite.cache_clear()
    path = folder / "file.toml"
    try:
        lines = [f"{key} = {_inline(value)}" for key, value in json.loads(text).items()]
        path.write_text("\n".join(lines))
    except (ValueError, RecursionError):  # it is no JSON either, so TOML gets the text unchanged
        path.write_text("a = " + text.replace(": ", " = "))
    return path


def _inline(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {_inline(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return json.dumps(value).replace("Infinity", "inf").replace("NaN", "nan")


def _values_of(path: Path) -> str:
    return json.dumps(tomllib.loads(path.read_text()))


def _some_card() -> str:
    return sorted((content_folder("model_zoo") / "cards").glob("*.json"))[0].read_text()


def _recipe_text() -> str:
    config = load_recipe("fmnist-sat").to_dict()
    del config["recipe"]
    return json.dumps({"summary": "a test", **config})


KINDS: dict[str, tuple[Callable[[], str], Callable[[str, Path], None]]] = {
    "record": (_record_text, _read_record),
    "card": (_some_card, _read_card),
    "curve": (_curve_text, _read_curve),
    "certificate": (_certificate_text, _read_certificate),
    "place of a checkpoint": (
        lambda: json.dumps(asdict(Checkpoint(history=({"a": 1.0},), notes=("a",)))),
        _read_place,
    ),
    "recheck": (_recheck_text, _read_recheck),
    "submission": (_submission_text, _read_submission),
    "suite": (lambda: _values_of(content_folder("attacks") / "fast.toml"), _read_suite),
    "board": (
        lambda: _values_of(board_definition("fashion-mnist-linf-0.1").folder / "board.toml"),
        _read_board,
    ),
    "recipe": (_recipe_text, _read_recipe),
}
"""Of each kind: the text of one, in JSON, and what reads such a text, and writes it back."""
