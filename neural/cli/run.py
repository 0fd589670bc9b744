"""`neural run`: train what a file says, on the data it names, then let it write."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neural.cli.options import File, NetworkName, Set, parse_sets
from neural.cli.show import note


def run(
    file: File,
    data: Annotated[str | None, typer.Option(help="Text or token shards. Default: the file's `data:`.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run directory. Default: runs/NETWORK-1, -2, …")] = None,
    sets: Set = [],  # noqa: B006
    network: NetworkName = None,
) -> None:
    """Train what a file says on the data it names, then print what the model writes.

    \b
    Examples:
      neural run examples/shakespeare_char.neural
      neural run examples/shakespeare_char.neural --set n_layer=2 --data corpus.txt
    """
    from neural.cli.train import first_word, make_run, train_run, write_sample
    from neural.compiler import load
    from neural.training.room import made_to_fit
    from neural.training.session import choose_device

    program = load(file, parse_sets(sets), network)
    program = made_to_fit(program, choose_device(program.settings.execution.get("device", "auto")), 1, say=note)
    made = make_run(file, data, out, parse_sets(sets), network, execution=program.execution)
    outcome = train_run(made, None, None)
    if outcome.state == "finished":
        prompt = first_word(made)
        print(prompt + write_sample(made, made.load_model(), prompt, max_new_tokens=400))
