# SPDX-License-Identifier: GPL-2.0-or-later
"""The same machine under other rules: apply a `Tuning`.

The machine given stays as it is; the tuned one is a copy. What depends on the lists of the machine
(orders, types, per-CPU lists) is changed as if the kernel had been booted so, as far as its memory
is free: memory in use stays where it is.
"""

from typing import TYPE_CHECKING

from physmem.lib.errors import TuningError
from physmem.machine.knobs import KNOBS, Knob, Tuning
from physmem.machine.placement import arrange, get_placement
from physmem.machine.policy import load_policy
from physmem.machine.tune_lists import changes_types, set_lists
from physmem.machine.tune_orders import set_orders
from physmem.machine.tune_sizes import set_sizes
from physmem.mm.placement import CONFINED

if TYPE_CHECKING:
    from physmem.machine.machine import Machine

__all__ = ["KNOBS", "Knob", "Tuning", "tune"]


def tune(machine: "Machine", tuning: Tuning) -> "Machine":
    """Copy of a machine under other rules; the machine given stays as it is.

    Meant for a machine before its workload; on a used one, what is in use stays in place, and
    per-CPU lists are drained where their sizes or the orders change.

    Raises
    ------
    TuningError
        A setting that this machine or its kernel cannot have.
    PolicyError
        The policy cannot be loaded or compiled.

    Examples
    --------
    >>> from physmem import Machine
    >>> machine = tune(Machine.build("64MiB"), Tuning.parse({"pcp": "off"}))
    >>> pfn = machine.alloc_pages()
    >>> machine.free_pages(pfn)
    >>> sum(zone.pcp_count for zone in machine.zones)
    0
    """
    made = machine.copy()
    policy = made.policy if tuning.policy is None else load_policy(tuning.policy)
    made.set_policy(None)
    orders = (tuning.max_order, tuning.pageblock_order) != (None, None)
    if orders or changes_types(tuning) or (tuning.pcp, tuning.batch) != (None, None):
        made.drain()
    if orders:
        made = _with_orders(made, tuning)
    set_sizes(made.tables, made.layout, tuning)
    made.tables = set_lists(made.tables, made.layout, tuning)
    made.set_policy(policy)
    made.validate()
    return made


def _with_orders(machine: "Machine", tuning: Tuning) -> "Machine":
    """Machine of the same class with other orders, and with the same rules of placement."""
    if machine.has_slab:
        raise TuningError("max_order, pageblock_order: set them before the slab allocator starts")
    layout, bits = machine.layout, get_placement(machine.tables)
    block = int(machine.tables.memory[0]["pageblock_order"])
    largest = layout.max_order if tuning.max_order is None else tuning.max_order
    if tuning.pageblock_order is not None:
        block = tuning.pageblock_order
    elif tuning.max_order is not None:
        block = min(block, largest)
    before = machine.tables
    tables, layout = set_orders(before, layout, largest, block)
    for name in ("random", "confined_start", "confined_end"):
        tables.zones[name] = before.zones[name]
    if bits & CONFINED:
        raise TuningError("max_order, pageblock_order: set them before or together with confine")
    return machine.with_tables(arrange(tables, bits), layout)
