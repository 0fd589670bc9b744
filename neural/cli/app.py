"""All commands, in the order in which people meet them."""

from __future__ import annotations

from typing import Annotated

import typer

from neural.cli import (
    bench,
    bench_train,
    check,
    compile,
    data,
    eval,
    explain,
    export,
    fmt,
    generate,
    import_,
    plan,
    quantize,
    run,
    runs,
    tokenizer,
    train,
    verify,
    visualize,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Neural DSL: one .neural file describes a network, its training and its use.",
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"neural {version('neural-dsl')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Neural DSL: one .neural file describes a network, its training and its use."""


app.command("check")(check.check)
app.command("compile")(compile.compile_)
app.command("run")(run.run)
app.command("train")(train.train)
app.command("runs")(runs.runs)
app.command("generate")(generate.generate)
app.command("eval")(eval.eval_)
app.command("quantize")(quantize.quantize)
app.command("verify")(verify.verify)
app.command("import")(import_.import_)
app.command("export")(export.export)
app.command("plan")(plan.plan)
app.command("visualize")(visualize.visualize)
app.command("fmt")(fmt.fmt)
app.command("explain")(explain.explain)
bench.app.command("train")(bench_train.train)
app.add_typer(bench.app, name="bench")
app.add_typer(data.app, name="data")
app.add_typer(tokenizer.app, name="tokenizer")
