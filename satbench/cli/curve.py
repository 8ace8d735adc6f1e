"""`satbench curve`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from satbench.cli import options
from satbench.core.text.terminal import tell

if TYPE_CHECKING:
    from satbench.models import FileOptions

# A gradient attack misses points on nets that mask their gradients; one that needs none is beside
# it where there is one.
_DEFAULT_ATTACKS = {
    "linf": ("foolbox.fmn", "fab-t(targets=3)", "foolbox.hopskipjump(steps=10)"),
    "l2": ("foolbox.fmn", "fab-t(targets=3)", "foolbox.hopskipjump(steps=10)"),
    "l1": ("foolbox.fmn", "fab-t(targets=3)"),
}


@click.command()
@click.option(
    "--model",
    "models",
    multiple=True,
    required=True,
    help="As for `satbench eval`.  Several models give several lines in one figure.",
)
@options.model_files
@options.dataset_and_norm("the model")
@click.option(
    "--attack",
    "attacks",
    multiple=True,
    help="A minimum-norm attack, such as foolbox.fmn; of several the nearest point counts. "
    "Default: foolbox.fmn, fab-t(targets=3) and, but in l1, foolbox.hopskipjump(steps=10).",
)
@click.option(
    "--at-marks",
    multiple=True,
    help="An attack within the eps of the table, which the curve is brought down to.  "
    "Default: pgd-50, or square where no --attack follows gradients.",
)
@click.option(
    "--eps-max",
    help="Where the figure's axis ends, for pixels in [0, 1].  Default: near the curve's end.",
)
@options.n_examples()
@options.how_to_run
@options.timeout
@options.workers
@options.again
@options.out("results/curves", "the curves, their points, and the figure: curve.png, curve.svg")
@options.how_to_tell
def curve(
    models: tuple[str, ...],
    file: FileOptions,
    dataset: str | None,
    norm: str | None,
    attacks: tuple[str, ...],
    at_marks: tuple[str, ...],
    eps_max: str | None,
    n_examples: int | None,
    seed: int,
    batch_size: int,
    device: str,
    data_dir: Path | None,
    timeout: float | None,
    workers: int,
    again: bool,
    out: Path,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure and draw robust accuracy against eps, by minimum-norm attacks.

    For each image the nearest point that any attack finds and the judge confirms says up to which
    eps the image is right.  Records of the same model, published or in --out, and an attack at the
    eps of the table bound the curve.  The distances are written as JSON, the points beside them.
    """
    from satbench.attacks import check_attack_name
    from satbench.core.errors import SatbenchError
    from satbench.core.threat import Threat
    from satbench.evaluation.config import eval_config
    from satbench.figures.drawing import curve_figure
    from satbench.figures.picture import FORMATS, check_can_draw
    from satbench.models import request_model
    from satbench.records.curves import marks_of

    check_can_draw()
    for attack in at_marks:
        check_attack_name(attack)
    configs = []
    for model in models:
        request = request_model(model, **vars(file))
        trained = Threat.parse(request.threat).norm if request.threat else "linf"
        chosen = (norm or trained).lower()
        config = eval_config(
            model,
            file=file,
            dataset=dataset,
            norm=chosen,
            eps=eps_max or "1",
            attacks=attacks or _DEFAULT_ATTACKS[chosen],
            n_examples=n_examples,
            seed=seed,
            batch_size=batch_size,
            device=device,
            data_dir=data_dir,
            out=out,
            fresh=again,
            timeout=timeout,
        )
        configs.append(config)
    kinds = sorted({f"{config.threat.norm} on {config.dataset}" for config in configs})
    if len(kinds) > 1:
        raise SatbenchError(
            f"expected models of one norm and data set for one figure, got {' and '.join(kinds)}; "
            "give --norm and --dataset"
        )
    from satbench.core.console import BarProgress, results
    from satbench.curve.report import curve_summary, curve_table, passes_of
    from satbench.curve.run import measure_configs
    from satbench.evaluation.workers import check_workers, helped

    tasks = [(measure_configs, (configs, at_marks))]
    with helped(tasks, check_workers(workers, again)) as shared, BarProgress(quiet) as progress:
        measured = measure_configs(
            configs, at_marks, progress, lambda config: progress.model(config.model.text), shared
        )
    curves = [one.curve for one in measured]
    figures = [out / f"curve{suffix}" for suffix in FORMATS]
    for figure in figures:
        curve_figure(curves, figure, configs[0].threat.radius if eps_max else None)
    if as_json:
        marks = marks_of(curves)
        shown = [curve_summary(one.curve, marks, one.path, figures) for one in measured]
        tell(json.dumps(shown, indent=2))
        return
    results().print(curve_table(curves))
    for one in measured:
        where = f"{one.path}, {passes_of(one.curve)}"
        options.tell_where(where, one.found, one.curve.environment.finished, quiet)
        if sign := one.curve.masking_sign():
            tell(f"note: {sign}")
    tell(f"drew {' and '.join(str(figure) for figure in figures)}")
