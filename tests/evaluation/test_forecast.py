"""The forecast of the cost of an evaluation, and the cost in a record."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import satbench
from satbench.attacks.suites.suite import parse_suite
from satbench.core.errors import SatbenchError, UnknownNameError
from satbench.core.progress.course import StageCost
from satbench.data import Dataset
from satbench.engine.machine.flops import PassFlops, pass_flops
from satbench.evaluation.config import eval_config
from satbench.evaluation.cost.forecast import Forecast, forecast, parse_prices
from satbench.evaluation.cost.known import foreseen
from satbench.evaluation.cost.machines import measured_machines
from satbench.evaluation.cost.rate import PassSeconds
from satbench.evaluation.cost.report import forecast_data
from satbench.evaluation.cost.stage_costs import costs_of
from satbench.evaluation.cost.units import CPU, LEAST, UNIT, images_a_unit
from satbench.models import LoadedModel
from satbench.records.record import Record, parse_record, read_record

SHIPPED = "fmnist-sat-tiny-relu-s0"
PUBLISHED = Path(__file__).parents[2] / "leaderboard/fashion-mnist-linf-0.1/records"


# FLOPs


def test_flops_count_matrix_products_and_convolutions() -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(48, 5))
    found = pass_flops(net.eval().requires_grad_(False), torch.zeros(1, 2, 4, 4))

    # 16 places with 3 × 2 × 9 weights each; 48 × 5 weights; two FLOPs per weight.
    forward = 2 * (16 * 3 * 2 * 9 + 48 * 5)
    assert found == PassFlops(forward, forward)


def test_a_model_that_cannot_be_traced_has_no_flops() -> None:
    class Fails(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError("no")

    assert pass_flops(Fails(), torch.zeros(1, 1, 2, 2)) is None


def test_the_seconds_of_a_backward_include_its_forward() -> None:
    assert PassSeconds(1.0, 3.0).of(10, 4) == 4 * 3.0 + 6 * 1.0
    assert PassSeconds(1.0, 3.0).of(4, 4) == 12.0


# The cost of attacks


def test_the_cost_of_a_stage_is_that_of_a_surviving_image() -> None:
    assert costs_of(parse_suite(["pgd(steps=7,restarts=2)"]), 10)[1:] == (StageCost(28),)
    fast = costs_of(parse_suite(["fast(source=none)"]), 10)
    parts = [stage.part for stage in parse_suite(["fast(source=none)"])]
    assert fast[1 + parts.index("apgd-t")].share == 0.05
    assert fast[1 + parts.index("square")].passes == 400


def test_the_forecast_for_a_shipped_model_uses_its_records() -> None:
    (seen,) = foreseen(["pgd-50"], SHIPPED, "linf", 10)
    records = [read_record(path) for path in sorted(PUBLISHED.glob(f"{SHIPPED}-*.json"))]
    stage, n = next(
        (one, record.n)
        for record in records
        for one in record.stages
        if one.attack.startswith("pgd(steps=50")
    )

    assert (seen.about.forwards, seen.about.backwards) == (stage.forwards / n, stage.backwards / n)
    assert seen.about.passes < 100
    assert seen.most is not None
    assert seen.most.passes == 100


def test_the_passes_of_pgd_are_proportional_to_its_steps() -> None:
    few, many = foreseen(["pgd-20", "pgd-50"], SHIPPED, "linf", 10)

    assert few.about.passes == pytest.approx(many.about.passes * 20 / 50)


def test_an_attack_in_no_record_costs_the_maximum_that_its_parameters_allow() -> None:
    (seen,) = foreseen(["square(queries=77)"], SHIPPED, "linf", 10)

    assert seen.most == seen.about
    assert seen.about.passes == 77


# The forecast


@pytest.fixture(scope="module")
def made() -> Forecast:
    """Return the forecast of two attacks on 50 images."""
    config = eval_config(SHIPPED, attacks=["pgd-10", "square(queries=20)"], n_examples=50)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("satbench.evaluation.cost.rate._SECONDS", 0.05)
        return forecast(config, {"here": 3600.0, "A100": 7200.0})


def test_the_total_of_a_forecast_is_the_sum_of_its_lines(made: Forecast) -> None:
    assert [line.name for line in made.lines[:2]] == ["clean", "pgd-10"]
    assert made.passes == pytest.approx(sum(line.passes for line in made.lines))
    assert made.lines[0].passes == 50
    assert made.lines[2].passes == 50 * 20
    assert 0 < made.seconds < 60
    assert made.flops is not None
    assert made.flops > 1e6 * made.passes / 2


def test_time_and_money_on_a_machine_follow_from_flops_and_its_rate(made: Forecast) -> None:
    here = made.places[0]
    (gpu,) = (place for place in made.places if place.machine.name == "A100")
    assert made.flops is not None

    assert here.seconds == made.seconds
    assert here.money == pytest.approx(made.seconds)
    assert gpu.machine.is_peak
    assert gpu.seconds == pytest.approx(made.flops / 19.5e12)
    assert gpu.money == pytest.approx(2 * gpu.seconds)
    others = [place for place in made.places if place.machine.name not in ("A100",)][1:]
    assert all(place.money is None for place in others)


def test_a_forecast_can_be_written_as_json(made: Forecast) -> None:
    told = json.loads(json.dumps(forecast_data(made)))

    assert told["passes"] == made.passes
    assert told["places"][0]["money"] == made.places[0].money


def test_prices_are_parsed_and_malformed_ones_are_refused() -> None:
    assert parse_prices(["0.4", "H100=2.5"]) == {"here": 0.4, "H100": 2.5}
    with pytest.raises(UnknownNameError, match="H100"):
        parse_prices(["H1000=2"])
    for text in ("A100=", "A100=-1", "cheap", "nan"):
        with pytest.raises(SatbenchError):
            parse_prices([text])


# Units of work


def test_the_size_of_a_unit_depends_on_flops_and_is_at_most_the_batch_size() -> None:
    flops = PassFlops(10**9, 10**9)
    fit = int(UNIT["cpu"] / (100 * 1e9))

    assert images_a_unit(StageCost(100), flops, CPU, 250) == fit < 250
    assert images_a_unit(StageCost(100), flops, CPU, 20) == 20
    assert images_a_unit(StageCost(10**9), flops, CPU, 250) == LEAST["cpu"]
    assert images_a_unit(StageCost(0), flops, CPU, 250) == 250
    assert images_a_unit(StageCost(100), None, CPU, 250) == 250


@pytest.mark.parametrize("name", [SHIPPED, "fmnist-sat-small-silu-s0"])
def test_the_size_of_units_of_shipped_models_is_still_250_images(name: str) -> None:
    net = satbench.load_model(name)
    module = net.eval().requires_grad_(False)
    flops = pass_flops(module, torch.zeros(1, 1, 28, 28))
    assert flops is not None

    for attack in ("pgd-50", "fast(source=none)", "autoattack"):
        for cost in costs_of(parse_suite([attack]), 10):
            assert images_a_unit(cost, flops, CPU, 250) == 250


# The cost in a record


def test_a_record_holds_the_flops_of_its_passes(
    shipped: LoadedModel, fashion: Dataset, tmp_path: Path
) -> None:
    x, y = fashion.pixels(torch.arange(10).numpy()), fashion.labels[:10]
    record = satbench.evaluate(shipped.module, x, y, attacks="pgd-3", eps="0.1", out=tmp_path)
    flops = pass_flops(shipped.module.eval().requires_grad_(False), torch.zeros(1, 1, 28, 28))
    assert flops is not None
    (stage,) = record.stages

    assert record.environment.flops == flops.of(10 + stage.forwards, stage.backwards)
    assert record.path is not None
    assert read_record(record.path) == record


def test_older_records_are_read_and_get_no_new_fields() -> None:
    for path in sorted(PUBLISHED.glob(f"{SHIPPED}-*.json")):
        record = read_record(path)
        before = json.loads(path.read_text())["environment"]
        assert json.loads(record.to_json())["environment"] == before


def record_of(**environment: object) -> Record:
    record = read_record(next(iter(sorted(PUBLISHED.glob(f"{SHIPPED}-*.json")))))
    return replace(record, environment=replace(record.environment, **environment))  # type: ignore[arg-type]


def test_flops_and_joules_are_written_to_a_record_if_they_are_known() -> None:
    record = record_of(flops=12345, joules=6.5)
    told = json.loads(record.to_json())["environment"]

    assert (told["flops"], told["joules"]) == (12345, 6.5)
    assert parse_record(record.to_json(), "it") == record


def test_the_rate_of_a_machine_is_computed_from_records_with_flops() -> None:
    own = {"device": "NVIDIA X", "clean_seconds": 2.0, "stage_seconds": [8.0]}
    plain = record_of(**own)
    assert measured_machines([plain]) == []
    stages = [replace(one, source_forwards=0, source_backwards=0) for one in plain.stages]
    records = [
        replace(record_of(**own, flops=flops), stages=stages) for flops in (10**9, 3 * 10**9)
    ]
    (machine,) = measured_machines(records)

    assert machine.name == "NVIDIA X"
    assert machine.rate == pytest.approx(4e9 / 20)
    assert not machine.is_peak
