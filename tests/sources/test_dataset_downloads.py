"""`satbench datasets`: the list of data sets, and the download of CIFAR from a test server."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from contract.dataset_files import Made, made_dataset
from serving import Server
from torchvision.datasets import CIFAR10, CIFAR100

from satbench.cli import cli
from satbench.core.errors import SatbenchError
from satbench.data import load_dataset
from satbench.data.present import CIFAR, download, presence_of

KINDS = {"cifar10": CIFAR10, "cifar100": CIFAR100}


@pytest.fixture(params=list(KINDS))
def served(
    request: pytest.FixtureRequest, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Made:
    """A small data set in the real format, packed as its authors do, on the server."""
    made = made_dataset(request.param, tmp_path / "made", monkeypatch)
    kind, archive = KINDS[made.name], io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as packed:
        packed.add(made.folder / kind.base_folder, kind.base_folder)
    server.files["archive.tar.gz"] = archive.getvalue()
    monkeypatch.setattr(kind, "url", server.url("archive.tar.gz"))
    monkeypatch.setattr(kind, "filename", "archive.tar.gz")
    monkeypatch.setattr(kind, "tgz_md5", hashlib.md5(archive.getvalue()).hexdigest())
    return made


def datasets(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, ["datasets", *map(str, words)], catch_exceptions=False)


def test_a_downloaded_data_set_can_be_loaded(served: Made, server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    digests = download(served.name, folder)
    test = load_dataset(served.name, data_dir=folder)

    assert test.digest == load_dataset(served.name, data_dir=served.folder).digest
    assert digests["test (2)"] == test.digest
    assert [path.name for path in folder.iterdir()] == [CIFAR[served.name][0]]


def test_a_complete_data_set_is_not_downloaded_again(
    served: Made, server: Server, tmp_path: Path
) -> None:
    first = download(served.name, tmp_path / "data")
    asked = len(server.asked)

    assert first == download(served.name, tmp_path / "data")
    assert len(server.asked) == asked >= 1


def test_an_incomplete_data_set_is_replaced(served: Made, tmp_path: Path) -> None:
    place = tmp_path / "data" / CIFAR[served.name][0]
    place.mkdir(parents=True)
    (place / CIFAR[served.name][1][0]).write_bytes(b"half")

    assert presence_of(served.name, tmp_path / "data").is_present is False
    download(served.name, tmp_path / "data")
    assert presence_of(served.name, tmp_path / "data").is_present is True


@pytest.mark.parametrize("fault", ["another archive", "half of it", "no such file"])
def test_a_failed_download_leaves_no_file(
    fault: str, served: Made, server: Server, tmp_path: Path
) -> None:
    content = server.files.pop("archive.tar.gz")
    if fault == "half of it":  # torchvision asks twice, at once
        server.files["archive.tar.gz"] = content
        server.breaks = [len(content) // 2] * 2
    if fault == "another archive":
        server.files["archive.tar.gz"] = b"other"
    with pytest.raises(SatbenchError, match=f"the download of {served.name} from http://127"):
        download(served.name, tmp_path / "data")

    assert list((tmp_path / "data").iterdir()) == []


def test_the_files_lie_where_torchvision_expects_them(served: Made) -> None:
    kind = KINDS[served.name]
    names = {name for name, _ in (*kind.train_list, *kind.test_list)} | {kind.meta["filename"]}

    assert CIFAR[served.name] == (kind.base_folder, tuple(sorted(names)))


def test_the_command_downloads_and_prints_the_digests(served: Made, tmp_path: Path) -> None:
    words = ("--get", served.name, "--data-dir", tmp_path / "data", "--quiet")
    done, again = datasets(*words), datasets(*words, "--json")
    (told,) = json.loads(again.stdout)

    assert (done.exit_code, done.stderr) == (0, "")
    assert all(digest in done.stdout for digest in told["digests"].values())
    assert list(told["digests"]) == ["test (2)", "train (10)"]


def test_the_list_says_which_data_sets_are_present(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_dataset("cifar10", tmp_path, monkeypatch)
    rows = json.loads(datasets("--json", "--data-dir", tmp_path).stdout)
    present = {row["name"]: row["present"] for row in rows}

    expected = {
        "fashion-mnist": True,
        "cifar10": True,
        "cifar100": False,
        **dict.fromkeys(("imagefolder", "arrays", "hf")),
    }
    assert {name: present.get(name) for name in expected} == expected


def test_a_data_set_that_cannot_be_downloaded_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SatbenchError, match="expected cifar10 or cifar100 to download"):
        download("fashion-mnist", tmp_path)
    with pytest.raises(SatbenchError, match="unknown dataset 'cifar-10': did you mean 'cifar10'"):
        download("cifar-10", tmp_path)
