# SPDX-License-Identifier: GPL-2.0-or-later
"""The hand-over of 2.6.24: all that bootmem has free goes to the page allocator.

Linux: mem_init(), arch/x86/mm/init_32.c, arch/x86/mm/init_64.c; free_all_bootmem(),
mm/bootmem.c (2.6.24)
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from physmem.arch.x86_lowmem import vmalloc_start
from physmem.boot.boot_bootmem import BootBootmem, ZoneRef, joined_spans, without_spans
from physmem.boot.booted import MemoryFigures
from physmem.boot.mem_init import joined, no_blocks, pages_by_zone
from physmem.boot.pcp_sizes import HotColdSizes
from physmem.boot.setup_arch_bootmem import ram_frames
from physmem.firmware.platform import KernelImage

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_PAGE = 4096


def free_all_bootmem(boot: BootBootmem) -> None:
    """Shut bootmem down, node after node; from now on using it is an error.

    Linux: free_all_bootmem(), free_all_bootmem_node(), mm/bootmem.c (2.6.24)
    """
    import numpy as np

    shift = boot.page_shift
    given = [boot.bootmem.free_all(nid) for nid in sorted(n.nid for n in boot.bootmem.nodes)]
    if boot.boot_pagesets:
        word = boot.geometry.bits_per_long
        given = [replace(each, runs=in_words(each.runs, word)) for each in given]
    boot.hand_over = joined(each.arrays() for each in given)
    boot.totalram = sum(each.total for each in given)
    runs = np.concatenate([each.runs for each in given])
    low = [
        (start, min(end, boot.limits.max_low_pfn))
        for start, end in ram_frames(boot)
        if start < boot.limits.max_low_pfn
    ]
    kept = without_spans(low, [(start, end) for start, end, _ in runs.tolist()])
    boot.reserved_spans = tuple((start << shift, end << shift) for start, end in kept)
    _count_runs(boot, runs)


def in_words(runs: "npt.NDArray[np.int64]", word: int) -> "npt.NDArray[np.int64]":
    """Runs of single frames with whole words of frames as blocks.

    A node that starts at a multiple of 4 GiB is freed frame by frame. As long as frames only pass
    through the per-CPU lists, the same free lists result, at a small part of the cost.

    Parameters
    ----------
    runs : int64, shape (n, 3): rows (start, end, order)
    word : frames, a power of two

    Examples
    --------
    >>> import numpy as np
    >>> in_words(np.array([[3, 200, 0], [256, 512, 6]]), 64).tolist()
    [[3, 64, 0], [64, 192, 6], [192, 200, 0], [256, 512, 6]]
    """
    import numpy as np

    start, end, order = runs.T
    low, high = -(-start // word) * word, end // word * word
    whole = (order == 0) & (low < high)
    low, high = np.where(whole, low, end), np.where(whole, high, end)
    middle = np.stack([low, high, np.full_like(low, word.bit_length() - 1)], axis=1)
    parts = [np.stack([start, low, order], axis=1), middle, np.stack([high, end, order], axis=1)]
    made = np.stack(parts, axis=1).reshape(-1, 3)
    kept: npt.NDArray[np.int64] = made[made[:, 0] < made[:, 1]]
    return kept


def free_highmem(boot: BootBootmem) -> None:
    """High memory goes frame by frame: bootmem never knew it.

    Linux: set_highmem_pages_init(), add_one_highpage_init(), arch/x86/mm/init_32.c (2.6.24)
    """
    import numpy as np

    limits = boot.limits
    spans = [
        (max(start, limits.highstart_pfn), min(end, limits.highend_pfn))
        for start, end in joined_spans(ram_frames(boot))
    ]
    frames = [np.arange(start, end, dtype=np.int64) for start, end in spans if start < end]
    if not boot.arch.highmem or not frames:
        boot.highmem = no_blocks()
        return
    boot.highmem = joined((pfn, np.zeros(pfn.size, np.uint8)) for pfn in frames)
    boot.totalhigh = sum(pfn.size for pfn in frames)
    boot.totalram += boot.totalhigh
    given = [(start, end, -1) for start, end in spans if start < end]
    for ref, pages in pages_by_zone(boot.made_zones, given).items():
        _count(boot, ref, pages, pages)


def _count_runs(boot: BootBootmem, runs: "npt.NDArray[np.int64]") -> None:
    """Frames of each zone that came from bootmem, and how many no per-CPU list kept back."""
    import numpy as np

    start, end, order = runs.T
    for zone in boot.made_zones.zones():
        inside = np.minimum(end, zone.end_pfn) - np.maximum(start, zone.start_pfn)
        pages = np.maximum(inside, 0)
        singles = int(pages[order == 0].sum())
        _count(boot, (zone.nid, zone.index), int(pages.sum()), singles)


def _count(boot: BootBootmem, ref: ZoneRef, pages: int, singles: int) -> None:
    """Count frames given to a zone, some of them as single ones through an empty hot list.

    No zone gets single frames both from bootmem and as high memory.
    """
    boot.managed[ref] += pages
    boot.free_pages += pages - parked(singles, boot.pcp[ref])


def parked(singles: int, sizes: HotColdSizes) -> int:
    """Frames left on an empty hot list after so many were freed through it.

    Examples
    --------
    >>> sizes = HotColdSizes(hot_high=42, hot_batch=7, cold_high=14, cold_batch=3)
    >>> [parked(frames, sizes) for frames in (0, 41, 42, 43, 48, 49)]
    [0, 41, 35, 36, 41, 35]
    >>> parked(100, HotColdSizes(0, 1, 0, 1))
    0

    Linux: free_hot_cold_page(), mm/page_alloc.c (2.6.24)
    """
    if singles < sizes.hot_high or not sizes.hot_high:
        return singles if sizes.hot_high else 0
    return sizes.hot_high - sizes.hot_batch + (singles - sizes.hot_high) % sizes.hot_batch


def mem_init_print_info(boot: BootBootmem) -> None:
    """Work out the figures of the memory line, and print it.

    Linux: mem_init(), arch/x86/mm/init_32.c, arch/x86/mm/init_64.c (2.6.24)
    """
    kib = boot.page_shift - 10
    reserved = sum(end - start for start, end in boot.reserved_spans) >> boot.page_shift
    boot.memory = MemoryFigures(
        available=boot.free_pages << kib,
        physical=boot.limits.max_pfn << kib,
        reserved=reserved << kib,
        cma=0,
        highmem=boot.totalhigh << kib,
    )
    image, memory = boot.setup.image, boot.memory
    high = f", {memory.highmem}k highmem" if boot.arch.highmem else ""
    boot.say(
        f"Memory: {memory.available}k/{memory.physical}k available ({image.code_kib}k kernel code,"
        f" {memory.reserved}k reserved, {image.rwdata_kib}k data, {image.init_kib}k init{high})"
    )


def init_section(image: KernelImage) -> tuple[int, int]:
    """Physical bytes of the image that only the start-up needs: whole pages behind the data.

    Examples
    --------
    >>> image = KernelImage(start=0x100000, end=0x41A000, code_kib=1846, rwdata_kib=785,
    ...     init_kib=244)
    >>> [hex(figure) for figure in init_section(image)]
    ['0x392000', '0x3cf000']

    Linux: arch/x86/kernel/vmlinux_32.lds.S, arch/x86/kernel/vmlinux_64.lds.S (2.6.24)
    """
    if image.init_start < image.init_end:
        return image.init_start, image.init_end
    start = -(-(image.start + (image.code_kib + image.rwdata_kib << 10)) // _PAGE) * _PAGE
    size = -(-(image.init_kib << 10) // _PAGE) * _PAGE
    end = min(start + size, image.end & -_PAGE)
    return min(start, end), end


def virtual_layout_lines(boot: BootBootmem) -> list[str]:
    """Where the kernel sees what: printed where part of memory is outside the direct map.

    Linux: mem_init(), arch/x86/mm/init_32.c (2.6.24)
    """
    layout, image = boot.arch.layout, boot.setup.image
    huge = 1 << boot.arch.huge_shift
    moved = -(-(boot.cmdline.reservetop or 0) // huge) * huge
    top, offset = layout.fixaddr_top - moved, layout.page_offset
    pkmap = layout.pkmap_base - moved
    start, end = init_section(image)
    text = image.start + (image.code_kib << 10)
    data = text + (image.rwdata_kib << 10)
    max_low = boot.limits.max_low_pfn
    rows = (
        ("  fixmap ", top - (boot.config.nr_fixmap << 12), top, 10),
        ("  pkmap  ", pkmap, pkmap + (layout.last_pkmap << 12), 10),
        ("  vmalloc", vmalloc_start(boot.arch, max_low), layout.vmalloc_end - moved, 20),
        ("  lowmem ", offset, offset + (max_low << 12), 20),
        ("    .init", start + offset, end + offset, 10),
        ("    .data", text + offset, data + offset, 10),
        ("    .text", image.start + offset, text + offset, 10),
    )
    lines = ["virtual kernel memory layout:"]
    for name, low, high, unit in rows:
        size = f"({high - low >> unit:4d} {'kB' if unit == 10 else 'MB'})"
        lines.append(f"  {name} : {low:#010x} - {high:#010x}   {size}")
    return lines
