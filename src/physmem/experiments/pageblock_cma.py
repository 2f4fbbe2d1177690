# SPDX-License-Identifier: GPL-2.0-or-later
"""`pageblock-cma`: page size decides the pageblock, the pageblock decides CMA and pollution.

Linux: pageblock_order, include/linux/pageblock-flags.h; CMA_MIN_ALIGNMENT_PAGES,
include/linux/cma.h; ARCH_FORCE_MAX_ORDER, arch/arm64/Kconfig (6.12)
"""

from typing import Any

from physmem.arch.descriptor import Arch
from physmem.arch.registry import arch_for
from physmem.experiments.census import UNMOVABLE, census
from physmem.experiments.load import Load, Settings, allocatable
from physmem.experiments.machines import HUGE, built, managed, provenance
from physmem.experiments.params import CHOICE, FLOAT, SIZE, Parameter
from physmem.experiments.registry_types import Experiment, Progress
from physmem.experiments.report import EQUAL, Figure, Line, Report, Series, Table, Verdict
from physmem.machine.sizing import min_free_kbytes

ARCHES = {"4K": "arm64", "16K": "arm64-16k", "64K": "arm64-64k"}
PUBLISHED = {"default": (4, 32, 512), "extreme": (128, 128, 512)}
"""CMA_MIN_ALIGNMENT_BYTES in MiB for pages of 4K, 16K, 64K."""
ORDERS = (7, 9, 10)
_ALIGNMENT = ("build", "page", "max_order", "pageblock_order", "cma_min_alignment_mib")
_POLLUTION = (
    *("pageblock_order", "pageblock_kib", "polluted_pageblocks_percent"),
    *("polluted_4mib_percent", "polluted_2mib_percent", "huge_pages_percent"),
    *("unmovable_percent", "fallbacks"),
)


def max_order(arch: Arch, build: str) -> int:
    """Largest order of a build: the default, or the most that fits into a section of memory.

    Examples
    --------
    >>> [max_order(arch_for(name), "extreme") for name in ("arm64", "arm64-16k", "arm64-64k")]
    [15, 13, 13]
    """
    if build == "default":
        return arch.max_order - 1
    return arch.section_size_bits - arch.page_shift


def alignment_rows() -> list[tuple[Any, ...]]:
    """Build, page, largest order, pageblock order and CMA alignment, without huge pages.

    A kernel without huge pages makes the largest block its pageblock; CMA areas are aligned to a
    pageblock.
    """
    rows = []
    for build in PUBLISHED:
        for page, name in ARCHES.items():
            arch = arch_for(name)
            order = max_order(arch, build)
            rows.append((build, page, order, order, arch.page_size << order >> 20))
    return rows


def run(params: dict[str, Any], seed: int, progress: Progress) -> Report:
    """The table, then one load under pageblocks of three sizes."""
    rows = alignment_rows()
    wanted = [mib for build in PUBLISHED.values() for mib in build]
    equal = [row[4] for row in rows] == wanted
    pollution, lines, machines, operations = [], [], {}, 0
    kbytes = min_free_kbytes(managed(built(params["memory"], params["kernel"])))
    samples = 8
    for at, order in enumerate(ORDERS):
        machine = built(
            params["memory"], params["kernel"], pageblock_order=order, min_free_kbytes=kbytes
        )
        load = Load(machine, Settings(), seed=seed)
        steps = int(managed(machine) * params["turnover"])
        course = [0.0]
        for sample in range(samples):
            load.run(steps * (sample + 1) // samples - steps * sample // samples)
            course.append(census(machine, HUGE).polluted_share)
            progress(at * samples + sample + 1, len(ORDERS) * samples)
        times = tuple(params["turnover"] * k / samples for k in range(samples + 1))
        lines.append(Line(f"pageblock_order {order}", times, tuple(course)))
        pollution.append(_row(machine, order))
        machines[f"order{order}"] = machine
        operations += load.operations
    small, large = pollution[0], pollution[-1]
    return Report(
        name=EXPERIMENT.name,
        title=EXPERIMENT.title,
        params=params,
        seed=seed,
        source=EXPERIMENT.source,
        figures=(
            *(
                Figure(f"cma_{build}_{page}", f"CMA alignment, {page} pages, MiB", mib, told, EQUAL)
                for (build, page, _, _, mib), told in zip(rows, wanted, strict=True)
            ),
            Figure("polluted_order7", "% of 2 MiB polluted, pageblock_order 7", small[4]),
            Figure("polluted_order10", "% of 2 MiB polluted, pageblock_order 10", large[4]),
            Figure("huge_order7", "% of memory as huge pages, pageblock_order 7", small[5]),
            Figure("huge_order10", "% of memory as huge pages, pageblock_order 10", large[5]),
        ),
        tables=(
            Table("alignment", _ALIGNMENT, tuple(rows)),
            Table("pollution", _POLLUTION, tuple(pollution)),
        ),
        series=(
            Series(
                "2 MiB blocks with an unmovable page, by pageblock order",
                "steps of the load, in multiples of the machine's frames",
                "% of 2 MiB blocks",
                tuple(lines),
            ),
        ),
        notes=NOTES,
        verdict=Verdict(
            equal,
            "all six alignments are as published"
            if equal
            else f"alignments {[row[4] for row in rows]}, published {wanted}",
        ),
        provenance=provenance(*machines.values()),
        operations=operations,
        machines=machines,
    )


def _row(machine: Any, order: int) -> tuple[Any, ...]:
    found = census(machine, HUGE)
    huge = allocatable(machine, HUGE)
    return (
        order,
        4 << order,
        round(census(machine, order).polluted_share, 4),
        round(census(machine, 10).polluted_share, 4),
        round(found.polluted_share, 4),
        round(100 * (huge << HUGE) / managed(machine), 4),
        round(found.share(UNMOVABLE), 4),
        int(machine.tables.zones["nr_steals"].sum()),
    )


NOTES = (
    (
        "The alignments are closed forms of the kernel's sizes (arm64, no huge pages configured):"
        " equal."
    ),
    (
        "The pollution is a what-if of ours on 4 KiB pages: one load, the same min_free_kbytes,"
        " that of a kernel without huge pages; only the size of a pageblock differs. Nothing is"
        " published to compare it with."
    ),
    (
        "A fallback claims whole free blocks of the largest order as long as there are any: the"
        " order of a pageblock matters only once free memory is in smaller pieces."
    ),
)

EXPERIMENT = Experiment(
    name="pageblock-cma",
    title="Page size, pageblock and the alignment of CMA; pollution by pageblock order",
    source=(
        "J. Yescas, mm: Add CONFIG_PAGE_BLOCK_ORDER to select page block order, LKML 2025-05"
        " (20250510010338.3978696-1-jyescas@google.com)"
    ),
    claim="CMA must be aligned to 4, 32, 512 MiB with 4K, 16K, 64K pages; at most 128, 128, 512",
    word=EQUAL,
    parameters=(
        Parameter("memory", SIZE, "1GiB", "memory of each machine", 64 << 20, 1 << 40),
        Parameter("turnover", FLOAT, 6.0, "steps, in multiples of the frames", 0.1, 10_000),
        Parameter("kernel", CHOICE, "6.12", "rules", choices=("6.1", "6.12")),
    ),
    run=run,
)
