"""Plans: the models of a study, and the key of each."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from satbench.attacks import attack_spec, parse_attack
from satbench.core.content import content_folder
from satbench.core.errors import SatbenchError
from satbench.core.threat import Threat
from satbench.model_zoo.card import read_card, write_card, zoo_card
from satbench.models import load_model, request_model
from satbench.studies import STUDIES, Study, load_study
from satbench.studies.design import Arm, Pair, Pool, StudyColumn
from satbench.studies.images import DatasetCache
from satbench.studies.pages.build import sheet_of
from satbench.studies.pages.page import render_page
from satbench.studies.plan import Cell, StudyOptions, parse_seeds, plan_study, suite_for
from satbench.studies.run_file import read_study_run
from satbench.studies.store import Models, Places, training_key


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("0-4", (0, 1, 2, 3, 4)),
        ("0", (0,)),
        ("3", (3,)),
        (" 12 ", (12,)),
        ("3x", (0, 1, 2)),
        ("1x", (0,)),
        ("7,2-3", (7, 2, 3)),
        ("0,2,5", (0, 2, 5)),
        ("5-5", (5,)),
    ],
)
def test_seeds_are_given_as_a_range_a_list_or_a_count(text: str, seeds: tuple[int, ...]) -> None:
    assert seeds == parse_seeds(text)


@pytest.mark.parametrize("text", ["", "0x", "x", "-1x", "2x,5", "a-b", "1,1", "4-2", "-1"])
def test_malformed_seeds_are_refused(text: str) -> None:
    with pytest.raises(SatbenchError, match="expected seeds such as 0-4"):
        parse_seeds(text)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", STUDIES.names())
def test_every_study_can_be_planned_and_refers_to_existing_names(name: str) -> None:
    study = load_study(name)
    images = DatasetCache(digests={f"fashion-mnist@{side}": "digest" for side in (20, 34, 40)})
    plan = plan_study(study, StudyOptions(), images)
    columns = {one.name for one in study.evaluations}

    assert name == study.name
    assert {arm.name for arm in study.arms} == set(plan.rows)
    assert {study.verdict, study.paper_verdict} <= columns
    assert {n for one in study.evaluations for n in one.worst_of} <= columns
    assert {n for c in study.contrasts for n in (c.arm, c.baseline)} <= set(plan.rows)


def test_a_shipped_model_is_found_even_if_its_recipe_has_another_name() -> None:
    plan = plan_study(load_study("gradient-quality"), StudyOptions(seeds=(0,)), DatasetCache())
    models = Models(Places())
    found = {arm: models.find(cells[0]) for arm, cells in plan.rows.items()}

    assert {
        "ReLU": "fmnist-sat-tiny-relu-s0",
        "PGD-2": "fmnist-pgd2-tiny-relu-s0",
        "SILU": "fmnist-sat-tiny-silu-s0",
        "parametric softplus": "fmnist-sat-tiny-parametric-softplus-s0",
    } == {arm: model.text for arm, model in found.items() if model}


def test_the_networks_of_a_registered_study_ship_with_a_checkout() -> None:
    plan = plan_study(load_study("smoothness-0.03"), StudyOptions(seeds=(200,)), DatasetCache())
    found = Models(Places()).find(plan.rows["ReLU, PGD-2"][0])

    assert found
    assert found.origin == "shipped"
    loaded = load_model(request_model(found.text), 10)
    assert (loaded.info.activation, loaded.info.parameters) == ("relu", 15_682)


@pytest.mark.parametrize(
    ("recipe", "network", "threat", "epochs"),
    [
        ("fmnist-sat", "small(width=32,blocks=1", "linf:0.03", 16),
        ("sat-cifar10", "preact-resnet(depth=18", "linf:8/255", 30),
    ],
)
def test_the_second_scale_has_its_own_network_and_a_third_one_that_of_its_recipe(
    recipe: str, network: str, threat: str, epochs: int
) -> None:
    images = DatasetCache(digests={"fashion-mnist": "one", "cifar10": "another"})
    plan = plan_study(load_study("smoothness-larger", recipe), StudyOptions(), images)
    configs = [cell.config for cell in plan.cells if cell.config]

    assert len(configs) == 10
    assert all(config.architecture.startswith(network) for config in configs)
    assert {config.threat for config in configs} == {threat}
    assert {config.epochs for config in configs} == {epochs}
    assert {config.activation for config in configs} == {"relu", "silu"}
    assert {config.attack_mode for config in configs} == {"eval"}
    assert all(config.attack.startswith("pgd(steps=2,step=0.75*eps") for config in configs)


@pytest.mark.parametrize("name", STUDIES.names())
def test_a_study_of_another_recipe_is_evaluated_with_the_current_version_of_fast(name: str) -> None:
    columns = load_study(name, "sat-cifar10").evaluations
    versions = {a for column in columns for a in column.attacks if a.startswith("fast")}

    assert versions == {"fast(version=3)"}
    assert attack_spec("fast").startswith("fast(version=3,")


def test_the_makefile_runs_and_checks_every_study() -> None:
    text = (Path(__file__).parents[2] / "Makefile").read_text(encoding="utf-8")
    listed = re.search(r"^STUDIES := ((?:.*\\\n)*.*)$", text, re.MULTILINE)

    assert listed
    assert set(listed[1].replace("\\", " ").split()) == set(STUDIES.names())


def test_the_card_of_one_epoch_of_an_unfinished_run_is_not_its_model(tmp_path: Path) -> None:
    """The run writes its own card last, so a process can be killed before that."""
    card = zoo_card("fmnist-sat-tiny-silu-s0")
    trained = card.training
    assert trained
    other = replace(trained, config={**trained.config, "seed": 77})
    key = training_key(other.config, other.data_digest)
    cell = Cell(key, "SILU, seed 77", 77, trained.dataset, ())
    models = Models(Places(models=(tmp_path,)))
    for which in ("-best", "-last", ""):
        path = tmp_path / "mine" / f"mine{which}.json"
        path.parent.mkdir(exist_ok=True)
        write_card(replace(card, name=path.stem, training=other), path)
        (path.parent / card.weights).write_bytes(b"weights")
        assert (models.find(cell) is None) == bool(which)


def test_the_key_depends_on_the_training_data(made_study: Study) -> None:
    plans = [
        plan_study(
            replace(made_study, base={**made_study.base, "dataset": "fashion-mnist@20"}),
            StudyOptions(),
            DatasetCache(digests={"fashion-mnist@20": digest}),
        )
        for digest in ("one", "another")
    ]

    assert not {c.key for c in plans[0].cells} & {c.key for c in plans[1].cells}


def test_the_arms_of_the_primary_question_come_first_seed_by_seed(made_study: Study) -> None:
    names = [arm.name for arm in made_study.arms]
    asked = Pool("p", "b", (Pair(names[-1], names[-1]),))
    plans = [
        plan_study(replace(made_study, primary=primary), StudyOptions(seeds=(3, 4)), DatasetCache())
        for primary in (None, asked)
    ]
    orders = [[cell.label for cell in plan.cells] for plan in plans]

    by_seed = [f"{name}, seed {seed}" for seed in (3, 4) for name in names]
    first = [f"{names[-1]}, seed {seed}" for seed in (3, 4)]
    assert by_seed == orders[0]
    assert [*first, *(label for label in by_seed if label not in first)] == orders[1]


def test_arms_with_the_same_config_share_their_runs(made_study: Study) -> None:
    twin = Arm("SILU again", {"activation": "silu", "label_smoothing": "0.0"})
    plan = plan_study(
        replace(made_study, arms=(*made_study.arms, twin)), StudyOptions(), DatasetCache()
    )

    assert plan.rows["SILU"][0].key == plan.rows["SILU again"][0].key
    assert 4 == len(plan.cells)


def test_a_doubled_setting_follows_the_recipe_and_set() -> None:
    plan = plan_study(load_study("gradient-quality"), StudyOptions({"epochs": 5}), DatasetCache())
    epochs = {
        arm: {cell.config.epochs for cell in cells if cell.config}
        for arm, cells in plan.rows.items()
    }

    assert {10} == epochs.pop("twice the epochs")
    assert {5} == set.union(*epochs.values())


def test_a_given_model_is_one_run_without_training(made_study: Study) -> None:
    given = Arm("given", model="fmnist-standard-tiny-relu-s0")
    plan = plan_study(
        replace(made_study, arms=(given,), contrasts=()), StudyOptions(), DatasetCache()
    )
    (cell,) = plan.cells

    assert cell.model == zoo_card("fmnist-standard-tiny-relu-s0").name
    assert cell.config is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"activation": "relu"}, "--set activation has no effect: every arm of made sets it"),
        ({"seed": 3}, "give the seeds of a study with --seeds"),
        ({"epocs": 3}, "unknown setting of the recipe fmnist-sat 'epocs'"),
    ],
)
def test_settings_without_effect_are_refused(
    made_study: Study, changes: dict[str, object], said: str
) -> None:
    with pytest.raises(SatbenchError, match=said):
        plan_study(made_study, StudyOptions(changes), DatasetCache())


def test_a_study_refuses_a_recipe_that_it_has_no_sizes_for() -> None:
    with pytest.raises(SatbenchError, match="expected one of the recipes"):
        load_study("scaling", "trades-cifar10")


def test_a_radius_is_multiplied_exactly() -> None:
    study = load_study("attack-convergence")
    plan = plan_study(study, StudyOptions(seeds=(0,)), DatasetCache())
    threats = {e.name: str(plan.threat_of(e)) for e in study.evaluations if len(e.attacks) == 1}

    assert ("linf:0.05", "linf:0.5") == (threats["fast at 0.5 eps"], threats["fast at 5 eps"])


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", STUDIES.names())
def test_every_study_has_a_page_without_any_run(name: str, tmp_path: Path) -> None:
    images = DatasetCache(digests={f"fashion-mnist@{side}": "digest" for side in (20, 34, 40)})
    plan = plan_study(load_study(name), StudyOptions(seeds=(0,), n_examples=1), images)
    sheet = sheet_of(plan, Places(tmp_path, tmp_path / "results"), images)

    assert [arm.name for arm in plan.study.arms] == [row.name for row in sheet.rows]
    assert f"# {plan.study.title}" == render_page(sheet).splitlines()[0]


def test_the_audit_sample_of_a_run_is_drawn_by_the_key_of_the_run(made_study: Study) -> None:
    audited = StudyColumn("audited", ("pgd-1", "audit(sample=3,weakest=1)"))
    study = replace(made_study, evaluations=(*made_study.evaluations, audited))
    plan = plan_study(study, StudyOptions(), DatasetCache())
    last = [one.suite[-1] for cell in plan.cells for one in cell.wanted]
    draws = {parse_attack(spec).draw for spec in last if spec.startswith("audit(")}  # type: ignore[attr-defined]

    assert {int(cell.key[:8], 16) for cell in plan.cells} == draws
    assert len(draws) == len(plan.cells) == 4


def test_a_given_audit_draw_is_kept() -> None:
    asked = ("audit(sample=3,weakest=1,draw=7)", "pgd-1")
    suite = suite_for("0" * 16, asked, "fashion-mnist", Threat.parse("linf:0.1"))

    assert ("audit(sample=3,weakest=1,draw=7)", attack_spec("pgd-1")) == suite


@pytest.mark.parametrize("name", STUDIES.names())
def test_the_verdict_of_every_study_includes_an_audit(name: str) -> None:
    study = load_study(name)
    columns = {one.name: one for one in study.evaluations}
    verdict = columns[study.verdict]
    parts = [columns[part] for part in verdict.worst_of] or [verdict]

    assert any(text.startswith("audit(") for part in parts for text in part.attacks)


def test_single_step_training_comes_first_at_the_larger_radius() -> None:
    plan = plan_study(load_study("smoothness-0.1"), StudyOptions(), DatasetCache())
    configs = [cell.config for cell in plan.cells if cell.config]
    steps = [re.findall(r"steps=(\d)", config.attack)[0] for config in configs]
    seeds = [cell.seed for cell in plan.cells]

    assert steps == ["1"] * 20 + ["2"] * 20
    assert seeds == 2 * sorted(2 * list(range(200, 210)))
    assert {config.threat for config in configs} == {"linf:0.1"}
    assert {config.epochs for config in configs} == {16}
    assert {config.attack_mode for config in configs} == {"eval"}
    assert [config.activation for config in configs] == ["relu", "silu"] * 20


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("smoothness-0.03", 40),
        ("smoothness-0.1", 40),
        ("smoothness-longer", 20),
        ("smoothness-larger", 10),
    ],
)
def test_every_evaluated_network_of_a_registered_study_is_committed(name: str, least: int) -> None:
    plan = plan_study(load_study(name), StudyOptions(), DatasetCache())
    folder = content_folder("leaderboard") / "studies"
    evaluated = [cell.key for cell in plan.cells if (folder / f"{cell.key}.json").exists()]
    lost = [
        key
        for key in evaluated
        if len([*(folder / "models").glob(f"*-{key[:8]}.*")]) != 2  # its card and its weights
    ]

    assert len(evaluated) >= least
    assert lost == []


@pytest.mark.parametrize(
    ("name", "warned"),
    [
        ("smoothness-0.03", 0),
        ("smoothness-0.1", 12),
        ("smoothness-longer", 0),
        ("smoothness-larger", 0),
    ],
)
def test_a_run_of_a_registered_study_has_the_notes_of_its_card(name: str, warned: int) -> None:
    plan = plan_study(load_study(name), StudyOptions(), DatasetCache())
    folder = content_folder("leaderboard") / "studies"
    runs = [read_study_run(folder / f"{cell.key}.json") for cell in plan.cells]
    cards = [read_card(*(folder / "models").glob(f"*-{run.key[:8]}.json")) for run in runs]

    assert [list(run.notes) for run in runs] == [
        card.training.notes if card.training else None for card in cards
    ]
    assert sum("catastrophic overfitting" in " ".join(run.notes) for run in runs) == warned
