"""The forecast of an evaluation before it runs: passes, FLOPs, time and money."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from satbench.attacks import short_spec
from satbench.calling.borrow import borrowed
from satbench.calling.devices import choose_device, device_name, moved
from satbench.calling.generators import own_generators
from satbench.core.errors import SatbenchError, UnknownNameError
from satbench.diagnosis.diagnose import ATTACKED, OF_THEM, images_to_examine
from satbench.engine.machine.flops import PassFlops, pass_flops
from satbench.engine.machine.threads import one_thread_if_small
from satbench.evaluation.config import EvalConfig, first_examples
from satbench.evaluation.cost.known import Foreseen, Spending, foreseen, published
from satbench.evaluation.cost.machines import (
    HERE,
    RatedMachine,
    machine_names,
    measured_machines,
    named_machines,
    with_threads,
)
from satbench.evaluation.cost.rate import PassSeconds, pass_seconds
from satbench.models import load_model
from satbench.records.record import read_records

_TIMED = 250  # images in the batch that is timed


@dataclass(frozen=True)
class CostLine:
    """What a part of an evaluation will cost: at most `most` passes, None if unknown."""

    name: str
    forwards: float
    backwards: float
    surrogates: float
    most: float | None
    seconds: float
    basis: str

    @property
    def passes(self) -> float:
        """All passes."""
        return self.forwards + self.backwards + self.surrogates


@dataclass(frozen=True)
class Place:
    """What an evaluation takes on a machine; `seconds` are a lower bound if its rate is a peak."""

    machine: RatedMachine
    seconds: float
    price: float | None

    @property
    def money(self) -> float | None:
        """The price of the time; None if no price is known."""
        return None if self.price is None else self.price * self.seconds / 3600


@dataclass(frozen=True)
class Forecast:
    """The forecast of one evaluation: a line for each attack, and the time on each machine.

    `flops` are those of the model's passes, None if they cannot be counted.
    """

    model: str
    dataset: str
    n: int
    threat: str
    lines: tuple[CostLine, ...]
    flops: float | None
    places: tuple[Place, ...]

    @property
    def passes(self) -> float:
        """All passes."""
        return sum(line.passes for line in self.lines)

    @property
    def seconds(self) -> float:
        """About how long it takes here."""
        return sum(line.seconds for line in self.lines)


def forecast(config: EvalConfig, prices: Mapping[str, float]) -> Forecast:
    """Forecast what an evaluation costs.  No attack runs; some passes of the model are timed.

    `prices` are per hour, by the name of a machine.  Raises SatbenchError for a model or images
    that cannot be loaded or do not fit each other.
    """
    device = choose_device(config.device)
    dataset = first_examples(config.dataset, config.n_examples, config.data_dir)
    with own_generators(device, config.seed):
        loaded = load_model(config.model, dataset.classes, exactly=not dataset.more_classes)
        loaded.check_images(dataset.shape, dataset.name)
        count = min(_TIMED, len(dataset), config.batch_size or _TIMED)
        x = torch.from_numpy(dataset.first(count).pixels(torch.arange(count).numpy())).to(device)
        with moved([loaded.module], device), borrowed(loaded.module) as model:
            flops = pass_flops(model, x[:1])
            with one_thread_if_small(device, flops):  # as the evaluation computes
                seconds = pass_seconds(model, x)
                here = with_threads(device_name(device), torch.get_num_threads())
    known = foreseen(config.attacks, loaded.info.name, config.threat.norm, dataset.classes)
    lines = _lines(known, len(dataset), seconds, config.diagnose)
    total = None
    if flops:
        total = sum(flops.of(line.forwards, line.backwards) for line in lines)
    return Forecast(
        loaded.info.name,
        dataset.name,
        len(dataset),
        str(config.threat),
        lines,
        total,
        tuple(_places(lines, total, here, config, prices)),
    )


def parse_prices(texts: Sequence[str]) -> dict[str, float]:
    """Read prices per hour, `2.5` for this machine or `H100=2.5`.

    Raises SatbenchError for an unknown machine, and for anything but a number of at least 0.

    >>> parse_prices(["0.4", "H100=2.5"])
    {'here': 0.4, 'H100': 2.5}
    """
    prices = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        name = name or HERE
        if name not in machine_names():
            raise UnknownNameError("machine", name, machine_names())
        try:
            price = float(number)
        except ValueError:
            price = -1.0
        if not 0 <= price < 1e9:
            raise SatbenchError(f"expected a price per hour, such as 2.5 or H100=2.5, got {text!r}")
        prices[name] = price
    return prices


def _lines(
    known: Sequence[Foreseen], n: int, seconds: PassSeconds, diagnose: bool
) -> tuple[CostLine, ...]:
    clean = Foreseen("clean", Spending(1, 0), Spending(1, 0), "one forward an image")
    lines = [clean, *known]
    if diagnose:  # 3 forwards and a backward an image, and 2 forwards of some that it attacks
        passes = int(n * sum(one.about.forwards + one.about.backwards for one in lines))
        examined = images_to_examine(passes, n, survivors=n)
        attacked = min(ATTACKED, -(-examined // OF_THEM))
        signs = Spending((3 * examined + 2 * attacked) / n, examined / n)
        lines.append(Foreseen("diagnosis", signs, signs, f"what it asks of {examined} images"))
    return tuple(_line(one, n, seconds) for one in lines)


def _line(known: Foreseen, n: int, seconds: PassSeconds) -> CostLine:
    about = known.about.times(n)
    return CostLine(
        short_spec(known.attack) if "(" in known.attack else known.attack,
        about.forwards,
        about.backwards,
        about.surrogates,
        None if known.most is None else n * known.most.passes,
        # Assume that a surrogate is as large as the model.
        seconds.of(about.forwards, about.backwards) + seconds.both * about.surrogates / 2,
        known.basis,
    )


def _places(
    lines: Sequence[CostLine],
    flops: float | None,
    here: str,
    config: EvalConfig,
    prices: Mapping[str, float],
) -> list[Place]:
    seconds = sum(line.seconds for line in lines)
    rate = (flops or 0.0) / seconds
    places = [Place(RatedMachine(here, rate, "measured now"), seconds, prices.get(HERE))]
    if flops is None:
        return places
    records = read_records(config.out, []) if config.out.is_dir() else []
    machines = [*measured_machines([*published(""), *records]), *named_machines()]
    return places + [Place(one, flops / one.rate, prices.get(one.name)) for one in machines]


__all__ = ["CostLine", "Forecast", "PassFlops", "Place", "forecast", "parse_prices"]
