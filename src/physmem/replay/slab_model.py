# SPDX-License-Identifier: GPL-2.0-or-later
"""One SLUB cache of a recorded machine, as counts of free objects per slab.

Linux: ___slab_alloc(), __slab_free(), put_cpu_partial(), mm/slub.c (6.1)

Freelists are shuffled in a real kernel: which object of a slab comes next cannot be known. Which
slab it comes from, when a slab is made and when one ends follows from counts alone, and these are
known from the first new slab on: a CPU makes one only when neither it nor the node has a free
object. Until then, and after work that no event tells, the model goes on with what it sees, and
says that it is not certain.
"""

from collections.abc import Callable, Sequence

from physmem.slab.slub_sizes import SlubGeometry

NEW = -1
"""Answer of `alloc`: no slab has a free object."""


class CacheModel:
    """State of one cache: each CPU's slab and chain, each node's partial list.

    Slabs are numbers of the caller's choice.

    Parameters
    ----------
    geometry : SlubGeometry
        Of the cache.
    cpu_node : sequence of int
        Node of each CPU.
    node_of : callable
        Node of a slab.
    lone : bool
        A CPU whose chain may hold nothing takes one slab off the node's list, not two (6.8).
    checked : bool
        A debug cache: no CPU slabs, all objects come from the node's first partial slab.
    """

    def __init__(
        self,
        geometry: SlubGeometry,
        cpu_node: Sequence[int] = (0,),
        node_of: Callable[[int], int] = lambda _slab: 0,
        *,
        lone: bool = False,
        checked: bool = False,
    ) -> None:
        cpus = len(cpu_node)
        self.objects = geometry.objects
        self.min_partial = geometry.min_partial
        self.chain_limit = geometry.cpu_partial_slabs
        self.cpu_node = cpu_node
        self.node_of = node_of
        self.lone = lone
        self.checked = checked
        self.known = [False] * cpus
        self.seen = [False] * cpus
        self.cpu_slab = [NEW] * cpus
        self.cpu_free = [0] * cpus
        self.chain: list[list[int]] = [[] for _ in range(cpus)]  # head first
        self.partial: dict[int, list[int]] = {}  # by node, head first
        self.free: dict[int, int] = {}  # free objects of slabs of chains and lists
        self._before: tuple[int, list[int]] | None = None  # a list before slabs were taken off it

    @property
    def certain(self) -> bool:
        """Whether the state is known: of every CPU that used the cache."""
        return any(self.known) and all(
            known or not seen for known, seen in zip(self.known, self.seen, strict=True)
        )

    def doubt(self, cpu: int) -> None:
        """Something happened on a CPU that no event tells."""
        self.known[cpu] = False

    def _list(self, node: int) -> list[int]:
        return self.partial.setdefault(node, [])

    def new_slab(self, cpu: int, slab: int) -> None:
        """A new slab was made and gave its first object: the CPU and the node had none free."""
        self._settle(cpu, right=False)
        for gone in (*self.chain[cpu], *self._list(self.node_of(slab))):
            self.free.pop(gone, None)
        self._list(self.node_of(slab)).clear()
        if self.checked:
            # one list for all CPUs
            self.known = [True] * len(self.known)
            if self.objects > 1:
                self.free[slab] = self.objects - 1
                self._list(self.node_of(slab)).insert(0, slab)
            return
        self.known[cpu] = True
        self.chain[cpu].clear()
        self.cpu_slab[cpu] = slab
        self.cpu_free[cpu] = self.objects - 1

    def alloc(self, cpu: int = 0) -> int:
        """Slab that gives the next object, or NEW."""
        self.seen[cpu] = True
        if self.checked:
            return self._alloc_checked(cpu)
        if self.cpu_slab[cpu] != NEW and self.cpu_free[cpu] > 0:
            self.cpu_free[cpu] -= 1
            return self.cpu_slab[cpu]
        if self.chain[cpu]:
            slab = self.chain[cpu].pop(0)
        else:
            node = self._source(cpu)
            if node is None:
                self.cpu_slab[cpu] = NEW
                return NEW
            if node != self.cpu_node[cpu]:
                self._before = node, list(self.partial[node])
            slab = self._take(cpu, node)
        self.cpu_slab[cpu] = slab
        self.cpu_free[cpu] = self.free[slab] - 1
        if self._before is None:
            del self.free[slab]
        return slab

    def _source(self, cpu: int) -> int | None:
        """Node whose partial list a CPU turns to: its own, or one with more than it must keep.

        Linux: get_any_partial(), which leaves that out once in 43 times, by the clock's last bits.
        """
        own = self.cpu_node[cpu]
        if self._list(own):
            return own
        rich = [node for node, members in self.partial.items() if len(members) > self.min_partial]
        return min(rich, key=lambda node: (abs(node - own), node), default=None)

    def _take(self, cpu: int, node: int) -> int:
        """Take slabs off a node's list: one for the CPU, some for its chain."""
        partial, chain = self.partial[node], self.chain[cpu]
        slab = partial.pop(0)
        most = 0 if self.lone and not self.chain_limit else self.chain_limit // 2 + 1
        for _ in range(min(most, len(partial))):
            chain.insert(0, partial.pop(0))
        return slab

    def _settle(self, cpu: int, *, right: bool) -> None:
        """Another node's slab was foretold: it was it, or that node was left out."""
        if self._before is None:
            return
        node, members = self._before
        self._before = None
        if right:
            self.free.pop(members[0], None)
        else:
            self.partial[node] = members
            self.chain[cpu].clear()
            self.cpu_slab[cpu] = NEW

    def _alloc_checked(self, cpu: int) -> int:
        partial = self._list(self.cpu_node[cpu])
        if not partial:
            return NEW
        slab = partial[0]
        self.free[slab] -= 1
        if not self.free[slab]:
            del self.free[slab]
            partial.pop(0)
        return slab

    def agreed(self, cpu: int) -> None:
        """The object came from the slab that `alloc` said."""
        self._settle(cpu, right=True)

    def resync(self, cpu: int, slab: int, room: int) -> None:
        """The object came from another slab than `alloc` said; `room`: free objects left there."""
        self.known[cpu] = False
        if self.checked:
            self.known = [False] * len(self.known)
            return
        self._settle(cpu, right=False)
        self.lost(slab)
        self.cpu_slab[cpu] = slab
        self.cpu_free[cpu] = max(room, 0)

    def release(self, slab: int, cpu: int = 0) -> list[int]:
        """An object of a slab is freed; slabs that end through that, in order."""
        self.seen[cpu] = True
        if slab in self.cpu_slab:
            self.cpu_free[self.cpu_slab.index(slab)] += 1
            return []
        partial = self._list(self.node_of(slab))
        if slab not in self.free:
            self.free[slab] = 1
            return self._was_full(slab, cpu, partial)
        self.free[slab] += 1
        crowded = len(partial) >= self.min_partial
        if self.free[slab] >= self.objects and crowded and slab in partial:
            partial.remove(slab)
            del self.free[slab]
            return [slab]
        return []

    def _was_full(self, slab: int, cpu: int, partial: list[int]) -> list[int]:
        """The first object of a full slab is free: it has a place again."""
        if self.checked:
            if self.objects == 1 and len(partial) >= self.min_partial:
                del self.free[slab]
                return [slab]
            partial.append(slab)
            return []
        chain = self.chain[cpu]
        ended = self._drain(cpu) if len(chain) >= max(self.chain_limit, 1) else []
        chain.insert(0, slab)
        return ended

    def _drain(self, cpu: int) -> list[int]:
        """The full chain goes to the nodes; empty slabs too many end."""
        ended: list[int] = []
        for slab in self.chain[cpu]:
            partial = self._list(self.node_of(slab))
            if self.free[slab] >= self.objects and len(partial) >= self.min_partial:
                ended.insert(0, slab)
                del self.free[slab]
            else:
                partial.append(slab)
        self.chain[cpu].clear()
        return ended

    def lost(self, slab: int) -> None:
        """A slab is not where it was thought to be: forget it."""
        self.free.pop(slab, None)
        for members in (*self.chain, *self.partial.values()):
            if slab in members:
                members.remove(slab)
        for cpu, mine in enumerate(self.cpu_slab):
            if mine == slab:
                self.cpu_slab[cpu] = NEW
