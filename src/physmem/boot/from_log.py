# SPDX-License-Identifier: GPL-2.0-or-later
"""Boot what a real kernel's log describes.

With `memblock=debug` in the log, every call of the boot allocator is made on the model, in the
log's order. Without it, the calls are generated for a machine like the log's, and said to be so.
"""

from dataclasses import dataclass, replace

from physmem.arch.descriptor import Arch
from physmem.arch.registry import arch_for
from physmem.arch.x86_lowmem import find_low_pfn_range
from physmem.boot.boot import Boot, CallObserver, CallSource, geometry_of
from physmem.boot.booted import BootedMemory, LateFree, Prediction
from physmem.boot.features import BOOT_FEATURES, boot_features
from physmem.boot.geometry import Geometry
from physmem.boot.kernel_config import KernelConfig, kernel_config
from physmem.boot.late_frees import late_frees
from physmem.boot.log_calls import LogCalls
from physmem.boot.log_nodes import uses_srat
from physmem.boot.owners import OwnerBook
from physmem.boot.start_kernel import start_kernel
from physmem.bootalloc.memblock import Memblock
from physmem.bootalloc.memblock_core import MemblockConfig
from physmem.firmware.bootlog import BootLog
from physmem.firmware.bootlog_events import (
    AllocCall,
    Freed,
    MemblockCall,
    MemblockDump,
    MemblockOp,
    NodeData,
)
from physmem.firmware.cmdline import CommandLine
from physmem.firmware.e820_table import E820Table
from physmem.firmware.hardware import DtMemory, Hardware
from physmem.firmware.platform import KernelImage, platform
from physmem.lib.errors import BadInputError


def profile_of(log: BootLog) -> str:
    """Profile that comes closest to a log's kernel.

    Raises
    ------
    BadInputError
        The kernel has no memblock, or is older than any profile here.
    """
    known = sorted(tuple(map(int, name.split("."))) for name in BOOT_FEATURES if name != "2.6.24")
    if log.version == (0, 0):
        return ".".join(map(str, known[-1] if log.late_memory_line else known[0]))
    if log.version < known[0]:
        names = ", ".join(".".join(map(str, version)) for version in known)
        raise BadInputError(
            f"{log.name}: kernel {log.release}: its start-up is not modelled; known are {names}"
        )
    best = max(version for version in known if version <= log.version)
    return ".".join(map(str, best))


def boot_from_log(log: BootLog) -> BootedMemory:
    """Start the kernel of a log on the log's machine.

    Raises
    ------
    BadInputError
        The log's kernel is not known here, or the log contradicts itself.
    BadMachineError
        A machine that no kernel could start on.
    """
    return start_kernel(boot_of_log(log))


def boot_of_log(log: BootLog) -> Boot:
    """The state before the first stage; see `boot_from_log`."""
    kernel = profile_of(log)
    config = _config(log, kernel)
    # what the kernel could not read, it took as unknown
    cmdline = CommandLine.parse(log.cmdline, strict=False)
    hardware = hardware_of(log)
    arch = arch_for(log.arch)
    assumptions = []
    if log.version == (0, 0):
        assumptions.append(f"the log does not tell its kernel; {kernel} is assumed")
    elif ".".join(map(str, log.version)) != kernel:
        assumptions.append(f"kernel {log.release} is taken for {kernel}, the nearest profile")
    if not log.debug:
        return _without_debug(log, cmdline, assumptions)
    owners = OwnerBook()
    lines: list[str] = []
    memblock = Memblock(
        MemblockConfig(
            page_shift=arch.page_shift,
            smp_cache_bytes=arch.smp_cache_bytes,
            numa=config.numa,
            movable_node=cmdline.movable_node,
            mirrored_kernelcore=cmdline.value("kernelcore") == "mirror",
        ),
        on_call=CallObserver(owners, lines, bits=arch.phys_addr_bits, debug=False),
    )
    boot = Boot(
        arch=arch,
        hardware=hardware,
        kernel=kernel,
        cmdline=cmdline,
        config=config,
        calls=LogCalls(log),
        memblock=memblock,
        owners=owners,
        geometry=_geometry(log, arch, config),
        features=boot_features(kernel),
        cpu_node=cpu_nodes(log),
        possible=tuple(sorted({*_nodes_told(log), *cpu_nodes(log)})),
        log=lines,
        assumptions=assumptions,
    )
    if distances_decide(log):
        boot.told_order = dict(log.figures.fallback)
    if arch.highmem:
        # nothing beyond the direct map can be used
        memblock.set_current_limit(_lowmem(log, arch, boot))
    return boot


def _lowmem(log: BootLog, arch: Arch, boot: Boot) -> int:
    """End of the direct map; a log of a build for another number of CPUs may tell another one."""
    table = E820Table()
    table.memory_setup(boot.hardware.e820, boot.hardware.alt_mem_kib)
    table.apply(boot.cmdline)
    limit = arch.dram_pfn_limit
    limits = find_low_pfn_range(arch, table.end_pfn(limit, limit), boot.cmdline)
    ours, told = limits.max_low_pfn << arch.page_shift, _lowmem_end(log)
    if told and told != ours:
        boot.assumptions.append(
            f"low memory ends at {told:#x} in the log, at {ours:#x} in a typical build: the area"
            " of the CPUs' entry code has another size"
        )
    return told or ours


def distances_decide(log: BootLog) -> bool:
    """Whether the order of nodes follows from distances that no log prints (ACPI table SLIT)."""
    return log.slit and len(log.figures.fallback) > 2


def _nodes_told(log: BootLog) -> set[int]:
    """Nodes that have a descriptor, or that the firmware names."""
    named = {entry.domain for entry in log.srat} if uses_srat(log) else set()
    return named | {event.nid for event in log.events if isinstance(event, NodeData)}


def _lowmem_end(log: BootLog) -> int:
    """End of the direct map: what the kernel asks for while it builds it; 0: not told."""
    for event in log.events:
        if isinstance(event, AllocCall) and event.caller.startswith("init_mem_mapping"):
            return event.max_addr
    return 0


def _geometry(log: BootLog, arch: Arch, config: KernelConfig) -> Geometry:
    """Sizes of the build, with what the log tells of its memory map."""
    geometry = geometry_of(arch, config)
    calls = [event for event in log.events if isinstance(event, AllocCall)]
    if any(call.caller.startswith("sparse_init") for call in calls):
        return replace(geometry, section_size_bits=arch.section_size_bits)
    flat = [call for call in calls if call.caller.startswith(("memmap_alloc", "alloc_node_mem"))]
    if not flat or not log.figures.node_ranges:
        return geometry
    start = min(start for _, start, _ in log.figures.node_ranges) >> arch.page_shift
    end = max(end for _, _, end in log.figures.node_ranges) >> arch.page_shift
    size = geometry.max_order_pages
    frames = -(-end // size) * size - start // size * size
    return replace(
        geometry, section_size_bits=None, struct_page=sum(c.size for c in flat) // frames
    )


@dataclass(frozen=True)
class _GeneratedCalls:
    """Generated calls, with what the log tells of memory that comes back later."""

    log: BootLog
    calls: CallSource

    def run(self, boot: Boot, stage: str) -> None:
        """Make the calls of a stage."""
        self.calls.run(boot, stage)

    def late_frees(self, boot: Boot) -> tuple[LateFree, ...]:
        """Lines of the log; a log that ends early tells nothing: then as usual."""
        told = late_frees(boot, self.log)
        return told or self.calls.late_frees(boot)

    def prediction(self) -> Prediction | None:
        """None: the log tells of no calls."""
        return None


def _without_debug(log: BootLog, cmdline: CommandLine, assumptions: list[str]) -> Boot:
    """A machine like the log's, whose boot allocator's calls are generated."""
    from physmem.boot.self_made import boot_of_hardware

    boot = boot_of_hardware(hardware_of(log), kernel=profile_of(log), cmdline=cmdline)
    boot.calls = _GeneratedCalls(log, boot.calls)
    boot.assumptions.extend(assumptions)
    boot.assumptions.append(
        "the log was written without memblock=debug: what the boot allocator gave to whom is"
        " worked out for a typical build; figures that depend on it will differ by some frames"
    )
    boot.cpu_node = cpu_nodes(log)
    return boot


def _config(log: BootLog, kernel: str) -> KernelConfig:
    """The typical build, with what the log tells about this one."""
    config = kernel_config(log.arch, kernel)
    figures = log.figures
    if figures.deferred:
        config = replace(config, deferred_pages=True)
    if figures.policy_zone or figures.fallback:
        config = replace(config, numa=True)
    return config


def cpu_nodes(log: BootLog) -> tuple[int, ...]:
    """Node of each CPU that came up."""
    figures = log.figures
    count = figures.nr_cpus or figures.possible_cpus or 1
    if figures.cpu_node:
        # the table names APICs in the order in which the kernel numbers its CPUs
        nodes = [nid for _, nid in figures.cpu_node]
    else:
        # each group's area was asked for on its node, group by group
        nids = [
            event.nid
            for event in log.events
            if isinstance(event, AllocCall) and event.caller.startswith("pcpu_fc_alloc")
        ] or sorted({nid for nid, _, _ in figures.node_ranges})
        nids = [max(nid, 0) for nid in nids] or [0]
        nodes = [0] * max((cpu + 1 for group in figures.cpu_groups for cpu in group), default=1)
        for index, group in enumerate(figures.cpu_groups):
            for cpu in group:
                nodes[cpu] = nids[min(index, len(nids) - 1)]
    nodes += [nodes[-1]] * max(count - len(nodes), 0)
    return tuple(nodes[:count])


def hardware_of(log: BootLog) -> Hardware:
    """The machine that a log describes."""
    cpus = cpu_nodes(log)
    return Hardware(
        arch=log.arch,
        e820=log.e820,
        srat=log.srat,
        acpi_tables=log.acpi_tables,
        memory=_device_tree(log),
        cpu_domain=cpus,
        image=_image(log),
        initrd=_initrd(log),
    )


def _device_tree(log: BootLog) -> tuple[DtMemory, ...]:
    """Memory of a machine that is no PC: what its nodes have."""
    if log.e820:
        return ()
    return tuple(
        DtMemory(base=start, size=end - start, nid=nid)
        for nid, start, end in log.figures.node_ranges
    )


def _initrd(log: BootLog) -> tuple[int, int] | None:
    if log.initrd is not None:
        return log.initrd
    # arm64 and riscv print no such line; the memory of the RAM disk is added again, then reserved
    previous: MemblockCall | None = None
    for event in log.events:
        if isinstance(event, MemblockCall):
            again = (
                event.op is MemblockOp.RESERVE
                and previous is not None
                and previous.op is MemblockOp.ADD
                and (previous.start, previous.end) == (event.start, event.end)
            )
            if again or event.caller.startswith("reserve_initrd"):
                return event.start, event.end
            previous = event
        if isinstance(event, AllocCall):
            break
    return _initrd_by_free(log)


def _initrd_by_free(log: BootLog) -> tuple[int, int] | None:
    for event in log.events:
        if isinstance(event, MemblockCall) and event.caller.startswith("free_initrd_mem"):
            return event.start, event.end
    sizes = [
        event.kib << 10
        for event in log.events
        if isinstance(event, Freed) and "initrd" in event.what
    ]
    if log.headless and sizes:
        # the line about it is lost; a reservation of exactly its size is not likely another's
        fits = [span for span in _dumped(log) if span[1] - span[0] == sizes[0]]
        if len(fits) == 1:
            return fits[0]
    return None


def _image(log: BootLog) -> KernelImage | None:
    """The kernel's frames: what is reserved around its brk area, or by name."""
    memory = log.figures.memory
    if memory is None:
        return None
    span = _image_span(log)
    if span is None and log.debug:
        return None
    start, end, brk = span or _typical_span(log)
    return KernelImage(
        start=start,
        end=end,
        code_kib=memory.code,
        rwdata_kib=memory.rwdata,
        rodata_kib=memory.rodata,
        init_kib=memory.init,
        bss_kib=memory.bss,
        brk_bytes=brk,
    )


def _typical_span(log: BootLog) -> tuple[int, int, int]:
    """Where a typical image lies, its end moved by what the memory line tells of sizes."""
    typical, memory = platform(log.arch).image, log.figures.memory
    if memory is None:
        return typical.start, typical.end, typical.brk_bytes
    told = memory.code + memory.rwdata + memory.rodata + memory.init + memory.bss
    usual = typical.code_kib + typical.rwdata_kib + typical.rodata_kib
    usual += typical.init_kib + typical.bss_kib
    more = -(-(told - usual) // 2048) << 21
    return typical.start, max(typical.end + more, typical.start + (told << 10)), typical.brk_bytes


def _image_span(log: BootLog) -> tuple[int, int, int] | None:
    """Start and end of the image, and the size of its brk area."""
    reserves = [
        event
        for event in log.events
        if isinstance(event, MemblockCall) and event.op is MemblockOp.RESERVE
    ]
    if log.e820:
        for event in log.events:
            if isinstance(event, MemblockDump):
                for region in event.reserved:
                    for call in reserves:
                        inside = region.start < call.start and call.end == region.end
                        if inside and call.caller.startswith("setup_arch"):
                            return region.start, call.start, call.end - call.start
                break
        return _fitting(log, _dumped(log))
    spans = [
        (call.start, call.end)
        for call in reserves
        if call.caller.startswith(("arm64_memblock", "setup_boot"))
    ]
    return _fitting(log, spans) or _fitting(log, _dumped(log))


def _dumped(log: BootLog) -> list[tuple[int, int]]:
    """What the first dump calls reserved."""
    for event in log.events:
        if isinstance(event, MemblockDump):
            return [(region.start, region.end) for region in event.reserved]
    return []


def _fitting(log: BootLog, spans: list[tuple[int, int]]) -> tuple[int, int, int] | None:
    """The span that comes closest to the sizes of the memory line, and holds them."""
    memory = log.figures.memory
    if memory is None:
        return None
    parts = memory.code + memory.rwdata + memory.rodata + memory.init + memory.bss
    least = parts << 10
    fits = [(start, end) for start, end in spans if end - start >= least]
    if not fits:
        return None
    start, end = min(fits, key=lambda span: span[1] - span[0])
    return start, end, 0
