"""What Slurm's `srun` says of the processes that it starts, in the words of torch.distributed."""

from __future__ import annotations

import re
from collections.abc import MutableMapping

FIRST_PORT, PORTS = 15000, 10000  # below those that Linux gives to connections


def name_processes(environment: MutableMapping[str, str]) -> None:
    """Say which one of srun's tasks this is: RANK, LOCAL_RANK, WORLD_SIZE, and where they meet, MASTER_ADDR and
    MASTER_PORT, by the job's number unless the user gives one. Nothing of a single task, or under another launcher.

    https://slurm.schedmd.com/srun.html#SECTION_OUTPUT-ENVIRONMENT-VARIABLES
    """
    tasks = environment.get("SLURM_STEP_NUM_TASKS", "1")  # of what srun starts: a batch script itself has none
    if tasks == "1" or "WORLD_SIZE" in environment:
        return
    environment.update(RANK=environment["SLURM_PROCID"], LOCAL_RANK=environment["SLURM_LOCALID"], WORLD_SIZE=tasks)
    environment.setdefault("MASTER_ADDR", first_node(environment["SLURM_STEP_NODELIST"]))
    environment.setdefault("MASTER_PORT", str(FIRST_PORT + int(environment["SLURM_JOB_ID"]) % PORTS))


def first_node(names: str) -> str:
    """Of a list as Slurm writes it: "rack1-n[003-007,9],other" begins with "rack1-n003"."""
    return re.sub(r"\[([^],-]+)[^]]*\]", r"\1", names).split(",")[0]
