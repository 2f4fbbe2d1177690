# SPDX-License-Identifier: GPL-2.0-or-later
"""bootmem with a Python list of bits, one page at a time, as its description reads."""

PAGE = 4096


class BugError(Exception):
    """The kernel stops here with BUG()."""


def up(value, align):
    """What the kernel's ALIGN gives, also for an alignment of 0."""
    return 0 if align == 0 else -(-value // align) * align


class SlowNode:
    def __init__(self, start_pfn, end_pfn, map_pfn, long_bits):
        self.start = start_pfn * PAGE
        self.low_pfn = end_pfn
        self.map_pfn = map_pfn
        self.long_bits = long_bits
        self.map = [1] * (end_pfn - start_pfn)
        self.last_pos = self.last_offset = self.last_success = 0

    def map_bytes(self):
        size = (len(self.map) + 7) // 8
        return up(size, self.long_bits // 8)

    def reserve(self, addr, size):
        beyond = up(addr + size, PAGE) // PAGE > self.low_pfn
        if size <= 0 or addr // PAGE >= self.low_pfn or beyond or addr + size <= self.start:
            raise BugError
        if addr < self.start:
            return
        page = (addr - self.start) // PAGE
        while page * PAGE < addr + size - self.start:
            self.map[page] = 1
            page += 1

    def free(self, addr, size):
        if size <= 0 or (addr + size) // PAGE > self.low_pfn:
            raise BugError
        first = up(addr, PAGE) // PAGE - self.start // PAGE
        end = (addr + size - self.start) // PAGE
        pages = range(first, end) if first >= 0 else ()
        if any(self.map[page] == 0 for page in pages):
            raise BugError
        self.last_success = min(self.last_success, addr)
        for page in pages:
            self.map[page] = 0

    def alloc(self, size, align, goal, limit):
        if size <= 0:
            raise BugError
        if (limit and self.start >= limit) or self.map is None:
            return None
        last = self.low_pfn
        if limit // PAGE:
            last = min(last, limit // PAGE)
        count = last - self.start // PAGE
        offset = 0
        if align and self.start % align:
            offset = (align - self.start % align) // PAGE
        wish = 0
        if goal and goal >= self.start and goal // PAGE < last:
            wish = goal - self.start
            usable = limit // PAGE == 0 or limit // PAGE > self.last_success
            if self.last_success >= wish and usable:
                wish = self.last_success
        first = up(wish, align) // PAGE + offset
        page = self.scan(first, count, size, align)
        if page is None and first > offset:
            page = self.scan(offset, count, size, align)
        if page is None:
            return None
        self.last_success = page * PAGE
        return self.take(page, size, align)

    def scan(self, page, count, size, align):
        area = up(size, PAGE) // PAGE
        step = max(align // PAGE, 1)
        while page < count:
            while page < count and self.map[page]:
                page += 1
            page = up(page, step)
            if page >= count:
                return None
            if self.map[page]:
                page += step
                continue
            for other in range(page + 1, page + area):
                if other >= count or self.map[other]:
                    page = up(other, step) + step
                    break
            else:
                return page
        return None

    def take(self, page, size, align):
        if align < PAGE and self.last_offset and self.last_pos + 1 == page:
            offset = up(self.last_offset, align)
            result = self.start + self.last_pos * PAGE + offset
            room = PAGE - offset
            if size < room:
                pages = 0
                self.last_offset = offset + size
            else:
                pages = up(size - room, PAGE) // PAGE
                self.last_pos = page + pages - 1
                self.last_offset = size - room
        else:
            result = self.start + page * PAGE
            pages = up(size, PAGE) // PAGE
            self.last_pos = page + pages - 1
            self.last_offset = size
        self.last_offset %= PAGE
        for taken in range(page, page + pages):
            assert self.map[taken] == 0
            self.map[taken] = 1
        return result

    def free_all(self):
        """(pfn, order) of every block, in order."""
        found = []
        low = self.start % (1 << 32)
        lowest = next((bit for bit in range(32) if low >> bit & 1), -1) + 1
        fast = self.start == 0 or lowest - 12 > self.long_bits.bit_length()
        for word in range(0, len(self.map), self.long_bits):
            bits = self.map[word : word + self.long_bits]
            pfn = self.start // PAGE + word
            if fast and bits == [0] * self.long_bits:
                found.append((pfn, self.long_bits.bit_length() - 1))
            else:
                found += [(pfn + bit, 0) for bit, taken in enumerate(bits) if not taken]
        pages = up(self.map_bytes(), PAGE) // PAGE
        found += [(self.map_pfn + page, 0) for page in range(pages)]
        self.map = None
        return found
