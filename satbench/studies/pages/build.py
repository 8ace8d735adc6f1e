"""The page of a study: its sheet from the kept runs, and writing or checking the page."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from satbench.attacks import attack_spec
from satbench.core.files import write_text
from satbench.recipes import recipe_names, recipe_summary
from satbench.recipes.values import show_override
from satbench.studies import STUDIES, load_study
from satbench.studies.activation_shapes import activation_shape
from satbench.studies.definitions.shared import DEFAULT_RECIPE, EARLIER
from satbench.studies.design import Arm, Study, StudyColumn
from satbench.studies.images import DatasetCache
from satbench.studies.measures import MEASURES
from satbench.studies.pages.claims import claims_path, read_claims, render_claims
from satbench.studies.pages.figures import draw, write_figures
from satbench.studies.pages.page import (
    BEGIN,
    END,
    render_index,
    render_page,
    render_summary,
    with_summary,
)
from satbench.studies.plan import (
    Cell,
    StudyOptions,
    StudyPlan,
    plan_study,
    suite_for,
)
from satbench.studies.run_file import Outcome, StudyRun
from satbench.studies.sheet import ArmRuns, Column, Sheet, pictures_of
from satbench.studies.store import Places


def write_page(plan: StudyPlan, places: Places, images: DatasetCache, folder: Path) -> list[Path]:
    """Write the page of a study and its figures into a folder; return the paths."""
    sheet = sheet_of(plan, places, images)
    page = folder / f"{plan.study.name}.md"
    write_text(page, render_page(sheet))
    return [page, *write_figures(sheet, folder)]


def check_page(plan: StudyPlan, places: Places, images: DatasetCache, folder: Path) -> str:
    """Return a sentence if the page or a figure (SVG) is out of date; empty if nothing is."""
    sheet = sheet_of(plan, places, images)
    again = f"write it again with {_commands(plan)[1]} --only page"
    page = folder / f"{plan.study.name}.md"
    if said := _unlike(page, render_page(sheet).encode(), again):
        return said
    with TemporaryDirectory() as temporary:
        for kind, picture in pictures_of(sheet).items():
            drawn = Path(temporary) / f"{plan.study.name}{picture.suffix}.svg"
            draw(sheet, kind, drawn)
            if said := _unlike(folder / drawn.name, drawn.read_bytes(), again):
                return said
    return ""


def overview(places: Places, images: DatasetCache, folder: Path, readme: Path) -> dict[Path, str]:
    """Return the texts of the list of the studies, of the paper's claims, and of the README.

    The README has the table of the studies.

    Studies without a page are left out.  A README without the markers of the table does not change.
    Raises SatbenchError for markers that do not match.
    """
    names = [name for name in STUDIES.names() if (folder / f"{name}.md").is_file()]
    sheets = [
        sheet_of(plan_study(load_study(name), StudyOptions(), images), places, images)
        for name in names
    ]
    by_name = {sheet.study.name: sheet for sheet in sheets}
    pages = {
        folder / "README.md": render_index(sheets),
        folder / "PAPER.md": render_claims(read_claims(claims_path()), by_name),
    }
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    if BEGIN in text or END in text:
        summary = render_summary(sheets, folder.as_posix())
        pages[readme] = with_summary(text, summary, readme.name)
    return pages


def check_texts(pages: Mapping[Path, str], again: str) -> str:
    """Return a sentence about the first file that is out of date; empty if none is."""
    said = (
        _unlike(path, text.encode(), f"write it again with {again}") for path, text in pages.items()
    )
    return next(filter(None, said), "")


def sheet_of(plan: StudyPlan, places: Places, images: DatasetCache) -> Sheet:
    """Return the sheet of a study with its kept runs."""
    study, sweep = plan.study, plan.options.sweep
    return Sheet(
        study,
        rows=tuple(_row(plan, arm, places, images) for arm in study.arms),
        columns=tuple(_column(plan, evaluation) for evaluation in study.evaluations),
        n=plan.n,
        commands=_commands(plan),
        facts=_facts(plan),
        caveats=(*study.caveats, *_caveats(plan)),
        measures=MEASURES if study.measured else {},
        shapes=tuple(activation_shape(spec, name=name) for name, spec in study.shapes.items()),
        swept=tuple(show_override(sweep.key, value) for value in sweep.values) if sweep else (),
        choices=plan.choices,
    )


def _column(plan: StudyPlan, evaluation: StudyColumn) -> Column:
    if evaluation.worst_of:
        return Column(evaluation.name, worst_of=evaluation.worst_of)
    return Column(evaluation.name, _asked(evaluation), str(plan.threat_of(evaluation)))


def _asked(evaluation: StudyColumn) -> tuple[str, ...]:
    """Return a suite with `source=pinned` unchanged: its meaning depends on the data."""
    return tuple(attack_spec(text) for text in evaluation.attacks)


def _row(plan: StudyPlan, arm: Arm, places: Places, images: DatasetCache) -> ArmRuns:
    cells = plan.rows[arm.name]
    dataset = images.test(cells[0].dataset, plan.n).name
    kept = ((cell, places.run(cell.key)) for cell in cells)
    runs = (_seen(plan, cell, run, dataset) for cell, run in kept if run)
    ordered = tuple(sorted(runs, key=lambda run: run.seed))
    return ArmRuns(arm.name, _settings(plan, arm, cells[0]), ordered, len(cells), dataset)


def _seen(plan: StudyPlan, cell: Cell, run: StudyRun, dataset: str) -> StudyRun:
    """Return a run with only the outcomes of the study, with the suites of its columns."""
    outcomes: dict[tuple[str, tuple[str, ...]], Outcome] = {}
    for evaluation in plan.study.evaluations:
        if not evaluation.attacks:
            continue
        threat = plan.threat_of(evaluation)
        suite = suite_for(cell.key, evaluation.attacks, cell.dataset, threat)
        found = run.outcome(suite, str(threat), dataset, plan.n)
        if found:
            asked = _asked(evaluation)
            outcomes[str(threat), asked] = replace(found, suite=asked)
    return replace(run, seed=cell.seed, outcomes=tuple(outcomes.values()))


def _settings(plan: StudyPlan, arm: Arm, cell: Cell) -> str:
    """Return the settings of an arm, always with the activation and the swept setting."""
    if cell.config is None:
        return f"the model {cell.model}"
    own = {key: getattr(cell.config, key) for key in arm.settings}
    always = {"activation", plan.options.sweep.key if plan.options.sweep else ""}
    return ", ".join(
        show_override(key, value)
        for key, value in own.items()
        if key in always or value != getattr(plan.base, key)
    )


def _facts(plan: StudyPlan) -> tuple[tuple[str, str], ...]:
    base, study = plan.base, plan.study
    summary = recipe_summary(study.recipe) if study.recipe in recipe_names() else ""
    changes = {**study.base, **plan.options.overrides}
    facts = [("recipe", f"`{study.recipe}`" + (f": {summary}" if summary else ""))]
    if changes:
        texts = (f"`{show_override(key, value)}`" for key, value in changes.items())
        facts.append(("changed for all arms", ", ".join(texts)))
    if sweep := plan.options.sweep:
        seeds = sweep.seeds or plan.options.seeds or study.default_seeds
        trainings = f"`{sweep.key}`, by its trainings with seed {', '.join(map(str, seeds))}"
        facts.append(("chosen for each arm", trainings))
    settings: Sequence[tuple[str, object]] = (
        ("network", base.architecture),
        ("inner attacker", base.attack),
        ("threat model of training", base.threat),
        ("epochs", base.epochs),
    )
    own = {key for arm in study.arms for key in arm.settings}
    names = {"network": "architecture", "inner attacker": "attack", "epochs": "epochs"}
    for name, value in settings:
        unless = " (unless the arm says otherwise)" if names.get(name) in own else ""
        facts.append((name, f"`{value}`{unless}"))
    return tuple(facts)


def _caveats(plan: StudyPlan) -> tuple[str, ...]:
    base, study = plan.base, plan.study
    return (
        f"One data set ({base.dataset}), small networks and one recipe: the results may not hold "
        "at other scales.  The same command with `--recipe` repeats the study there.",
        f"Robust accuracy is an upper bound: a stronger attack than *{study.verdict}* could break "
        "more images, in one arm more than in another.",
        *((_EARLIER_SUITE,) if _is_earlier(study) else ()),
        _tuning(plan),
    )


_EARLIER_SUITE = (
    f"`{EARLIER}` is not the current version. The current one would need the networks again, and "
    "those outside the zoo were not kept. [suites.md](../suites.md) counts the images that each "
    "version misses, network by network."
)


def _is_earlier(study: Study) -> bool:
    return any(EARLIER in column.attacks for column in study.evaluations)


def _tuning(plan: StudyPlan) -> str:
    sweep = plan.options.sweep
    if sweep is None:
        return (
            "Other settings are the same for all arms and tuned for none; "
            "[recipe-sensitivity](recipe-sensitivity.md) tests the effect of that."
        )
    return (
        f"`{sweep.key}` is tuned for each arm among {len(sweep.values)} values; other settings are "
        "the same for all arms. A value between them could suit an arm better."
    )


def _commands(plan: StudyPlan) -> tuple[str, ...]:
    study, options = plan.study, plan.options
    words = ["satbench", "study", study.name]
    if study.recipe != DEFAULT_RECIPE:
        words += ["--recipe", study.recipe]
    for key, value in options.overrides.items():
        words += ["--set", show_override(key, value)]
    if options.seeds and options.seeds != study.default_seeds:
        words += ["--seeds", ",".join(map(str, options.seeds))]
    if options.sweep:
        values = (show_override("", value)[1:] for value in options.sweep.values)
        words += ["--sweep", f"{options.sweep.key}={','.join(values)}"]
        if options.sweep.seeds:
            words += ["--sweep-seeds", ",".join(map(str, options.sweep.seeds))]
    if plan.n != study.n_examples:
        words += ["--n-examples", str(plan.n)]
    if options.evaluate_on:
        words += ["--eval-dataset", options.evaluate_on]
    command = shlex.join(words)
    return (f"{command} --dry-run", command, f"{command} --check")


def _unlike(path: Path, wanted: bytes, again: str) -> str:
    if not path.is_file():
        return f"{path} is missing; {again}"
    if path.read_bytes() != wanted:
        return f"{path} does not match the run files; {again}"
    return ""
