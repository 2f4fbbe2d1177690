# SPDX-License-Identifier: GPL-2.0-or-later
"""Who holds the memory that the boot allocator gave away, in words for people.

The boot allocator knows ranges only. The callers of its functions tell what a range is for.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from physmem.bootalloc.call import MemblockCall

UNKNOWN = "reserved early"
"""Reserved before the log tells who does what."""

_OWNERS = (
    ("setup_per_cpu_areas", "per-CPU bookkeeping"),
    ("pcpu_fc_alloc", "per-CPU areas"),
    ("pcpu_", "per-CPU bookkeeping"),
    ("sparse_init_nid", "section usage maps"),
    ("sparse_buffer_init", "mem_map"),
    ("sparse_index_alloc", "section table"),
    ("sparse_init", "section table"),
    ("memory_present", "section table"),
    ("memmap_alloc", "mem_map"),
    ("alloc_node_mem_map", "mem_map"),
    ("vmemmap_", "page tables of mem_map"),
    ("__earlyonly_bootmem_alloc", "page tables of mem_map"),
    ("setup_usemap", "pageblock flags"),
    ("alloc_large_system_hash", "hash tables"),
    ("alloc_node_data", "NODE_DATA"),
    ("setup_node_data", "NODE_DATA"),
    ("memblock_phys_alloc_try_nid", "NODE_DATA"),
    ("numa_", "node distances"),
    ("early_pgtable_alloc", "page tables"),
    ("alloc_low_pages", "page tables"),
    ("spp_getpage", "page tables"),
    ("init_mem_mapping", "page tables"),
    ("alloc_pmd", "page tables"),
    ("alloc_pte", "page tables"),
    ("reserve_real_mode", "first MiB"),
    ("setup_arch", "firmware and loader"),
    ("acpi_parse_", "resources"),
    ("acpi_", "ACPI tables"),
    ("smp_scan_config", "MP table"),
    ("io_apic_", "resources"),
    ("e820__reserve_resources", "resources"),
    ("firmware_map_add_early", "firmware map records"),
    ("register_nosave_region", "hibernation records"),
    ("early_init_dt_alloc_memory_arch", "device tree"),
    ("early_init_fdt", "device tree"),
    ("arm64_memblock_init", "kernel image"),
    ("setup_bootmem", "kernel image"),
    ("paging_init", "kernel image"),
    ("start_kernel", "command lines"),
    ("setup_command_line", "command lines"),
    ("alloc_bootmem_cpumask_var", "CPU masks"),
    ("cma_", "CMA"),
    ("memblock_double_array", "memblock arrays"),
    ("setup_log_buf", "log buffer"),
    ("swiotlb", "bounce buffers"),
    ("reserve_crashkernel", "crash kernel"),
    ("kfence", "KFENCE pool"),
    ("stack_depot", "stack depot"),
)
"""Beginning of a caller's name, and what it is about; the first that fits counts."""


def owner_of(caller: str) -> str:
    """What a caller of the boot allocator needs memory for.

    Examples
    --------
    >>> owner_of("pcpu_fc_alloc+0xf2/0x148"), owner_of("sparse_init_nid+0x8d/0x34d")
    ('per-CPU areas', 'section usage maps')
    >>> owner_of("some_driver+0x10/0x20")
    'some_driver'
    """
    name = caller.split("+", 1)[0]
    for start, owner in _OWNERS:
        if name.startswith(start):
            return owner
    return name or UNKNOWN


@dataclass(frozen=True, slots=True)
class ReservedRange:
    """Bytes [start, end) that the page allocator never gets, and whose they are."""

    start: int
    end: int
    owner: str


class OwnerBook:
    """Notes who took what; told of every call as a memblock observer.

    A later entry overrides an earlier one: memory is freed and taken again.

    Examples
    --------
    >>> book = OwnerBook()
    >>> book.take(0x1000, 0x3000, "kernel image")
    >>> book.take(0x2000, 0x4000, "hash tables")
    >>> [(r.start, r.owner) for r in book.ranges([(0x1000, 0x5000)])]
    [(4096, 'kernel image'), (8192, 'hash tables'), (16384, 'reserved early')]
    """

    def __init__(self) -> None:
        self._taken: list[tuple[int, int, str]] = []
        self._caller = ""
        self.purpose = ""
        """Owner of what is taken next, when set: it wins over the caller's."""

    def take(self, start: int, end: int, owner: str) -> None:
        """Note that bytes [start, end) are the owner's."""
        if start < end:
            self._taken.append((start, end, owner))

    def on_call(self, call: MemblockCall) -> None:
        """Note what a call of memblock takes."""
        if "alloc" in call.kind:
            self._caller = _asked_for(call)
        elif call.kind == "memblock_reserve":
            own = call.caller.startswith("memblock_alloc")
            caller = self._caller if own else call.caller
            self.take(call.base, call.base + call.size, self.purpose or owner_of(caller))
            if own:
                self._caller = ""

    def ranges(self, reserved: Iterable[tuple[int, int]]) -> tuple[ReservedRange, ...]:
        """What is reserved (start, end), cut where the owner changes; neighbours alike are one."""
        wanted = sorted(reserved)
        points = {point for span in wanted for point in span}
        points |= {point for start, end, _ in self._taken for point in (start, end)}
        order = sorted(points)
        index = {point: number for number, point in enumerate(order)}
        owners = [UNKNOWN] * len(order)
        # the latest entry wins: go backwards, and skip what later entries have filled already
        following = list(range(len(order) + 1))

        def free_from(number: int) -> int:
            root = number
            while following[root] != root:
                root = following[root]
            while following[number] != root:
                following[number], number = root, following[number]
            return root

        for start, end, owner in reversed(self._taken):
            number, last = free_from(index[start]), index[end]
            while number < last:
                owners[number] = owner
                following[number] = number + 1
                number = free_from(number)
        return _cut(wanted, order, owners)


def _asked_for(call: MemblockCall) -> str:
    """Caller of an allocation; where the compiler has merged functions, the one it must be."""
    if call.kind == "memblock_alloc_exact_nid_raw":
        # nobody else insists on a node
        return "sparse_buffer_init"
    if call.caller.startswith("pcpu_") and call.min_addr:
        # of all that the per-CPU allocator asks for, only the areas avoid the first 16 MiB
        return "pcpu_fc_alloc"
    return call.caller


def _cut(
    wanted: list[tuple[int, int]], order: list[int], owners: list[str]
) -> tuple[ReservedRange, ...]:
    index = {point: number for number, point in enumerate(order)}
    result: list[ReservedRange] = []
    for start, end in wanted:
        for number in range(index[start], index[end]):
            low, high = order[number], order[number + 1]
            last = result[-1] if result else None
            if last is not None and last.end == low and last.owner == owners[number]:
                result[-1] = ReservedRange(last.start, high, last.owner)
            else:
                result.append(ReservedRange(low, high, owners[number]))
    return tuple(result)
