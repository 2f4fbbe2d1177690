# SPDX-License-Identifier: GPL-2.0-or-later
"""What a kernel's build decides about its start-up: a record, and typical ones per architecture.

The sizes are those of Debian's kernels; another build differs, and frame-exact work needs its own.
"""

from dataclasses import dataclass, replace
from typing import Any

from physmem.lib.errors import BadMachineError


@dataclass(frozen=True, kw_only=True)
class KernelConfig:
    """A build.

    Attributes
    ----------
    numa, cma, thp, deferred_pages : CONFIG_NUMA, CONFIG_CMA, CONFIG_TRANSPARENT_HUGEPAGE and
        CONFIG_DEFERRED_STRUCT_PAGE_INIT
    nr_cpus : CPUs that the kernel is built for
    maps_vmalloc_early : upper page tables of the vmalloc area are allocated in mem_init()
    keeps_memblock, huge_vmalloc : CONFIG_ARCH_KEEP_MEMBLOCK, CONFIG_HAVE_ARCH_HUGE_VMALLOC
    nosave_pages : pages between the alternatives and the bss (x86)
    alternatives_kib : code for one CPU only that a kernel for several gives back (x86)
    decrypted_kib : unused part of the memory that would be decrypted for a hypervisor (x86-64)
    image_gaps : the parts of the image start on 2 MiB boundaries; what lies between is given back
    percpu_static, percpu_reserved, percpu_dynamic : bytes of each CPU's first chunk
    percpu_atom : alignment of the chunk of a node; 0: one page
    percpu_slots_bytes, percpu_chunk_bytes : bookkeeping of the per-CPU allocator
    mem_section_bytes : size of a section's descriptor
    mem_section_usage : bytes of a section's usage map before its pageblock flags
    cpumasks, node_cpumasks : CPU masks allocated early, and one for each node
    whole_page_node_data : a node's descriptor takes whole pages (x86-64, before 6.12)
    cpu_entry_pages : page tables made for the CPU entry areas (x86-64)
    resource_bytes, firmware_map_bytes, nosave_bytes : records of the firmware's map (x86)
    hpet_bytes, ioapic_bytes : names of two devices (x86)
    node_distance : a table of node distances is allocated always
    device_tree_bytes : size of the unpacked device tree; 0: there is none
    cma_bytes : default CMA area
    """

    numa: bool = True
    cma: bool = False
    thp: bool = True
    deferred_pages: bool = True
    nr_cpus: int = 8192
    maps_vmalloc_early: bool = False
    keeps_memblock: bool = False
    huge_vmalloc: bool = False
    nosave_pages: int = 0
    alternatives_kib: int = 0
    decrypted_kib: int = 0
    image_gaps: bool = False
    percpu_static: int = 212992
    percpu_reserved: int = 8192
    percpu_dynamic: int = 28672
    percpu_atom: int = 0
    percpu_slots_bytes: int = 368
    percpu_chunk_bytes: int = 144
    mem_section_bytes: int = 16
    mem_section_usage: int = 24
    cpumasks: int = 0
    node_cpumasks: bool = False
    whole_page_node_data: bool = True
    cpu_entry_pages: int = 0
    resource_bytes: int = 0
    firmware_map_bytes: int = 0
    nosave_bytes: int = 0
    hpet_bytes: int = 0
    ioapic_bytes: int = 0
    node_distance: bool = False
    device_tree_bytes: int = 0
    cma_bytes: int = 0

    @property
    def migrate_types(self) -> int:
        """Kinds of pageblocks: three, HIGHATOMIC, CMA if built in, and ISOLATE."""
        return 5 + self.cma


_X86_64 = KernelConfig(
    huge_vmalloc=True,
    maps_vmalloc_early=True,
    nosave_pages=1,
    alternatives_kib=36,
    decrypted_kib=2036,
    image_gaps=True,
    percpu_atom=2 << 20,
    node_cpumasks=True,
    cpumasks=4,
    cpu_entry_pages=3,
    resource_bytes=64,
    firmware_map_bytes=104,
    nosave_bytes=32,
    hpet_bytes=73,
    ioapic_bytes=75,
)
_I386 = KernelConfig(
    numa=False,
    deferred_pages=False,
    nr_cpus=32,
    alternatives_kib=32,
    percpu_static=103060,
    percpu_reserved=0,
    percpu_slots_bytes=152,
    percpu_chunk_bytes=96,
    mem_section_usage=12,
    resource_bytes=32,
    firmware_map_bytes=64,
    nosave_bytes=16,
    hpet_bytes=41,
    ioapic_bytes=43,
)
_ARM64 = KernelConfig(
    cma=True,
    nr_cpus=256,
    keeps_memblock=True,
    percpu_static=85480,
    percpu_slots_bytes=288,
    node_distance=True,
    device_tree_bytes=40060,
    cma_bytes=64 << 20,
)
_RISCV = replace(
    _ARM64,
    deferred_pages=False,
    nr_cpus=64,
    percpu_static=80000,
    device_tree_bytes=8192,
)

_CONFIGS: dict[str, KernelConfig] = {
    "x86_64": _X86_64,
    "x86_64-la57": _X86_64,
    "i386": _I386,
    "i386-pae": _I386,
    "arm64": _ARM64,
    "arm64-16k": _ARM64,
    "arm64-64k": _ARM64,
    "riscv64": _RISCV,
    "riscv64-sv39": _RISCV,
    "riscv64-sv57": _RISCV,
}
_OF_KERNEL: dict[str, dict[str, Any]] = {
    "6.1": {},
    "6.12": {
        "percpu_static": 233472,
        "percpu_chunk_bytes": 200,
        "cpumasks": 1,
        "whole_page_node_data": False,
        "alternatives_kib": 40,
        "decrypted_kib": 2028,
    },
}


def kernel_config(arch: str, kernel: str = "6.1") -> KernelConfig:
    """Typical build of an architecture and a profile.

    Raises
    ------
    BadMachineError
        The architecture or the profile is not known here.

    Examples
    --------
    >>> kernel_config("arm64").cma, kernel_config("x86_64", "6.12").percpu_static
    (True, 233472)
    """
    if arch not in _CONFIGS:
        raise BadMachineError(
            f"architecture {arch!r} is not known; known are {', '.join(_CONFIGS)}"
        )
    if kernel not in _OF_KERNEL:
        known = ", ".join(_OF_KERNEL)
        raise BadMachineError(f"kernel {kernel!r} has no memblock start-up; known are {known}")
    config = _CONFIGS[arch]
    changes = _OF_KERNEL[kernel]
    # the larger per-CPU area is that of x86-64; others were not measured
    keep = {name: value for name, value in changes.items() if _CONFIGS[arch] is _X86_64}
    return replace(config, **keep)
