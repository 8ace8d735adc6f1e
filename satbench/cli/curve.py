"""The command `satbench curve`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from satbench.cli import options
from satbench.cli.shell import completion
from satbench.cli.shell.commands import command
from satbench.core.text.terminal import tell

if TYPE_CHECKING:
    from satbench.models import FileOptions

# A gradient attack misses points on networks that mask their gradients.  So each norm also has an
# attack without gradients, if there is one.
_DEFAULT_ATTACKS = {
    "linf": ("foolbox.fmn", "fab-t(targets=3)", "foolbox.hopskipjump(steps=10)"),
    "l2": ("foolbox.fmn", "fab-t(targets=3)", "foolbox.hopskipjump(steps=10)"),
    "l1": ("foolbox.fmn", "fab-t(targets=3)"),
}


@command(
    examples="""
    satbench curve fmnist-sat-tiny-relu-s0 fmnist-sat-tiny-silu-s0 --limit 100
    satbench curve fmnist-sat-tiny-silu-s0 --norm l2 --eps-max 2
    """,
)
@click.argument("names", nargs=-1, metavar="[MODEL]...", shell_complete=completion.models)
@click.option(
    "--model",
    "models",
    multiple=True,
    shell_complete=completion.models,
    help="The same as MODEL, see `satbench eval --help`. Several models give one figure with a "
    "line for each.",
)
@options.model_files
@click.option(
    "--attack",
    "attacks",
    multiple=True,
    shell_complete=completion.attacks,
    help="A minimum-norm attack, such as foolbox.fmn; if several are given, the nearest point "
    "counts. Default: foolbox.fmn, fab-t(targets=3) and, except in l1, "
    "foolbox.hopskipjump(steps=10).",
)
@click.option(
    "--at-marks",
    multiple=True,
    shell_complete=completion.attacks,
    help="An attack at the eps of the table; its result bounds the curve. "
    "Default: pgd-50, or square if no --attack uses gradients.",
)
@click.option(
    "--eps-max",
    help="Largest eps of the figure, for pixels in [0, 1]. Default: near the curve's end.",
)
@options.a_run(
    "the model", "results/curves", "the curves, their points, and the figure: curve.png, curve.svg"
)
@click.pass_context
def curve(
    ctx: click.Context,
    names: tuple[str, ...],
    models: tuple[str, ...],
    file: FileOptions,
    attacks: tuple[str, ...],
    at_marks: tuple[str, ...],
    eps_max: str | None,
    run: options.RunOptions,
) -> None:
    """Measure and draw robust accuracy against eps, by minimum-norm attacks.

    An image counts as right up to the distance of the nearest adversarial point that any attack
    finds and the judge confirms. Records of the same model, published or in --out, and an attack
    at the eps of the table bound the curve. The distances and points are written as JSON.
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
    for model in options.models_of(ctx, names, models):
        request = request_model(model, **vars(file))
        trained = Threat.parse(request.threat).norm if request.threat else "linf"
        chosen = (run.settings["norm"] or trained).lower()
        config = eval_config(
            model,
            file=file,
            eps=eps_max or "1",
            attacks=attacks or _DEFAULT_ATTACKS[chosen],
            **run.with_norm(chosen),
        )
        configs.append(config)
    kinds = sorted({f"{config.threat.norm} on {config.dataset}" for config in configs})
    if len(kinds) > 1:
        raise SatbenchError(
            "expected models with the same norm and data set for one figure, got "
            f"{' and '.join(kinds)}; give --norm and --dataset"
        )
    from satbench.core.console import BarProgress, results
    from satbench.curve.report import curve_summary, curve_table, passes_of
    from satbench.curve.run import measure_configs
    from satbench.evaluation.workers import helped

    tasks = [(measure_configs, (configs, at_marks))]
    with (
        helped(tasks, run.workers.checked(run.again), run.quiet) as shared,
        BarProgress(run.quiet) as progress,
    ):
        measured = measure_configs(
            configs, at_marks, progress, lambda config: progress.model(config.model.text), shared
        )
    curves = [one.curve for one in measured]
    figures = [run.out / f"curve{suffix}" for suffix in FORMATS]
    for figure in figures:
        curve_figure(curves, figure, configs[0].threat.radius if eps_max else None)
    if run.as_json:
        marks = marks_of(curves)
        shown = [curve_summary(one.curve, marks, one.path, figures) for one in measured]
        tell(json.dumps(shown, indent=2))
        return
    results().print(curve_table(curves))
    for one in measured:
        where = f"{one.path}, {passes_of(one.curve)}"
        options.tell_where(where, one.found, one.curve.environment.finished, run.quiet)
        if sign := one.curve.masking_sign():
            tell(f"note: {sign}")
    tell(f"drew {' and '.join(str(figure) for figure in figures)}")
