"""One peer in a process of its own: `python -m neural.verification.worker NAME FOLDER`.

A framework that crashes, or that cannot live beside another one, is a row of the table and not the end of it.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from neural.compiler import Program, load
from neural.verification.job import PROMPT, STEPS, Job, answer_file, tokens_to_decode
from neural.verification.peer import PEERS, Peer


def answers(
    peer: Peer, job: Job, program: Program, tell: Callable[[str], object] = lambda check: None
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Everything that the peer can say of the job: each check with its answers, by "check" or "gradients/weight". They
    are to be let go before the next is asked for: gradients take as much memory as weights. Steps take the most, and
    come before the cache, whose compiled step keeps a model of TensorFlow alive. tell: is given each check.
    """
    cached = program.graph.cached
    tell("logits")
    yield "logits", {"logits": peer.logits(job.inputs)}
    if job.mask is not None:
        tell("padded")
        yield "padded", {"padded": _of_tokens(peer.logits(job.inputs, job.mask), job.mask)}
    if job.targets is not None and hasattr(peer, "gradients"):
        tell("gradients")
        yield "gradients", {f"gradients/{name}": g for name, g in peer.gradients(job.inputs, job.targets).items()}
    if job.targets is not None and hasattr(peer, "steps"):
        tell("steps")
        yield "steps", {"steps": np.array(peer.steps(job.inputs, job.targets, STEPS))}
    if cached and hasattr(peer, "cached"):
        tell("cached")
        yield "cached", {"cached": peer.cached(job.inputs[0])}
    if cached and hasattr(peer, "decode"):
        tell("tokens")
        yield "tokens", {"tokens": peer.decode(job.inputs[0][:, :PROMPT], tokens_to_decode(program))}


def _of_tokens(output: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The output with 0 where padding is: what attention gives to a query without keys is nobody's business."""
    per_token = output.ndim > 2 and output.shape[:2] == mask.shape
    return output * mask.reshape(*mask.shape, *(1 for _ in output.shape[2:])) if per_token else output


def main(name: str, folder: Path) -> None:
    try:
        program = load(folder / "program.neural")
        job = Job.open(folder)
        peer = PEERS[name].open(program, job.weights)
        for check, arrays in answers(peer, job, program, tell=lambda check: print(check, flush=True)):
            np.savez(folder / "part.npz", **arrays)
            (folder / "part.npz").replace(answer_file(folder, name, check))  # whole, whatever ends this process
            arrays.clear()  # the generator holds them, too
    except Exception as error:
        told = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        (folder / f"{name}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
