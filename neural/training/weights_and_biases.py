"""A run on Weights & Biases, where `neural train --wandb PROJECT` asks for it. `wandb.json` keeps that for a resume."""

from __future__ import annotations

import json
import secrets
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from neural.diagnostics.diagnostic import fail
from neural.training.durable import write_json

if TYPE_CHECKING:
    import wandb

NAME = "wandb.json"


def require_login() -> None:
    """Before a run is made: NeuralError N730 where W&B is to be told at once and does not know by whom."""
    import wandb

    if wandb.setup().settings.mode != "online":
        return
    try:
        wandb.login()
    except wandb.Error as error:
        reason = str(error).partition(".")[0]
        fail("N730", f"Weights & Biases: {reason}", hint="log in with `wandb login`, or set WANDB_MODE=offline")


def ask_for_wandb(run: Path, project: str) -> None:
    """From now on the run at `run` is told to a project."""
    if not (run / NAME).exists():
        write_json(run / NAME, {"project": project, "id": secrets.token_hex(4)})


class WandbLog:
    """Tells what was measured. `url`: where it is seen; None offline."""

    def __init__(self, told: wandb.Run) -> None:
        self._told = told
        self.url: str | None = told.url
        told.define_metric("*", step_metric="step")  # after a crash some steps are told again: W&B's own only grow

    @classmethod
    def open(cls, run: Path) -> Self | None:
        """For the run at `run`, None where nobody asked. NeuralError N730 if W&B does not take it."""
        if not (run / NAME).exists():
            return None
        import wandb

        asked = json.loads((run / NAME).read_text(encoding="utf-8"))
        record = json.loads((run / "run.json").read_text(encoding="utf-8"))
        settings = wandb.Settings(silent=True, console="off", disable_git=True, save_code=False)
        place = {"dir": str(run), "name": run.name, "resume": "allow", "settings": settings}
        try:
            return cls(wandb.init(project=asked["project"], id=asked["id"], config=record, **place))
        except wandb.Error as error:
            fail(
                "N730",
                f"Weights & Biases did not take {run}: {str(error).rstrip('.')}",
                hint=f"log in with `wandb login`, set WANDB_MODE=offline, or remove {run / NAME}",
            )

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        import wandb

        told = {}
        for name, value in values.items():
            if isinstance(value, str):
                told[kind] = wandb.Html(f"<pre>{escape(value)}</pre>", inject=False)
            elif value is not None:
                told[f"{kind}/{name}"] = value
        self._told.log({"step": step, **told})

    def close(self, *, failed: bool) -> None:
        self._told.finish(exit_code=int(failed))
