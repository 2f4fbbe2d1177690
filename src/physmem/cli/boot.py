# SPDX-License-Identifier: GPL-2.0-or-later
"""`physmem boot`: a machine from its firmware map to the running page allocator."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from physmem.cli.options import Json, Quiet, complete_file

if TYPE_CHECKING:
    from physmem.boot.compare_log import Comparison
    from physmem.boot.start import Booted

DEFAULT_MEMORY = "1GiB"


class Kernel(StrEnum):
    """Profile of rules."""

    V2_6_24 = "2.6.24"
    V6_1 = "6.1"
    V6_12 = "6.12"


def _complete_arch(incomplete: str) -> list[str]:
    from physmem.arch.registry import ARCHS

    return [name for name in ARCHS if name.startswith(incomplete)]


_Memory = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help=f"Memory, such as 64GiB; default {DEFAULT_MEMORY}."),
]
_Arch = Annotated[
    str | None,
    typer.Option(
        metavar="ARCH",
        autocompletion=_complete_arch,
        help="x86_64 (default), x86_64-la57, i386[-pae], arm64[-16k|-64k], riscv64[-sv39|-sv57].",
    ),
]
_Nodes = Annotated[int | None, typer.Option(metavar="N", help="NUMA nodes; default 1.")]
_Cpus = Annotated[int | None, typer.Option(metavar="N", help="CPUs; default one per node.")]
_Kernel = Annotated[
    Kernel | None, typer.Option(help="Whose rules; default 6.1, or the kernel of the log.")
]
_Cmdline = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help='Kernel command line, such as "movablecore=16G".'),
]
_MachineFile = Annotated[
    Path | None,
    typer.Option(
        "--machine",
        metavar="FILE",
        autocompletion=complete_file,
        help="Machine description (TOML) instead of --memory, --nodes, --cpus, --arch.",
    ),
]
_Iomem = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", autocompletion=complete_file, help="Memory as in a copy of /proc/iomem."
    ),
]
_FromLog = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        autocompletion=complete_file,
        help="Boot what a real kernel's log describes, and compare every figure.",
    ),
]
_Zoneinfo = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        autocompletion=complete_file,
        help="With --from-log: its /proc/zoneinfo; default: start.zoneinfo beside the log.",
    ),
]
_Save = Annotated[
    Path | None,
    typer.Option(metavar="FILE", autocompletion=complete_file, help="Keep the machine."),
]
_Picture = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", autocompletion=complete_file, help="Draw its memory (.png or .svg)."
    ),
]
_Explain = Annotated[
    bool, typer.Option("--explain", help="Tell each stage in a sentence, with the frames it took.")
]


def boot(
    memory: _Memory = None,
    nodes: _Nodes = None,
    cpus: _Cpus = None,
    arch: _Arch = None,
    kernel: _Kernel = None,
    cmdline: _Cmdline = None,
    machine: _MachineFile = None,
    iomem: _Iomem = None,
    from_log: _FromLog = None,
    zoneinfo: _Zoneinfo = None,
    explain: _Explain = False,
    json: Json = False,
    save: _Save = None,
    picture: _Picture = None,
    quiet: Quiet = False,
) -> None:
    """Boot a machine and print what its kernel would: its log, buddyinfo and zoneinfo.

    Exit code: 0 it booted (and every figure of the log is equal), 1 a figure differs, 2 bad input.
    """
    from physmem.cli.compiling import compile_now
    from physmem.cli.main import DIVERGED, EQUAL
    from physmem.cli.run import check_output
    from physmem.lib.errors import BadInputError

    given = {"--memory": memory, "--nodes": nodes, "--cpus": cpus, "--arch": arch}
    sources = {"--machine": machine, "--iomem": iomem, "--from-log": from_log}
    _check_choice(given, sources, {"--kernel": kernel, "--cmdline": cmdline}, zoneinfo)
    for output, suffixes in ((save, ()), (picture, (".png", ".svg"))):
        if output is not None:
            check_output(output, from_log or machine or iomem or Path(), *suffixes)
    if save is not None and picture is not None and save.absolute() == picture.absolute():
        raise BadInputError(f"{save}: both --save and --picture name it; choose two files")

    from physmem.boot.start import BOOT_KERNELS, boot_hardware, boot_log

    comparison = None
    if from_log is not None:
        booted, comparison = boot_log(from_log, zoneinfo)
    else:
        hardware = _hardware(given, machine, iomem)
        booted = boot_hardware(hardware, kernel=kernel or Kernel.V6_1, cmdline=cmdline or "")
    compile_now(*BOOT_KERNELS, quiet=quiet or json)
    made = booted.machine()
    if save is not None:
        made.save(save)
    if picture is not None:
        from physmem.cli.draw import draw_mosaic

        draw_mosaic(made.snapshot(), picture)
    if json:
        from physmem.cli.output import print_json

        print_json(booted.to_dict(comparison))
    elif quiet:
        print(comparison.verdict() if comparison else made)
    else:
        _print(booted, comparison, explain=explain)
    differs = comparison is not None and comparison.equal != comparison.compared
    raise typer.Exit(DIVERGED if differs else EQUAL)


def _check_choice(
    given: dict[str, Any],
    sources: dict[str, Any],
    kernel: dict[str, Any],
    zoneinfo: Path | None,
) -> None:
    """One description of the machine, not two."""
    from physmem.lib.errors import BadInputError

    chosen = [name for name, value in sources.items() if value is not None]
    short = [name for name, value in given.items() if value is not None]
    if "--iomem" in chosen:
        short = [name for name in short if name in {"--memory", "--nodes"}]
    if chosen[1:] or (chosen and short):
        both = " and ".join([*chosen, *short][:2])
        raise BadInputError(f"{both} both describe the machine; leave one of them out")
    told = [name for name, value in kernel.items() if value is not None]
    if "--from-log" in chosen and told:
        raise BadInputError(f"--from-log tells the kernel and its options; leave {told[0]} out")
    if zoneinfo is not None and "--from-log" not in chosen:
        raise BadInputError("--zoneinfo is compared with a log; name that with --from-log")


def _hardware(given: dict[str, Any], machine: Path | None, iomem: Path | None) -> Any:
    from physmem.firmware.hardware import Hardware

    if machine is not None:
        from physmem.firmware.toml import read_machine

        return read_machine(machine)
    cpus = given["--cpus"]
    if iomem is not None:
        from physmem.firmware.iomem import read_iomem

        return read_iomem(iomem, arch=given["--arch"] or "", cpus=1 if cpus is None else cpus)
    nodes = 1 if given["--nodes"] is None else given["--nodes"]
    return Hardware.of(
        memory=given["--memory"] or DEFAULT_MEMORY,
        nodes=nodes,
        arch=given["--arch"] or "x86_64",
        cpus=nodes if cpus is None else cpus,
    )


def _print(booted: "Booted", comparison: "Comparison | None", *, explain: bool) -> None:
    from physmem.cli.boot_text import comparison_text, stages_text

    machine = booted.machine()
    if explain:
        print(stages_text(booted))
    else:
        print("\n".join(booted.log))
    print()
    print(machine.buddyinfo())
    print(machine.zoneinfo(), end="")
    for assumption in booted.assumptions:
        typer.echo(f"physmem: note: {assumption}", err=True)
    if comparison is not None:
        print()
        print(comparison_text(comparison))
