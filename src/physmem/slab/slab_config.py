# SPDX-License-Identifier: GPL-2.0-or-later
"""What a build and a machine decide about SLAB of 2.6.24, and the sizes of its structures.

Linux: mm/slab.c, include/linux/kmalloc_sizes.h (2.6.24)
"""

from dataclasses import dataclass

from physmem.lib.errors import BadMachineError


def up(x: int, a: int) -> int:
    """Round up to a multiple."""
    return -(-x // a) * a


@dataclass(frozen=True, kw_only=True)
class SlabConfig:
    """Configuration of a kernel with SLAB.

    Attributes
    ----------
    word : bytes of a pointer (4: i386, 8: x86-64)
    page_shift : log2 of a page's bytes
    line : cache_line_size() at run time
    l1_cache_bytes : L1_CACHE_BYTES, set when the kernel was compiled
    num_physpages : highest frame number + 1; decides the order limit
    smp : spinlocks take space
    nr_cpus : NR_CPUS
    cpus : online CPUs
    possible_cpus : CPUs that there may ever be (None: as many as online)
    nr_node_ids : possible nodes
    numa : CONFIG_NUMA
    zone_dma : every general cache has a twin for DMA
    debug : CONFIG_DEBUG_SLAB
    hz : timer interrupts per second
    use_alien_caches : not `noaliencache`
    """

    word: int = 8
    page_shift: int = 12
    line: int = 64
    l1_cache_bytes: int = 128
    num_physpages: int = 1 << 18
    smp: bool = True
    nr_cpus: int = 32
    cpus: int = 1
    possible_cpus: int | None = None
    nr_node_ids: int = 1
    numa: bool = False
    zone_dma: bool = True
    debug: bool = False
    hz: int = 250
    use_alien_caches: bool = True

    def __post_init__(self) -> None:
        if self.word not in {4, 8} or self.line & (self.line - 1) or self.line < self.word:
            raise BadMachineError(f"word {self.word}, cache line {self.line}: not a machine")
        if not 1 <= self.cpus <= self.possible <= self.nr_cpus:
            raise BadMachineError(
                f"{self.cpus} online, {self.possible} possible CPUs, NR_CPUS {self.nr_cpus}:"
                " 1 <= online <= possible <= NR_CPUS is needed"
            )

    @property
    def possible(self) -> int:
        """Possible CPUs."""
        return self.cpus if self.possible_cpus is None else self.possible_cpus

    @property
    def page(self) -> int:
        """Bytes of a page."""
        return 1 << self.page_shift

    @property
    def break_gfp_order(self) -> int:
        """Order from which on waste is accepted: 0 on machines of at most 32 MiB, else 1."""
        return 1 if self.num_physpages > (32 << 20) >> self.page_shift else 0

    @property
    def kmalloc_max_order(self) -> int:
        """Largest order of a general cache (MAX_ORDER is 11)."""
        return min(10, 25 - self.page_shift)

    @property
    def kmalloc_max_size(self) -> int:
        """Bytes of the largest general cache."""
        return self.page << self.kmalloc_max_order

    @property
    def sizeof_slab(self) -> int:
        """Bytes of struct slab."""
        return up(4 * self.word + 2 * 4 + 2, self.word)

    @property
    def _lock(self) -> int:
        return 4 if self.smp else 0

    @property
    def sizeof_array_cache(self) -> int:
        """Bytes of struct array_cache without entries."""
        return up(16 + self._lock, self.word)

    @property
    def sizeof_arraycache_init(self) -> int:
        """Bytes of an array_cache with one entry."""
        return self.sizeof_array_cache + self.word

    @property
    def sizeof_list3(self) -> int:
        """Bytes of struct kmem_list3."""
        w = self.word
        return up(up(6 * w + w + 8 + self._lock, w) + 3 * w + 4, w)

    @property
    def sizeof_kmem_cache(self) -> int:
        """Bytes of struct kmem_cache up to the last node in use."""
        w, nodes = self.word, self.nr_node_ids
        if not self.smp:
            return (112 if w == 8 else 76) + w * nodes
        return (104 if w == 8 else 72) + w * self.nr_cpus + w * nodes

    @property
    def general_sizes(self) -> tuple[int, ...]:
        """Sizes of the general caches, ascending."""
        sizes = [32, 64] if self.page == 4096 else [64]
        if self.l1_cache_bytes < 64:
            sizes.append(96)
        sizes.append(128)
        if self.l1_cache_bytes < 128:
            sizes.append(192)
        size = 256
        while size <= self.kmalloc_max_size:
            sizes.append(size)
            size *= 2
        return tuple(sizes)

    def general_size(self, size: int) -> int:
        """Least general cache that holds `size` bytes; 0: none does."""
        for general in self.general_sizes:
            if size <= general:
                return general
        return 0
