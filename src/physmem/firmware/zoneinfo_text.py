# SPDX-License-Identifier: GPL-2.0-or-later
"""/proc/zoneinfo, read: what a running kernel tells about its zones.

Linux: zoneinfo_show_print(), mm/vmstat.c (6.1, 6.12)
"""

import re
from dataclasses import dataclass, field

from physmem.lib.errors import BadInputError

_HEAD = re.compile(r"Node +(\d+), zone +(\w+)")
_NUMBER = re.compile(
    r" +(?P<name>boost|min|low|high|promo|spanned|present|managed|cma) +(?P<value>\d+)$"
)
_PROTECTION = re.compile(r" +protection: \(([\d, ]+)\)")
_CPU = re.compile(r" +cpu: (\d+)")
_SET = re.compile(r" +(count|high|batch|high_min|high_max): +(\d+)$")
_START = re.compile(r" +start_pfn: +(\d+)")
_FREE = re.compile(r" +pages free +(\d+)")


@dataclass
class ZoneText:
    """A zone of the file.

    Attributes
    ----------
    nid, name : node, zone
    numbers : "min", "low", "high", "spanned", "present", "managed", "cma", "free" ...
    protection : frames kept from each higher zone
    start_pfn : None for a zone without memory
    pagesets : per CPU: "count", "high", "batch" ...
    """

    nid: int
    name: str
    numbers: dict[str, int] = field(default_factory=dict)
    protection: tuple[int, ...] = ()
    start_pfn: int | None = None
    pagesets: dict[int, dict[str, int]] = field(default_factory=dict)


def parse_zoneinfo(text: str, name: str = "zoneinfo") -> list[ZoneText]:
    """Zones of the file, in its order.

    Raises
    ------
    BadInputError
        The text is no zoneinfo.

    Examples
    --------
    >>> text = '''Node 0, zone      DMA
    ...         min      22
    ...         protection: (0, 445, 445)
    ...     cpu: 0
    ...               high:  27
    ...   start_pfn:           1
    ... '''
    >>> (zone,) = parse_zoneinfo(text)
    >>> zone.numbers["min"], zone.protection, zone.pagesets, zone.start_pfn
    (22, (0, 445, 445), {0: {'high': 27}}, 1)
    """
    zones: list[ZoneText] = []
    cpu = -1
    for line in text.splitlines():
        head = _HEAD.match(line)
        if head:
            zones.append(ZoneText(int(head[1]), head[2]))
            cpu = -1
            continue
        if not zones:
            continue
        zone = zones[-1]
        if match := _CPU.match(line):
            cpu = int(match[1])
            zone.pagesets[cpu] = {}
        elif match := _START.match(line):
            zone.start_pfn = int(match[1])
        elif cpu >= 0 and (match := _SET.match(line)):
            zone.pagesets[cpu][match[1]] = int(match[2])
        elif match := _PROTECTION.match(line):
            zone.protection = tuple(int(number) for number in match[1].split(","))
        elif match := _FREE.match(line):
            zone.numbers["free"] = int(match[1])
        elif match := _NUMBER.match(line):
            zone.numbers.setdefault(match["name"], int(match["value"]))
    if not zones or not any(zone.numbers for zone in zones):
        raise BadInputError(f"{name}: no zone in it; save one with: cat /proc/zoneinfo > zoneinfo")
    return zones
