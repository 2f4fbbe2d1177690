# SPDX-License-Identifier: GPL-2.0-or-later
"""memblock, one Python object for every byte of a tiny machine.

A cell of an array is None or (node, flags). Regions are only ever computed from the cells: a
region is a longest run of equal cells, split where `cuts` says so.
"""

from itertools import groupby, pairwise

ANY = -1
UNKNOWN = 1 << 10
HOTPLUG, MIRROR, NOMAP, DRIVER = 1, 2, 4, 8


class KernelBugError(Exception):
    """The kernel stops here with BUG()."""


class SlowArray:
    def __init__(self, length, capacity):
        self.cells = [None] * length
        self.cuts = set()
        self.max = capacity
        self.area = None
        self.total = 0

    def regions(self):
        found, start = [], 0
        for cell, run in groupby(self.cells):
            end = start + len(list(run))
            if cell is not None:
                inner = sorted(cut for cut in self.cuts if start < cut < end)
                found += [(low, high, *cell) for low, high in pairwise([start, *inner, end])]
            start = end
        return found

    def count(self):
        return max(len(self.regions()), 1)

    def clear(self, start, end):
        self.total -= sum(self.cells[at] is not None for at in range(start, end))
        self.cells[start:end] = [None] * max(end - start, 0)


class SlowMemblock:
    def __init__(self, bits, page, capacity, region_size):
        self.top = (1 << bits) - 1
        self.page = page
        self.region_size = region_size
        self.memory = SlowArray(self.top, capacity)
        self.reserved = SlowArray(self.top, capacity)
        self.bottom_up = self.resize = self.movable_node = self.mirror = False
        self.limit = self.top

    # -- arrays: every change returns False where the kernel returns -ENOMEM ---------------------

    def add(self, array, base, size, nid=UNKNOWN, flags=0):
        end = min(base + size, self.top)
        pieces = [taken for taken, _ in groupby(array.cells[base:end], bool)]
        missing = pieces.count(False)
        empty = not array.regions()
        while not empty and missing and array.count() + missing > array.max:
            if not self.double(array, base, end - base):
                return False
        # The new array may lie in the range itself when the range starts at 0.
        new = [at for at in range(base, end) if array.cells[at] is None]
        if empty and new:
            array.total = 0
        for at in new:
            array.cells[at] = (nid, flags)
        array.total += len(new)
        if new:
            array.cuts.clear()
        return True

    def isolate(self, array, base, size):
        end = min(base + size, self.top)
        while base < end and array.count() + 2 > array.max:
            if not self.double(array, base, end - base):
                return None
        return range(base, end)

    def remove(self, array, base, size):
        span = self.isolate(array, base, size)
        if span is not None:
            array.clear(span.start, span.stop)
        return span is not None

    def change(self, array, base, size, edit):
        span = self.isolate(array, base, size)
        for at in span or ():
            if array.cells[at] is not None:
                array.cells[at] = edit(*array.cells[at])
        if span is not None:
            array.cuts.clear()
        return span is not None

    def set_node(self, array, base, size, node):
        return self.change(array, base, size, lambda _nid, flags: (node, flags))

    def flag(self, array, base, size, bit, on):
        def edit(nid, flags):
            return nid, flags | bit if on else flags & ~bit

        return self.change(array, base, size, edit)

    def double(self, array, base, size):
        if not self.resize:
            return False
        old = array.max * self.region_size
        need = self.pages(2 * old)
        if array is not self.reserved:
            base = size = 0
        found = self.find_any(base + size, self.limit, need)
        if not found and size:
            found = self.find_any(0, min(base, self.limit), need)
        if not found:
            return False
        before, array.area = array.area, found
        array.max *= 2
        if before is not None:
            self.remove(self.reserved, before, self.pages(old))
        if not self.add(self.reserved, found, need):
            raise KernelBugError
        return True

    def pages(self, size):
        while size % self.page:
            size += 1
        return size

    # -- free memory ---------------------------------------------------------------------------

    def visits(self, nid, flags, cell_nid, cell_flags):
        if nid not in (ANY, cell_nid):
            return False
        if self.movable_node and cell_flags & HOTPLUG and not flags & HOTPLUG:
            return False
        if flags & MIRROR and not cell_flags & MIRROR:
            return False
        if cell_flags & NOMAP and not flags & NOMAP:
            return False
        return not (cell_flags & DRIVER and not flags & DRIVER)

    def free_ranges(self, nid=ANY, flags=0):
        found = []
        for start, end, *cell in self.memory.regions():
            if self.visits(nid, flags, *cell):
                at = start
                for taken, run in groupby(self.reserved.cells[start:end], bool):
                    begin, at = at, at + len(list(run))
                    if not taken:
                        found.append((begin, at, cell[0]))
        return found

    def find(self, size, align, start, end, nid, flags):
        end = self.limit if end in (0, 1) else end
        start = max(start, self.page)
        fits = [
            at
            for low, high, _ in self.free_ranges(nid, flags)
            for at in range(max(low, start), min(high, end) - size + 1)
            if not at % align
        ]
        if not fits:
            return 0
        return min(fits) if self.bottom_up else max(fits)

    def find_any(self, start, end, size):
        found = self.find(size, self.page, start, end, ANY, MIRROR) if self.mirror else 0
        return found or self.find(size, self.page, start, end, ANY, 0)

    def alloc_range(self, size, align, start, end, nid, exact):
        for flags in (MIRROR, 0) if self.mirror else (0,):
            for node in dict.fromkeys((nid,) if exact else (nid, ANY)):
                found = self.find(size, align or 8, start, end, node, flags)
                if found and self.add(self.reserved, found, size):
                    return found
        return 0

    def alloc(self, size, align, low, high, nid, exact):
        high = min(high, self.limit)
        found = self.alloc_range(size, align, low, high, nid, exact)
        return found or (self.alloc_range(size, align, 0, high, nid, exact) if low else 0)

    # -- the whole map -------------------------------------------------------------------------

    def trim(self, align):
        for start, end, *_ in self.memory.regions():
            first = next(at for at in range(start, start + align) if at % align == 0)
            last = next(at for at in range(end, end - align, -1) if at % align == 0)
            if first >= last:
                self.memory.clear(start, end)
            else:
                total = self.memory.total
                self.memory.clear(start, first)
                self.memory.clear(last, end)
                self.memory.total = total

    def end_of(self, limit):
        for start, end, *_ in self.memory.regions() or [(0, 0, 0, 0)]:
            if limit <= end - start:
                return start + limit
            limit -= end - start
        return None

    def enforce(self, limit):
        end = self.end_of(limit) if limit else None
        if end is not None:
            self.remove(self.memory, end, self.top)
            self.remove(self.reserved, end, self.top)

    def cap(self, base, size):
        if not size or not self.memory.total:
            return
        span = self.isolate(self.memory, base, size)
        if span is None:
            return
        self.memory.cuts |= {span.start, span.stop}
        for at in range(self.top):
            cell = self.memory.cells[at]
            if cell is not None and at not in span and not cell[1] & NOMAP:
                self.memory.clear(at, at + 1)
        self.remove(self.reserved, 0, base)
        self.remove(self.reserved, span.stop, self.top)

    def limit_map(self, limit):
        end = None if limit == self.top else self.end_of(limit)
        if end is not None:
            self.cap(0, end)

    # -- the end -------------------------------------------------------------------------------

    def blocks(self, end_pfn, max_order, deferred=None):
        """(pfn, order) of every block, the slow way: the largest aligned block that fits."""
        found = []
        for start, end, nid in self.free_ranges():
            first, last = -(-start // self.page), min(end // self.page, end_pfn)
            while first < last:
                order = max_order - 1
                while first % (1 << order) or first + (1 << order) > last:
                    order -= 1
                if not deferred or first < deferred.get(nid, last):
                    found.append((first, order))
                first += 1 << order
        return found
