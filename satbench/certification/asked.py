"""The options of `satbench certify`, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from satbench.core.errors import SatbenchError
from satbench.evaluation.config import EvalConfig, eval_config
from satbench.models import FileOptions
from satbench.records.certificates import METHODS


@dataclass(frozen=True)
class Asked:
    """One model at one eps; `attacked` says whether the attacks of `config` run too."""

    config: EvalConfig
    method: str
    seconds: float | None
    attacked: bool


def asked_for(
    models: Sequence[str],
    radii: Sequence[str],
    method: str,
    seconds: float | None,
    attacks: Sequence[str] = (),
    *,
    file: FileOptions | None = None,
    dataset: str | None = None,
    norm: str | None = None,
    n_examples: int | None = None,
    data_dir: Path | None = None,
    out: Path = Path("results/certificates"),
    fresh: bool = False,
) -> list[Asked]:
    """Return the certifications to run, every model at every eps, in order.

    Without `radii` each model gets the eps that it was trained for.  Raises SatbenchError as
    `eval_config`, and for an unknown method or a time that is not above 0.
    """
    if method not in METHODS:
        raise SatbenchError(f"expected a method {', '.join(METHODS)}, got {method!r}")
    if seconds is not None and not 0 < seconds < float("inf"):
        raise SatbenchError(f"expected a time above 0 seconds an image, got {seconds:g}")
    return [
        Asked(
            eval_config(
                model,
                file=file,
                dataset=dataset,
                norm=norm,
                eps=eps,
                attacks=attacks,
                n_examples=n_examples,
                data_dir=data_dir,
                out=out,
                fresh=fresh,
            ),
            method,
            seconds,
            bool(attacks),
        )
        for model in models
        for eps in dict.fromkeys(radii) or (None,)
    ]
