"""The matrix of transfer attacks: images are made once per source, and judged on every target."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch

from satbench.attacks import parse_attack
from satbench.attacks.transfer.surrogates import Transfer
from satbench.calling.devices import choose_device
from satbench.calling.generators import own_generators
from satbench.core.errors import SatbenchError
from satbench.core.files import file_stem
from satbench.core.progress.receiver import NoProgress, Progress
from satbench.core.specs import spec_of
from satbench.core.threat import show_fraction
from satbench.data import Dataset
from satbench.engine.claims import Member, found_if_concluded
from satbench.engine.journal import RunStore
from satbench.engine.machine.flops import PassFlops
from satbench.engine.machine.threads import one_thread_if_small
from satbench.engine.runner import Context, run_stages
from satbench.engine.traits import check_fit
from satbench.evaluation.config import EvalConfig, first_examples
from satbench.evaluation.environment import measured_environment
from satbench.evaluation.own_code import identified
from satbench.evaluation.surrogates import NamedSurrogates
from satbench.evaluation.trained_on import check_not_trained_on
from satbench.models import LoadedModel, ModelRequest, load_model, request_model
from satbench.preflight.preflight import Needs, check_set_up
from satbench.records.record import DatasetInfo
from satbench.records.transfers import (
    KIND,
    TransferMatrix,
    matrix_identity,
    read_matrix,
    write_matrix,
)
from satbench.transfer.config import ATTACK, TransferConfig
from satbench.transfer.matrix_run import MatrixRun


@dataclass(frozen=True)
class MeasuredTransfer:
    """A matrix, its path, and whether it already existed."""

    matrix: TransferMatrix
    path: Path
    found: bool


@found_if_concluded
def measure_transfer(
    config: TransferConfig, progress: Progress | None = None, shared: bool | Member = False
) -> MeasuredTransfer:
    """Measure the matrix, or return an existing one of the same inputs in the folder `out`.

    With `config.base.fresh` it is always measured.  All images of all sources are kept in memory.
    Other processes may work on a `shared` matrix.  Raises SatbenchError for models that do not fit
    the data set or each other, from preflight, and from the judge.
    """
    base = config.base
    device = choose_device(base.device)
    dataset = first_examples(base.dataset, base.n_examples, base.data_dir)
    attack = replace(cast(Transfer, parse_attack(base.attacks[0])), source="+".join(config.sources))
    check_fit(ATTACK, attack, base.threat)
    data = DatasetInfo(dataset.name, dataset.split, len(dataset), dataset.classes, dataset.digest)
    spec = spec_of(ATTACK, attack)
    with own_generators(device, base.seed):
        flops: list[PassFlops | None] = []
        sources = _models(map(request_model, config.sources), dataset, base, device, True, flops)
        targets = _models(config.targets, dataset, base, device, False, flops)
        infos = {name: model.info for name, model in sources.items()}
        identity = matrix_identity(
            data,
            str(base.threat),
            base.seed,
            spec,
            infos,
            {name: model.info for name, model in targets.items()},
        )
        eps = show_fraction(base.threat.eps)
        words = (KIND, data.name, base.threat.norm, eps.replace("/", "over"), identity[:8])
        path = base.out / f"{file_stem(words)}.json"
        store = RunStore(base.out, identity, dataset.images.shape)
        if not base.fresh and path.exists() and (matrix := read_matrix(path)).identity == identity:
            store.sweep()
            return MeasuredTransfer(matrix, path, found=True)
        with store.claimed(shared), one_thread_if_small(device, *flops):
            store.begin(next(iter(infos.values())), base.fresh)
            context = Context(
                images=dataset,
                threat=base.threat,
                journal=store,
                progress=progress or NoProgress(),
                seed=base.seed,
                batch_size=base.batch_size,
                surrogates=NamedSurrogates(dataset, base.data_dir),
                timeout=base.timeout,
                sharing=store.sharing(shared),
            )
            run = MatrixRun(attack, infos, list(targets.values()), context, device)
            run_stages(run, context)
            with store.concluding(shared, context.progress.note):
                if shared and path.exists() and (matrix := read_matrix(path)).identity == identity:
                    store.remove()
                    return MeasuredTransfer(matrix, path, found=False)
                matrix = TransferMatrix(
                    identity=identity,
                    dataset=data,
                    norm=base.threat.norm,
                    eps=eps,
                    seed=base.seed,
                    attack=spec,
                    sources=run.sources(),
                    targets=run.judged(),
                    environment=measured_environment(
                        device, base.batch_size, run.judging_seconds, run.making_seconds
                    ),
                )
                write_matrix(matrix, path)
                store.remove()
    return MeasuredTransfer(matrix, path, found=False)


def _models(
    requests: Iterable[ModelRequest],
    dataset: Dataset,
    base: EvalConfig,
    device: torch.device,
    uses_gradients: bool,
    flops: list[PassFlops | None],
) -> dict[str, LoadedModel]:
    """Load models by the user's names, check that each fits the data set, and add its `flops`."""
    return {
        request.text: _checked(
            load_model(request, dataset.classes), dataset, base, device, uses_gradients, flops
        )
        for request in requests
    }


def _checked(
    loaded: LoadedModel,
    dataset: Dataset,
    base: EvalConfig,
    device: torch.device,
    uses_gradients: bool,
    flops: list[PassFlops | None],
) -> LoadedModel:
    name = loaded.info.name
    loaded.check_images(dataset.shape, dataset.name)
    if not uses_gradients:  # a target
        check_not_trained_on(loaded.info, base.dataset, dataset)
    module = loaded.module.to(device)
    try:
        learnt = check_set_up(
            module,
            dataset,
            base.threat,
            Needs(gradients=uses_gradients),
            base.timeout,
            base.batch_size,
        )
        flops.append(learnt.flops)
        return replace(
            loaded, info=identified(loaded.info, module, dataset, device, (), learnt.look)
        )
    except SatbenchError as error:
        raise SatbenchError(f"{name}: {error}") from None
    finally:
        module.cpu()
