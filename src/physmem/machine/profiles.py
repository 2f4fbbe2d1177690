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
    where : module of `physmem.mm` that follows it
    bit : `physmem.mm.features` constant that switches it on; 0: all profiles here follow the rule
    """

    name: str
    rule: str
    since: str
    where: str
    bit: int = 0


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
)

PROFILES: dict[str, tuple[Feature, ...]] = {"6.1": _6_1}
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
