"""The parts of the page that are words and numbers."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shlex
from dataclasses import asdict
from html import escape
from statistics import median

import torch

from neural.diagnostics.amounts import duration, size
from neural.planning.plan import plan
from neural.training.execution import Execution
from neural.training.metrics import Record
from neural.training.run import Run

_WORDS = re.compile(
    r"(?P<comment>\#[^\n]*|//[^\n]*|/\*(?s:.*?)\*/)|(?P<string>\"[^\"\n]*\"|'[^'\n]*')|(?P<ref>\$\w+|\$\{[^}]*\})"
    r"|(?P<keyword>\b(?:param|define|network|import)\b|^\s*\w+(?=:|\s*\{))|(?P<number>\b\d[\w.]*)|(?P<layer>\b\w+(?=\())",
    re.MULTILINE,
)
STATES = {"finished": "finished", "stopped": "stopped; it can go on", "failed": "failed"}


def headline(run: Run, records: list[Record], place: str) -> str:
    """The name, and the numbers that one asks for first."""
    record = run.record
    trained = [r for r in records if r["kind"] == "train"]
    looks = [r for r in records if r["kind"] == "validation"]
    state = STATES.get(record.state, record.state)
    facts = [("parameters", f"{record.parameter_count:,}")]
    if looks:
        best = min(looks, key=lambda r: r["loss"])
        facts = [("validation loss", f"{best['loss']:.4f}"), ("perplexity", f"{best['perplexity']:,.2f}"), *facts]
        if best.get("bits_per_byte") is not None:
            facts.insert(2, ("bits per byte", f"{best['bits_per_byte']:.4f}"))
    if trained:
        done = trained[-1]["tokens"]
        facts += [
            ("steps", f"{trained[-1]['step']:,} of {record.steps:,}"),
            ("tokens", f"{done:,}"),
            ("tokens a second", f"{median(r['tokens_per_second'] for r in trained):,.0f}"),
            ("time in steps", duration(_seconds(trained))),
            ("operations", _power(done * plan(run.program).flops_per_token_training)),
        ]
    tiles = "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    where = f"{escape(state)} · on {escape(place)} · {escape(str(run.path))}"
    return f'<header><h1>{escape(record.network)}</h1><p>{where}</p><dl class="facts">{tiles}</dl></header>'


def _power(count: int) -> str:
    """7.9 × 10¹²."""
    digits, exponent = f"{count:.1e}".split("e")
    return f"{digits} × 10{str(int(exponent)).translate(str.maketrans('0123456789', '⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


def _seconds(trained: list[Record]) -> float:
    """Time in optimizer steps, evaluations and samples aside."""
    before = [0, *(r["tokens"] for r in trained)]
    return sum((r["tokens"] - old) / r["tokens_per_second"] for r, old in zip(trained, before, strict=False))


def samples(records: list[Record]) -> str:
    """Texts by step: all beneath each other, or one at a time where scripts run."""
    texts = [(r["step"], r["text"]) for r in records if r["kind"] == "sample"]
    items = "".join(
        f'<figure class="sample"><figcaption>step {step:,}</figcaption><pre>{escape(text)}</pre></figure>'
        for step, text in texts
    )
    return f'<div class="samples">{items}</div>' if items else ""


def configuration(run: Run, place: str) -> str:
    """Everything that was decided, in tables."""
    record, settings = run.record, run.program.settings
    train = {name.replace("_", " "): value for name, value in asdict(settings.train).items()} | {"seed": record.seed}
    optimizer = {"optimizer": settings.optimizer.name, **settings.optimizer.arguments}
    schedule = settings.lr_schedule
    optimizer |= {"schedule": schedule.name, **schedule.arguments} if schedule else {"schedule": "Constant"}
    data = {
        "data": record.data.source,
        "tokens": f"{record.data.tokens:,}",
        "fingerprint": record.data.fingerprint[:16] + "…",
        "tokenizer": f"{record.vocab_size:,} tokens",
        "its hash": record.tokenizer_hash[:16] + "…",
    }
    machine = {
        "device": place,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        "PyTorch": torch.__version__,
        "neural": record.neural,
    }
    tables = [
        ("Parameters of the program", record.parameters),
        ("Training", {**train, **settings.execution}),
        ("Optimizer", {name.replace("_", " "): value for name, value in optimizer.items()}),
        ("Data", data),
        ("Machine", machine),
    ]
    return f'<div class="tables">{"".join(_table(title, rows) for title, rows in tables if rows)}</div>'


def _table(title: str, rows: dict[str, object]) -> str:
    body = "".join(
        f"<tr><th>{escape(str(name))}</th><td>{escape(_value(value))}</td></tr>"
        for name, value in rows.items()
        if value is not None
    )
    return f"<table><caption>{title}</caption>{body}</table>"


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def commands(run: Run) -> list[str]:
    """What to type for the same training, from the folder in which this one was started."""
    record, path = run.record, shlex.quote(str(run.path))
    again = shlex.quote(f"{run.path}-again")
    source = shlex.quote(record.data.source)
    train = f"neural train {path}/program.neural --network {record.network} --data {source}"
    execution = Execution(**record.execution) if record.execution else None
    if execution and (layout := execution.layout):
        train += f" --devices {execution.processes} {shlex.join(layout.options(execution.processes))}"
    return [
        f"pip install 'neural-dsl[torch]=={record.neural}' torch=={record.torch.partition('+')[0]}",
        f"{train} --tokenizer {path}/tokenizer.json --seed {record.seed} --out {again}",
    ]


def reproduction(run: Run) -> str:
    """Commands for the same training, what they start from, and the checkpoints of this one."""
    digest = hashlib.sha256((run.path / "program.neural").read_bytes()).hexdigest()
    lines = "\n".join(f"$ {line}" for line in commands(run))
    saved = ", ".join(run.checkpoints.path(step).name for step in run.checkpoints.steps())
    facts = {
        "program.neural": f"SHA-256 {digest[:16]}…",
        "data": f"fingerprint {run.record.data.fingerprint[:16]}…",
        "tokenizer": f"hash {run.record.tokenizer_hash[:16]}…",
        "checkpoints": saved or "none",
        "size on disk": size(sum(p.stat().st_size for p in run.path.rglob("*") if p.is_file())),
    }
    return (
        f'<pre class="code commands" tabindex="0">{escape(lines)}</pre>'
        "<p>On the same kind of machine, with the same versions and threads, this gives the same bits in every weight; "
        f"elsewhere the same curves to rounding.</p>{_table('What it started from, and what it left', facts)}"
    )


def program(run: Run) -> str:
    """The program as it was trained, and the source that it compiled to."""
    text = (run.path / "program.neural").read_text(encoding="utf-8")
    source = (run.path / "model.py").read_text(encoding="utf-8")
    return (
        f'<pre class="code" tabindex="0">{_colored(text)}</pre><details><summary>the PyTorch source that it compiled to'
        f'</summary><pre class="code" tabindex="0">{escape(source)}</pre></details>'
    )


def _colored(text: str) -> str:
    """The program as HTML, its words in spans by their kind."""
    parts, end = [], 0
    for found in _WORDS.finditer(text):
        parts += [escape(text[end : found.start()]), f'<span class="{found.lastgroup}">{escape(found[0])}</span>']
        end = found.end()
    return "".join([*parts, escape(text[end:])])
