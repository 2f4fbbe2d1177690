# SPDX-License-Identifier: GPL-2.0-or-later
"""Sizes of the hash tables that a kernel allocates once, by the size of memory.

Linux: alloc_large_system_hash(), mm/page_alloc.c (2.6.24, 6.1); pidhash_init(), kernel/pid.c
(2.6.24)
"""

from dataclasses import dataclass

from physmem.boot.features import BootFeature
from physmem.boot.geometry import Geometry, round_up
from physmem.lib.errors import BadMachineError

_MOST_ENTRIES = 1 << 31
_ADAPT_FROM_BYTES = 64 << 30


@dataclass(frozen=True, slots=True)
class HashRequest:
    """A table that a subsystem asks for.

    Attributes
    ----------
    name : as logged
    bucket_bytes : size of a bucket
    scale : one bucket per 2^scale bytes of memory
    entries : buckets, if the size of memory does not decide; rounded up to a power of two
    least, most : limits of the number of buckets; 0: none
    small_shift : log2 of the fewest buckets where less than a page is enough (HASH_SMALL); 0: off
    """

    name: str
    bucket_bytes: int
    scale: int = 0
    entries: int = 0
    least: int = 0
    most: int = 0
    small_shift: int = 0


@dataclass(frozen=True, slots=True)
class HashTable:
    """A table as allocated.

    Attributes
    ----------
    name : as logged
    bucket_bytes : size of a bucket
    shift : log2 of the number of buckets

    Examples
    --------
    >>> HashTable("Dentry cache", 8, 16).bytes
    524288
    """

    name: str
    bucket_bytes: int
    shift: int

    @property
    def entries(self) -> int:
        """Number of buckets."""
        return 1 << self.shift

    @property
    def bytes(self) -> int:
        """Size of the table."""
        return self.bucket_bytes << self.shift

    def halved(self) -> "HashTable":
        """Return the table that is tried when there is no memory for this one.

        Raises
        ------
        BadMachineError
            It has one bucket only.
        """
        if self.shift == 0:
            raise BadMachineError(f"Failed to allocate {self.name} hash table")
        return HashTable(self.name, self.bucket_bytes, self.shift - 1)

    def line(self, geometry: Geometry, features: BootFeature, where: str = "linear") -> str:
        """Line of the log; `where`: "linear", "vmalloc" or "vmalloc hugepage".

        Examples
        --------
        >>> from physmem.boot.features import boot_features
        >>> HashTable("Dentry cache", 8, 16).line(Geometry(), boot_features("6.1"))
        'Dentry cache hash table entries: 65536 (order: 7, 524288 bytes, linear)'
        """
        if BootFeature.HASH_SAYS_WHERE in features:
            order = (-(-self.bytes // geometry.page_size) - 1).bit_length()
            where = f", {where}"
        else:
            order = self.bytes.bit_length() - 1 - geometry.page_shift
            where = ""
        text = f"(order: {order}, {self.bytes} bytes{where})"
        return f"{self.name} hash table entries: {self.entries} {text}"


def size_hash_table(
    request: HashRequest,
    nr_kernel_pages: int,
    nr_all_pages: int,
    geometry: Geometry,
    features: BootFeature,
) -> HashTable:
    """Size a table by the memory that the kernel can use.

    Parameters
    ----------
    nr_kernel_pages, nr_all_pages : `BootZones` has them

    Raises
    ------
    BadMachineError
        Not even one bucket fits.

    Examples
    --------
    >>> from physmem.boot.features import boot_features
    >>> size_hash_table(DENTRY, 128730, 128730, Geometry(), boot_features("6.1")).entries
    65536

    Linux: alloc_large_system_hash(), mm/page_alloc.c (2.6.24, 6.1)
    """
    entries = request.entries or _by_memory(request, nr_kernel_pages, geometry, features)
    entries = 1 << (entries - 1).bit_length()
    most = request.most or (nr_all_pages * geometry.page_size >> 4) // request.bucket_bytes
    if BootFeature.HASH_ADAPTIVE in features:
        entries = max(entries, request.least)
        most = min(most, _MOST_ENTRIES)
    entries = min(entries, most)
    if entries < 1:
        raise BadMachineError(f"no memory for a {request.name} hash table of a single bucket")
    return HashTable(request.name, request.bucket_bytes, entries.bit_length() - 1)


def _by_memory(
    request: HashRequest, nr_kernel_pages: int, geometry: Geometry, features: BootFeature
) -> int:
    pages = round_up(nr_kernel_pages, max((1 << 20) // geometry.page_size, 1))
    scale = request.scale
    if BootFeature.HASH_ADAPTIVE in features and geometry.bits_per_long == 64 and not request.most:
        adapt = _ADAPT_FROM_BYTES // geometry.page_size
        while adapt < pages:
            scale += 1
            adapt *= 4
    entries = pages << geometry.page_shift >> scale
    if request.small_shift:
        return max(entries, 1 << request.small_shift)
    if entries * request.bucket_bytes < geometry.page_size:
        return max(geometry.page_size // request.bucket_bytes, 1)
    return entries


DENTRY = HashRequest("Dentry cache", 8, scale=13)
INODE = HashRequest("Inode-cache", 8, scale=14)
MOUNT = HashRequest("Mount-cache", 8, scale=19)
MOUNTPOINT = HashRequest("Mountpoint-cache", 8, scale=19)
"""Tables of names and files, with buckets of one 64-bit pointer. The first two come while only the
boot allocator works, unless tables are spread over the nodes."""


def with_pointer(request: HashRequest, geometry: Geometry) -> HashRequest:
    """Return the request with buckets of one pointer of the machine.

    Examples
    --------
    >>> with_pointer(DENTRY, Geometry(bits_per_long=32)).bucket_bytes
    4
    """
    size = geometry.bits_per_long // 8
    return HashRequest(
        request.name,
        size,
        request.scale,
        request.entries,
        request.least,
        request.most,
        request.small_shift,
    )


def hashes_are_distributed(memory_nodes: int, geometry: Geometry, *, numa: bool) -> bool:
    """Whether tables are spread over the nodes by vmalloc(): then none is allocated early.

    Linux: hashdist, fixup_hashdist(), mm/page_alloc.c (6.1)
    """
    return numa and geometry.bits_per_long == 64 and memory_nodes > 1


def pid_hash_table(nr_kernel_pages: int, geometry: Geometry) -> HashTable:
    """Size the PID table of 2.6.24: 16 to 4096 buckets of one pointer.

    Examples
    --------
    >>> pid_hash_table(515786, Geometry()).entries
    4096

    Linux: pidhash_init(), kernel/pid.c (2.6.24)
    """
    megabytes = nr_kernel_pages * geometry.page_size >> 20
    shift = min(max((megabytes * 4).bit_length(), 4), 12)
    return HashTable("PID", geometry.bits_per_long // 8, shift)


def pid_hash_line(table: HashTable) -> str:
    """Line of the log for the PID table: it calls the shift the order.

    Examples
    --------
    >>> pid_hash_line(HashTable("PID", 8, 12))
    'PID hash table entries: 4096 (order: 12, 32768 bytes)'

    Linux: pidhash_init(), kernel/pid.c (2.6.24)
    """
    return f"PID hash table entries: {table.entries} (order: {table.shift}, {table.bytes} bytes)"
