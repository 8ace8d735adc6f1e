"""The command `satbench images`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from satbench.cli import options
from satbench.cli.shell.commands import command
from satbench.cli.shell.paths import PATH
from satbench.core.text.terminal import tell

if TYPE_CHECKING:
    from satbench.models import FileOptions


@command(
    examples="""
    satbench images results/RECORD.json --out pictures
    satbench images results/RECORD.json --n 4 --figure panda.svg
    """,
)
@click.argument("record", type=PATH)
@click.option("--n", type=int, default=8, show_default=True, help="How many images.")
@click.option("--figure", type=PATH, help="Write only the figure, to this file.")
@options.what_a_record_is_of
@options.out("results/images", "the figure, three PNGs for each image, and the arrays")
@options.as_json
def images(
    record: Path,
    n: int,
    figure: Path | None,
    model: str | None,
    file: FileOptions,
    dataset: str | None,
    data_dir: Path | None,
    trust: tuple[str, ...],
    out: Path,
    as_json: bool,
) -> None:
    """Draw images that RECORD says are broken: clean, perturbation, adversarial.

    The model's answer and its confidence are below each.  images.png shows all of them;
    INDEX-clean.png and the like show one each.  adversarial.npz has the exact arrays of every
    broken image: indices, images, labels, predictions.  The first images have different labels.
    """
    from dataclasses import replace

    from satbench.core.files import check_folder
    from satbench.evaluation.given import Given
    from satbench.evaluation.python.result import Result
    from satbench.figures.images import images_picture, write_images
    from satbench.figures.picture import check_can_draw, check_format
    from satbench.records.record import read_record

    check_can_draw()
    if figure:
        check_format(figure)
    check_folder(figure.parent if figure else out)
    given = Given(model, dataset, data_dir, file, trust)
    result = Result.of(replace(read_record(record), path=record), given)
    shown = result.broken_images(n)
    if figure:
        paths = [images_picture(shown, result.caption).save(figure)]
    else:
        paths = [*write_images(shown, result.caption, out), result.save_adversarial(out)]
    if as_json:
        answers = [
            {
                "index": one.index,
                "label": one.before.said,
                "confidence": one.before.confidence,
                "predicted": one.after.said,
                "predicted_confidence": one.after.confidence,
            }
            for one in shown
        ]
        tell(json.dumps({"images": answers, "files": [str(path) for path in paths]}, indent=2))
        return
    for one in shown:
        tell(
            f"image {one.index}: {one.before.said} ({one.before.confidence:.0%}) becomes "
            f"{one.after.said} ({one.after.confidence:.0%})"
        )
    tell(f"wrote {paths[0]}" + (f" and {len(paths) - 1} more" if paths[1:] else ""))
