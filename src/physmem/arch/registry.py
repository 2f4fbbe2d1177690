# SPDX-License-Identifier: GPL-2.0-or-later
"""All architectures by name, for each generation of kernels."""

from dataclasses import replace

from physmem.arch import (
    arm64,
    arm64_setup,
    riscv,
    riscv_setup,
    x86,
    x86_bootmem,
    x86_direct_map,
    x86_setup,
)
from physmem.arch.descriptor import Arch, Generation, MapPieces, Stage
from physmem.arch.direct_map import MapPiece
from physmem.lib.errors import BadMachineError


def _with(
    stages: tuple[Stage, ...], *archs: Arch, pieces: MapPieces | None = None
) -> dict[str, Arch]:
    return {arch.name: replace(arch, stages=stages, map_pieces=pieces) for arch in archs}


ARCHS: dict[str, Arch] = {
    **_with(
        x86_setup.STAGES,
        *(x86.X86_64, x86.X86_64_LA57, x86.I386, x86.I386_PAE),
        pieces=x86_direct_map.map_pieces,
    ),
    **_with(
        arm64_setup.STAGES,
        *(arm64.ARM64, arm64.ARM64_16K, arm64.ARM64_64K),
        pieces=arm64_setup.map_pieces,
    ),
    **_with(
        riscv_setup.STAGES,
        *(riscv.RISCV64, riscv.RISCV64_SV39, riscv.RISCV64_SV57),
        pieces=riscv_setup.map_pieces,
    ),
}
"""As kernels with memblock (6.1, 6.12) see them."""

ARCHS_BOOTMEM: dict[str, Arch] = {
    **_with(x86_bootmem.STAGES_64, x86.X86_64_BOOTMEM),
    **_with(x86_bootmem.STAGES_32, x86.I386_BOOTMEM, x86.I386_PAE_BOOTMEM),
}
"""As kernels with bootmem (2.6.24) see them."""

_TABLES = {Generation.MEMBLOCK: ARCHS, Generation.BOOTMEM: ARCHS_BOOTMEM}


def map_pieces_for(page_table: str, start: int, end: int, sizes: tuple[int, ...]) -> list[MapPiece]:
    """Leaves that a kernel (6.1) of a page-table format chooses for one range of memory.

    Examples
    --------
    >>> [piece.size for piece in map_pieces_for("arm64_4k_39", 0, 1 << 30, (4096, 1 << 21))]
    [4096]
    """
    family = page_table.split("_", 1)[0]
    arch = next(arch for arch in ARCHS.values() if arch.page_table.split("_", 1)[0] == family)
    return [] if arch.map_pieces is None else arch.map_pieces(start, end, sizes)


def arch_for(name: str, generation: Generation = Generation.MEMBLOCK) -> Arch:
    """Architecture of a name as kernels of a generation see it.

    Raises
    ------
    BadMachineError
        It is not known, or not in that generation.

    Examples
    --------
    >>> arch_for("x86_64").zones
    ('DMA', 'DMA32', 'Normal', 'Movable', 'Device')
    >>> arch_for("i386", Generation.BOOTMEM).pageblock_order
    10
    """
    table = _TABLES[generation]
    try:
        return table[name]
    except (KeyError, TypeError):
        known = ", ".join(table)
        if name in ARCHS:
            message = f"{name!r} has no kernel with bootmem here (2.6.24); those have {known}"
        else:
            message = f"architecture {name!r} is not known; known are {known}"
        raise BadMachineError(message) from None
