# SPDX-License-Identifier: GPL-2.0-or-later
"""The text of /proc/slabinfo, there and back.

Linux: print_slabinfo_header(), cache_show(), mm/slab_common.c (6.1); s_show(), mm/slab.c (2.6.24)
"""

from collections.abc import Iterable

from physmem.lib.errors import BadInputError
from physmem.slab.rows import CacheRow

HEAD = "# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab>"
TUNABLES = " : tunables <limit> <batchcount> <sharedfactor>"
SLABDATA = " : slabdata <active_slabs> <num_slabs> <sharedavail>"
STATISTICS = (
    " : globalstat <listallocs> <maxobjs> <grown> <reaped> <error> <maxfreeable> <nodeallocs>"
    " <remotefrees> <alienoverflow> : cpustat <allochit> <allocmiss> <freehit> <freemiss>"
)


def slabinfo(rows: Iterable[CacheRow], *, statistics: bool = False) -> str:
    """Text of /proc/slabinfo.

    Parameters
    ----------
    rows : iterable of CacheRow
        In the order of the kernel's list.
    statistics : bool
        A debug build of 2.6.24.

    Examples
    --------
    >>> slabinfo([CacheRow("kmalloc-64", 12, 64, 64, 64, 1)]).splitlines()[2][:50]
    'kmalloc-64            12     64     64   64    1 :'
    """
    version = "slabinfo - version: 2.1"
    lines = [version + (" (statistics)" if statistics else "")]
    lines.append(HEAD + TUNABLES + SLABDATA + (STATISTICS if statistics else ""))
    for row in rows:
        line = (
            f"{row.name:<17s} {row.active_objs:6d} {row.num_objs:6d} {row.objsize:6d}"
            f" {row.objperslab:4d} {row.pagesperslab:4d}"
            f" : tunables {row.limit:4d} {row.batchcount:4d} {row.sharedfactor:4d}"
            f" : slabdata {row.active_slabs:6d} {row.num_slabs:6d} {row.sharedavail:6d}"
        )
        if statistics:
            (a, b, c, d, e, f, g, h, i), (j, k, m, n) = row.statistics
            line += (
                f" : globalstat {a:7d} {b:6d} {c:5d} {d:4d} \t\t\t\t{e:4d} {f:4d} {g:4d} {h:4d}"
                f" {i:4d} : cpustat {j:6d} {k:6d} {m:6d} {n:6d}"
            )
        lines.append(line)
    return "\n".join(lines) + "\n"


def parse_slabinfo(text: str) -> list[CacheRow]:
    """Rows of a /proc/slabinfo text (versions 2.x; statistics are passed over).

    Raises
    ------
    BadInputError
        Not such a text.

    Examples
    --------
    >>> row = CacheRow("dentry", 5, 21, 192, 21, 1, active_slabs=1, num_slabs=1)
    >>> parse_slabinfo(slabinfo([row])) == [row]
    True
    """
    lines = text.splitlines()
    if not lines or not lines[0].startswith("slabinfo - version: 2."):
        raise BadInputError("no text of /proc/slabinfo: its first line tells version 2.x")
    rows = []
    for number, line in enumerate(lines[1:], 2):
        if line.startswith("#") or not line.strip():
            continue
        try:
            left, tunables, data = line.split(" : ")[:3]
            name, *counts = left.rsplit(None, 5)
            active, total, size, per_slab, pages = map(int, counts)
            limit, batch, shared = map(int, tunables.split()[1:4])
            active_slabs, slabs, avail = map(int, data.split()[1:4])
        except ValueError:
            raise BadInputError(
                f"/proc/slabinfo, line {number}: cannot be read: {line!r}"
            ) from None
        rows.append(
            CacheRow(
                name.strip(),
                active,
                total,
                size,
                per_slab,
                pages,
                limit,
                batch,
                shared,
                active_slabs,
                slabs,
                avail,
            )
        )
    return rows
