# SPDX-License-Identifier: GPL-2.0-or-later
"""What each stage of a start-up did, told in one sentence, with the frames it took."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StageRecord:
    """One stage.

    Attributes
    ----------
    name : function of the kernel
    sentence : what it does, for people
    taken : bytes that it took from the boot allocator, less what it gave back
    ranges : (start, end) in bytes that it took and still holds; at most `MAX_RANGES` of them
    given_pages : frames that it gave to the page allocator

    Examples
    --------
    >>> StageRecord("sparse_init", "Lays out the memory map.", 8192).frames(12)
    2
    """

    name: str
    sentence: str
    taken: int = 0
    ranges: tuple[tuple[int, int], ...] = ()
    given_pages: int = 0

    def frames(self, page_shift: int = 12) -> int:
        """Frames that hold the bytes taken (rounded up; 0 when more was given back)."""
        return max(-(-self.taken >> page_shift), 0)


MAX_RANGES = 64
