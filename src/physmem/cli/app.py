# SPDX-License-Identifier: GPL-2.0-or-later
"""The typer application: one module per command.

Modules of commands import nothing heavy at their top: `physmem --help` loads them all.
"""

from typing import Annotated, Any

import typer

from physmem import __version__
from physmem.cli import (
    boot,
    demo,
    experiment,
    import_,
    info,
    pagetable,
    picture,
    proc,
    replay,
    slabinfo,
    sweep,
    tune,
    warm,
    whatif,
)

app = typer.Typer(
    help="Linux physical memory management: boot machines, import and replay recordings.",
    epilog="Exit codes: 0 equal, 1 something differs, 2 bad input, 3 internal error.",
    # Plain help: formatting it with rich takes longer than all the rest of `physmem --help`.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("boot")(boot.boot)
app.command("demo")(demo.demo)
app.command("import")(import_.import_)
app.command("replay")(replay.replay)
app.command("whatif")(whatif.whatif)
app.command("info")(info.info)
app.command("proc")(proc.proc)
app.command("experiment")(experiment.experiment)
app.command("picture")(picture.picture)
app.command("translate")(pagetable.translate)
app.command("pagetable")(pagetable.pagetable)
app.command("slabinfo")(slabinfo.slabinfo)
app.command("slabtop")(slabinfo.slabtop)
app.command("sweep")(sweep.sweep)
app.command("tune")(tune.tune)
app.command("warm")(warm.warm)


def _version(value: bool) -> None:
    if value:
        print(f"physmem {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _top(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - handled by its callback
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


def command() -> Any:
    """Command tree of the application, ready for `main()`."""
    return typer.main.get_command(app)
