"""`report.html`: a training on one page, which needs no network and shows nothing that is not in the run directory."""

from __future__ import annotations

from html import escape
from pathlib import Path

from neural.backends.svg import emit
from neural.training.durable import write_text
from neural.training.metrics import Record, read_metrics
from neural.training.page.charts import charts
from neural.training.page.sections import configuration, headline, program, reproduction, samples
from neural.training.run import Run

NAME = "report.html"
FOLDER = Path(__file__).parent
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"  # nothing is ever fetched


def write_page(run: Run, place: str) -> None:
    """Write the page of a run as its directory stands. `place`: the device, for people."""
    write_text(run.path / NAME, page(run, read_metrics(run.path / "metrics.jsonl"), place))


def page(run: Run, records: list[Record], place: str) -> str:
    """An HTML document in UTF-8."""
    record = run.record
    title = f"{record.network} · {run.path.name}"
    body = (
        headline(run, records, place),
        _section("Curves", charts(records, record.steps, asks_accuracy="accuracy" in run.program.settings.metrics)),
        _section("What it wrote", samples(records)),
        _section("Configuration", configuration(run, place)),
        _section("Do it again", reproduction(run)),
        _section("The program", program(run)),
        _section("The network", f'<div class="drawing" tabindex="0">{emit(run.program.graph)}</div>'),
    )
    return "\n".join((
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{escape(title)}</title>",
        f"<style>{(FOLDER / 'style.css').read_text(encoding='utf-8')}</style>",
        "</head><body><main>",
        *body,
        f"</main><footer>Written by neural {escape(record.neural)} with PyTorch {escape(record.torch)}.</footer>",
        f"<script>{(FOLDER / 'page.js').read_text(encoding='utf-8')}</script>",
        "</body></html>\n",
    ))  # fmt: skip


def _section(title: str, inner: str) -> str:
    """Nothing where there is nothing to show."""
    name = title.lower().replace(" ", "-")
    return f'<section aria-labelledby="{name}"><h2 id="{name}">{title}</h2>{inner}</section>' if inner else ""
