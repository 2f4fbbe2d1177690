# SPDX-License-Identifier: GPL-2.0-or-later
"""The recorded machine, from the files of /proc and the boot log that lie beside a trace.

Linux: mm/vmstat.c (zoneinfo_show_print), arch/x86/mm/numa.c (NODE_DATA), drivers/acpi/numa/srat.c
"""

import re
from collections.abc import Mapping
from typing import Any

from physmem.mm.state import State
from physmem.trace.info import MachineInfo, ZoneInfo

LOCAL_DISTANCE = 10
REMOTE_DISTANCE = 20
"""Distances without a table from the firmware."""

_ZONE = re.compile(r"^Node (\d+), zone +(\S+)")
_FIELD = re.compile(r"^ +(spanned|present|managed|cma|start_pfn:) +(\d+)$")
_NODE_DATA = re.compile(r"NODE_DATA(?:\((\d+)\) allocated)? \[mem 0x([0-9a-f]+)-0x([0-9a-f]+)\]")
_SRAT_CPU = re.compile(
    r"SRAT: PXM \d+ -> (?:X2)?APIC (?:0x)?([0-9a-f]+) -> Node (\d+)", re.IGNORECASE
)
_BOOT_CPUS = re.compile(r"node +#(\d+), CPUs: +((?:#\d+ *)+)")
_PCP_CPU = re.compile(r"^    cpu: (\d+)$", re.MULTILINE)
_MEMORY = re.compile(r"^MemTotal: +(\d+) kB", re.MULTILINE)


def zones_of(zoneinfo: str) -> list[ZoneInfo]:
    """Every zone of /proc/zoneinfo, populated or not, in its order."""
    zones: list[ZoneInfo] = []
    for line in zoneinfo.splitlines():
        if head := _ZONE.match(line):
            node = int(head[1])
            index = sum(zone.node == node for zone in zones)
            zones.append(ZoneInfo(node, index, head[2]))
        elif zones and (field := _FIELD.match(line)):
            name = "start" if field[1] == "start_pfn:" else field[1]
            setattr(zones[-1], name, int(field[2]))
    return zones


def zones_of_state(state: State) -> list[ZoneInfo]:
    """Populated zones of a state, when there is no zoneinfo; the index counts populated zones."""
    zones: list[ZoneInfo] = []
    for zone in state.zones:
        index = sum(other.node == zone.node for other in zones)
        spans = (zone.start, zone.spanned, zone.present, zone.managed)
        zones.append(ZoneInfo(zone.node, index, zone.name, *spans))
    return zones


def node_data_of(dmesg: str) -> list[tuple[int, int]]:
    """First and last byte of each node's descriptor."""
    found: dict[int, tuple[int, int]] = {}
    for match in _NODE_DATA.finditer(dmesg):
        node = int(match[1]) if match[1] else len(found)
        found[node] = (int(match[2], 16), int(match[3], 16))
    if sorted(found) != list(range(len(found))):
        return []
    return [found[node] for node in sorted(found)]


def cpu_node_of(dmesg: str, nr_cpus: int) -> list[int]:
    """Node of each CPU: as the CPUs were brought up, before that as the firmware tells."""
    nodes = [0] * nr_cpus
    for cpu, match in enumerate(_SRAT_CPU.finditer(dmesg)):
        if cpu < nr_cpus:
            nodes[cpu] = int(match[2])
    for match in _BOOT_CPUS.finditer(dmesg):
        for cpu in re.findall(r"#(\d+)", match[2]):
            if int(cpu) < nr_cpus:
                nodes[int(cpu)] = int(match[1])
    return nodes


def page_size_of(meminfo: str, zones: list[ZoneInfo]) -> int:
    """Bytes of a page: MemTotal over the managed frames, as a power of two (they are near)."""
    total = _MEMORY.search(meminfo)
    managed = sum(zone.managed for zone in zones)
    if not total or not managed:
        return 4096
    ratio = int(total[1]) * 1024 / managed
    return min((4096, 16384, 65536), key=lambda size: abs(ratio - size))


def machine_of(
    texts: Mapping[str, str], manifest: Mapping[str, Any], state: State | None
) -> MachineInfo:
    """Put a machine together; each missing file leaves the defaults of `MachineInfo`.

    `texts` may have "zoneinfo", "meminfo", "dmesg", "cmdline".
    """
    zoneinfo = texts.get("zoneinfo", "")
    dmesg = texts.get("dmesg", "")
    zones = zones_of(zoneinfo) or (zones_of_state(state) if state else [])
    cpus = {int(cpu) for cpu in _PCP_CPU.findall(zoneinfo)}
    if state:
        cpus |= {pcp.cpu for zone in state.zones for pcp in zone.pcp}
    nr_cpus = max([int(manifest.get("cpus", 1)), *(cpu + 1 for cpu in cpus)])
    cpu_node = cpu_node_of(dmesg, nr_cpus)
    nodes = {zone.node for zone in zones} | set(cpu_node)
    nr_nodes = max([int(manifest.get("nodes", 1)), *(node + 1 for node in nodes)])
    return MachineInfo(
        arch=str(manifest.get("arch", "")),
        cmdline=(texts.get("cmdline") or str(manifest.get("cmdline", ""))).strip(),
        page_size=page_size_of(texts.get("meminfo", ""), zones),
        nr_cpus=nr_cpus,
        nr_nodes=nr_nodes,
        cpu_node=cpu_node,
        node_distance=[
            [LOCAL_DISTANCE if i == j else REMOTE_DISTANCE for j in range(nr_nodes)]
            for i in range(nr_nodes)
        ],
        zones=zones,
        node_data=node_data_of(dmesg),
        pageblock_order=state.pageblock_order if state else int(manifest.get("pageblock_order", 9)),
        nr_migratetypes=state.nr_migratetypes if state else 5,
        thp=_has_thp(state),
    )


def _has_thp(state: State | None) -> bool:
    """Tell whether there are per-CPU lists behind those of orders 0 to 3."""
    if state is None:
        return True
    return any(len(pcp.lists) > 12 for zone in state.zones for pcp in zone.pcp)
