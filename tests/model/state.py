# SPDX-License-Identifier: GPL-2.0-or-later
"""States of the twin in the JSON form of recordings.

Per zone: `free[order][migratetype number]` and `lists[pindex]` hold head frames, head of the list
first; `pageblocks` one letter per block. A recorded state does not tell the type that frames on
per-CPU lists remember; it is taken from list and block. `remembered` (ours) states it exactly.
"""

from typing import TYPE_CHECKING, Any

from .free_area import ZoneSpec
from .pcp import PerCpuPages, PerCpuPagesAuto, PerCpuPagesHotCold
from .zone import Zone

if TYPE_CHECKING:
    from .page_alloc import Machine

PREV_FREE_HIGH_ORDER, FREE_HIGH_BATCH = 1, 2
RECORDED = ("node", "name", "start", "spanned", "managed", "present")


def snapshot(machine: "Machine", *, remembered_types: bool) -> dict[str, Any]:
    zones = []
    for zone, pcps in zip(machine.zones, machine.pcp, strict=True):
        first = pcps[0]
        high, high_max = first.high, None
        if isinstance(first, PerCpuPagesAuto):
            high, high_max = first.high_min, first.high_max
        free = [[list(lists[t]) for t in machine.features.letters] for lists in zone.free_list]
        zones.append(
            {name: getattr(zone, name) for name in RECORDED}
            | {
                "wmark": list(zone.wmark),
                "boost": zone.watermark_boost,
                "highatomic": zone.nr_reserved_highatomic,
                "lowmem_reserve": list(zone.lowmem_reserve),
                "pageset_high": high,
                "pageset_high_max": high_max,
                "pageset_batch": first.batch,
                "free": free,
                "nr_free": list(zone.nr_free),
                "pcp": [pcp_snapshot(pcp, remembered_types) for pcp in pcps],
                "pageblocks": "".join(letter or "." for letter in zone.pageblock.values()),
            }
        )
    state = {"zones": zones, "pageblock_order": machine.pageblock_order}
    if "X" in machine.features.letters:
        state["migratetypes"] = machine.features.letters
    return state


def pcp_snapshot(pcp: PerCpuPages, remembered_types: bool) -> dict[str, Any]:
    out: dict[str, Any] = {
        "cpu": pcp.cpu,
        "count": pcp.count,
        "high": pcp.high,
        "batch": pcp.batch,
        "free_factor": pcp.free_factor,
    }
    if isinstance(pcp, PerCpuPagesAuto):
        out["free_factor"] = None
        out["high_min"], out["high_max"] = pcp.high_min, pcp.high_max
        out["alloc_factor"], out["free_count"] = pcp.alloc_factor, pcp.free_count
        out["flags"] = (
            PREV_FREE_HIGH_ORDER * pcp.prev_free_high_order + FREE_HIGH_BATCH * pcp.free_high_batch
        )
    out["lists"] = [list(pages) for pages in pcp.lists]
    if isinstance(pcp, PerCpuPagesHotCold):
        out["cold_high"], out["cold_batch"] = pcp.highs[1], pcp.batches[1]
        out["types"] = ["".join(pcp.private[pfn] for pfn in pages) for pages in pcp.lists]
    if remembered_types:
        out["remembered"] = {str(pfn): pcp.remembered(pfn) for pfn, _ in pcp.chunks()}
    return out


def spec_from_state(zone: dict[str, Any]) -> ZoneSpec:
    return ZoneSpec(
        **{name: zone[name] for name in RECORDED},
        wmark=zone["wmark"],
        lowmem_reserve=zone["lowmem_reserve"],
        boost=zone["boost"],
        highatomic=zone["highatomic"],
        batch=zone["pageset_batch"],
        high=zone["pageset_high"],
        high_max=zone.get("pageset_high_max"),
    )


def load_state(machine: "Machine", state: dict[str, Any]) -> None:
    """Fill the lists of a new machine."""
    for zone, pcps, recorded in zip(machine.zones, machine.pcp, state["zones"], strict=True):
        for block, letter in zip(list(zone.pageblock), recorded["pageblocks"], strict=True):
            if letter == ".":
                zone.pageblock[block] = None
            else:
                zone.set_pageblock_migratetype(block, letter)
        for order, lists in enumerate(recorded["free"]):
            for letter, chunks in zip(machine.features.letters, lists, strict=True):
                for pfn in chunks:
                    zone.add_to_free_list(pfn, order, letter, tail=True)
                    zone.mod_freepage_state(1 << order, letter)
                    zone.nr_in_use -= 1 << order
        for saved in recorded["pcp"]:
            load_pcp(zone, pcps[saved["cpu"]], saved)


def load_pcp(zone: Zone, pcp: PerCpuPages, saved: dict[str, Any]) -> None:
    pcp.lists = [list(pages) for pages in saved["lists"]]
    pcp.count, pcp.high, pcp.batch = saved["count"], saved["high"], saved["batch"]
    pcp.free_factor = saved.get("free_factor") or 0
    if isinstance(pcp, PerCpuPagesAuto):
        pcp.high_min, pcp.high_max = saved["high_min"], saved["high_max"]
        pcp.alloc_factor, pcp.free_count = saved["alloc_factor"], saved["free_count"]
        pcp.prev_free_high_order = bool(saved["flags"] & PREV_FREE_HIGH_ORDER)
        pcp.free_high_batch = bool(saved["flags"] & FREE_HIGH_BATCH)
    zone.nr_in_use -= pcp.count
    for pindex, pages in enumerate(pcp.lists):
        for pfn in pages:
            block = zone.get_pageblock_migratetype(pfn)
            letter = block
            if block in "UMR" and not isinstance(pcp, PerCpuPagesHotCold):
                letter = zone.features.letters[pindex % 3 if pindex < 12 else pindex - 12]
                if pindex == 12 and block == "R":
                    letter = "R"
            zone.pcppage_migratetype[pfn] = letter
    if isinstance(pcp, PerCpuPagesHotCold):
        pcp.highs = [saved["high"], saved.get("cold_high") or 0]
        pcp.batches = [saved["batch"], saved.get("cold_batch") or 1]
        pcp.private = {pfn: zone.pcppage_migratetype[pfn] for pages in pcp.lists for pfn in pages}
        for pages, letters in zip(pcp.lists, saved.get("types") or (), strict=False):
            pcp.private.update(zip(pages, letters, strict=True))
        zone.pcppage_migratetype.update(pcp.private)
    for pfn, letter in saved.get("remembered", {}).items():
        zone.pcppage_migratetype[int(pfn)] = letter
        if isinstance(pcp, PerCpuPagesHotCold):
            pcp.private[int(pfn)] = letter
