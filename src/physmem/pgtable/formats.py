# SPDX-License-Identifier: GPL-2.0-or-later
"""Every page-table format by name."""

from physmem.lib.errors import BadRequestError
from physmem.pgtable import format_arm64, format_riscv, format_x86
from physmem.pgtable.format import Format

_FORMATS = {
    fmt.name: fmt for fmt in format_x86.FORMATS_6_1 + format_arm64.FORMATS + format_riscv.FORMATS
}
_OLD = {fmt.name: fmt for fmt in format_x86.FORMATS_2_6_24}


def page_table_formats() -> tuple[str, ...]:
    """Names of all formats.

    Examples
    --------
    >>> page_table_formats()[:4]
    ('x86_32', 'x86_32_pae', 'x86_64', 'x86_64_la57')
    """
    return tuple(_FORMATS)


def page_table_format(name: str, *, old_bits: bool = False) -> Format:
    """Format of a name.

    Parameters
    ----------
    name : str
        One of `page_table_formats()`.
    old_bits : bool
        With the software bits and protections of Linux 2.6.24 (x86 only).

    Raises
    ------
    BadRequestError
        No such format.

    Examples
    --------
    >>> page_table_format("arm64_16k_48").leaf_shifts
    (25, 14)
    """
    found = (_OLD if old_bits else _FORMATS).get(name)
    if found is None:
        known = ", ".join(_OLD if old_bits else _FORMATS)
        raise BadRequestError(f"page-table format {name!r}: known are {known}")
    return found
