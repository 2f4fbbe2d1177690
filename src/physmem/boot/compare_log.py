# SPDX-License-Identifier: GPL-2.0-or-later
"""A start-up next to what a real kernel logged and its /proc/zoneinfo tells, figure by figure."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from physmem.boot.booted import BootedMemory, BootedZone
from physmem.boot.compare_firmware import firmware_memory
from physmem.boot.from_log import distances_decide, hardware_of
from physmem.firmware.bootlog import BootLog
from physmem.firmware.bootlog_events import Moment, Step
from physmem.firmware.bootlog_figures import Figures
from physmem.firmware.bootlog_lines import LogLine, read_text
from physmem.firmware.zoneinfo_text import ZoneText, parse_zoneinfo

_ZONEINFO_NAMES = ("start.zoneinfo", "zoneinfo", "zoneinfo.txt")
_TABLES = ("Dentry cache", "Inode-cache", "Mount-cache", "Mountpoint-cache")


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of both; `theirs` is the kernel's."""

    name: str
    ours: Any
    theirs: Any

    @property
    def equal(self) -> bool:
        """Both are the same."""
        return bool(self.ours == self.theirs)


@dataclass(frozen=True, slots=True)
class NotCompared:
    """A figure that a start-up cannot tell, and why."""

    name: str
    theirs: Any
    reason: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """All figures.

    Examples
    --------
    >>> result = Comparison((Figure("zone DMA managed", 3840, 3840), Figure("min", 1, 2)), ())
    >>> result.compared, result.equal, [figure.name for figure in result.differences]
    (2, 1, ['min'])
    """

    figures: tuple[Figure, ...]
    not_compared: tuple[NotCompared, ...]

    @property
    def compared(self) -> int:
        """Figures compared."""
        return len(self.figures)

    @property
    def equal(self) -> int:
        """Figures that agree."""
        return sum(figure.equal for figure in self.figures)

    @property
    def differences(self) -> tuple[Figure, ...]:
        """Figures that do not agree."""
        return tuple(figure for figure in self.figures if not figure.equal)

    def verdict(self) -> str:
        """How many figures agree, in one line.

        Examples
        --------
        >>> Comparison((Figure("min", 1, 2),), ()).verdict()
        '0 of 1 figures equal'
        """
        return f"{self.equal} of {self.compared} figures equal"

    def to_dict(self) -> dict[str, Any]:
        """The form of `--json`."""
        return {
            "compared": self.compared,
            "equal": self.equal,
            "differences": [_plain(figure) for figure in self.differences],
            "figures": [_plain(figure) for figure in self.figures],
            "not_compared": [asdict(figure) for figure in self.not_compared],
        }


def _plain(figure: Figure) -> dict[str, Any]:
    return {**asdict(figure), "equal": figure.equal}


def zoneinfo_beside(path: str | Path) -> str | None:
    """Text of the zoneinfo that lies in the same folder as a log; None: there is none."""
    folder = Path(path).parent
    for name in _ZONEINFO_NAMES:
        if (folder / name).is_file():
            return read_text(folder / name)
    return None


def compare_log(booted: BootedMemory, log: BootLog, zoneinfo: str | None = None) -> Comparison:
    """Compare a start-up with the log that it was made from, and with a zoneinfo.

    Parameters
    ----------
    zoneinfo : text of /proc/zoneinfo of the same machine, read soon after its start; None: none

    Raises
    ------
    BadInputError
        The text is no zoneinfo.
    """
    figures = list(_log_figures(booted, log))
    left_out: list[NotCompared] = []
    if distances_decide(log):
        reason = "the firmware tells distances of nodes (table SLIT) that no log prints"
        left_out.append(NotCompared("fallback order", dict(log.figures.fallback), reason))
    memory = log.figures.memory
    if memory is not None:
        figures += _memory_figures(booted, log, left_out)
    if zoneinfo is not None:
        figures += _zoneinfo_figures(booted, parse_zoneinfo(zoneinfo), left_out)
    prediction = booted.prediction
    if prediction is not None:
        figures.append(Figure("memblock calls", prediction.equal, prediction.calls))
        figures.append(Figure("memblock dumps", prediction.dumps_equal, prediction.dumps))
    return Comparison(tuple(figures), tuple(left_out))


def _log_figures(booted: BootedMemory, log: BootLog) -> Iterator[Figure]:
    """Figures of the lines that both logs have; a line that only one has is a difference."""
    ours = Figures()
    for number, text in enumerate(booted.log, start=1):
        ours.feed(LogLine(number, text))
    theirs = log.figures
    firmware = firmware_memory(log, hardware_of(log))
    if firmware is not None:
        yield Figure("memory by the firmware's map", *firmware)
    if theirs.max_pfn or (log.e820 and not log.headless):
        last = max(memory.end_pfn for memory in booted.boot_zones.ranges)
        yield Figure("last_pfn", last, theirs.max_pfn)
    if log.lowmem_mib:
        yield from _highmem_figures(booted, log)
    mine = {zone: span for zone, *span in ours.zone_ranges}
    told = {zone: span for zone, *span in theirs.zone_ranges}
    for name in told if log.headless else {**told, **mine}:
        yield Figure(f"zone range {name}", mine.get(name), told.get(name))
    if theirs.zone_ranges or not log.headless:
        yield Figure("movable zone start", ours.movable_start, theirs.movable_start)
        yield Figure("early node ranges", ours.node_ranges, theirs.node_ranges)
        yield Figure("initmem set-up", ours.initmem, theirs.initmem)
        yield Figure("unavailable ranges", ours.unavailable, theirs.unavailable)
    if not distances_decide(log):
        yield from _by_key("fallback order of node", ours.fallback, theirs.fallback)
    if theirs.nr_zonelists or not log.headless:
        yield Figure("zonelists", ours.nr_zonelists, theirs.nr_zonelists)
        yield Figure("mobility grouping", ours.grouping, theirs.grouping)
        yield Figure("total pages", ours.total_pages, theirs.total_pages)
    if theirs.policy_zone or theirs.fallback:
        yield Figure("policy zone", ours.policy_zone, theirs.policy_zone)
    yield from _hash_figures(ours, log)
    if theirs.deferred:
        yield Figure("nodes with deferred pages", sorted(ours.deferred), sorted(theirs.deferred))


def _hash_figures(ours: Figures, log: BootLog) -> Iterator[Figure]:
    """Hash tables by name; all of them are told before the initcalls begin."""
    mine, told = (
        {t.name: [t.entries, t.order, t.size, t.how] for t in tables if t.name in _TABLES}
        for tables in (ours.hash_tables, log.figures.hash_tables)
    )
    whole = not log.headless and any(
        isinstance(event, Moment) and event.step is Step.INITCALLS for event in log.events
    )
    for name in {**told, **mine} if whole else told:
        yield Figure(f"{name} hash table", mine.get(name), told.get(name))


def _highmem_figures(booted: BootedMemory, log: BootLog) -> Iterator[Figure]:
    shift = 20 - booted.page_shift
    high = [zone for zone in booted.boot_zones.zones() if zone.highmem]
    last = max(memory.end_pfn for memory in booted.boot_zones.ranges)
    low = min((zone.start_pfn for zone in high), default=last)
    yield Figure("LOWMEM available", low >> shift, log.lowmem_mib)
    yield Figure("HIGHMEM available", last - low >> shift, log.highmem_mib)


def _by_key(name: str, ours: Mapping[int, Any], theirs: Mapping[int, Any]) -> Iterator[Figure]:
    for key in sorted({*ours, *theirs}) if theirs else ():
        yield Figure(f"{name} {key}", ours.get(key), theirs.get(key))


def _memory_figures(
    booted: BootedMemory, log: BootLog, left_out: list[NotCompared]
) -> Iterator[Figure]:
    ours, theirs = booted.memory, log.figures.memory
    if theirs is None:
        return
    if ours.available is None:
        left_out.append(
            NotCompared(
                "Memory: available",
                theirs.available,
                "this kernel prints the line after drivers and tracing have taken memory",
            )
        )
    else:
        yield Figure("Memory: available", ours.available, theirs.available)
    for name in ("physical", "reserved", "cma", "highmem"):
        yield Figure(f"Memory: {name}", getattr(ours, name), getattr(theirs, name))


def _zoneinfo_figures(
    booted: BootedMemory, theirs: list[ZoneText], left_out: list[NotCompared]
) -> Iterator[Figure]:
    ours = {(zone.node, zone.name): zone for zone in booted.zones}
    online = booted.online or tuple(zone.node for zone in booted.zones)
    order = [[zone.node, zone.name] for zone in booted.zones if zone.node in online]
    yield Figure("zones", order, [[zone.nid, zone.name] for zone in theirs])
    for zone in theirs:
        mine = ours.get((zone.nid, zone.name))
        if mine is not None:
            yield from _zone_figures(mine, zone, left_out)


def _zone_figures(
    mine: BootedZone, zone: ZoneText, left_out: list[NotCompared]
) -> Iterator[Figure]:
    where = f"node {zone.nid} zone {zone.name}"
    if zone.start_pfn is not None:
        yield Figure(f"{where} start_pfn", mine.start_pfn, zone.start_pfn)
    numbers = {
        "spanned": mine.spanned_pages,
        "present": mine.present_pages,
        "managed": mine.managed_pages,
        "cma": mine.cma_pages,
        **dict(zip(("min", "low", "high", "promo"), mine.watermark, strict=True)),
    }
    boost = zone.numbers.get("boost", 0)
    for name, value in numbers.items():
        if name not in zone.numbers:
            continue
        told = zone.numbers[name]
        if boost and name in {"min", "low", "high", "promo"}:
            told -= boost  # raised for a while by a fallback, not by the start-up
        yield Figure(f"{where} {name}", value, told)
    yield Figure(f"{where} protection", mine.lowmem_reserve, zone.protection)
    for cpu, pageset in zone.pagesets.items():
        yield Figure(f"{where} cpu {cpu} batch", mine.pcp_batch, pageset.get("batch"))
        yield from _pageset_high(mine, pageset, f"{where} cpu {cpu}", left_out)


def _pageset_high(
    mine: BootedZone, pageset: Mapping[str, int], where: str, left_out: list[NotCompared]
) -> Iterator[Figure]:
    if mine.pcp_high_max is None:
        yield Figure(f"{where} high", mine.pcp_high, pageset.get("high"))
        return
    if "high_min" in pageset:
        yield Figure(f"{where} high_min", mine.pcp_high, pageset["high_min"])
        yield Figure(f"{where} high_max", mine.pcp_high_max, pageset.get("high_max"))
        return
    left_out.append(
        NotCompared(
            f"{where} high",
            pageset.get("high"),
            f"it tunes itself while programs run, up to {mine.pcp_high_max};"
            f" the start-up sets high_min {mine.pcp_high} and high_max {mine.pcp_high_max}",
        )
    )
