"""Names in files run no code and use no network in any command that reads them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import click
import pytest

import satbench
from satbench.attacks import surrogates_in_file
from satbench.cli import cli
from satbench.core.errors import SatbenchError
from satbench.core.schema import convert
from satbench.core.threat import Threat
from satbench.evaluation.named_in_files import request_known
from satbench.evaluation.surrogates import with_surrogates
from satbench.recipes import load_recipe
from satbench.records.certificates import Certificate, certificate_identity, proofs_path
from satbench.records.record import identity_of, inputs_of, parse_record
from satbench.records.witnesses import find_witnesses, witnesses_path

SHIPPED, N = "fmnist-sat-tiny-relu-s0", 12
HARNESS = Path(__file__).with_name("forbidden.py")
Values = dict[str, Any]
NOBODYS = "0" * 64
WITH_PAGES = {"0", "2", "20"}
"""Records of which the pages of all models are made too, which takes a second each."""

EVIL = """
import pathlib
pathlib.Path(__file__).with_name("PWNED").touch()
def make(*_):
    import torch
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
class Attack:
    pass
"""
PLUGIN = """
[satbench.models]
strange-net = evil:make
[satbench.attacks]
strange-attack = evil:Attack
[satbench.datasets]
strange-images = evil:make
[satbench.activations]
strange-activation = evil:Attack
"""


def model(name: str, source: str, digest: str = NOBODYS) -> Callable[[Values], None]:
    def change(values: Values) -> None:
        values["model"] |= {"name": name, "source": source, "weights_digest": digest}

    return change


def source(name: str) -> Callable[[Values], None]:
    def change(values: Values) -> None:
        values["sources"] = {name: NOBODYS}

    return change


def images(name: str) -> Callable[[Values], None]:
    def change(values: Values) -> None:
        values["dataset"]["name"] = name

    return change


def attack(spec: str) -> Callable[[Values], None]:
    def change(values: Values) -> None:
        values["suite"] = [spec]
        values["stages"][0]["attack"] = spec

    return change


HOSTILE: dict[str, Callable[[Values], None]] = {
    "a factory as the model": model("evil:make", "factory"),
    "a factory said to be of the zoo": model("evil:make", "zoo"),
    "a factory as a source": source("evil:make"),
    "a function that ends the program": model("os:abort", "factory"),
    "such a function as a source": source("os:abort"),
    "a model of RobustBench": model("robustbench:cifar10/Linf/Carmon2019Unlabeled", "robustbench"),
    "a source of RobustBench": source("robustbench:cifar10/Linf/Carmon2019Unlabeled"),
    "a model of torchvision": model("torchvision:resnet18@IMAGENET1K_V1", "torchvision"),
    "a model of timm": model("timm:resnet18.a1_in1k", "timm"),
    "a model of the Hub": model("hf:someone/something", "hf"),
    "a repository of GitHub": model("torchhub:a/b@main:net", "torchhub"),
    "a source of the Hub": source("hf:someone/something"),
    "a plug-in as the model": model("strange-net", "plug-in strange-zoo"),
    "a plug-in as a source": source("strange-net"),
    "a card beside the record": model("card.json", "zoo"),
    "a card beside the record as a source": source("./card.json"),
    "a pickle": model("weights.pt", "zoo"),
    "a device": source("/dev/zero"),
    "images of the Hub": images("hf:someone/images"),
    "images of a plug-in": images("strange-images"),
    "an attack of a plug-in": attack("strange-attack"),
    "a suite beside the record": attack("evil.toml"),
    "a suite hidden in an attack": attack("pgd(start=evil.toml(x=1))"),
    "a factory in an attack": attack("transfer(source=evil:make)"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with hostile records in `NUMBER/`, and everything that they name."""
    folder = tmp_path_factory.mktemp("hostile")
    record = satbench.evaluate(SHIPPED, attacks="pgd-1", n_examples=N, eps="0.1", out=folder / "ok")
    path = record.path
    assert path is not None
    for number, change in enumerate(HOSTILE.values()):
        values = json.loads(path.read_text())
        change(values)
        values["identity"] = identity_of(inputs_of(parse_record(json.dumps(values), "a test")))
        home = folder / str(number)
        home.mkdir()
        (home / "r.json").write_text(json.dumps(values))
        witnesses_path(home / "r.json").write_bytes(witnesses_path(path).read_bytes())
    (folder / "evil.py").write_text(EVIL)
    (folder / "evil.toml").write_text(
        'schema = 1\nsummary = ""\n'
        '[[parts]]\nname = "a"\nattack = "transfer(source=evil:make,steps=1)"\n'
    )
    card = json.loads((Path(satbench.__file__).parents[1] / _card(SHIPPED)).read_text())
    card |= {"name": "card", "activation": "strange-activation", "url": "http://127.0.0.1:9/x"}
    (folder / "card.json").write_text(json.dumps(card))
    told = folder / "strange_zoo-1.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: strange-zoo\nVersion: 1\n")
    (told / "entry_points.txt").write_text(PLUGIN)
    return folder


def _card(name: str) -> str:
    return f"model_zoo/cards/{name}.json"


def commands(home: str, good: str) -> list[list[str]]:
    """Return every command that reads records, on the record in `home`."""
    record = f"{home}/r.json"
    code = "satbench.{}(" + repr(record) + "{})"
    pages = [
        ["satbench", "models", "cards", "--records", home, "--out", f"{home}/pages"],
        ["satbench", "leaderboard", "page", "--records", home, "--out", f"{home}/site"],
    ]
    return [
        ["satbench", "verify", record, "--quiet"],
        ["satbench", "verify", record, "--quiet", "--json"],
        ["satbench", "challenge", record, "--attack", "pgd-1", "--seed", "1", "--quiet"],
        ["satbench", "challenge", record, "--images", "evil.py", "--quiet"],
        ["satbench", "recheck", record, "--images", "2", "--quiet"],
        ["satbench", "merge", record, good],
        ["satbench", "leaderboard", "build", "--records", home, "--out", f"{home}/board"],
        ["satbench", "leaderboard", "show", "--records", home],
        ["satbench", "leaderboard", "export", "--format", "json", "--records", home],
        *(pages if home in WITH_PAGES else []),
        ["satbench", "images", record, "--out", f"{home}/images"],
        ["satbench", "show", record],
        ["satbench", "reproduce", record, "--quiet"],
        ["satbench", "compare", record, good],
        ["satbench", "submit", record, "--by", "x", "--out", f"{home}/submission"],
        ["satbench", "review", f"{home}/submission", "--fetch"],
        ["python", code.format("load_record", "") + ".show()"],
        ["python", "print(" + code.format("load_record", "") + ")"],
        ["python", code.format("compare", f", {good!r}")],
        ["python", code.format("verify", "")],
        ["python", code.format("challenge", ", attacks='pgd-1', seed=1")],
        ["python", code.format("merge", "").replace("(", "([", 1).replace(")", f", {good!r}])", 1)],
    ]


@pytest.fixture(scope="module")
def told(
    folder: Path, certificate_lines: list[list[str]], request: pytest.FixtureRequest
) -> dict[str, list[dict[str, Any]]]:
    """The output of each command for each hostile record in a test, all from one process."""
    good = str(next((folder / "ok").glob("*.json")))
    mine = [one for one in request.session.items if one.path == request.path]
    asked = {one.callspec.params.get("kind") for one in mine if hasattr(one, "callspec")}
    lines = {
        kind: commands(str(number), good) for number, kind in enumerate(HOSTILE) if kind in asked
    } | {"a certificate": certificate_lines}
    every = [line for some in lines.values() for line in some]
    harmless, *answers = _run(folder, [["satbench", "verify", good, "--quiet"], *every])
    assert harmless["code"] == 0, harmless
    left = iter(answers)
    return {kind: [next(left) for _ in some] for kind, some in lines.items()}


def _run(folder: Path, lines: list[list[str]]) -> list[dict[str, Any]]:
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH", ""))))
    done = subprocess.run(
        [sys.executable, str(HARNESS)],
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answers: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return answers


@pytest.mark.sampled(1)
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_record_runs_no_code_and_opens_no_socket(
    kind: str, told: dict[str, list[dict[str, Any]]], folder: Path
) -> None:
    for answer in told[kind]:
        assert answer["tried"] == []
        assert answer["code"] in (0, 1, 2), answer["err"]
        assert "Traceback" not in answer["err"]
    verify, as_json, challenge, images_of, recheck, merge, *_ = told[kind]
    python = told[kind][-3:]
    assert verify["code"] in (1, 2)
    assert as_json["code"] == verify["code"]
    assert [one["code"] for one in (challenge, images_of, recheck, merge, *python[1:])] == [2] * 6
    assert not (folder / "PWNED").exists()


ABOUT_MODEL_OR_IMAGES = [
    "a factory said to be of the zoo",
    "a plug-in as the model",
    "a pickle",
    "images of the Hub",
]


@pytest.fixture(scope="module")
def certificate_lines(folder: Path) -> list[list[str]]:
    """Commands on an honest certificate, and then on hostile ones."""
    given: Values = {"eps": "0.0001", "method": "ibp", "n_examples": 2}
    honest = satbench.certify(SHIPPED, out=folder / "certified", **given).path
    paths = []
    for number, kind in enumerate(ABOUT_MODEL_OR_IMAGES):
        values = json.loads(honest.read_text())
        HOSTILE[kind](values)
        told = convert(values, Certificate, "certificate", "a test")
        values["identity"] = certificate_identity(
            told.model, told.dataset, told.threat, told.method, told.seconds
        )
        path = folder / "certified" / f"hostile-{number}.json"
        path.write_text(json.dumps(values))
        proofs_path(path).write_bytes(proofs_path(honest).read_bytes())
        paths.append(f"certified/{path.name}")
    lines = [
        ["satbench", "verify", path, "--quiet"] for path in (f"certified/{honest.name}", *paths)
    ]
    return [*lines, ["python", f"satbench.verify({paths[0]!r})"]]


def test_a_hostile_certificate_runs_no_code_and_opens_no_socket(
    told: dict[str, list[dict[str, Any]]], folder: Path
) -> None:
    harmless, *answers = told["a certificate"]

    assert harmless["code"] == 0, harmless
    for answer in answers:
        assert answer["tried"] == []
        assert "Traceback" not in answer["err"]
    assert {answer["code"] for answer in answers[:-1]} <= {1, 2}
    assert not (folder / "PWNED").exists()


def test_every_command_that_reads_records_is_tested() -> None:
    def takers(command: click.Command, words: tuple[str, ...]) -> set[tuple[str, ...]]:
        if isinstance(command, click.Group):
            context = click.Context(command)
            names = command.list_commands(context)
            found = [(name, command.get_command(context, name)) for name in names]
            return {one for name, sub in found if sub for one in takers(sub, (*words, name))}
        taken = {parameter.name for parameter in command.params}
        return {words} if taken & {"record", "records"} else set()

    tried = {tuple(line[1:3]) for line in commands("0", "good") if line[0] == "satbench"}
    tried |= {line[:1] for line in tried}
    assert takers(cli, ()) <= tried


WOULD = {
    "a factory as the model": ("import the module evil", "--model evil:make", "--trust evil:make"),
    "a function that ends the program": ("import the module os and call abort()", "--trust"),
    "a model of RobustBench": ("download its weights from RobustBench", "--trust robustbench:"),
    "a plug-in as the model": ("run the code of the plug-in strange-zoo", "--trust strange-net"),
    "a repository of GitHub": ("download the code of a GitHub repository and run it", "--trust"),
    "images of the Hub": ("ask the Hugging Face Hub", "--dataset", "--trust hf:someone/images"),
    "images of a plug-in": ("run the code of the plug-in strange-zoo", "--trust strange-images"),
    "a factory as a source": ("import the module evil", "--trust evil:make"),
}


@pytest.mark.sampled(1)
@pytest.mark.parametrize("kind", WOULD)
def test_verify_says_what_a_hostile_name_would_do(
    kind: str, told: dict[str, list[dict[str, Any]]]
) -> None:
    verify = told[kind][0]
    assert all(words in verify["out"] + verify["err"] for words in WOULD[kind])


@pytest.mark.slow
def test_the_current_folder_is_on_the_import_path_only_for_a_factory(folder: Path) -> None:
    (folder / "empty").mkdir()
    own = folder / "empty"
    (own / "mine.py").write_text(EVIL)
    say = f"print(len([one for one in sys.path if one in ('', {str(own)!r})]))"
    code = "import sys; from satbench.models import load_model, request_model as r; "
    code += f"r({SHIPPED!r}); {say}; load_model(r('mine:make'), 10); {say}"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=own, capture_output=True, text=True, check=True
    )

    assert done.stdout.split() == ["0", "1"]


def test_python_m_satbench_imports_no_module_from_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("raise SystemExit(77)")
    done = subprocess.run(
        [sys.executable, "-m", "satbench", "--version"], cwd=tmp_path, capture_output=True
    )
    assert done.returncode == 0


def test_a_trusted_model_is_used(folder: Path, monkeypatch: Any) -> None:
    own = folder / "trusted"
    own.mkdir()
    (own / "kept.py").write_text(
        "import torch\nfrom satbench.models import load_model, request_model\n"
        f"def make():\n    return load_model(request_model({SHIPPED!r}), 10).module\n"
    )
    monkeypatch.syspath_prepend(own)
    given: Values = {"attacks": "pgd-1", "n_examples": N, "eps": "0.1", "out": own / "out"}
    record = satbench.evaluate("kept:make", "fashion-mnist", **given)

    assert satbench.verify(record, trust=["kept:make"]).confirmed
    assert satbench.verify(record, "kept:make").confirmed
    assert request_known("any", record.model.weights_digest).text == SHIPPED
    with pytest.raises(SatbenchError, match="expected trust as a list of names"):
        satbench.verify(record, trust="kept:make")


def test_a_suite_file_may_name_only_known_models(folder: Path) -> None:
    path, threat = folder / "evil.toml", Threat.parse("linf:0.1")
    assert surrogates_in_file(str(path)) == {"evil:make"}
    with pytest.raises(SatbenchError, match=r"import the module evil and call make\(\)"):
        with_surrogates([str(path)], "fashion-mnist", threat)

    suite = folder / "open.toml"
    suite.write_text(
        'schema = 1\nsummary = ""\nparameters.source = "none"\n'
        '[[parts]]\nname = "a"\nattack = "transfer(source={source},steps=1)"\n'
    )
    asked = f"{suite}(source=evil:make)"
    assert surrogates_in_file(asked) == set()
    (spec,) = with_surrogates([asked], "fashion-mnist", threat)
    assert "source=evil:make" in spec


def test_a_recipe_file_may_not_name_a_data_set_on_a_server(tmp_path: Path) -> None:
    text = files("satbench.recipes").joinpath("fmnist-sat.toml").read_text()
    path = tmp_path / "theirs.toml"
    path.write_text(text.replace('"fashion-mnist"', '"hf:someone/images"'))

    with pytest.raises(SatbenchError, match="give --dataset hf:someone/images"):
        load_recipe(str(path))
    assert load_recipe(str(path), dataset="fashion-mnist").dataset == "fashion-mnist"
    assert load_recipe(str(path), dataset="hf:my/own").dataset == "hf:my/own"


def test_a_board_may_name_only_known_attacks_models_and_data_sets(
    tmp_path: Path, folder: Path
) -> None:
    from satbench.board.definition import read_definition
    from satbench.evaluation.fill import fill_board

    text = (
        'schema = 1\nsummary = ""\ndataset = "{}"\nsplit = "test"\nn = 2\nthreat = "linf:0.1"\n'
        'suites = [["{}"]]\ncolumns = ["clean"]\n'
    )
    for dataset, suite, said in (
        ("fashion-mnist", "transfer(source=evil:make)", "import the module evil"),
        ("fashion-mnist", "strange-attack", "does not come with satbench"),
        ("fashion-mnist", str(folder / "evil.toml"), "does not come with satbench"),
        ("hf:someone/images", "pgd-1", "ask the Hugging Face Hub"),
    ):
        (tmp_path / "board.toml").write_text(text.format(dataset, suite))
        definition = read_definition(tmp_path / "board.toml")
        with pytest.raises(SatbenchError, match=said):
            next(fill_board(definition, "cpu", None, True))


def test_a_digest_of_witnesses_cannot_leave_the_folder(tmp_path: Path) -> None:
    record = tmp_path / "board" / "records" / "r.json"
    for folder in ("board/records", "board/witnesses"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "out.npz").touch()
    (tmp_path / "board" / "witnesses" / f"{'0' * 16}.npz").touch()

    assert find_witnesses(record, "../../out") == witnesses_path(record)
    assert find_witnesses(record, "0" * 64).name == f"{'0' * 16}.npz"


def test_the_docs_state_the_numbers_of_records_and_commands() -> None:
    text = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text(encoding="utf-8")
    lines = [line for number in range(len(HOSTILE)) for line in commands(str(number), "good")]

    assert f"{len(HOSTILE)} records, {len(lines)} commands" in text
