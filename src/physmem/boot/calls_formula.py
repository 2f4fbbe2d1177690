# SPDX-License-Identifier: GPL-2.0-or-later
"""Calls of the boot allocator for a machine that nobody recorded: worked out, in order.

Sizes of records are those of the build (`KernelConfig`); their numbers follow from the machine.
"""

from collections.abc import Callable

from physmem.arch.direct_map import TablePages
from physmem.arch.setup import Setup
from physmem.boot.boot import Boot
from physmem.boot.boot_hashes import early_tables, hashes_come_late
from physmem.boot.booted import LateFree, Prediction
from physmem.boot.calls_percpu import setup_per_cpu_areas
from physmem.boot.calls_sparse import flat_mem_map, sparse_init
from physmem.boot.cma import cma_alignment, place_cma
from physmem.boot.crash_kernel import reserve_crashkernel
from physmem.boot.image_layout import (
    ImagePlace,
    flat_image_place,
    image_gaps,
    pc_image_place,
)
from physmem.boot.late_frees import late_free
from physmem.lib.errors import BadMachineError


class FormulaCalls:
    """The calls of a typical build on one machine.

    Attributes
    ----------
    setup : what setup_arch() found out
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self._stages: dict[str, Callable[[Boot], None]] = {
            "setup_arch": self._setup_arch,
            "sparse_init": self._sparse_init,
            "free_area_init": self._free_area_init,
            "resources": self._resources,
            "setup_command_line": self._command_line,
            "setup_per_cpu_areas": setup_per_cpu_areas,
            "cpumasks": self._cpumasks,
            "parameters": self._parameters,
            "vfs_caches_init_early": self._hashes,
            "trap_init": self._trap_init,
            "mm_init": self._nothing,
        }

    def run(self, boot: Boot, stage: str) -> None:
        """Make the calls of a stage."""
        self._stages[stage](boot)

    def prediction(self) -> Prediction | None:
        """None: there is no log."""
        return None

    # -- stages --------------------------------------------------------------------------------

    def _nothing(self, boot: Boot) -> None:
        """No call."""

    def _setup_arch(self, boot: Boot) -> None:
        setup = self.setup
        boot.kernel_map = setup.direct_map
        setup.run()
        boot.limits = setup.limits
        boot.cpu_node = setup.cpu_node or boot.cpu_node
        # inside the image (0, 0): there is nothing to look for
        for start, end in setup.node_data.values():
            boot.owners.take(start, end, "NODE_DATA")
        boot.node_data = {nid: start for nid, (start, _) in setup.node_data.items() if start}
        boot.distance = tuple(tuple(row) for row in setup.distance)
        boot.possible = tuple(sorted({*setup.node_data, *setup.possible})) or (0,)
        reserve_crashkernel(boot)

    def _sparse_init(self, boot: Boot) -> None:
        sparse_init(boot)
        self._nodes_without_memory(boot)

    def _nodes_without_memory(self, boot: Boot) -> None:
        """Descriptors of nodes that have CPUs, or room for memory, but none of it.

        Linux: arch_alloc_nodedata(), free_area_init(), mm/page_alloc.c (6.1)
        """
        size = self.setup.arch.sizeof_pgdat
        for nid in self.setup.possible:
            if nid in boot.node_data or nid in self.setup.node_data:
                continue
            place = boot.memblock.alloc(size, boot.geometry.cache_bytes, caller="free_area_init")
            if not place:
                raise BadMachineError(f"no memory for the descriptor of node {nid}")
            boot.owners.take(place, place + size, "NODE_DATA")

    def _free_area_init(self, boot: Boot) -> None:
        flat_mem_map(boot)
        self._reserve_cma(boot)
        if self.setup.e820 is None:
            # a PC does so as soon as the nodes are known
            self.setup.dump_memblock()

    def _reserve_cma(self, boot: Boot) -> None:
        """Set the default area for contiguous memory aside, as high as devices reach.

        Linux: dma_contiguous_reserve(), kernel/dma/contiguous.c (6.1)
        """
        if not boot.config.cma:
            return
        asked = boot.cmdline.cma
        align = cma_alignment(boot)
        size = -(-(boot.config.cma_bytes if asked is None else asked.size) // align) * align
        if not size:
            return
        boot.owners.purpose = "CMA"
        found = place_cma(boot, size)
        boot.owners.purpose = ""
        if not found:
            boot.say(f"cma: Failed to reserve {size >> 20} MiB")
            return
        boot.cma_areas.append((found, found + size))
        boot.say(f"cma: Reserved {size >> 20} MiB at {found:#018x}")

    def _resources(self, boot: Boot) -> None:
        memblock, config, cache = boot.memblock, boot.config, boot.geometry.cache_bytes
        table = self.setup.e820
        if config.device_tree_bytes:
            memblock.alloc(64, cache, caller="setup_arch")
        if table is None:
            return
        memblock.alloc(config.hpet_bytes, cache, caller="acpi_parse_hpet")
        memblock.alloc(config.ioapic_bytes, cache, caller="io_apic_init_mappings")
        size = config.resource_bytes * len(table.entries)
        memblock.alloc(size, cache, caller="e820__reserve_resources")
        for _ in boot.hardware.e820:
            memblock.alloc(config.firmware_map_bytes, cache, caller="firmware_map_add_early")
        for _ in range(_holes(boot)):
            memblock.alloc(config.nosave_bytes, cache, caller="register_nosave_region")

    def _command_line(self, boot: Boot) -> None:
        size = len(boot.cmdline.text) + 1
        for _ in range(2):
            boot.memblock.alloc(size, boot.geometry.cache_bytes, caller="setup_command_line")

    def _cpumasks(self, boot: Boot) -> None:
        config, word = boot.config, boot.geometry.bits_per_long
        size = -(-len(boot.cpu_node) // word) * word // 8
        nodes = max(boot.possible) + 1 if config.node_cpumasks else 0
        for _ in range(config.cpumasks + nodes):
            boot.memblock.alloc(size, boot.geometry.cache_bytes, caller="alloc_bootmem_cpumask_var")

    def _parameters(self, boot: Boot) -> None:
        unknown = " ".join(boot.cmdline.unknown)
        if unknown:
            memblock = boot.memblock
            place = memblock.alloc(
                len(unknown) + 2, boot.geometry.cache_bytes, caller="start_kernel"
            )
            memblock.phys_free(place, len(unknown) + 2, caller="start_kernel")

    def _hashes(self, boot: Boot) -> None:
        if hashes_come_late(boot):
            return
        for table in early_tables(boot):
            place = boot.memblock.alloc(
                table.bytes, boot.geometry.cache_bytes, caller="alloc_large_system_hash"
            )
            if not place:
                raise BadMachineError(f"no memory for the {table.name} hash table")

    def _trap_init(self, boot: Boot) -> None:
        page = boot.geometry.page_size
        pages = boot.config.cpu_entry_pages
        if not pages:
            return
        start, _ = boot.arch.layout.regions["cpu entry area"]
        real = [level.name for level in boot.arch.levels if not level.folded]
        for level in real[-pages:]:
            place = boot.memblock.alloc(page, page, caller="spp_getpage")
            boot.kernel_map.add_tables(TablePages(level, start, place, 1, 0, "memblock"))

    # -- late ----------------------------------------------------------------------------------

    def late_frees(self, boot: Boot) -> tuple[LateFree, ...]:
        """What every kernel of the build gives back, in its order."""
        image = boot.hardware.image or boot.arch.image
        pc = bool(boot.hardware.e820)
        found = []
        if pc and boot.config.alternatives_kib:
            found.append(self._from_image(boot, "SMP alternatives", boot.config.alternatives_kib))
        if self.setup.initrd is not None:
            start, end = self.setup.initrd
            place = ImagePlace(start & -boot.geometry.page_size, end)
            if pc:
                place = ImagePlace(start, -(-end // boot.geometry.page_size) * 4096)
            found.append(late_free(boot, "initrd", place, after_marks=True))
        if not pc:
            size = image.init_kib << 10
            if size:
                place = flat_image_place(image, size)
                found.append(late_free(boot, "unused kernel", place, after_marks=True))
            return tuple(found)
        parts = {"unused decrypted": boot.config.decrypted_kib}
        parts["unused kernel image (initmem)"] = image.init_kib
        if boot.config.image_gaps:
            for name, size in image_gaps(image).items():
                parts[f"unused kernel image ({name} gap)"] = size >> 10
        found += [self._from_image(boot, what, kib) for what, kib in parts.items() if kib]
        return tuple(found)

    def _from_image(self, boot: Boot, what: str, kib: int) -> LateFree:
        image = boot.hardware.image or boot.arch.image
        place = pc_image_place(image, what, kib << 10, boot.config.nosave_pages)
        if "initmem" in what:
            below = boot.config.alternatives_kib << 10
            place = ImagePlace(place.start - below, place.end - below)
        return late_free(boot, what, place, after_marks="alternatives" not in what)


def _holes(boot: Boot) -> int:
    """Gaps of memory below the end of low memory, which a suspended machine does not save."""
    count, at = 0, 0
    for start, end, _ in boot.memblock.mem_pfn_ranges():
        count += start > at
        at = end
    return count
