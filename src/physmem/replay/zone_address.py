# SPDX-License-Identifier: GPL-2.0-or-later
"""Drains from outside name their zone by the address of its descriptor: which zone is that?

A node's descriptor (pg_data_t) begins with its zones. The boot log tells where each descriptor
lies, as physical addresses; the direct map adds an offset that is a multiple of 1 GiB (KASLR moves
it by whole entries of the upper page directory).
"""

import numpy as np

from physmem.trace.capture import Capture
from physmem.trace.events import Events, Kind

UNKNOWN = 0xFFFFFFFF
_DIRECT_MAP_ALIGN = 1 << 30
_ZONE_SIZES = range(1024, 4097)
"""Plausible sizes of struct zone in bytes."""


def number_zones(events: Events, capture: Capture, *, strict: bool) -> Events:
    """Events whose drain rows carry the number of the zone instead of its address.

    Where the boot log does not tell, the zone of the first drained frame is taken; under `strict`,
    which must not look at outcomes, the drain is then left out.
    """
    drains = (Kind.DRAIN_ZONE_PAGES, Kind.DRAIN_PAGES_ZONE)
    rows = np.flatnonzero(np.isin(events.kind, drains))
    if not len(rows):
        return events
    columns = {name: getattr(events, name) for name in events.columns}
    columns["pfn"] = events.pfn.copy()
    for row in rows.tolist():
        number = _by_address(int(events.pfn[row]), capture)
        if number is None and not strict:
            number = _by_first_drain(events, row, capture)
        columns["pfn"][row] = UNKNOWN if number is None else number
    return Events.from_columns(columns, events.comms, events.markers, events.sites)


def _by_address(address: int, capture: Capture) -> int | None:
    """Number of the populated zone whose descriptor is at an address."""
    zones = capture.state0.zones if capture.state0 is not None else []
    names = [(zone.node, zone.index, zone.name) for zone in capture.info.machine.zones]
    for node, (first, last) in enumerate(capture.info.machine.node_data):
        offset = (address - first) % _DIRECT_MAP_ALIGN
        if offset > last - first:
            continue
        for number, zone in enumerate(zones):
            if zone.node != node:
                continue
            for owner, index, name in names:
                if (owner, name) != (node, zone.name):
                    continue
                if index == 0 and offset == 0:
                    return number
                if index and offset % index == 0 and offset // index in _ZONE_SIZES:
                    return number
    return None


def _by_first_drain(events: Events, row: int, capture: Capture) -> int | None:
    """Number of the zone of the first frame drained by the same task after a row."""
    zones = capture.state0.zones if capture.state0 is not None else []
    for at in range(row + 1, min(row + 64, len(events))):
        if events.kind[at] == Kind.PCPU_DRAIN and events.pid[at] == events.pid[row]:
            for number, zone in enumerate(zones):
                if zone.start <= int(events.pfn[at]) < zone.end:
                    return number
    return None
