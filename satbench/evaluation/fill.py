"""Fill a board: every shipped model under every suite of the board."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from satbench.board.definition import BoardDefinition
from satbench.core.console import BarProgress
from satbench.evaluation.api import evaluate_config
from satbench.evaluation.config import eval_config
from satbench.model_zoo.card import board_names
from satbench.records.witnesses import store_witnesses


def fill_board(
    definition: BoardDefinition, device: str, data_dir: Path | None, quiet: bool
) -> Iterator[Path]:
    """Evaluate the shipped models that are no surrogates; yield the path of each record.

    A record that is there already is found and not made again.  Raises SatbenchError from the
    evaluation, for instance for models that were made for other images.
    """
    with BarProgress(quiet) as progress:
        for suite in definition.suites:
            for name in board_names():
                progress.model(name)
                config = eval_config(
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
                done = evaluate_config(config, progress)
                store_witnesses(done.path, done.record.witnesses_digest, definition.witnesses)
                yield done.path
