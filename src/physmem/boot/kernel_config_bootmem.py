# SPDX-License-Identifier: GPL-2.0-or-later
"""What a build of 2.6.24 decides about its start-up: sizes of records that bootmem serves.

They are those of a distribution's kernels for several CPUs, without debugging. Another build
differs, and frame-exact work needs its own.
"""

from dataclasses import dataclass

from physmem.arch.descriptor import Arch
from physmem.boot.geometry import Geometry


@dataclass(frozen=True, kw_only=True)
class BootmemKernelConfig:
    """A build.

    Attributes
    ----------
    numa : CONFIG_NUMA: nodes, and hash tables spread over them
    percpu_bytes : a CPU's variables, with room for those of modules (PERCPU_ENOUGH_ROOM)
    resource_bytes : struct resource, one per entry of the firmware's map; 0: the slab has them
    wait_queue_head_bytes : wait_queue_head_t, an entry of a zone's wait table
    mem_section_bytes : struct mem_section
    nr_fixmap : fixmap slots that stay; 16 more are for the start-up
    migrate_types : kinds of pageblocks: three, RESERVE and ISOLATE
    """

    numa: bool = False
    percpu_bytes: int = 33288
    resource_bytes: int = 0
    wait_queue_head_bytes: int = 12
    mem_section_bytes: int = 16
    nr_fixmap: int = 484
    migrate_types: int = 5


def bootmem_kernel_config(arch: Arch) -> BootmemKernelConfig:
    """Typical build for an architecture.

    Examples
    --------
    >>> from physmem.arch.descriptor import Generation
    >>> from physmem.arch.registry import arch_for
    >>> bootmem_kernel_config(arch_for("x86_64", Generation.BOOTMEM)).numa
    True
    """
    if arch.bits_per_long == 32:
        return BootmemKernelConfig(numa=arch.max_numnodes > 1)
    return BootmemKernelConfig(
        numa=arch.max_numnodes > 1, resource_bytes=56, wait_queue_head_bytes=24
    )


def bootmem_geometry(arch: Arch, config: BootmemKernelConfig) -> Geometry:
    """Sizes of a build of an architecture.

    Examples
    --------
    >>> from physmem.arch.descriptor import Generation
    >>> from physmem.arch.registry import arch_for
    >>> arch = arch_for("i386", Generation.BOOTMEM)
    >>> geometry = bootmem_geometry(arch, bootmem_kernel_config(arch))
    >>> geometry.pageblock_order, geometry.struct_page, geometry.sparse
    (10, 32, False)
    """
    sparse = arch.memory_model != "flatmem"
    return Geometry(
        page_shift=arch.page_shift,
        nr_orders=arch.max_order,
        pageblock_order=arch.pageblock_order,
        struct_page=arch.sizeof_page,
        section_size_bits=arch.section_size_bits if sparse else None,
        bits_per_long=arch.bits_per_long,
        cache_bytes=arch.smp_cache_bytes,
        migrate_types=config.migrate_types,
        sparse_always_valid=sparse and not config.numa,
    )
