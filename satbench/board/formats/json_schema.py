"""The JSON schema (draft 2020-12) of the board's JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from satbench.board.marks import Mark
from satbench.board.published import SCHEMA
from satbench.board.rows import COLUMNS
from satbench.core.text.json_text import json_text

_Schema = dict[str, Any]

TEXT: _Schema = {"type": "string"}
COUNT: _Schema = {"type": "integer", "minimum": 0}
PLACE: _Schema = {"type": "integer", "minimum": 1}
SHARE: _Schema = {"type": "number", "minimum": 0, "maximum": 1}
DIFFERENCE: _Schema = {"type": "number", "minimum": -1, "maximum": 1}
AMOUNT: _Schema = {"type": "number", "minimum": 0}
DIGEST: _Schema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
BOOLEAN: _Schema = {"type": "boolean"}
_ACCURACIES = [column for column in COLUMNS if column != "gap"]


def render_schema() -> str:
    """Return the schema as text; it refuses unknown fields."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A leaderboard of satbench",
        **_record({"schema": {"const": SCHEMA}, "benchmarks": _list(_benchmark())}),
    }
    return json_text(schema)


def _benchmark() -> _Schema:
    return _record(
        {
            "dataset": TEXT,
            "split": TEXT,
            "n": PLACE,
            "dataset_digest": DIGEST,
            "norm": {"enum": ["linf", "l2", "l1"]},
            "eps": TEXT,
            "models": _list(_model()),
            "flags": _list(_flag()),
            "groups": _list(_group()),
            "against_relu": _list(_comparison()),
        }
    )


def _model() -> _Schema:
    shares: _Schema = {}
    for column in _ACCURACIES:
        measured = column in ("clean", "best_known")
        for name, form in (("_count", COUNT), ("", SHARE), ("_low", SHARE), ("_high", SHARE)):
            shares[f"{column}{name}"] = form if measured else _or_null(form)
    passes = ("autoattack_passes", "fast_passes", "reference_passes", "passes_ratio")
    counts = ("agreement_autoattack_count", "agreement_reference_count", "agreement_differing")
    spread = ("reference_seeds", "reference_min_count", "reference_max_count")
    return _record(
        {
            "rank": PLACE,
            "rank_worst": PLACE,
            "model": TEXT,
            "mark": {"enum": list(get_args(Mark))},
            "too_high": _or_null(SHARE),
            **_kind(),
            "training_seed": _or_null({"type": "integer"}),
            "parameters": COUNT,
            "weights_digest": DIGEST,
            "records": PLACE,
            "attacks": TEXT,
            "passes_per_image": AMOUNT,
            **shares,
            "gap": _or_null(DIFFERENCE),
            "flags": _or_null(TEXT),
            **{name: _or_null(AMOUNT) for name in (*passes, "reference_passes_ratio")},
            "fast_minus_autoattack": _or_null({"type": "number"}),
            "agreement_seed": _or_null({"type": "integer"}),
            **{name: _or_null(COUNT) for name in (*counts, *spread)},
        }
    )


def _flag() -> _Schema:
    return _record(
        {"model": TEXT, "name": TEXT, "images": COUNT, "of": COUNT, "cause": TEXT, "run": TEXT}
    )


def _group() -> _Schema:
    summary = _record({"mean": DIFFERENCE, "sd": _or_null(AMOUNT), "seeds": PLACE})
    columns: _Schema = {column: _or_null(summary) for column in COLUMNS}
    return _record({**_kind(), "seeds": PLACE, "models": _list(TEXT), **columns})


def _comparison() -> _Schema:
    effect = _record(
        {
            "difference": DIFFERENCE,
            **{end: _or_null({"type": "number"}) for end in ("low", "high")},
            "p": _or_null(SHARE),
            "seeds": PLACE,
            "is_shown": BOOLEAN,
        }
    )
    columns: _Schema = {column: _or_null(effect) for column in COLUMNS}
    return _record({**_kind(), **columns})


def _kind() -> _Schema:
    return {
        "architecture": TEXT,
        "activation": TEXT,
        "recipe": _or_null(TEXT),
        "control": BOOLEAN,
        "training_threat": _or_null(TEXT),
        "training_attack": _or_null(TEXT),
    }


def _record(fields: _Schema) -> _Schema:
    required: Sequence[str] = list(fields)
    return {
        "type": "object",
        "properties": fields,
        "required": required,
        "additionalProperties": False,
    }


def _list(items: _Schema) -> _Schema:
    return {"type": "array", "items": items}


def _or_null(form: _Schema) -> _Schema:
    return {"anyOf": [form, {"type": "null"}]}
