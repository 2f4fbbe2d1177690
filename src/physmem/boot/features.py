# SPDX-License-Identifier: GPL-2.0-or-later
"""What kernels do differently while they boot: named features, each with what brought it.

The start-up code asks for a feature, never for a version.
"""

import enum
from dataclasses import dataclass

from physmem.lib.errors import BadMachineError


class BootFeature(enum.Flag):
    """Rules of the start-up that kernels differ in."""

    # -- memory and nodes --
    EARLY_NODE_MAP = enum.auto()
    MEMBLOCK = enum.auto()
    MEMORYLESS_NODES_LOGGED = enum.auto()
    # -- ZONE_MOVABLE --
    KERNELCORE_PERCENT = enum.auto()
    KERNELCORE_MIRROR = enum.auto()
    MOVABLE_NODE = enum.auto()
    MOVABLECORE_CAPPED = enum.auto()
    KERNELCORE_ALL_IS_NONE = enum.auto()
    MOVABLE_INSIDE_NODE = enum.auto()
    MOVABLE_ZONE_ALWAYS_KNOWN = enum.auto()
    # -- zones and their sizes --
    PRESENT_IS_ESTIMATE = enum.auto()
    MEMMAP_ESTIMATE = enum.auto()
    HIGHMEM_PAYS_MEMMAP = enum.auto()
    MEMMAP_BY_PRESENT = enum.auto()
    KERNEL_PAGES_ARE_FREE_PAGES = enum.auto()
    WAIT_TABLE = enum.auto()
    PAGEBLOCK_SKIP_BIT = enum.auto()
    ZONE_LINES = enum.auto()
    # -- struct pages --
    PAGES_START_RESERVED = enum.auto()
    HOLES_HAVE_PAGES = enum.auto()
    DEFERRED_PAGES = enum.auto()
    DEFERRED_IN_LARGEST_BLOCKS = enum.auto()
    # -- zonelists --
    ZONELIST_PER_ZONE = enum.auto()
    ZONELIST_ORDER = enum.auto()
    NODE_LOAD_ADDS = enum.auto()
    NODE_LOAD_SCALED = enum.auto()
    FALLBACK_LINE = enum.auto()
    # -- reserves and watermarks --
    MIN_FREE_256M = enum.auto()
    WATERMARK_SCALE = enum.auto()
    THP_MIN_FREE = enum.auto()
    MOVABLE_NOT_LOWMEM = enum.auto()
    RESERVE_RATIO_BY_ZONE = enum.auto()
    RESERVE_BLOCKS = enum.auto()
    # -- per-CPU lists --
    HOT_COLD = enum.auto()
    PCP_FROM_LOW_MARK = enum.auto()
    PCP_AUTO_TUNING = enum.auto()
    PCP_BATCH_1M = enum.auto()
    # -- hash tables --
    HASH_ADAPTIVE = enum.auto()
    HASH_SAYS_WHERE = enum.auto()
    PID_HASH = enum.auto()
    # -- order of the start-up --
    ZONELISTS_LATE = enum.auto()
    MEMORY_LINE_LATE = enum.auto()


@dataclass(frozen=True)
class BootRule:
    """One feature, explained.

    Attributes
    ----------
    feature : its bit
    rule : what the kernel does
    since : release or commit that brought it
    where : module of `physmem.boot` (or of a layer below) that follows it
    """

    feature: BootFeature
    rule: str
    since: str
    where: str


_F = BootFeature
_COMMON_OLD = (
    BootRule(
        _F.EARLY_NODE_MAP,
        "a table notes which frames are memory",
        "c713216deebd (2.6.19)",
        "active_range",
    ),
    BootRule(
        _F.PRESENT_IS_ESTIMATE,
        "present_pages leaves out an estimate for memmap and early reservations",
        "0e0b864e069c (2.6.19)",
        "zones",
    ),
    BootRule(
        _F.MEMMAP_ESTIMATE,
        "zone sizes are reduced by the frames of the memmap",
        "0e0b864e069c (2.6.19)",
        "zones",
    ),
    BootRule(_F.HIGHMEM_PAYS_MEMMAP, "also for HighMem", "2.6.19", "zones"),
    BootRule(_F.ZONE_LINES, "the sizes of each zone are logged", "2.6.19", "zone_log"),
    BootRule(_F.WAIT_TABLE, "each zone has a hash table of waiters for pages", "2.5", "zones"),
    BootRule(
        _F.PAGES_START_RESERVED,
        "frames start reserved; a pageblock becomes movable with any frame but its first",
        "2.6.24",
        "memmap_init",
    ),
    BootRule(_F.ZONELIST_PER_ZONE, "one zonelist per highest zone", "2.4 or earlier", "zonelist"),
    BootRule(
        _F.ZONELIST_ORDER,
        "zonelists sorted by node or by zone (numa_zonelist_order=)",
        "2.6.23",
        "zonelist",
    ),
    BootRule(
        _F.NODE_LOAD_SCALED,
        "distance outweighs load by nodes times nodes",
        "2.6.24 or earlier",
        "zonelist",
    ),
    BootRule(_F.RESERVE_BLOCKS, "pageblocks reserved by the min watermark", "2.6.24", "sizes"),
    BootRule(_F.HOT_COLD, "a hot and a cold per-CPU list", "2.5", "sizes"),
    BootRule(
        _F.PID_HASH, "the PID table is a boot hash table of its own rule", "2.5", "hash_tables"
    ),
)
_COMMON_NEW = (
    BootRule(_F.MEMBLOCK, "memblock knows nodes; no second table", "0ee332c14518 (3.3)", "ranges"),
    BootRule(
        _F.MEMORYLESS_NODES_LOGGED, "nodes without memory are set up and logged", "5.18", "zone_log"
    ),
    BootRule(
        _F.KERNELCORE_PERCENT, "kernelcore=n% and movablecore=n%", "a5c6d6509342 (4.17)", "movable"
    ),
    BootRule(
        _F.KERNELCORE_MIRROR,
        "kernelcore=mirror: what is not mirrored is movable",
        "342332e6a925 (4.6)",
        "movable",
    ),
    BootRule(
        _F.MOVABLE_NODE,
        "movable_node: hotpluggable memory is movable",
        "b2f3eebe7a8a (3.13)",
        "movable",
    ),
    BootRule(_F.MOVABLECORE_CAPPED, "movablecore= is not more than all memory", "4.4", "movable"),
    BootRule(
        _F.KERNELCORE_ALL_IS_NONE,
        "kernelcore= of all memory or more: no ZONE_MOVABLE",
        "bde304bdf4ec (4.4)",
        "movable",
    ),
    BootRule(
        _F.MOVABLE_INSIDE_NODE,
        "a ZONE_MOVABLE that would start beyond its node is dropped",
        "ddbc84f3f595 (5.17)",
        "movable",
    ),
    BootRule(
        _F.MOVABLE_ZONE_ALWAYS_KNOWN,
        "the zone that ZONE_MOVABLE takes from is known without kernelcore=",
        "3.13",
        "movable",
    ),
    BootRule(_F.PAGEBLOCK_SKIP_BIT, "a fourth bit per pageblock, for compaction", "3.7", "zones"),
    BootRule(
        _F.HOLES_HAVE_PAGES,
        "frames in holes are reserved pages; the log counts them",
        "0740a50b9baa (5.12)",
        "memmap_init",
    ),
    BootRule(
        _F.DEFERRED_PAGES, "struct pages of a node's last zone come later", "4.2", "memmap_init"
    ),
    BootRule(
        _F.NODE_LOAD_ADDS, "nodes used early by one node are avoided by others", "5.16", "zonelist"
    ),
    BootRule(_F.FALLBACK_LINE, "the order of nodes is logged", "5.16", "zonelist"),
    BootRule(_F.MIN_FREE_256M, "min_free_kbytes may reach 256 MiB", "5.8", "sizes"),
    BootRule(
        _F.WATERMARK_SCALE,
        "watermarks are apart by a share of the zone",
        "795ae7a0de6b (4.6)",
        "sizes",
    ),
    BootRule(_F.THP_MIN_FREE, "huge pages raise min_free_kbytes", "2.6.38", "sizes"),
    BootRule(_F.RESERVE_RATIO_BY_ZONE, "a reserve ratio of 0 reserves nothing", "4.17", "sizes"),
    BootRule(_F.PCP_FROM_LOW_MARK, "per-CPU lists share the low watermark", "5.14", "sizes"),
    BootRule(_F.PCP_BATCH_1M, "a batch looks at up to 1 MiB of the zone", "4.19", "sizes"),
    BootRule(
        _F.HASH_ADAPTIVE,
        "hash tables grow slower beyond 64 GiB",
        "9017217b6f45 (4.13)",
        "hash_tables",
    ),
    BootRule(_F.HASH_SAYS_WHERE, "the log tells linear or vmalloc", "5.3", "hash_tables"),
)

BOOT_FEATURES: dict[str, tuple[BootRule, ...]] = {
    "2.6.24": _COMMON_OLD,
    "6.1": (
        *_COMMON_NEW,
        BootRule(
            _F.MEMMAP_ESTIMATE,
            "the first estimate of managed pages leaves out the memmap",
            "0e0b864e069c (2.6.19)",
            "zones",
        ),
        BootRule(
            _F.MEMMAP_BY_PRESENT,
            "a zone of many holes pays memmap for its present pages only",
            "3.8",
            "zones",
        ),
    ),
    "6.12": (
        *_COMMON_NEW,
        BootRule(
            _F.KERNEL_PAGES_ARE_FREE_PAGES,
            "hash tables are sized by the free pages of memblock; zones by present pages",
            "6.10",
            "zones",
        ),
        BootRule(
            _F.MOVABLE_NOT_LOWMEM,
            "Movable is left out of the low memory of watermarks",
            "6.12 or earlier",
            "sizes",
        ),
        BootRule(
            _F.DEFERRED_IN_LARGEST_BLOCKS,
            "deferred frames are freed in blocks of the largest order, not of pageblocks",
            "3f6dac0fd1b8 (6.4)",
            "deferred_init",
        ),
        BootRule(_F.PCP_AUTO_TUNING, "per-CPU lists between high_min and high_max", "6.7", "sizes"),
        BootRule(
            _F.ZONELISTS_LATE, "zonelists are built after the first hash tables", "6.4", "zonelist"
        ),
        BootRule(
            _F.MEMORY_LINE_LATE,
            "the memory line waits for deferred pages",
            "6.12 or earlier",
            "zone_log",
        ),
    ),
}
"""Features of each profile."""


def boot_features(kernel: str) -> BootFeature:
    """Set of the features of a profile.

    Raises
    ------
    BadMachineError
        No such profile.

    Examples
    --------
    >>> BootFeature.WAIT_TABLE in boot_features("2.6.24")
    True
    >>> BootFeature.PCP_AUTO_TUNING in boot_features("6.1")
    False
    """
    try:
        rules = BOOT_FEATURES[kernel]
    except KeyError:
        known = ", ".join(sorted(BOOT_FEATURES))
        raise BadMachineError(f"kernel {kernel!r} is not known; known are {known}") from None
    features = BootFeature(0)
    for rule in rules:
        features |= rule.feature
    return features
