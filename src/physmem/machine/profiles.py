# SPDX-License-Identifier: GPL-2.0-or-later
"""Profiles: what a kernel does, as a table of named features, each with what brought it.

Algorithms never ask for a version. What a build or a machine decides (CMA, huge pages, the order of
a pageblock, which zones exist) is not here but in `Layout` and in the recorded state.
"""

from dataclasses import dataclass

from physmem.lib.errors import BadMachineError
from physmem.mm import features


@dataclass(frozen=True)
class Feature:
    """A rule that kernels differ in.

    Attributes
    ----------
    name : short name
    rule : what the kernel does
    since : release or commit that brought it; in brackets the stable release that has it, too (a
        stable release alone: the first one of 6.1.y with the rule)
    where : module of `physmem` that follows it, of `physmem.mm` if no other layer is named
    bit : `physmem.mm.features` constant that switches it on; 0: all profiles here follow the rule
    """

    name: str
    rule: str
    since: str
    where: str
    bit: int = 0


_SLUB = Feature("slub", "small memory comes from SLUB", "2.6.22 (81819f0fc828)", "slab/slub")
_SLAB = Feature("slab", "small memory comes from SLAB", "2.6.24 or earlier", "slab/slab")

_6_1 = (
    Feature(
        "merge-likely",
        "a block whose pair may merge again goes to TAIL",
        "6dda9d55bf54 (2010)",
        "buddy",
        features.MERGE_TO_TAIL,
    ),
    Feature(
        "move-to-tail",
        "blocks that change their list go to its TAIL",
        "5.10",
        "fallback",
        features.MOVE_TO_TAIL,
    ),
    Feature(
        "typed-barrier",
        "reserved and isolated blocks merge among their own",
        "6.1 or earlier",
        "buddy",
        features.TYPED_BARRIER,
    ),
    Feature(
        "highatomic",
        "pageblocks reserved for atomic orders > 0",
        "4.4",
        "highatomic",
        features.HIGHATOMIC,
    ),
    Feature(
        "steal-claim", "free and alike frames of half a pageblock claim it", "4.12", "fallback"
    ),
    Feature(
        "boost", "a fallback raises the watermarks for a while", "5.0", "fallback", features.BOOST
    ),
    Feature(
        "nofragment",
        "ZONE_NORMAL avoids mixing mobilities at first",
        "5.0",
        "page_alloc",
        features.NOFRAGMENT,
    ),
    Feature("pcp-free-factor", "the drain batch doubles while only frees come", "5.14", "pcp"),
    Feature("pcp-orders", "per-CPU lists for orders 0 to 3 and huge pages", "5.14", "pcp"),
    Feature("pcp-trylock", "a locked list sends a free to the free lists", "6.0", "page_free"),
    Feature("pcp-special", "HIGHATOMIC and CMA frames wait on the movable list", "6.1.57", "pcp"),
    Feature("pcp-thp-types", "two lists of huge pages, by mobility", "6.10 (6.1.97)", "pcp"),
    Feature("drain-chunks", "a whole drain goes by batch << 5", "6.1.104", "pcp"),
    Feature(
        "count-at-end",
        "a refill corrects the zone's counter once",
        "6.1 or earlier",
        "pcp",
        features.COUNT_AT_END,
    ),
    Feature("reserve-flags", "MIN_RESERVE, NON_BLOCK, HIGHATOMIC", "6.3 (6.1.116)", "watermark"),
    Feature("highatomic-high", "only __GFP_HIGH uses the reserve", "6.1.157", "page_alloc"),
    Feature(
        "managed-pages",
        "zones know how many frames they manage, sizes follow it",
        "3.8",
        "mmzone",
        features.MANAGED_PAGES,
    ),
    Feature("bulk", "many single frames with one request", "5.13", "page_alloc", features.BULK),
    _SLUB,
)

_2_6_24 = (
    Feature("mobility", "free lists by mobility", "2.6.24 (b2a0ac8875a0)", "free_area"),
    Feature("reclaimable", "a type for caches", "2.6.24 (e12ba74d8ff3)", "donor"),
    Feature(
        "free-to-head",
        "freed blocks, and those that change their list, go to HEAD",
        "2.6.24 or earlier",
        "buddy",
    ),
    Feature(
        "isolated-free",
        "isolated blocks merge with others and count as free",
        "2.6.24",
        "buddy",
        features.ISOLATED_IS_FREE,
    ),
    Feature(
        "take-largest",
        "a fallback takes the largest block, half a free pageblock with it",
        "2.6.24",
        "take_largest",
        features.TAKE_LARGEST,
    ),
    Feature(
        "reserve",
        "MIGRATE_RESERVE: the first pageblocks serve when all else fails",
        "2.6.24",
        "reserve",
        features.RESERVE_BLOCKS,
    ),
    Feature(
        "halving-watermark",
        "for each order less may be left, and what is smaller does not count",
        "2.6.24 or earlier",
        "watermark",
        features.HALVING_WATERMARK,
    ),
    Feature(
        "classzone",
        "lowmem_reserve by the first zone of the list",
        "2.6.24 or earlier",
        "page_alloc",
        features.CLASSZONE_IS_FIRST_ZONE,
    ),
    Feature(
        "hot-cold",
        "per-CPU lists of single frames, a hot and a cold one",
        "2.5",
        "hot_cold",
        features.HOT_COLD,
    ),
    Feature(
        "pcp-types",
        "a frame on a per-CPU list remembers a type, which requests look for",
        "2.6.24 (535131e6925b)",
        "hot_cold",
    ),
    Feature(
        "free-block-type",
        "what a drain gives back goes under its pageblock's type",
        "2.6.24",
        "hot_cold",
        features.FREES_READ_BLOCK_TYPE,
    ),
    Feature(
        "bootmem",
        "a boot frees words of a bitmap, ascending",
        "2.6.24 or earlier",
        "hand_over",
    ),
    Feature(
        "node-load-local",
        "loads of nodes count for one zonelist only",
        "2.6.24 or earlier",
        "zonelist",
        features.NODE_LOAD_LOCAL,
    ),
    Feature(
        "zone-order",
        "zonelists may go zone by zone",
        "2.6.23",
        "zonelist",
        features.ZONE_ORDER,
    ),
    Feature(
        "local-gives-up",
        "GFP_THISNODE gets nothing from below the low mark",
        "2.6.24 or earlier",
        "page_alloc",
        features.LOCAL_GIVES_UP,
    ),
    _SLAB,
)

_BY_NAME = {feature.name: feature for feature in _6_1}
_6_12 = (
    *(
        _BY_NAME[name]
        for name in (
            "merge-likely",
            "move-to-tail",
            "typed-barrier",
            "highatomic",
            "boost",
            "nofragment",
            "pcp-orders",
            "pcp-trylock",
            "pcp-special",
            "pcp-thp-types",
            "drain-chunks",
            "reserve-flags",
            "highatomic-high",
            "managed-pages",
            "bulk",
        )
    ),
    Feature(
        "boost-min-reserve",
        "the exception from the boost is for requests with MIN_RESERVE",
        "6.3",
        "watermark",
        features.BOOST_NEEDS_MIN_RESERVE,
    ),
    Feature(
        "pcp-auto-tuning",
        "high moves between two bounds, refills and drains double, high decays once a second",
        "6.7",
        "pcp_tuning",
        features.PCP_AUTO_TUNING,
    ),
    Feature(
        "below-high",
        "below its high mark a zone drains its per-CPU lists sooner",
        "6.7",
        "pcp_tuning",
        features.BELOW_HIGH,
    ),
    Feature(
        "highatomic-whole-blocks",
        "1 % of a zone, in whole pageblocks, is reserved; nothing where that is less than one",
        "6.8",
        "highatomic",
        features.HIGHATOMIC_WHOLE_BLOCKS,
    ),
    Feature(
        "hygiene",
        "a free block is always on the list of its pageblock's type",
        "6.10",
        "pageblock",
        features.LIST_TYPE_IS_BLOCK_TYPE,
    ),
    Feature(
        "free-reads-type",
        "frees and drains ask the pageblock for its type, nothing is remembered",
        "6.10",
        "page_free",
        features.FREES_READ_BLOCK_TYPE,
    ),
    Feature(
        "free-highatomic",
        "watermark tests take off what is free of the reserve",
        "6.12",
        "watermark",
        features.FREE_HIGHATOMIC,
    ),
    Feature(
        "claim-or-steal",
        "claim pageblocks, largest order first; then steal one block, smallest order first",
        "6.15 (6.12.29)",
        "claim",
        features.CLAIM_OR_STEAL,
    ),
    Feature("convert-buddy", "a merge of types converts all pageblocks", "6.12.65", "buddy"),
    Feature("decay-chunks", "a decay drains batch by batch", "6.12.67", "pcp"),
    _SLUB,
)

PROFILES: dict[str, tuple[Feature, ...]] = {
    "2.6.24": _2_6_24,
    "6.1": _6_1,
    "6.12": _6_12,
}
"""Profiles whose rules are implemented, by name."""


def feature_bits(kernel: str) -> int:
    """Set of `physmem.mm.features` bits of a profile.

    Raises
    ------
    BadMachineError
        No such profile.

    Examples
    --------
    >>> feature_bits("6.1") & features.HIGHATOMIC == features.HIGHATOMIC
    True
    """
    try:
        profile = PROFILES[kernel]
    except KeyError:
        known = ", ".join(sorted(PROFILES))
        raise BadMachineError(f"kernel {kernel!r} is not known; known are {known}") from None
    bits = 0
    for feature in profile:
        bits |= feature.bit
    return bits


def has_feature(kernel: str, name: str) -> bool:
    """Tell whether a profile follows a rule, by the rule's name.

    Raises
    ------
    BadMachineError
        No such profile.

    Examples
    --------
    >>> [has_feature(kernel, "slab") for kernel in ("2.6.24", "6.1", "6.12")]
    [True, False, False]
    """
    feature_bits(kernel)
    return any(feature.name == name for feature in PROFILES[kernel])
