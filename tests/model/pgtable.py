# SPDX-License-Identifier: GPL-2.0-or-later
"""The slow twin of a page table: a dictionary from virtual page to (physical page, protection)."""


class Twin:
    """What is mapped, page by page; `map`, `unmap` and `protect` as in `PageTable`."""

    def __init__(self, page_shift):
        self.shift = page_shift
        self.pages = {}

    def _range(self, va, size):
        return range(va >> self.shift, (va + size) >> self.shift)

    def map(self, va, paddr, size, prot):
        """False, and nothing done, when a page is mapped already."""
        pages = self._range(va, size)
        if any(page in self.pages for page in pages):
            return False
        frame = paddr >> self.shift
        for n, page in enumerate(pages):
            self.pages[page] = frame + n, prot
        return True

    def unmap(self, va, size):
        """How many pages were mapped."""
        return sum(self.pages.pop(page, None) is not None for page in self._range(va, size))

    def protect(self, va, size, prot):
        """How many pages were mapped."""
        found = [page for page in self._range(va, size) if page in self.pages]
        for page in found:
            self.pages[page] = self.pages[page][0], prot
        return len(found)

    def translate(self, va):
        """(physical address, protection), or None."""
        found = self.pages.get(va >> self.shift)
        if found is None:
            return None
        return found[0] << self.shift | va & ((1 << self.shift) - 1), found[1]
