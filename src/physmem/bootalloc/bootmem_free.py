# SPDX-License-Identifier: GPL-2.0-or-later
"""The end of bootmem: which pages go to the buddy system, in which order and in which blocks.

Linux: free_all_bootmem_core(), mm/bootmem.c (2.6.24)
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from physmem.bootalloc.bootmem_node import BootmemNode

Runs = npt.NDArray[np.int64]
_WORDS_AT_ONCE = 1 << 16


@dataclass(frozen=True, slots=True)
class BootmemFree:
    """Pages of one node, to be freed in this order.

    Attributes
    ----------
    nid : int
        The node.
    runs : ndarray of int64, shape (n, 3)
        Rows (start, end, order): the pages [start, end) in blocks of that order, ascending. The
        last row holds the pages of the bitmap itself.
    total : int
        Pages in all runs.

    Examples
    --------
    >>> given = BootmemFree(0, np.array([[57, 59, 0], [64, 128, 5]], np.int64), 66)
    >>> pfn, order = given.arrays()
    >>> pfn.tolist(), order.tolist()
    ([57, 58, 64, 96], [0, 0, 5, 5])
    >>> [given.path(int(order)) for order in (0, 5)]
    ['pcp', 'head']
    """

    nid: int
    runs: Runs
    total: int

    @staticmethod
    def path(order: int) -> str:
        """Where a block of this order goes: single pages to the per-CPU list, others to a head."""
        return "pcp" if order == 0 else "head"

    def arrays(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
        """First page (int64) and order (uint8) of every block, in order, shape (blocks,)."""
        return _blocks(self.runs)

    def batches(
        self, rows: int = 1
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]]:
        """The same, for `rows` runs at a time: where a huge node comes page by page."""
        for first in range(0, len(self.runs), rows):
            yield _blocks(self.runs[first : first + rows])


def _blocks(runs: Runs) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    start, end, order = runs.T
    count = (end - start) >> order
    within = np.arange(count.sum(), dtype=np.int64) - np.repeat(np.cumsum(count) - count, count)
    orders = np.repeat(order, count)
    return np.repeat(start, count) + (within << orders), orders.astype(np.uint8)


def is_fast(node: BootmemNode, bits_per_long: int) -> bool:
    """Whether whole words of free pages are freed as one block.

    The kernel asks for the lowest set bit of the start's low 32 bits: a node that starts at a
    multiple of 4 GiB (other than 0) has none, and is freed page by page.
    """
    low = node.start & 0xFFFF_FFFF
    ffs = (low & -low).bit_length()
    return node.start == 0 or ffs - node.page_shift > bits_per_long.bit_length()


def free_runs(node: BootmemNode, bits_per_long: int) -> BootmemFree:
    """What a node gives to the buddy system; the node's bitmap is gone afterwards.

    Linux: free_all_bootmem_core(), mm/bootmem.c (2.6.24)
    """
    page = 1 << node.page_shift
    map_run = [node.map_pfn, node.map_pfn - (-node.map_size // page), 0]
    if node.bits is None:
        return BootmemFree(node.nid, np.zeros((0, 3), np.int64), 0)
    # A copy: the pages that hold the bitmap are among those given away.
    words = node.bits.data.copy().view(np.dtype(f"<u{bits_per_long // 8}"))
    whole = bits_per_long.bit_length() - 1 if is_fast(node, bits_per_long) else 0
    pieces = [
        _word_runs(words[first : first + _WORDS_AT_ONCE], first * bits_per_long, whole)
        for first in range(0, len(words), _WORDS_AT_ONCE)
    ]
    runs = _joined(np.concatenate([*pieces, np.zeros((0, 3), np.int64)]))
    runs[:, :2] += node.start_pfn
    runs = np.concatenate([runs, np.array([map_run], np.int64)])
    node.bits = None
    return BootmemFree(node.nid, runs, int((runs[:, 1] - runs[:, 0]).sum()))


def _word_runs(words: npt.NDArray[np.unsignedinteger], base: int, whole: int) -> Runs:
    """Runs of clear bits of some words, the first of which is bit `base`, ascending.

    Words with no bit set make runs of order `whole`, the others runs of single pages.
    """
    per_word = words.dtype.itemsize * 8
    free = words == 0
    edges = np.flatnonzero(np.diff(np.concatenate([[False], free, [False]])))
    blocks = edges.astype(np.int64).reshape(-1, 2) * per_word
    mixed = np.flatnonzero(~free & (~words != 0))
    bits = np.unpackbits(words[mixed].view(np.uint8), bitorder="little").reshape(-1, per_word)
    # A column of ones on both sides ends every run with its word.
    ones = np.ones((len(mixed), 1), np.uint8)
    word, bit = np.nonzero(np.diff(np.concatenate([ones, bits, ones], axis=1)))
    singles = (mixed[word] * per_word + bit).astype(np.int64).reshape(-1, 2)
    runs = np.zeros((len(blocks) + len(singles), 3), np.int64)
    runs[: len(blocks), :2] = blocks
    runs[: len(blocks), 2] = whole
    runs[len(blocks) :, :2] = singles
    runs[:, :2] += base
    ordered: Runs = runs[np.argsort(runs[:, 0])]
    return ordered


def _joined(runs: Runs) -> Runs:
    """Runs that touch and have the same order made one."""
    if not len(runs):
        return runs
    touch = (runs[1:, 0] == runs[:-1, 1]) & (runs[1:, 2] == runs[:-1, 2])
    first = np.flatnonzero(np.concatenate([[True], ~touch]))
    last = np.concatenate([first[1:] - 1, [len(runs) - 1]])
    return np.stack([runs[first, 0], runs[last, 1], runs[first, 2]], axis=1)
