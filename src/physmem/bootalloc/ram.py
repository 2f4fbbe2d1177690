# SPDX-License-Identifier: GPL-2.0-or-later
"""The contents of physical memory, as far as the boot allocators touch them."""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Ram(Protocol):
    """Memory that can be cleared."""

    def zero(self, paddr: int, size: int) -> None:
        """Clear `size` bytes at physical address `paddr`."""


class ViewRam(Ram, Protocol):
    """Memory that a bitmap can live in."""

    def view(self, paddr: int, size: int) -> "npt.NDArray[np.uint8]":
        """Writable bytes [paddr, paddr + size): changes show in memory, and the reverse."""


class Slab(Protocol):
    """Where arrays come from once the slab allocator runs."""

    def kmalloc(self, size: int) -> int:
        """Physical address of `size` bytes, or 0."""

    def kfree(self, paddr: int) -> None:
        """Give back what `kmalloc` returned."""
