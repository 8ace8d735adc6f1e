"""The options of `satbench transfer` as one frozen value, checked before torch is imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from satbench.core.errors import SatbenchError
from satbench.core.specs import split_spec
from satbench.evaluation.config import EvalConfig, eval_config
from satbench.model_zoo.card import zoo_card, zoo_names
from satbench.models import ModelRequest, request_model

ATTACK = "transfer"


@dataclass(frozen=True)
class TransferConfig:
    """Sources × targets × data set × threat model × seed.

    `base` has the options that do not depend on the models; its model is the first target, and its
    only attack has no sources.
    """

    sources: tuple[str, ...]
    targets: tuple[ModelRequest, ...]
    base: EvalConfig


def transfer_config(
    sources: Sequence[str],
    targets: Sequence[str],
    attack: str = ATTACK,
    *,
    dataset: str | None = None,
    norm: str | None = None,
    eps: str | None = None,
    n_examples: int | None = None,
    seed: int = 0,
    batch_size: int = 250,
    device: str = "auto",
    data_dir: Path | None = None,
    out: Path = Path("results/transfer"),
    fresh: bool = False,
    timeout: float | None = None,
) -> TransferConfig:
    """Check the options and fill in the defaults.

    The defaults: the data set and the threat model that the first target was trained for, the
    benchmark's surrogates as sources, and all other models of the zoo that were trained on the data
    set as targets.  Raises SatbenchError for unknown or repeated names, another attack than
    `transfer`, sources in the attack, and missing options.
    """
    name, arguments = split_spec(attack)
    if name != ATTACK:
        raise SatbenchError(f"expected --attack 'transfer(…)' for a transfer matrix, got {attack}")
    if "source" in arguments:
        raise SatbenchError(
            f"name the sources of a transfer matrix with --source, not in --attack {attack!r}"
        )
    for kind, given in (("source", sources), ("target", targets)):
        if double := sorted({text for text in given if list(given).count(text) > 1}):
            raise SatbenchError(f"the {kind} {double[0]} is given twice")
    for text in (*sources, *targets):
        request_model(text)
    candidates = list(targets) or _trained_on(dataset)
    base = eval_config(
        candidates[0],
        dataset=dataset,
        norm=norm,
        eps=eps,
        attacks=(attack,),
        n_examples=n_examples,
        seed=seed,
        batch_size=batch_size,
        device=device,
        data_dir=data_dir,
        out=out,
        fresh=fresh,
        timeout=timeout,
    )
    from satbench.evaluation.surrogates import benchmark_surrogates

    own = benchmark_surrogates(base.dataset, base.threat)
    sources = tuple(sources) or tuple(own)
    if not sources:
        raise SatbenchError(
            f"the benchmark {base.dataset} under {base.threat} has no surrogates: "
            "name models to attack from with --source MODEL"
        )
    chosen = targets or [name for name in candidates if name not in own]
    return TransferConfig(sources, tuple(map(request_model, chosen)), base)


def _trained_on(dataset: str | None) -> list[str]:
    """Return the zoo's models that were trained on `dataset`, by default on the first one's."""
    trained = {
        name: training.dataset for name in zoo_names() if (training := zoo_card(name).training)
    }
    wanted = dataset or next(iter(trained.values()), None)
    names = [name for name, used in trained.items() if used == wanted]
    if not names:
        raise SatbenchError(
            f"no model of the zoo was trained on {wanted}: name targets with --target MODEL"
        )
    return names
