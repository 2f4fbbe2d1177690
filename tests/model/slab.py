# SPDX-License-Identifier: GPL-2.0-or-later
"""SLAB of 2.6.24 as dictionaries and lists: a slow twin that shares no code with the kernels."""


class Cache:
    """One cache of a machine with one node and one CPU."""

    def __init__(self, num, limit, batch, shared, free_limit):
        self.num = num
        self.limit = limit
        self.batch = batch
        self.shared_limit = shared * batch
        self.free_limit = free_limit
        self.array = []
        self.shared = []
        self.touched = False
        self.chains = {}  # slab -> free objects, first first
        self.partial, self.full, self.unused = [], [], []
        self.made = 0
        self.ended = []

    def free_objects(self):
        return sum(len(chain) for chain in self.chains.values())

    def alloc(self):
        """Slab and index of the next object, and whether a slab was made for it."""
        made = False
        while not self.array:
            batch = self.batch if self.touched else min(self.batch, 16)
            moved = min(len(self.shared), batch, self.limit)
            if moved:
                self.array = self.shared[-moved:]
                del self.shared[-moved:]
                break
            while batch and (self.partial or self.unused):
                slab = (self.partial or self.unused).pop(0)
                chain = self.chains[slab]
                taken, self.chains[slab] = chain[:batch], chain[batch:]
                self.array += [(slab, index) for index in taken]
                batch -= len(taken)
                (self.partial if self.chains[slab] else self.full).insert(0, slab)
            if not self.array:
                made = True
                self.chains[self.made] = list(range(self.num))
                self.unused.append(self.made)
                self.made += 1
        self.touched = True
        return (*self.array.pop(), made)

    def free(self, slab, index):
        if len(self.array) == self.limit:
            count = self.batch
            room = self.shared_limit - len(self.shared)
            if room > 0:
                count = min(count, room)
                self.shared += self.array[:count]
            else:
                self._to_slabs(self.array[:count])
            del self.array[:count]
        self.array.append((slab, index))

    def _to_slabs(self, objects):
        for slab, index in objects:
            for members in (self.partial, self.full, self.unused):
                if slab in members:
                    members.remove(slab)
            self.chains[slab].insert(0, index)
            if len(self.chains[slab]) < self.num:
                self.partial.append(slab)
            elif self.free_objects() > self.free_limit:
                del self.chains[slab]
                self.ended.append(slab)
            else:
                self.unused.insert(0, slab)

    def shrink(self):
        objects, self.array = self.array, []
        self._to_slabs(objects)
        objects, self.shared = self.shared, []
        self._to_slabs(objects)
        for slab in reversed(self.unused):
            del self.chains[slab]
            self.ended.append(slab)
        self.unused = []
        return bool(self.partial or self.full)
