"""Fill a board: every shipped model under every suite of the board."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator
from pathlib import Path

from satbench.attacks import expand, is_own_attack
from satbench.attacks.suites.suite import parse_suite
from satbench.board.definition import BoardDefinition
from satbench.core.console import BarProgress
from satbench.core.errors import SatbenchError
from satbench.evaluation.api import evaluate_config
from satbench.evaluation.config import eval_config
from satbench.evaluation.named_in_files import refuse_foreign, request_known
from satbench.evaluation.surrogates import PINNED
from satbench.evaluation.workers import ALONE, Workers, helped
from satbench.model_zoo.card import board_names
from satbench.records.witnesses import store_witnesses


def fill_board(
    definition: BoardDefinition,
    device: str,
    data_dir: Path | None,
    quiet: bool,
    trust: Collection[str] = (),
    workers: Workers = ALONE,
) -> Iterator[Path]:
    """Evaluate the shipped models that are no surrogates; yield the path of each record.

    A record that is there already is found and not made again.  The `workers` share the work.
    Names in a board's file run no code and fetch nothing unless they are among `trust`.  Raises
    SatbenchError from the evaluation, for instance for models that were made for other images.
    """
    _check_names(definition, trust)
    configs = [
        eval_config(
            name,
            dataset=definition.dataset,
            norm=definition.threat.norm,
            eps=str(definition.threat.eps),
            attacks=suite,
            n_examples=definition.n,
            device=device,
            data_dir=data_dir,
            out=definition.records,
        )
        for suite in definition.suites
        for name in board_names()
    ]
    tasks = [(evaluate_config, (config,)) for config in configs]
    with helped(tasks, workers.checked(), quiet) as shared, BarProgress(quiet) as progress:
        for config in configs:
            progress.model(config.model.text)
            done = evaluate_config(config, progress, shared=shared)
            store_witnesses(done.path, done.record.witnesses_digest, definition.witnesses)
            yield done.path


def _check_names(definition: BoardDefinition, trust: Collection[str]) -> None:
    if definition.dataset not in trust:
        refuse_foreign(definition.dataset)
    for text in {text for suite in definition.suites for text in suite} - set(trust):
        if not is_own_attack(expand(text)):
            raise SatbenchError(
                f"the board {definition.name} names the attack {text!r}, which is none of "
                f"satbench's own: if you mean it, give --trust {shlex.quote(text)}"
            )
        for stage in parse_suite([text]):
            for name in set(stage.traits.surrogates) - {PINNED}:
                request_known(name, "", trust)
