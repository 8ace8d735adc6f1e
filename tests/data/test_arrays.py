"""A user's own images in array files."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from satbench.core.digests import digest_arrays
from satbench.core.errors import SatbenchError
from satbench.data import check_name, load_arrays, load_dataset

X = np.arange(4 * 3 * 5 * 5).astype(np.uint8).reshape(4, 3, 5, 5)
Y = np.array([2, 0, 6, 1])
FLOATS = X.astype(np.float32) / np.float32(255)

Array = NDArray[Any]
Write = Callable[[Path, Array, Array], str]


def write_npz(folder: Path, x: Array, y: Array) -> str:
    np.savez(folder / "mine.npz", x=x, y=y)
    return str(folder / "mine.npz")


def write_named_npz(folder: Path, x: Array, y: Array) -> str:
    np.savez_compressed(folder / "mine.npz", labels=y, images=x, mean=np.zeros(3))
    return str(folder / "mine.npz")


def write_pt_dict(folder: Path, x: Array, y: Array) -> str:
    both = {"data": torch.from_numpy(x), "targets": torch.from_numpy(y), "epoch": 3}
    torch.save(both, folder / "mine.pt")
    return str(folder / "mine.pt")


def write_pt_pair(folder: Path, x: Array, y: Array) -> str:
    torch.save((torch.from_numpy(x), torch.from_numpy(y)), folder / "mine.pt")
    return str(folder / "mine.pt")


def write_npys(folder: Path, x: Array, y: Array) -> str:
    np.save(folder / "mine.npy", x)
    np.save(folder / "y.npy", y)
    return f"{folder / 'mine.npy'},{folder / 'y.npy'}"


every_form = pytest.mark.parametrize(
    "write", [write_npz, write_named_npz, write_pt_dict, write_pt_pair, write_npys]
)


@every_form
@pytest.mark.parametrize("x", [X, FLOATS], ids=["bytes", "floats"])
def test_every_file_form_gives_the_same_data_set(write: Write, x: Array, tmp_path: Path) -> None:
    data = load_arrays(write(tmp_path, x, Y))

    np.testing.assert_array_equal(data.images, x, strict=True)
    assert (data.labels.tolist(), data.labels.dtype) == ([2, 0, 6, 1], np.int64)
    assert (data.name, data.split, data.classes) == ("mine", "user", 7)
    assert data.digest == digest_arrays(x, Y)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32, np.uint64, ">i4"])
def test_labels_may_have_any_integer_type(kind: str, tmp_path: Path) -> None:
    assert load_arrays(write_npys(tmp_path, X, Y.astype(kind))).digest == digest_arrays(X, Y)


@pytest.mark.parametrize("x", [np.asfortranarray(X), FLOATS.astype(">f4"), np.flip(X, 2)])
def test_the_memory_layout_in_the_file_does_not_matter(x: Array, tmp_path: Path) -> None:
    data = load_arrays(write_npys(tmp_path, x, Y))

    np.testing.assert_array_equal(data.images, x)
    assert data.images.dtype.isnative
    assert data.images.flags.c_contiguous


def test_npy_files_are_memory_mapped(tmp_path: Path) -> None:
    base = load_arrays(write_npys(tmp_path, X, Y)).images
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base  # type: ignore[assignment]

    assert isinstance(base, np.memmap)


def test_a_name_and_a_class_count_may_be_given(tmp_path: Path) -> None:
    data = load_arrays(write_npz(tmp_path, X, Y), name="other", classes=1000)

    assert (data.name, data.classes) == ("other", 1000)


def test_paths_may_contain_commas(tmp_path: Path) -> None:
    folder = tmp_path / "a,b.npy"
    folder.mkdir()

    assert load_arrays(write_npys(folder, X, Y)).name == "mine"


@every_form
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X.transpose(0, 2, 3, 1), Y, r"channels come last; save x\.transpose\(0, 3, 1, 2\)"),
        (X[:, 0], Y, r"\(N, C, H, W\).*got shape \(4, 5, 5\)"),
        (X[:0], Y[:0], "at least one image"),
        (X.astype(np.float64) / 255, Y, "got float64"),
        (X.astype(np.int64), Y, "got int64"),
        (X.astype(np.float32), Y, "got 0 to 255; save them divided by 255"),
        (FLOATS - np.float32(0.5), Y, "model as its first layer"),
        (FLOATS * np.float32(1.01 / FLOATS.max()), Y, r"got 0 to 1\.01; clip"),
        (np.where(FLOATS == FLOATS[2, 1, 1, 1], np.float32("nan"), FLOATS), Y, "finite pixels"),
        (X, Y[:3], "4 images and 3 labels"),
        (X, Y[:, None], r"shape \(4, 1\); save y\.reshape\(-1\)"),
        (X, np.eye(7)[Y], r"save one-hot labels as y\.argmax\(1\)"),
        (X, Y.astype(np.float32), "whole numbers .*got float32"),
        (X, Y - 1, "count from 0 .*got -1"),
    ],
)
def test_invalid_arrays_are_refused_with_the_name_of_the_file(
    write: Write, x: Array, y: Array, message: str, tmp_path: Path
) -> None:
    spec = write(tmp_path, np.ascontiguousarray(x), y)
    with pytest.raises(SatbenchError, match=message) as refused:
        load_arrays(spec)

    assert spec.split(",")[0] in str(refused.value)
    assert "\n" not in str(refused.value)


def test_labels_beyond_the_given_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SatbenchError, match=r"expected labels in 0…5 for 6 classes .*, got 6$"):
        load_arrays(write_npz(tmp_path, X, Y), classes=6)


@pytest.mark.parametrize("spec", ["mine", "x.npy", "x.npy,y.mat", "x.mat", ".npy,y.npy", ""])
def test_an_unknown_file_form_is_refused(spec: str) -> None:
    with pytest.raises(SatbenchError, match=r"^expected data as FILE\.npz, FILE\.pt or X\.npy,Y"):
        load_arrays(spec)


@pytest.mark.parametrize("spec", ["no.npz", "no.pt", "no.npy,no.npy"])
def test_a_missing_file_is_named(spec: str, tmp_path: Path) -> None:
    with pytest.raises(SatbenchError, match=r"no\.\w+, which is missing$"):
        load_arrays(",".join(str(tmp_path / one) for one in spec.split(",")))


@every_form
@pytest.mark.parametrize("keep", [0, 20, 0.6])
def test_a_truncated_file_is_named(write: Write, keep: float, tmp_path: Path) -> None:
    spec = write(tmp_path, X, Y)
    path = Path(spec.split(",")[0])
    raw = path.read_bytes()
    path.write_bytes(raw[: int(keep * len(raw)) if keep < 1 else int(keep)])
    with pytest.raises(SatbenchError, match=r"^expected (arrays|nothing but tensors) in .*mine\."):
        load_arrays(spec)


class Touch:
    """An object whose pickle runs code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["evil.pt", "evil.npz", "evil.npy,evil.npy"])
def test_no_code_in_a_file_is_run(name: str, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    objects = np.array([Touch(ran)], dtype=object)
    np.savez(tmp_path / "evil.npz", x=objects, y=objects)
    np.save(tmp_path / "evil.npy", objects)
    (tmp_path / "evil.pt").write_bytes(pickle.dumps({"x": Touch(ran), "y": 1}))
    with pytest.raises(SatbenchError, match=r"^expected .* in .*evil\."):
        load_arrays(",".join(str(tmp_path / one) for one in name.split(",")))

    assert not ran.exists()


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({"a": X, "b": Y}, "got a, b$"),
        ({"x": X, "labels": Y}, "got x, labels$"),
        ({"x": X, "y": Y, "images": X, "labels": Y}, "got several"),
    ],
)
def test_ambiguous_or_unknown_array_names_are_refused(
    held: dict[str, Array], message: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "mine.npz", **held)  # type: ignore[arg-type]
    torch.save({k: torch.from_numpy(v) for k, v in held.items()}, tmp_path / "mine.pt")
    for name in ("mine.npz", "mine.pt"):
        with pytest.raises(SatbenchError, match=rf"x, y or images, labels or data, .*{message}"):
            load_arrays(str(tmp_path / name))


@pytest.mark.parametrize(
    "held",
    [
        torch.zeros(4),
        (torch.zeros(4),),
        (1, 2),
        {"x": [1], "y": [2]},
        (torch.zeros(2, 3, 4, 4, dtype=torch.bfloat16), torch.zeros(2, dtype=torch.int64)),
    ],
)
def test_a_pt_file_without_images_and_labels_is_refused(held: object, tmp_path: Path) -> None:
    torch.save(held, tmp_path / "mine.pt")
    with pytest.raises(SatbenchError, match=r"^expected .* in .*mine\.pt, got "):
        load_arrays(str(tmp_path / "mine.pt"))


# Data sets by name


def test_arrays_can_be_loaded_as_a_data_set_by_name(tmp_path: Path) -> None:
    spec = write_npys(tmp_path, X, Y)
    data = load_dataset(f"arrays:{spec}@name=my set,classes=10", n_examples=3)

    assert (data.name, data.split, data.classes) == ("my set", "user", 10)
    assert data.digest == load_arrays(spec).first(3).digest
    assert load_dataset(data.origin).digest == load_arrays(spec).digest


def test_only_the_requested_first_images_are_checked(tmp_path: Path) -> None:
    x = FLOATS.copy()
    x[3] = 255
    spec = write_npys(tmp_path, x, Y)

    assert len(load_dataset(f"arrays:{spec}", n_examples=3)) == 3
    with pytest.raises(SatbenchError, match=r"got 0 to 255"):
        load_dataset(f"arrays:{spec}")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("arrays", r"^expected the dataset as arrays:PATH"),
        ("arrays:", r"^expected the dataset as arrays:PATH"),
        ("arrays@20:x.npz", r"^expected arrays:PATH"),
        ("arrays:x.npz@nam=3", r"^unknown option 'nam': did you mean 'name'"),
        ("arrays:x.npz@name=", r"^expected name=VALUE"),
        ("arrays:x.npz@name=a,name=b", "^name is given twice"),
        ("arrays:x.npz@classes=few", "^expected the classes as"),
        ("arrays:x.npz@resize=3", "^unknown option 'resize'"),
        ("arrays:x.npz@7", "^expected a side from 8 to 512 pixels, got 7"),
        ("arrays:x.npz@none", "^expected data as FILE"),
        ("arrays:x.npz@none,classes=3", "^expected data as FILE"),
    ],
)
def test_a_malformed_name_of_arrays_is_refused_before_a_file_is_read(name: str, said: str) -> None:
    with pytest.raises(SatbenchError, match=said):
        check_name(name)


def test_arrays_can_be_resized_with_a_side(tmp_path: Path) -> None:
    spec = write_npz(tmp_path, X, Y)
    data = load_dataset(f"arrays:{spec}@9,name=mine", n_examples=2)

    assert (data.name, data.shape, data.images.dtype) == ("mine@9", (3, 9, 9), np.uint8)
    assert load_dataset(data.origin).shape == (3, 9, 9)


@pytest.mark.parametrize("label", [2**63, 2**64 - 1])
def test_labels_too_large_for_int64_are_refused(label: int, tmp_path: Path) -> None:
    labels = np.array([0, 1, 2, label], np.uint64)
    with pytest.raises(SatbenchError, match=r"labels that count from 0"):
        load_arrays(write_npz(tmp_path, X, labels))
