"""`neural train --devices N` as people type it, and under torchrun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.distributed import TCPStore

from neural.diagnostics.diagnostic import NeuralError
from neural.training.distributed.launch import LAUNCHED, require_devices, resume_command
from neural.training.distributed.strategy import Layout, Strategy
from neural.training.run import Run
from tests.training.distributed.workers import losses

GPT = Path(__file__).with_name("gpt.neural")
ROOT = Path(__file__).parents[3]


def start(arguments: list[object], folder: Path, *, torchrun: int = 0, **variables: str) -> subprocess.Popen:
    prefix = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(torchrun)] if torchrun else []
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "GLOO_SOCKET_IFNAME": "lo",
    } | variables
    command = [sys.executable, *prefix, "-m", "neural", *map(str, arguments)]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell in the background has it ignored
    )


def until(process: subprocess.Popen, sign: str) -> str:
    """What it said up to a line with `sign`."""
    lines = []
    for line in process.stderr:
        lines.append(line)
        if sign in line:
            return "".join(lines)
    raise AssertionError("".join(lines))


def workers_of(process: subprocess.Popen) -> list[int]:
    """Their ids, in the order of ranks."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(child) for child in children if b"--resume" in Path(f"/proc/{child}/cmdline").read_bytes()]


def loads_torch(worker: int) -> bool:
    return "libtorch" in Path(f"/proc/{worker}/maps").read_text()


ENDLESS = ["--set", "steps=100000", "--set", "eval_every=100000"]


def test_it_trains_and_goes_on_alone(corpus: Path, tmp_path: Path) -> None:
    command = ["train", GPT, "--data", corpus, "--out", "run", "--set", "steps=12"]
    process = start([*command, "--devices", 2, "--parallel", "fsdp", "--stop-at", 5, "--json"], tmp_path)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "on 2 × cpu, fsdp" in err and err.count("stopped at step 5 of 12") == 1 and out.count('"step": 5') == 1
    process = start(["train", "--resume", "run"], tmp_path)
    assert process.wait(timeout=120) == 0 and list(losses(tmp_path / "run")) == list(range(1, 13))


def test_a_dead_worker_ends_the_run_with_its_error(corpus: Path, tmp_path: Path) -> None:
    process = start(["train", GPT, "--data", corpus, "--out", "run", *ENDLESS, "--devices", 2], tmp_path)
    until(process, "tokens/s")
    workers = workers_of(process)
    os.kill(workers[1], signal.SIGKILL)
    began = time.monotonic()
    err = process.stderr.read()
    assert process.wait(timeout=30) == 2 and time.monotonic() - began < 20
    assert "error[N841]: worker 1 of 2 was ended by SIGKILL" in err and "Traceback" not in err
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


def test_ctrl_c_saves_and_the_death_of_the_launcher_too(corpus: Path, tmp_path: Path) -> None:
    process = start(["train", GPT, "--data", corpus, "--out", "run", *ENDLESS, "--devices", 2], tmp_path)
    until(process, "tokens/s")
    process.send_signal(signal.SIGINT)
    err = process.stderr.read()
    assert process.wait(timeout=60) == 0 and "(Ctrl-C), saved; go on with" in err, err
    stopped = Run.open(tmp_path / "run").checkpoints.steps()[-1]
    process = start(["train", "--resume", "run", "--devices", 2], tmp_path)
    until(process, "tokens/s")
    workers = workers_of(process)
    process.kill()
    process.wait()
    end = time.monotonic() + 60
    while time.monotonic() < end and any(Path(f"/proc/{worker}").exists() for worker in workers):
        time.sleep(0.1)
    run = Run.open(tmp_path / "run")
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    assert run.record.state == "stopped" and run.checkpoints.steps()[-1] > stopped


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_workers_start_is_no_fault(corpus: Path, tmp_path: Path, number: int, code: int) -> None:
    process = start(["train", GPT, "--data", corpus, "--out", "run", "--devices", 2], tmp_path)
    end = time.monotonic() + 60
    while time.monotonic() < end and [loads_torch(worker) for worker in workers_of(process)] != [True, True]:
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "interrupted; go on with:\n  neural train --resume run --devices 2\n" in err and "N841" not in err


@pytest.mark.parametrize(
    ("launched", "layout", "options"),
    [
        (True, Layout(Strategy.DDP), "--devices 4"),
        (True, Layout(Strategy.FSDP), "--devices 4 --parallel fsdp"),
        (True, Layout(Strategy.TP, 4), "--devices 4 --parallel tp"),
        (True, Layout(Strategy.DDP, 2), "--devices 4 --parallel ddp --tensor-parallel 2"),
        (False, Layout(Strategy.FSDP), ""),
    ],
)
def test_a_run_goes_on_as_it_was_started(
    make_run, monkeypatch: pytest.MonkeyPatch, launched: bool, layout: Layout, options: str
) -> None:
    if launched:
        monkeypatch.setenv(LAUNCHED, "1")
    run = make_run("my run")
    command = resume_command(run, torch.device("cpu"), 4, layout)
    assert command == f"neural train --resume '{run.path}' {options}".strip()


def test_under_torchrun(corpus: Path, tmp_path: Path) -> None:
    process = start(["train", GPT, "--data", corpus, "--set", "steps=6", "--parallel", "tp"], tmp_path, torchrun=2)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert err.count("finished at step 6 of 6") == 1 and len(losses(tmp_path / "runs" / "Gpt-1")) == 6


def test_under_srun(corpus: Path, tmp_path: Path) -> None:
    """Processes that have what srun gives."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    meet = {"MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    step = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "localhost", "SLURM_JOB_ID": "7", **meet}
    command = ["train", GPT, "--data", corpus, "--set", "steps=6"]
    tasks = [start(command, tmp_path, **step, SLURM_PROCID=str(n), SLURM_LOCALID=str(n)) for n in range(2)]
    said = [task.communicate(timeout=120)[1] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], said
    assert "on 2 × cpu, ddp" in said[0] and "finished" not in said[1]
    assert len(losses(tmp_path / "runs" / "Gpt-1")) == 6 and len(list((tmp_path / "runs").iterdir())) == 1


def test_a_mistake_is_told_once(corpus: Path, tmp_path: Path) -> None:
    process = start(["train", GPT, "--data", corpus, "--devices", 5], tmp_path)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2 and err.count("error[N836]") == 1 and "N841" not in err
    assert not (tmp_path / "runs").exists()  # it can be started again with another number


@pytest.mark.parametrize("count", [0, -1])
def test_devices_are_a_number(count: int) -> None:
    with pytest.raises(NeuralError, match="N837"):
        require_devices(count, torch.device("cpu"), print)


@pytest.mark.parametrize(("count", "told"), [(1, []), (2, []), (8, ["note: 8 processes share 2 cores"])])
def test_more_processes_than_cores_are_told(count: int, told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    said: list[str] = []
    require_devices(count, torch.device("cpu"), said.append)
    assert [line.partition(", which is slower than --devices 2")[0] for line in said] == told


def test_as_many_gpus_as_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(NeuralError, match="N837: --devices 8 asks for more than the 1 GPU that"):
        require_devices(8, torch.device("cuda"), print)
    require_devices(1, torch.device("cuda"), print)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(NeuralError, match="N837: --devices starts the processes itself"):
        require_devices(2, torch.device("cpu"), print)
