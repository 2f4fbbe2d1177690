# SPDX-License-Identifier: GPL-2.0-or-later
"""A format as numbers in a record, for the kernels."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from physmem.lib.ram import Ram
from physmem.lib.struct import dtype_of
from physmem.pgtable.format import NEVER, Format, Rule, signed
from physmem.pgtable.record import TableRecord

_RULES = (
    *("kind", "last", "bad", "read", "write", "kexec", "uexec", "user"),
    *("table_write", "table_user", "table_kexec", "table_uexec"),
)
_NUMBERS = (
    *("canonical_shift", "two_roots", "addr_shift", "high_shift", "table_addr", "table_high"),
    *(
        "present",
        "young",
        "dirty",
        "last_no_table",
        "young_tables",
        "accessed_faults",
        "cont_bit",
        "cont_low",
    ),
    *("exec_alone", "kernel_reads_user", "kernel_runs_user", "user_write_no_kexec", "page_size"),
)


def make_record(fmt: Format, ram: Ram, *, kernel: bool) -> NDArray[Any]:
    """Record of an empty page table over the bytes of `ram`; it has no roots yet."""
    record = np.zeros(1, dtype_of(TableRecord))
    row = record[0]
    for name in _NUMBERS:
        row[name] = signed(int(getattr(fmt, name)))
    for name in (*_RULES, "hw_dirty"):
        rule = getattr(fmt, name)
        row[f"{name}_mask"] = signed(rule.mask)
        row[f"{name}_value"] = signed(rule.value)
    row["canonical_high"] = -1 if fmt.signed else 0
    row["entry_shift"] = fmt.entry_bytes.bit_length() - 1
    row["nr_levels"] = len(fmt.levels)
    row["table_bits"] = signed(fmt.soft.kernel_table if kernel else fmt.soft.table)
    row["protnone"] = fmt.soft.protnone
    row["soft_write"] = fmt.writable
    row["none_mask"] = signed(~fmt.soft.none_ignore)
    row["keep"] = signed(fmt.soft.keep)
    row["wrprotect_set"], row["wrprotect_clear"] = (signed(bits) for bits in fmt.wrprotect)
    for n, level in enumerate(fmt.levels):
        row["lvl_shift"][n] = level.shift
        row["lvl_mask"][n] = (1 << level.bits) - 1
        row["lvl_leaf"][n] = level.leaf
        row["lvl_addr"][n] = level.addr
        row["lvl_high"][n] = level.high
        row["lvl_set"][n] = level.leaf_set
        row["lvl_clear"][n] = level.leaf_clear
        row["lvl_leaf_reserved"][n] = signed(level.leaf_reserved)
        row["lvl_table_reserved"][n] = signed(level.table_reserved)
        row["lvl_cont"][n] = level.cont_shift
        row["lvl_checks"][n] = level.checks
        down, hit = _short_tests(fmt, n)
        row["lvl_down_mask"][n], row["lvl_down_value"][n] = signed(down.mask), signed(down.value)
        row["lvl_hit_mask"][n], row["lvl_hit_value"][n] = signed(hit.mask), signed(hit.value)
    row["ram_size"] = ram.size
    base = int(ram.view(0, 0).ctypes.data)
    row["ram_entries_addr"], row["ram_entries_len"] = base, ram.size >> 3
    row["ram_entries32_addr"], row["ram_entries32_len"] = base, ram.size >> 2
    return record


def _short_tests(fmt: Format, position: int) -> tuple[Rule, Rule]:
    """One comparison each that tells most entries apart; what neither knows is looked at closely.

    The first holds for every good pointer to a table, the second for nothing but good leaves.
    """
    level = fmt.levels[position]
    last = position + 1 == len(fmt.levels)
    down = Rule(fmt.present | fmt.kind.mask | level.table_reserved, fmt.present | fmt.kind.value)
    mask = fmt.present | level.leaf_reserved | fmt.read.mask
    value = fmt.present | fmt.read.value
    if fmt.cont_low:
        mask |= fmt.cont_bit
    if fmt.accessed_faults:
        mask, value = mask | fmt.young, value | fmt.young
    if last:
        mask, value = mask | fmt.last.mask, value | fmt.last.value
        down = NEVER
    elif fmt.kind.mask.bit_count() == 1:  # x86, arm64; in riscv64 a readable entry is a leaf
        mask, value = mask | fmt.kind.mask, value | fmt.kind.mask & ~fmt.kind.value
    return down, Rule(mask, value) if level.leaf else NEVER
