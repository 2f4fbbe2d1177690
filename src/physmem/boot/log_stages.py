# SPDX-License-Identifier: GPL-2.0-or-later
"""Which stage of the start-up a line of a log belongs to."""

from collections.abc import Sequence

from physmem.firmware.bootlog_events import AllocCall, Event, MemblockCall, Moment, Step

STAGES = (
    "setup_arch",
    "sparse_init",
    "free_area_init",
    "resources",
    "setup_command_line",
    "setup_per_cpu_areas",
    "cpumasks",
    "parameters",
    "vfs_caches_init_early",
    "trap_init",
    "mm_init",
)
"""Stages that call the boot allocator, in order."""

_CALLERS = (
    ("sparse_", "sparse_init"),
    ("memory_present", "sparse_init"),
    ("memmap_alloc", "sparse_init"),
    ("vmemmap_", "sparse_init"),
    ("setup_usemap", "free_area_init"),
    ("alloc_node_mem_map", "free_area_init"),
    ("acpi_parse_", "resources"),
    ("io_apic_", "resources"),
    ("e820__reserve_resources", "resources"),
    ("firmware_map_", "resources"),
    ("register_nosave_region", "resources"),
    ("request_standard_resources", "resources"),
    ("start_kernel", "setup_command_line"),
    ("setup_command_line", "setup_command_line"),
    ("pcpu_", "setup_per_cpu_areas"),
    ("setup_per_cpu_areas", "setup_per_cpu_areas"),
    ("alloc_bootmem_cpumask_var", "cpumasks"),
    ("setup_log_buf", "vfs_caches_init_early"),
    ("alloc_large_system_hash", "vfs_caches_init_early"),
    ("spp_getpage", "trap_init"),
    ("mem_init", "mm_init"),
    ("mm_core_init", "mm_init"),
    ("swiotlb_", "mm_init"),
    ("kfence_", "mm_init"),
    ("stack_depot_", "mm_init"),
)


def stage_events(events: Sequence[Event]) -> dict[str, list[Event]]:
    """Events up to the hand-over, by stage.

    Stages only go forward: a caller that also works later belongs to where the start-up is. A call
    of nobody in particular belongs to the stage before it.
    """
    found: dict[str, list[Event]] = {stage: [] for stage in STAGES}
    now = 0
    for event in events:
        if isinstance(event, Moment):
            if event.step is Step.HANDOVER:
                break
            if event.step is Step.ZONES:
                now = max(now, STAGES.index("free_area_init"))
        elif isinstance(event, (AllocCall, MemblockCall)):
            now = max(now, _stage(event.caller, now))
        found[STAGES[now]].append(event)
    return found


def _stage(caller: str, now: int) -> int:
    for start, stage in _CALLERS:
        if caller.startswith(start):
            index = STAGES.index(stage)
            if stage == "setup_command_line" and now > index:
                # start_kernel() itself allocates again: what no option took goes to init
                index = STAGES.index("parameters")
            return index
    return now
