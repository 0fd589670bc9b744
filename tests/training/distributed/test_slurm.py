"""Under srun a process knows which of several it is."""

from __future__ import annotations

import pytest

from neural.training.distributed.slurm import first_node, name_processes

TASK = {
    "SLURM_STEP_NUM_TASKS": "16", "SLURM_PROCID": "9", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "1234567",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
}  # fmt: skip
NAMED = {"RANK": "9", "LOCAL_RANK": "1", "WORLD_SIZE": "16", "MASTER_ADDR": "gpu07", "MASTER_PORT": "19567"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (TASK, NAMED),
        (TASK | {"MASTER_PORT": "29500", "MASTER_ADDR": "10.0.0.1"}, NAMED | {"MASTER_PORT": "29500", "MASTER_ADDR": "10.0.0.1"}),
        (TASK | {"SLURM_STEP_NUM_TASKS": "1"}, {}),  # srun torchrun …, srun neural train --devices 8
        (TASK | {"WORLD_SIZE": "8", "RANK": "3"}, {"WORLD_SIZE": "8", "RANK": "3"}),  # what torchrun has started
        ({"SLURM_NTASKS": "16", "SLURM_PROCID": "0", "SLURM_JOB_ID": "5"}, {}),  # a batch script itself
        ({}, {}),
    ],
)  # fmt: skip
def test_what_is_said(given: dict[str, str], expected: dict[str, str]) -> None:
    environment = dict(given)
    name_processes(environment)
    assert {name: value for name, value in environment.items() if not name.startswith("SLURM")} == expected


@pytest.mark.parametrize(
    ("names", "first"),
    [("one", "one"), ("one,two", "one"), ("n[003-007,9],x", "n003"), ("n[4,7]", "n4"), ("r[1-2]n[10-12].hpc", "r1n10.hpc")],
)  # fmt: skip
def test_the_first_node(names: str, first: str) -> None:
    assert first_node(names) == first
