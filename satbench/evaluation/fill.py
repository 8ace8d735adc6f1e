"""Fill a board: every shipped model under every suite of the board."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from satbench.attacks import expand, is_own_attack
from satbench.attacks.suites.suite import parse_suite
from satbench.board.definition import BoardDefinition
from satbench.core.console import BarProgress
from satbench.core.errors import SatbenchError, UnknownNameError
from satbench.data import AT_A_PATH
from satbench.evaluation.api import evaluate_config
from satbench.evaluation.config import eval_config
from satbench.evaluation.named_in_files import refuse_foreign, request_known
from satbench.evaluation.surrogates import PINNED
from satbench.evaluation.workers import ALONE, Workers, helped
from satbench.model_zoo.card import board_names, zoo_card
from satbench.records.witnesses import store_witnesses


def fill_board(
    definition: BoardDefinition,
    device: str,
    data_dir: Path | None,
    quiet: bool,
    trust: Collection[str] = (),
    workers: Workers = ALONE,
    models: Sequence[str] = (),
    dataset: str | None = None,
    out: Path | None = None,
    suites: Sequence[str] = (),
) -> Iterator[Path]:
    """Evaluate `models` under each suite of a board; yield the path of each record.

    By default `models` are the shipped models for these images, without surrogates.  `dataset` says
    where the images are, if the board's data set is a folder.  Existing records are not made again.
    The `workers` share the work.  The records are written to the board's folder, or to `out`, for a
    submission.  `suites` names the suites to run, each by its attacks, such as `pgd-50,autoattack`;
    by default all run but those on request.  Names in a board's file run no code and download
    nothing unless they are among `trust`.  Raises SatbenchError if no shipped model fits the
    images, and from the evaluation.
    """
    _check_names(definition, trust)
    chosen = _chosen(definition, suites)
    names = list(models) or _shipped_for(definition)
    images = dataset or _images(definition)
    configs = [
        eval_config(
            name,
            dataset=images,
            norm=definition.threat.norm,
            eps=str(definition.threat.eps),
            attacks=suite,
            n_examples=definition.n,
            device=device,
            data_dir=data_dir,
            out=out or definition.records,
        )
        for suite in chosen
        for name in names
    ]
    tasks = [(evaluate_config, (config,)) for config in configs]
    with helped(tasks, workers.checked(), quiet) as shared, BarProgress(quiet) as progress:
        for config in configs:
            progress.model(config.model.text)
            done = evaluate_config(config, progress, shared=shared)
            if out is None:
                store_witnesses(done.path, done.record.witnesses_digest, definition.witnesses)
            yield done.path


def _chosen(definition: BoardDefinition, suites: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the named suites of a board, in the board's order; if none is named, its `suites`."""
    known = {",".join(suite): suite for suite in (*definition.suites, *definition.on_request)}
    for name in suites:
        if name not in known:
            raise UnknownNameError(f"suite of the board {definition.name}", name, known)
    if not suites:
        return list(definition.suites)
    return [suite for name, suite in known.items() if name in suites]


def _shipped_for(definition: BoardDefinition) -> list[str]:
    names = [
        name
        for name in board_names()
        if (training := zoo_card(name).training) and training.dataset == definition.dataset
    ]
    if not names:
        raise SatbenchError(
            f"no shipped model is for {definition.dataset}: name the model to evaluate, "
            f"satbench leaderboard fill {definition.name} --model NAME, such as a file "
            "of weights or robustbench:DATASET/THREAT/NAME"
        )
    return names


def _images(definition: BoardDefinition) -> str:
    source = definition.dataset.partition(":")[0]
    if source in AT_A_PATH:
        raise SatbenchError(
            f"the images of the board {definition.name} ({definition.dataset}) do not come with "
            f"satbench: say where they are, --dataset {source}:PATH"
        )
    return definition.dataset


def _check_names(definition: BoardDefinition, trust: Collection[str]) -> None:
    if definition.dataset not in trust:
        refuse_foreign(definition.dataset)
    for text in {text for suite in definition.suites for text in suite} - set(trust):
        if not is_own_attack(expand(text)):
            raise SatbenchError(
                f"the board {definition.name} names the attack {text!r}, which does not come with "
                f"satbench: if you want it, give --trust {shlex.quote(text)}"
            )
        for stage in parse_suite([text]):
            for name in set(stage.traits.surrogates) - {PINNED}:
                request_known(name, "", trust)
