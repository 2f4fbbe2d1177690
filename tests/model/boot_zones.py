# SPDX-License-Identifier: GPL-2.0-or-later
"""Zones, ZONE_MOVABLE and the first struct pages, frame by frame: a slow twin of `physmem.boot`.

It shares no code with the package: memory is a dictionary of single frames, and every question is
answered by looking at each of them.
"""

HOTPLUG, MIRROR = 1, 2


class Machine:
    """Memory as single frames: `frames[pfn] = (nid, flags, first frame of its range)`."""

    def __init__(self, ranges, names, limits, *, old, mo, pb, section, page_shift=12):
        self.ranges = sorted(ranges)
        self.frames = {}
        for start, end, nid, flags in self.ranges:
            for pfn in range(start, end):
                self.frames[pfn] = (nid, flags, start)
        self.names = names
        self.old = old
        self.mo = mo
        self.pb = pb
        self.section = section
        self.page_shift = page_shift
        self.nodes = sorted({nid for nid, _, _ in self.frames.values()})
        self.movable = names.index("Movable")
        self._own = {nid: [] for nid in self.nodes}
        for pfn in sorted(self.frames):
            self._own[self.frames[pfn][0]].append(pfn)
        self._spans = {}
        unit = section or mo
        self._units = {pfn // unit for pfn in self.frames}
        if section is None:
            self._units = set(range(min(self._units), max(self._units) + 1))
        self._limits(limits)

    def own(self, nid):
        return list(self._own[nid])

    def _limits(self, limits):
        bottom = min(self.frames)
        self.low, self.high = [], []
        for index, name in enumerate(self.names):
            if name == "Movable":
                self.low.append(0)
                self.high.append(0)
                continue
            top = limits.get(name, 0)
            if not (self.old and index == 0):
                top = max(top, bottom)
            self.low.append(bottom)
            self.high.append(top)
            bottom = top
        real = [i for i in range(len(self.names)) if self.high[i] > self.low[i]]
        self.source = max(real) if real else None

    # -- where ZONE_MOVABLE begins --

    def place(self, ask):
        self.mirror = False
        total = len(self.frames)
        if not self.old and ask["movable_node"]:
            begin = dict.fromkeys(self.nodes, 0)
            for start, _, nid, flags in self.ranges:
                if flags & HOTPLUG and begin[nid] == 0:
                    begin[nid] = start
        elif not self.old and ask["mirror"]:
            self.mirror = True
            begin = dict.fromkeys(self.nodes, 0)
            border = (1 << 32) >> self.page_shift
            for start, _, nid, flags in self.ranges:
                if not flags & MIRROR and start >= border and begin[nid] == 0:
                    begin[nid] = start
        else:
            core, movable = ask["kernelcore"], ask["movablecore"]
            if not self.old and ask["percent"]:
                core = total * 100 * ask["percent"] // 10000
            if movable:
                while movable % self.mo:
                    movable += 1
                if self.old:
                    core = max(core, (total - movable) & ((1 << 64) - 1))
                else:
                    core = max(core, total - min(total, movable))
            if core == 0 or (not self.old and core >= total):
                self.begin = {}
                return
            begin = self._share_out(core)
        self.begin = {}
        for nid in self.nodes:
            pfn = begin[nid]
            while pfn % self.mo:
                pfn += 1
            if not self.old and pfn > max(self.own(nid)):
                pfn = 0
            if pfn:
                self.begin[nid] = pfn

    def _share_out(self, core):
        """Hand frames to the kernel one at a time."""
        usable = self.low[self.source]
        free = {nid: self.own(nid) for nid in self.nodes}
        begin = dict.fromkeys(self.nodes, 0)
        sharers = len(self.nodes)
        while True:
            share = core // sharers
            for nid in self.nodes:
                if core < share:
                    share = core // sharers
                rest = share
                while free[nid] and free[nid][0] < usable:
                    begin[nid] = free[nid].pop(0) + 1
                    core -= core > 0
                    rest -= rest > 0
                if not free[nid]:
                    continue
                if rest == 0:
                    begin[nid] = free[nid][0]
                while rest and free[nid]:
                    begin[nid] = free[nid].pop(0) + 1
                    core -= core > 0
                    rest -= 1
            sharers -= 1
            if sharers == 0 or core <= sharers:
                return begin

    # -- zones --

    def zone_frames(self, nid, index):
        """Frame numbers of a zone, holes included."""
        own = self.own(nid)
        span = range(own[0], own[-1] + 1)
        begin = self.begin.get(nid, 0)
        if index == self.movable:
            if not begin:
                return []
            return [pfn for pfn in span if begin <= pfn < self.high[self.source]]
        inside = [pfn for pfn in span if self.low[index] <= pfn < self.high[index]]
        if not begin:
            return inside
        if self.mirror:
            return [] if inside and inside[0] >= begin else inside
        return [pfn for pfn in inside if pfn < begin]

    def spans(self, nid):
        """(start, spanned, absent) of each zone of a node."""
        if nid not in self._spans:
            self._spans[nid] = self._count(nid)
        return self._spans[nid]

    def _count(self, nid):
        result = []
        next_start = self.own(nid)[0]
        for index, name in enumerate(self.names):
            pfns = self.zone_frames(nid, index)
            absent = sum(1 for pfn in pfns if self.frames.get(pfn, (None,))[0] != nid)
            if self.mirror and self.begin.get(nid):
                for pfn in pfns:
                    if pfn not in self.frames:
                        continue
                    mirrored = bool(self.frames[pfn][1] & MIRROR)
                    absent += (index == self.movable and mirrored) or (
                        name == "Normal" and not mirrored
                    )
            start = next_start if self.old else (pfns[0] if pfns else 0)
            result.append((start if pfns else 0, len(pfns), absent))
            next_start += len(pfns)
        return result

    # -- struct pages --

    def has_page(self, pfn):
        return pfn // (self.section or self.mo) in self._units

    def populated(self, nid):
        return [i for i, (_, spanned, absent) in enumerate(self.spans(nid)) if spanned > absent]

    def init(self, *, deferred):
        """Holes [(zone name, nid, pages)], first late frame per node, frames initialised."""
        self.set_up = {}
        holes, late = [], {}
        section = self.section or self.mo
        node_end = {
            nid: self.own(nid)[0] + sum(spanned for _, spanned, _ in self.spans(nid))
            for nid in self.nodes
        }
        counted, counting = 0, 0
        hole, zone = 0, 0
        spans = {nid: self.spans(nid) for nid in self.nodes}
        for start, end, nid, flags in self.ranges:
            for index in self.populated(nid):
                zone = index
                first, spanned, _ = spans[nid][index]
                part = [pfn for pfn in range(start, end) if first <= pfn < first + spanned]
                if not part:
                    continue
                for pfn in part:
                    if self.mirror and index == self.movable and flags & MIRROR:
                        continue
                    if deferred and first + spanned >= node_end[nid]:
                        if nid in late:
                            break
                        if counting != first + spanned:
                            counting, counted = first + spanned, 0
                        counted += 1
                        if counted > section and pfn % section == 0:
                            late[nid] = pfn
                            break
                    self.set_up[pfn] = (nid, index)
                if hole < part[0]:
                    holes.append(self._hole(hole, part[0], index, nid))
                hole = part[-1] + 1
        if self.section is not None:
            end = self.ranges[-1][1]
            while end % self.section:
                end += 1
            if hole < end:
                holes.append(self._hole(hole, end, zone, self.ranges[-1][2]))
        return [one for one in holes if one[2]], late

    def _hole(self, start, end, index, nid):
        pages = sum(1 for pfn in range(start, end) if self.has_page(pfn))
        return self.names[index], nid, pages

    def block_types(self, nid, index):
        """One letter per pageblock of a zone."""
        start, spanned, _ = self.spans(nid)[index]
        base = start if self.old and self.section is None else start // self.pb * self.pb
        letters = []
        for first in range(base, start + spanned, self.pb):
            block = range(first, first + self.pb)
            kind = "U" if any(self.has_page(pfn) for pfn in block) else "."
            if self.old:
                for pfn in block:
                    if not start <= pfn < start + spanned or not self.has_page(pfn):
                        continue
                    if self.frames.get(pfn, (nid,))[0] == nid and pfn % self.pb:
                        kind = "M"
            elif self.section is not None:
                if first in self.set_up:
                    kind = "M"
            elif start <= first < start + spanned and self.set_up.get(first, (None,))[0] == nid:
                kind = "M"
            letters.append(kind)
        return "".join(letters)


def order_of_nodes(distance, has_memory, has_cpu, *, old):
    """Nodes by preference, for each node: compared as tuples, not as weighted sums."""
    count = len(distance)
    busy = [0] * count
    result = []
    for local in range(count):
        chosen = [local]
        while True:
            rest = [n for n in range(count) if has_memory[n] and n not in chosen]
            if not rest:
                break
            keys = []
            for node in rest:
                near = distance[local][node]
                near += 1 if node < local else 0
                near += 1 if has_cpu[node] else 0
                keys.append((near, 0 if old else busy[node], node))
            best = min(keys)[2]
            if distance[local][best] != distance[local][chosen[-1]]:
                busy[best] += 1
            chosen.append(best)
        result.append(chosen)
    return result
