# SPDX-License-Identifier: GPL-2.0-or-later
"""A bitmap of pages: the three operations bootmem needs, none of them bit by bit.

Linux: find_next_zero_bit(), lib/find_next_bit.c; test_and_set_bit() (2.6.24)
"""

import numpy as np
import numpy.typing as npt

_FIRST_CHUNK = 64
_LAST_CHUNK = 1 << 20


class Bitmap:
    """Bits over an array of bytes, bit i in byte i // 8 at 1 << i % 8, as little-endian words lie.

    Parameters
    ----------
    data : ndarray of uint8, shape (n,)
        The bytes; they are changed in place and may be a view of something larger.

    Examples
    --------
    >>> bits = Bitmap(np.zeros(4, np.uint8))
    >>> bits.set_run(3, 21)
    >>> bits.data.tolist()
    [248, 255, 31, 0]
    >>> bits.next_zero(3, 32), bits.next_set(0, 32), bits.next_set(21, 32)
    (21, 3, 32)
    """

    __slots__ = ("data",)

    def __init__(self, data: npt.NDArray[np.uint8]) -> None:
        self.data = data

    def test(self, index: int) -> bool:
        """Whether bit `index` is set."""
        return bool(int(self.data[index >> 3]) >> (index & 7) & 1)

    def next_zero(self, index: int, end: int) -> int:
        """First clear bit in [index, end), or `end`."""
        return self._next(index, end, 0xFF)

    def next_set(self, index: int, end: int) -> int:
        """First set bit in [index, end), or `end`."""
        return self._next(index, end, 0x00)

    def set_run(self, start: int, end: int) -> None:
        """Set the bits [start, end)."""
        self._fill(start, end, 0xFF)

    def clear_run(self, start: int, end: int) -> None:
        """Clear the bits [start, end)."""
        self._fill(start, end, 0x00)

    def count_zero(self, end: int) -> int:
        """Clear bits in [0, end)."""
        whole = self.data[: end >> 3]
        zeros = (end & ~7) - int(np.bitwise_count(whole).sum(dtype=np.int64))
        return zeros + sum(not self.test(index) for index in range(end & ~7, end))

    def _fill(self, start: int, end: int, value: int) -> None:
        if start >= end:
            return
        data, first, last = self.data, start >> 3, (end - 1) >> 3
        low = 0xFF << (start & 7) & 0xFF
        high = 0xFF >> (7 - ((end - 1) & 7))
        if first == last:
            low = high = low & high
        else:
            data[first + 1 : last] = value
        for byte, mask in ((first, low), (last, high)):
            old = int(data[byte])
            data[byte] = old | mask if value else old & ~mask

    def _next(self, index: int, end: int, other: int) -> int:
        """First bit in [index, end) that differs from those of the byte `other`, or `end`."""
        if index >= end:
            return end
        data, byte = self.data, index >> 3
        left = (int(data[byte]) ^ other) >> (index & 7)
        if left:
            return min(index + (left & -left).bit_length() - 1, end)
        byte, last, chunk = byte + 1, (end + 7) >> 3, _FIRST_CHUNK
        while byte < last:
            differs = data[byte : min(byte + chunk, last)] != other
            hit = int(differs.argmax())
            if differs[hit]:
                left = int(data[byte + hit]) ^ other
                return min(((byte + hit) << 3) + (left & -left).bit_length() - 1, end)
            byte += chunk
            chunk = min(chunk * 4, _LAST_CHUNK)
        return end
