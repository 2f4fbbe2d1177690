# SPDX-License-Identifier: GPL-2.0-or-later
"""`physmem slabinfo` and `physmem slabtop`: recorded objects in the caches of one's own machine."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from physmem.cli.options import CaptureFile, Quiet

if TYPE_CHECKING:
    from pathlib import Path

    from physmem.machine.machine import Machine
    from physmem.replay.slab_drive import Driver


class Allocator(StrEnum):
    """Slab allocators."""

    SLUB = "slub"
    SLAB = "slab"


class Report(StrEnum):
    """What `physmem slabinfo` prints."""

    SLABINFO = "slabinfo"
    WASTE = "waste"
    PINS = "pins"


_Allocator = Annotated[Allocator, typer.Option("--allocator", help="SLUB, or SLAB of 2.6.24.")]
_Kernel = Annotated[str, typer.Option("--kernel", metavar="VERSION", help="Rules of SLUB.")]
_Cpus = Annotated[int, typer.Option("--cpus", min=1, help="CPUs of the machine.")]
_MaxOrder = Annotated[int, typer.Option("--max-order", min=0, max=10, help="As slub_max_order=.")]


def _frame(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no number (1234 or 0x4d2)") from None


_Pins = Annotated[
    int | None,
    typer.Option(
        "--pins", metavar="PFN", parser=_frame, help="Who pins the pageblock of this frame?"
    ),
]
_Cache = Annotated[
    str | None,
    typer.Option("--cache", metavar="NAME", help="Attributes of this cache, as in /sys."),
]


def _driver(file: "Path", allocator: Allocator, kernel: str, cpus: int, max_order: int) -> "Driver":
    """A machine of the recorded size with the chosen allocator, and the events for it."""
    from physmem.machine.machine import Machine
    from physmem.replay.slab_drive import Driver
    from physmem.trace.capture import read_capture

    capture = read_capture(file)
    state = capture.state0
    frames = sum(zone.managed for zone in state.zones) if state else 1 << 18
    machine = Machine.build(max(frames << 12, 64 << 20), cpus=cpus)
    options: dict[str, Any] = {}
    if allocator is Allocator.SLUB:
        options = {"kernel": kernel, "max_order": max_order}
    machine.slab_start(allocator, **options)
    return Driver(capture, machine)


def slabinfo(
    file: CaptureFile,
    report: Annotated[
        Report, typer.Option("--report", help=f"One of {', '.join(Report)}.")
    ] = Report.SLABINFO,
    allocator: _Allocator = Allocator.SLUB,
    kernel: _Kernel = "6.1",
    cpus: _Cpus = 1,
    max_order: _MaxOrder = 3,
    pins: _Pins = None,
    cache: _Cache = None,
    quiet: Quiet = False,
) -> None:
    """Give the recorded objects to a machine of your own and print its /proc/slabinfo.

    Other rules, other orders: what would they have wasted, and which blocks would be pinned?
    FILE may also be a machine that was saved (Machine.save): it is shown as it is.
    """
    from physmem.machine.store import is_machine

    done = None
    if is_machine(file):
        machine = _saved(file)
    else:
        driver = _driver(file, allocator, kernel, cpus, max_order)
        done, machine = driver.run(), driver.machine
    print(_text(report, machine, pins, cache), end="")
    if done is not None and not quiet:
        typer.echo(
            f"physmem: {done.allocations:,} allocations, {done.frees:,} frees;"
            f" {done.unknown_frees:,} frees of unknown pointers, {done.repeated:,} frees unseen,"
            f" {done.failed:,} failed",
            err=True,
        )


def _saved(file: "Path") -> "Machine":
    from physmem.lib.errors import BadInputError
    from physmem.machine.machine import open_machine

    machine = open_machine(file)
    if not machine.slab_runs:
        raise BadInputError(f"{file}: the slab allocator of this machine was never started")
    return machine


def _text(report: Report, machine: "Machine", pfn: int | None, cache: str | None) -> str:
    from physmem.slab.owners import block_pins, pins
    from physmem.slab.waste import all_waste
    from physmem.views.slabs import attributes_text, block_text, pins_text, waste_text

    if pfn is not None:
        return block_text(block_pins(machine.slab, pfn))
    if cache is not None:
        return attributes_text(machine.slab.cache(cache).attributes())
    if report is Report.WASTE:
        return waste_text(all_waste(machine.slab))
    if report is Report.PINS:
        return pins_text(pins(machine.slab), int(machine.tables.memory[0]["pageblock_order"]))
    return machine.slabinfo()


def slabtop(
    file: CaptureFile,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Caches to show.")] = 20,
    frames: Annotated[
        int, typer.Option("--frames", min=1, help="Pictures on the way; 1: only the end.")
    ] = 1,
    delay: Annotated[float, typer.Option("--delay", min=0, help="Seconds between pictures.")] = 0.5,
    allocator: _Allocator = Allocator.SLUB,
    kernel: _Kernel = "6.1",
    cpus: _Cpus = 1,
    max_order: _MaxOrder = 3,
) -> None:
    """Watch the caches of a machine that is given the recorded objects."""
    import sys
    import time

    from physmem.views.slabs import slabtop as top

    driver = _driver(file, allocator, kernel, cpus, max_order)
    live = frames > 1 and sys.stdout.isatty()

    def show(_row: int) -> None:
        clear = "\x1b[H\x1b[2J" if live else ""
        print(clear + top(driver.machine.slab.rows(), count), end="" if live else "\n", flush=True)
        if live:
            time.sleep(delay)

    driver.run(show if frames > 1 else None, frames)
    if frames == 1:
        print(top(driver.machine.slab.rows(), count), end="")
