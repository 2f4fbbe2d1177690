# SPDX-License-Identifier: GPL-2.0-or-later
"""`physmem info`: what a capture holds, without reading its events."""

from typing import TYPE_CHECKING, Any

from physmem.cli.options import CaptureFile, Json

if TYPE_CHECKING:
    from physmem.trace.info import CaptureInfo, MachineInfo


def info(file: CaptureFile, json: Json = False) -> None:
    """Show what a capture holds: kernel, machine, events, where it came from."""
    from physmem.cli.output import print_json
    from physmem.trace.capture import read_info

    found = read_info(file)
    if json:
        print_json(to_dict(found, str(file), file.stat().st_size))
    else:
        print(describe(found, str(file), file.stat().st_size))


def to_dict(found: "CaptureInfo", name: str, size: int) -> dict[str, Any]:
    """Builtins form; long lists are given by their lengths."""
    import msgspec

    result: dict[str, Any] = {"file": name, "bytes": size, **msgspec.to_builtins(found)}
    result["boot_log"] = len(found.boot_log)
    result["movable0"] = {
        "runs": len(found.movable0),
        "frames": sum(count for _, count in found.movable0),
    }
    return result


def describe(found: "CaptureInfo", name: str, size: int) -> str:
    """Text form."""
    from physmem.cli.output import facts, paint, table

    machine = found.machine
    pairs = [
        ("kernel", machine.kernel or "unknown"),
        ("rules", f"Linux {machine.profile}"),
        ("machine", _machine(machine)),
        ("command line", machine.cmdline or "unknown"),
        ("events", f"{found.rows:,} in the file, of {found.lines:,} lines"),
        ("lost events", f"{found.lost:,}" if found.lost else "none"),
        ("start state", _place(found.state0_row, found.state0_line)),
        ("end state", _place(found.state1_row, found.state1_line)),
        ("tasks", f"{len(found.comms):,} names"),
        ("imported", f"{found.provenance.date} by {found.provenance.importer}"),
    ]
    zones = [
        (
            str(zone.node),
            zone.name,
            f"{zone.start:#x}" if zone.present else "-",
            f"{zone.spanned:,}",
            f"{zone.present:,}",
            f"{zone.managed:,}",
        )
        for zone in machine.zones
    ]
    events = [(kind, f"{count:,}") for kind, count in found.counts.items()]
    events += [(f"{kind} (not read)", f"{count:,}") for kind, count in found.unknown.items()]
    sections = [f"{paint(name, 'bold')}: {size:,} bytes\n{facts(pairs)}"]
    if zones:
        head = ("node", "zone", "first frame", "spanned", "present", "managed")
        sections.append(table(head, zones, left=2))
    sections.append(table(("event", "lines of the trace"), events))
    if found.provenance.files:
        files = [(f.name, f"{f.size:,}", f.sha256) for f in found.provenance.files]
        sections.append(table(("read from", "bytes", "SHA-256"), files))
    return "\n\n".join(sections)


def _machine(machine: "MachineInfo") -> str:
    plural = "" if machine.nr_cpus == 1 else "s"
    nodes = "1 node" if machine.nr_nodes == 1 else f"{machine.nr_nodes} nodes"
    block = machine.page_size << machine.pageblock_order
    return (
        f"{machine.arch or 'unknown architecture'}, {machine.nr_cpus} CPU{plural}, {nodes},"
        f" pages of {machine.page_size >> 10} KiB, pageblocks of {block >> 20} MiB"
    )


def _place(row: int | None, line: int | None) -> str:
    if row is None:
        return "none"
    return f"before line {line:,} of the trace" if line else f"before event {row + 1:,}"
