"""Places of the site's pages, relative to its folder."""

from __future__ import annotations

from satbench.board.board import Benchmark
from satbench.core.digests import digest_json
from satbench.core.files import file_stem
from satbench.core.markdown import MISSING
from satbench.records.record import ModelInfo


def model_key(model: ModelInfo) -> tuple[str, str, str, str]:
    """Return the key that identifies a model, as on a board: weights, network and code."""
    return model.weights_digest, model.architecture, model.activation, model.answers_digest


def model_title(model: ModelInfo) -> str:
    """Return the name of a model for its title; a dash if it has none."""
    return model.name.strip() or MISSING


def model_place(model: ModelInfo) -> str:
    """Return the place of a model's page.  Strangers choose names of models: they are not trusted.

    >>> model_place(ModelInfo("../<b>é", "file", "tiny", "relu", 9, "0" * 64, {}))
    'models/b-d6ef27b0.html'
    """
    return f"models/{_stem(model.name, digest_json(list(model_key(model))))}.html"


def board_stem(benchmark: Benchmark) -> str:
    """Return a name for the files of a benchmark that has no board folder."""
    key = [benchmark.dataset.digest, benchmark.threat.norm, str(benchmark.threat.eps)]
    threat = f"{benchmark.threat.norm}-{float(benchmark.threat.eps):g}"
    return _stem(f"{benchmark.dataset.name}-{threat}", digest_json(key))


def _stem(name: str, digest: str) -> str:
    plain = "".join(letter for letter in name if letter.isascii())
    return file_stem([part for part in (file_stem([plain]), digest[:8]) if part]).lower()
