# SPDX-License-Identifier: GPL-2.0-or-later
"""One SLUB cache of a recorded machine with one CPU, as counts of free objects per slab.

Linux: ___slab_alloc(), __slab_free(), put_cpu_partial(), mm/slub.c (6.1)

Freelists are shuffled in a real kernel: which object of a slab comes next cannot be known. Which
slab it comes from, when a slab is made and when one ends follows from counts alone, and these are
known from the first new slab on: a kernel makes one only when no other has a free object.
"""

from physmem.slab.slub_sizes import SlubGeometry

NEW = -1
"""Answer of `alloc`: no slab has a free object."""


class CacheModel:
    """State of one cache: the CPU's slab, its chain, the node's partial list.

    Slabs are numbers of the caller's choice. `known` is False until `new_slab` was called, and
    after `forget`.
    """

    def __init__(self, geometry: SlubGeometry) -> None:
        self.objects = geometry.objects
        self.min_partial = geometry.min_partial
        self.chain_limit = geometry.cpu_partial_slabs
        self.known = False
        self.forget()

    def forget(self) -> None:
        """Know nothing (something happened that no event tells)."""
        self.known = False
        self.cpu_slab = NEW
        self.cpu_free = 0
        self.chain: list[int] = []  # head first
        self.partial: list[int] = []  # the node's list, head first
        self.free: dict[int, int] = {}  # free objects of slabs of the chain and the list

    def new_slab(self, slab: int) -> None:
        """A new slab was made and gave its first object: all others are full."""
        self.forget()
        self.known = True
        self.cpu_slab = slab
        self.cpu_free = self.objects - 1

    def alloc(self) -> int:
        """Slab that gives the next object, or NEW."""
        if self.cpu_slab != NEW and self.cpu_free:
            self.cpu_free -= 1
            return self.cpu_slab
        if self.chain:
            slab = self.chain.pop(0)
        elif self.partial:
            slab = self.partial.pop(0)
            taken = 0
            while self.partial and taken <= self.chain_limit // 2:
                self.chain.insert(0, self.partial.pop(0))
                taken += 1
        else:
            self.cpu_slab = NEW
            return NEW
        self.cpu_slab = slab
        self.cpu_free = self.free.pop(slab) - 1
        return slab

    def release(self, slab: int) -> list[int]:
        """An object of a slab is freed; slabs that end through that, in order."""
        if slab == self.cpu_slab:
            self.cpu_free += 1
            return []
        if slab not in self.free:
            self.free[slab] = 1
            ended = self._drain() if len(self.chain) >= max(self.chain_limit, 1) else []
            self.chain.insert(0, slab)
            return ended
        self.free[slab] += 1
        crowded = len(self.partial) >= self.min_partial
        if self.free[slab] == self.objects and crowded and slab in self.partial:
            self.partial.remove(slab)
            del self.free[slab]
            return [slab]
        return []

    def _drain(self) -> list[int]:
        """The full chain goes to the node; empty slabs too many end."""
        ended: list[int] = []
        for slab in self.chain:
            if self.free[slab] == self.objects and len(self.partial) >= self.min_partial:
                ended.insert(0, slab)
                del self.free[slab]
            else:
                self.partial.append(slab)
        self.chain = []
        return ended

    def lost(self, slab: int) -> None:
        """A slab ended that should not have: forget it."""
        self.free.pop(slab, None)
        for members in (self.chain, self.partial):
            if slab in members:
                members.remove(slab)
        if slab == self.cpu_slab:
            self.cpu_slab = NEW
