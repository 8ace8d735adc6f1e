"""The scripts and the manifest for clusters, tested as far as one machine can run them."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from doc_blocks import ROOT, check_command

EXAMPLES = ROOT / "examples" / "cluster"
SCRIPTS = sorted(EXAMPLES.glob("*.sbatch"))
MODEL = "fmnist-sat-tiny-silu-s0"
WORDS = ("--model", MODEL, "--attack", "pgd-5", "--limit", "60", "--batch-size", "10")
STANDING_IN = {  # in place of programs of Slurm that this machine lacks
    "srun": 'while [ "${1:0:1}" = "-" ]; do shift; done\nexec "$@"',
    "scontrol": "echo 127.0.0.1",
    "satbench": f'exec {shlex.quote(sys.executable)} -m satbench "$@"',
    "ray": f'exec {shlex.quote(sys.executable)} -m ray.scripts.scripts "$@"',
}


def manifest() -> dict[str, Any]:
    yaml = pytest.importorskip("yaml")
    (told,) = yaml.safe_load_all((EXAMPLES / "kuberay.yaml").read_text("utf-8"))
    assert isinstance(told, dict)
    return told


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_each_script_has_valid_bash_syntax(script: Path) -> None:
    done = subprocess.run(["bash", "-n", script], capture_output=True, text=True)

    assert (0, "") == (done.returncode, done.stderr)
    assert "set -euo pipefail" in script.read_text("utf-8")


def test_there_are_two_scripts() -> None:
    assert ["array.sbatch", "ray.sbatch"] == [path.name for path in SCRIPTS]


def test_the_manifest_runs_satbench_with_its_output_on_the_mounted_volume() -> None:
    spec = manifest()["spec"]
    command = spec["entrypoint"]
    words = shlex.split(command)
    check_command(words[1:])
    (out,) = [words[place + 1] for place, word in enumerate(words) if word == "--out"]
    cluster = spec["rayClusterSpec"]
    pods = [
        group["template"]["spec"]
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])
    ]

    assert ("ray.io/v1", "RayJob") == (manifest()["apiVersion"], manifest()["kind"])
    assert "ray" == words[words.index("--engine") + 1]
    for pod in pods:
        (container,), (volume,) = pod["containers"], pod["volumes"]
        assert [{"name": volume["name"], "mountPath": out}] == container["volumeMounts"]
        assert container["resources"]["requests"] == container["resources"]["limits"]


def environment(folder: Path, **slurm: str) -> dict[str, str]:
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    for name, text in STANDING_IN.items():
        (bin_folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (bin_folder / name).chmod(0o755)
    path = f"{bin_folder}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "OUT": str(folder / "out"), **slurm}


def written(out: Path) -> dict[str, Any]:
    told = {}
    for path in out.glob("*.json"):
        told[path.name] = json.loads(path.read_text())
        told[path.name].pop("environment")
    return told


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("whole")
    command = [sys.executable, "-m", "satbench", "eval", *WORDS, "--workers", "1"]
    subprocess.run([*command, "--out", str(out), "--quiet"], check=True, capture_output=True)
    return written(out)


@pytest.mark.slow
def test_the_job_array_writes_the_same_record_as_one_process(
    whole: dict[str, Any], tmp_path: Path
) -> None:
    given = environment(tmp_path, SHARDS="3")
    for task in ("3", "1", "2"):
        given["SLURM_ARRAY_TASK_ID"] = task
        subprocess.run(["bash", EXAMPLES / "array.sbatch", *WORDS], check=True, env=given)
    merge = [sys.executable, "-m", "satbench", "merge-shards", given["OUT"], "--quiet"]
    subprocess.run(merge, check=True, env=given, capture_output=True)

    assert len(whole) == 1
    assert whole == written(tmp_path / "out")


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="needs satbench[ray]")
def test_ray_on_slurm_writes_the_same_record_as_one_process(
    whole: dict[str, Any], tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    given = environment(
        tmp_path,
        PORT=port,
        SLURM_JOB_NODELIST="node",
        SLURM_JOB_NUM_NODES="2",
        SLURM_CPUS_PER_TASK="1",
        SATBENCH_WORKERS="auto",
    )
    said = tmp_path / "stderr"
    with said.open("wb") as file:
        process = subprocess.Popen(
            ["bash", EXAMPLES / "ray.sbatch", *WORDS],
            env=given,
            stdout=subprocess.DEVNULL,
            stderr=file,
            start_new_session=True,
        )
    try:
        code = process.wait(200)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()

    assert code == 0, said.read_text()
    assert "workers on" in said.read_text()
    assert whole == written(tmp_path / "out")
