# SPDX-License-Identifier: GPL-2.0-or-later
"""A prediction held against a kernel that was really booted so.

Compared is the state at the end: per zone the free frames (on free lists), the share of them that
lies in blocks of order 9 and above, and the number of pageblocks of each type. A prediction holds
when all three are as near as `LIMITS` says.
"""

from collections.abc import Sequence

import msgspec

from physmem.lab.metrics import Metrics, usable_order9
from physmem.lib.errors import BadCaptureError
from physmem.mm.state import NAME_OF_LETTER, State, ZoneState
from physmem.views.buddyinfo import free_counts
from physmem.views.fragmentation import free_frames

FREE_LIMIT = 0.03
"""Free pages: of the zone's managed pages."""
USABLE_LIMIT = 0.05
BLOCKS_LIMIT = 0.05
"""Pageblocks of a type: of all pageblocks of the zone."""


class ZoneFigures(msgspec.Struct, frozen=True):
    """What is compared of one zone."""

    managed_pages: int = 0
    free_pages: int = 0
    usable_order9_share: float = 0.0
    pageblocks: dict[str, int] = {}


class ZoneAgainst(msgspec.Struct, frozen=True):
    """One zone, predicted and actual; a side that does not have it has zeros.

    Attributes
    ----------
    there : "both", or the side that has the zone: "predicted", "actual"
    free_error : difference of free pages, share of the actual managed pages
    usable_error : difference of the shares
    blocks_error : largest difference of a type, share of all pageblocks of the zone
    holds : all three are within the limits
    """

    node: int
    name: str
    predicted: ZoneFigures
    actual: ZoneFigures
    there: str = "both"
    free_error: float = 0.0
    usable_error: float = 0.0
    blocks_error: float = 0.0
    holds: bool = False


class Against(msgspec.Struct, frozen=True):
    """A variant held against another recording.

    Attributes
    ----------
    name, digest, kernel, cmdline : the other recording
    variant : settings of the variant that was compared
    zones : in the order of the other recording, zones that it does not have at the end
    holds : it holds for every zone
    notes : what makes the comparison doubtful
    """

    name: str
    digest: str
    kernel: str
    cmdline: str
    variant: str
    zones: list[ZoneAgainst]
    holds: bool
    notes: list[str] = []


def figures_of_state(state: State, zone: ZoneState) -> ZoneFigures:
    """Figures of a recorded zone."""
    nr_free = free_counts(zone)
    return ZoneFigures(
        managed_pages=zone.managed,
        free_pages=free_frames(nr_free),
        usable_order9_share=round(usable_order9(nr_free), 6),
        pageblocks={NAME_OF_LETTER[c]: zone.pageblocks.count(c) for c in state.letters},
    )


def figures_of_metrics(metrics: Metrics) -> ZoneFigures:
    """Figures of a zone of ours."""
    return ZoneFigures(
        metrics.managed_pages,
        metrics.free_pages,
        metrics.usable_order9_share,
        dict(metrics.pageblocks),
    )


def compare_zone(node: int, name: str, predicted: ZoneFigures, actual: ZoneFigures) -> ZoneAgainst:
    """Hold one zone that both sides have against the other.

    Examples
    --------
    >>> ours = ZoneFigures(1000, 510, 0.9, {"Movable": 19, "Unmovable": 1})
    >>> theirs = ZoneFigures(1000, 500, 0.88, {"Movable": 20})
    >>> compare_zone(0, "Normal", ours, theirs).holds
    True
    """
    free = (predicted.free_pages - actual.free_pages) / max(actual.managed_pages, 1)
    usable = predicted.usable_order9_share - actual.usable_order9_share
    total = max(sum(actual.pageblocks.values()), 1)
    types = {*predicted.pageblocks, *actual.pageblocks}
    blocks = max(
        (abs(predicted.pageblocks.get(t, 0) - actual.pageblocks.get(t, 0)) for t in types),
        default=0,
    )
    return ZoneAgainst(
        node=node,
        name=name,
        predicted=predicted,
        actual=actual,
        free_error=round(free, 6),
        usable_error=round(usable, 6),
        blocks_error=round(blocks / total, 6),
        holds=(
            abs(free) <= FREE_LIMIT
            and abs(usable) <= USABLE_LIMIT
            and blocks / total <= BLOCKS_LIMIT
        ),
    )


def compare_zones(metrics: Sequence[Metrics], state: State) -> list[ZoneAgainst]:
    """Hold every zone against a recorded state."""
    ours = {(each.node, each.name): figures_of_metrics(each) for each in metrics if each.node >= 0}
    zones = []
    for zone in state.zones:
        actual = figures_of_state(state, zone)
        predicted = ours.pop((zone.node, zone.name), None)
        if predicted is None:
            empty = ZoneFigures()
            zones.append(ZoneAgainst(zone.node, zone.name, empty, actual, there="actual"))
        else:
            zones.append(compare_zone(zone.node, zone.name, predicted, actual))
    for (node, name), predicted in ours.items():
        if predicted.managed_pages:
            zones.append(ZoneAgainst(node, name, predicted, ZoneFigures(), there="predicted"))
    return zones


def end_state(state: State | None, name: str) -> State:
    """The recorded state to compare with.

    Raises
    ------
    BadCaptureError
        The recording has none at its end.
    """
    if state is None:
        raise BadCaptureError(
            f"{name}: the recording holds no state at its end, so nothing can be compared with it:"
            " import one with state1.json"
        )
    return state
