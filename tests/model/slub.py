# SPDX-License-Identifier: GPL-2.0-or-later
"""SLUB as dictionaries and lists: a slow twin that shares no code with the kernels.

A slab is a letter-like number; an object a pair (slab, index). Freelists are Python lists.
"""


class Slab:
    def __init__(self, number, objects):
        self.number = number
        self.free = list(range(objects))
        self.node = 0


class Cache:
    """One cache of a machine with one node, rules of 6.1."""

    def __init__(self, objects, min_partial, cpu_partial_slabs, cpus):
        self.objects = objects
        self.min_partial = min_partial
        self.cpu_partial_slabs = cpu_partial_slabs
        self.cpus = range(cpus)
        self.slabs = {}
        self.cpu_slab = dict.fromkeys(self.cpus)
        self.cpu_free = {cpu: [] for cpu in self.cpus}
        self.chain = {cpu: [] for cpu in self.cpus}
        self.counts = {}  # chain member -> members from it on, as put there
        self.partial = []
        self.made = 0
        self.ended = []

    def alloc(self, cpu):
        """Slab and index of the next object, and whether a slab was made for it."""
        made = False
        while not self.cpu_free[cpu]:
            slab = self.cpu_slab[cpu]
            if slab is not None and self.slabs[slab].free:
                self.cpu_free[cpu] = self._take(slab)
                break
            self.cpu_slab[cpu] = None
            if self.chain[cpu]:
                self.cpu_slab[cpu] = self.chain[cpu].pop(0)
            elif self.partial:
                self.cpu_slab[cpu] = self.partial.pop(0)
                count = 0
                while self.partial:
                    self._put(cpu, self.partial.pop(0), drain=False)
                    count += 1
                    if count > self.cpu_partial_slabs // 2:
                        break
            else:
                made = True
                self.slabs[self.made] = Slab(self.made, self.objects)
                self.cpu_slab[cpu] = self.made
                self.made += 1
        return self.cpu_slab[cpu], self.cpu_free[cpu].pop(0), made

    def _take(self, slab):
        free, self.slabs[slab].free = self.slabs[slab].free, []
        return free

    def inuse(self, slab):
        return self.objects - len(self.slabs[slab].free)

    def free(self, cpu, slab, index):
        if self.cpu_slab[cpu] == slab:
            self.cpu_free[cpu].insert(0, index)
            return
        was_full = not self.slabs[slab].free
        self.slabs[slab].free.insert(0, index)
        if slab in self.cpu_slab.values() or any(slab in self.chain[c] for c in self.cpus):
            return
        if was_full:
            self._put(cpu, slab, drain=True)
        elif self.inuse(slab) == 0 and len(self.partial) >= self.min_partial:
            self.partial.remove(slab)
            self._end(slab)

    def _put(self, cpu, slab, *, drain):
        chain = self.chain[cpu]
        if drain and chain and self.counts[chain[0]] >= self.cpu_partial_slabs:
            self.chain[cpu] = []
            self._unfreeze(chain)
        chain = self.chain[cpu]
        self.counts[slab] = 1 + (self.counts[chain[0]] if chain else 0)
        chain.insert(0, slab)

    def _unfreeze(self, chain):
        discard = []
        for slab in chain:
            if self.inuse(slab) == 0 and len(self.partial) >= self.min_partial:
                discard.append(slab)
            else:
                self.partial.append(slab)
        for slab in reversed(discard):
            self._end(slab)

    def _end(self, slab):
        del self.slabs[slab]
        self.ended.append(slab)

    def flush(self, cpu):
        slab = self.cpu_slab[cpu]
        if slab is not None:
            tail = bool(self.slabs[slab].free)
            self.slabs[slab].free = self.cpu_free[cpu] + self.slabs[slab].free
            self.cpu_free[cpu] = []
            self.cpu_slab[cpu] = None
            if self.inuse(slab) == 0 and len(self.partial) >= self.min_partial:
                self._end(slab)
            elif self.slabs[slab].free:
                self.partial.insert(len(self.partial) if tail else 0, slab)
        chain, self.chain[cpu] = self.chain[cpu], []
        self._unfreeze(chain)

    def shrink(self):
        for cpu in self.cpus:
            self.flush(cpu)
        buckets = {free: [] for free in range(1, 33)}
        rest, discard = [], []
        for slab in self.partial:
            free = len(self.slabs[slab].free)
            if free == self.objects:
                discard.insert(0, slab)
            elif free <= 32:
                buckets[free].insert(0, slab)
            else:
                rest.append(slab)
        self.partial = [slab for free in range(1, 33) for slab in buckets[free]] + rest
        for slab in discard:
            self._end(slab)
        return bool(self.slabs)
