# SPDX-License-Identifier: GPL-2.0-or-later
"""The same machine under other rules: apply a `Tuning`.

The machine given stays as it is; the tuned one is a copy. What depends on the lists of the machine
(orders, types, per-CPU lists) is changed as if the kernel had been booted so, as far as its memory
is free: memory in use stays where it is.
"""

from typing import TYPE_CHECKING

from physmem.machine.knobs import KNOBS, Knob, Tuning
from physmem.machine.tune_sizes import set_sizes

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
    if tuning.pcp is not None or tuning.batch is not None:
        made.drain()
    set_sizes(made.tables, made.layout, tuning)
    made.validate()
    return made
