"""The parts of a result of `satbench.evaluate`: numbers, a table, images, pictures."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

import satbench
from satbench.cli import cli
from satbench.core.errors import SatbenchError
from satbench.evaluation.python import result as module
from satbench.evaluation.python.result import Result
from satbench.figures.images import Broken, ModelAnswer, amplified, factor_of, images_picture
from satbench.records.record import read_record


class Mean(nn.Module):
    """Three classes by the mean pixel m: logits (0, m - 1/2, -9)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(8.0))

    def forward(self, x: Tensor) -> Tensor:
        score = self.scale * (x.flatten(1).mean(1) - 0.5)
        zero = torch.zeros_like(score)
        return torch.stack([zero, score, zero - 9], 1)


MEANS = torch.tensor([0.2, 0.45, 0.55, 0.9, 0.3])
X = MEANS.view(-1, 1, 1, 1).repeat(1, 1, 3, 3)
Y = torch.tensor([0, 0, 1, 1, 1])  # the last is wrong when clean; 1 and 2 lie within 0.1


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Result:
    out = tmp_path_factory.mktemp("out")
    return satbench.evaluate(Mean(), X, Y, attacks="pgd-5", eps="0.1", out=out)


def test_a_result_has_verdicts_accuracies_an_interval_and_a_path(record: Result) -> None:
    assert record.verdicts == [-1, 1, 1, -1, 0]
    assert (record.robust_accuracy, record.clean_accuracy) == (2 / 5, 4 / 5)
    low, high = record.interval
    assert (round(low, 4), round(high, 4)) == (0.1176, 0.7693)  # Wilson's interval for 2 of 5
    assert record.path is not None
    assert record.path.is_file()
    assert not record.found


def test_a_result_equals_its_record_and_has_the_same_json(record: Result) -> None:
    assert record.path is not None
    plain = read_record(record.path)

    assert record == plain
    assert plain == record
    assert record.to_json() == plain.to_json()


def test_the_repr_of_a_result_is_short(record: Result) -> None:
    lines = repr(record).splitlines()

    assert len(lines) <= 8
    assert "40.0%" in repr(record)
    assert "Mean" in lines[0]
    html = record._repr_html_()
    assert html.count("<tr>") == 4  # the head, clean, pgd-5, overall
    assert "40.0%" in html


def test_adversarial_images_are_not_saved_in_a_folder_named_like_a_file(
    record: Result, tmp_path: Path
) -> None:
    with pytest.raises(SatbenchError, match=r"^expected a folder .*: it is the name of a file$"):
        record.save_adversarial(tmp_path / "adversarial.npz")


def test_a_result_names_its_file_only_if_the_file_stays(record: Result) -> None:
    lost = satbench.evaluate(Mean(), X, Y, attacks="pgd-1", eps="0.1", out=None)

    assert repr(record).splitlines()[-1] == f"wrote {record.path}"
    assert str(lost.path) not in repr(lost)
    assert "out=FOLDER keeps the record" in repr(lost)


def test_names_are_escaped_in_html(tmp_path: Path) -> None:
    found = satbench.evaluate(
        Mean(), X, Y, attacks="pgd-1", eps="0.1", out=tmp_path, name="<b>a</b>"
    )

    assert "&lt;b&gt;a" in found._repr_html_()


def test_the_data_frame_has_one_row_per_image(record: Result) -> None:
    frame = record.to_dataframe()

    assert frame.to_dict("list") == {
        "index": [0, 1, 2, 3, 4],
        "label": [0, 0, 1, 1, 1],
        "predicted": [0, 1, 0, 1, 0],
        "verdict": ["survived", "broken", "broken", "survived", "wrong"],
        "attack": ["", "pgd-5", "pgd-5", "", ""],
    }


def test_without_pandas_the_error_says_what_to_install(
    record: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)

    with pytest.raises(SatbenchError, match=r"pip install 'satbench\[pandas\]'"):
        record.to_dataframe()


def test_the_adversarial_images_fool_the_model_within_eps(record: Result) -> None:
    found = record.adversarial()
    images = torch.from_numpy(found.images)

    assert found.indices.tolist() == [1, 2]
    assert found.labels.tolist() == [0, 1]
    assert found.predictions.tolist() == [1, 0]
    assert Mean()(images).argmax(1).tolist() == [1, 0]
    assert float((images - X[1:3]).abs().max()) <= 0.1 + 1e-6


def test_a_model_that_was_trained_further_is_refused() -> None:
    model = Mean()
    found = satbench.evaluate(model, X, Y, attacks="pgd-5", eps="0.1", out=None)
    model.scale.data.mul_(2)

    with pytest.raises(SatbenchError, match="weights of Mean are no longer those of the record"):
        found.adversarial()


def test_a_result_without_a_folder_keeps_its_images_until_it_is_deleted() -> None:
    found = satbench.evaluate(Mean(), X, Y, attacks="pgd-5", eps="0.1", out=None)
    folder = found.path.parent if found.path else None
    assert folder
    assert len(found.adversarial().indices) == 2

    del found

    assert not folder.exists()


def test_a_record_can_be_loaded_with_its_model_and_images(record: Result) -> None:
    assert record.path is not None
    bare = satbench.load_record(record.path)
    whole = satbench.load_record(record.path, Mean(), X, Y)

    assert bare == record
    assert bare.robust_accuracy == record.robust_accuracy
    with pytest.raises(SatbenchError, match="a user's own images"):
        bare.adversarial()
    assert np.array_equal(whole.adversarial().images, record.adversarial().images)


def test_the_model_and_images_of_a_result_need_not_be_given_again(
    record: Result, tmp_path: Path
) -> None:
    assert satbench.verify(record).robust_accuracy == record.robust_accuracy
    stronger = satbench.challenge(record, attacks="pgd-20", out=tmp_path)
    assert stronger.surviving() == 2
    assert len(stronger.adversarial().indices) == 2


# Pictures


def broken(delta: float, before: float = 0.9) -> Broken:
    clean = np.full((1, 2, 2), 0.5, np.float32)
    moved = clean.copy()
    moved[0, 0, 0] += np.float32(delta)
    return Broken(3, clean, moved, ModelAnswer("cat", before), ModelAnswer("dog", 0.6))


@pytest.mark.parametrize(
    ("delta", "factor"), [(0.1, 5.0), (8 / 255, 15.0), (1 / 255, 120.0), (0.6, 1.0), (0.0, 1.0)]
)
def test_the_factor_scales_the_largest_change_to_half_the_range(
    delta: float, factor: float
) -> None:
    assert factor_of([broken(delta), broken(delta / 2)]) == factor


def test_a_perturbation_is_shown_around_grey() -> None:
    shown = amplified(broken(-0.1), 5.0)

    assert shown[0].round(4).tolist() == [[0.0, 0.5], [0.5, 0.5]]


def texts_of(picture: Any) -> list[str]:
    return [text.get_text() for axes in picture.figure.axes for text in axes.texts]


def test_the_picture_shows_labels_confidences_and_the_factor() -> None:
    texts = texts_of(images_picture([broken(0.1)], "title"))

    assert {"cat\n90%", "dog\n60%", "clean", "perturbation\n× 5", "adversarial"} <= set(texts)


def test_show_draws_three_images_for_each_broken_one(record: Result) -> None:
    picture = record.show(8)

    assert sum(len(axes.images) for axes in picture.figure.axes) == 6
    shown = [axes.images[0].get_array() for axes in picture.figure.axes if axes.images]
    assert np.allclose(np.asarray(shown[0]), 0.45)  # the clean image 1
    assert picture._repr_png_().startswith(b"\x89PNG")
    assert "zero\n" in " ".join(texts_of(record.show(1, names=["zero", "one", "two"])))


def test_show_without_a_broken_image_is_refused_in_one_sentence() -> None:
    found = satbench.evaluate(Mean(), X[:1], Y[:1], attacks="pgd-1", eps="0.01", out=None)

    with pytest.raises(SatbenchError, match="expected a broken image to show"):
        found.show(8)
    with pytest.raises(SatbenchError, match="expected 1 image or more"):
        found.show(0)


def test_plot_draws_a_bar_for_each_attack(record: Result) -> None:
    axes = record.plot().figure.axes[0]

    assert [bar.get_width() for bar in axes.patches] == [80.0, 40.0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["clean", "pgd-5"]


@pytest.mark.slow
def test_the_command_writes_figure_images_and_arrays(tmp_path: Path) -> None:
    name = "fmnist-sat-tiny-silu-s0"
    found = satbench.evaluate(name, attacks="pgd-3", n_examples=12, eps="0.2", out=tmp_path)
    said = CliRunner().invoke(
        cli, ["images", str(found.path), "--n", "2", "--out", str(tmp_path / "images")]
    )

    assert said.exit_code == 0, said.output
    files = sorted(path.name for path in (tmp_path / "images").iterdir())
    assert len(files) == 2 + 2 * 3
    assert {"adversarial.npz", "images.png"} <= set(files)
    with np.load(tmp_path / "images" / "adversarial.npz") as held:
        assert np.array_equal(held["images"], found.adversarial().images)
        assert (held["labels"] != held["predictions"]).all()


# The interface


def test_dir_lists_public_names_that_all_exist() -> None:
    assert dir(satbench) == sorted(satbench.__all__)
    for name in dir(satbench):
        assert getattr(satbench, name) is not None


class Shell:
    kernel = object()


def test_a_notebook_shows_a_progress_bar_unless_progress_is_false(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown: list[str] = []
    line = SimpleNamespace(update=shown.append)

    def display(html: str, display_id: bool) -> Any:
        shown.append(html)
        return line

    notebook = SimpleNamespace(HTML=str, display=display)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=Shell))
    monkeypatch.setitem(sys.modules, "IPython.display", notebook)
    given: dict[str, Any] = {"attacks": "pgd-5", "eps": "0.1", "out": None}

    satbench.evaluate(Mean(), X, Y, progress=False, **given)
    assert shown == []
    satbench.evaluate(Mean(), X, Y, **given)

    assert any("pgd-5" in text and 'value="1.0000" max="1"' in text for text in shown)
    assert "2 survive" in shown[-1]


def test_two_records_are_compared_image_by_image(tmp_path: Path) -> None:
    given: dict[str, Any] = {"attacks": "pgd-5", "out": tmp_path}
    x, y = X.repeat(4, 1, 1, 1), Y.repeat(4)
    weak = satbench.evaluate(Mean(), x, y, eps="0.1", **given)
    inner = Mean()
    flat = satbench.evaluate(lambda x: inner(0 * x + 0.9), x, y, eps="0.1", **given)
    found = satbench.compare(flat, weak)

    assert found.robust == (12 / 20, 8 / 20)
    assert (found.only_first, found.only_second) == (8, 4)
    assert found.p == pytest.approx(0.3877, abs=1e-4)  # the exact binomial test for 4 of 12
    assert not found.shown
    # Agresti & Min: (8.5 - 4.5) / 22 ± 1.95996 sqrt(13 - 16 / 22) / 22
    assert found.interval == pytest.approx((-0.13028, 0.49392), abs=1e-4)
    with pytest.raises(SatbenchError, match="of the same threat model"):
        satbench.compare(weak, satbench.evaluate(Mean(), x, y, eps="0.05", **given))
