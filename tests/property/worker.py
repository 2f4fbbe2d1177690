# SPDX-License-Identifier: GPL-2.0-or-later
"""Random work at native speed on one machine, with what is needed to repeat and to check it."""

import copy

import msgspec
import numpy as np
from tests.property import native
from tests.property.pair import REQUESTS, plain

from physmem.lib.jit import ready
from physmem.lib.struct import address
from physmem.mm.gfp import TABLES
from physmem.mm.state import State


class Worker:
    """A machine and the generator that works on it: equal seeds, equal work."""

    def __init__(self, shape, seed):
        self.shape = shape
        self.machine = shape.machine()
        frames = int(self.machine.tables.memory[0]["max_pfn"])
        self.ctl = np.zeros(native.NR_CTL, np.int64)
        self.ctl[native.SEED] = (seed * 0x9E3779B97F4A7C15 ^ 0x5DEECE66D) & (1 << 48) - 1
        self.held = np.zeros(frames + 64, np.int64)
        self.owned = np.zeros(frames, np.int64)
        self.ctl[native.TARGET] = frames // 2
        self.log = np.zeros(0, np.int64)
        self.table = TABLES[shape.kernel]
        inner = [self.table.internal(bits) for bits in REQUESTS[shape.kernel]]
        self.requests = np.array(inner, np.int64)

    @property
    def done(self):
        """Operations so far."""
        return int(self.ctl[native.DONE])

    def copy(self):
        """Worker in the same state, to go the same way again."""
        made = copy.copy(self)
        made.machine = self.machine.copy()
        made.ctl, made.held, made.owned = self.ctl.copy(), self.held.copy(), self.owned.copy()
        return made

    def run(self, steps):
        """Do operations; an error says that an answer made no sense."""
        h = address(self.machine.tables.memory)
        work = ready(native.work)
        did = work(h, steps, self.ctl, self.held, self.owned, self.requests, self.log)
        if did != steps:
            frame = int(self.ctl[native.FRAME])
            raise AssertionError(f"frame {frame:#x}: given twice, or refused when freed")

    def check(self):
        """Check every invariant."""
        self.machine.validate()

    def result(self):
        """What can be compared with another worker's: the generator, and all lists."""
        return self.ctl.tolist(), self.machine.snapshot()

    def against_twin(self, steps):
        """Do operations once natively and once on the twin; all must be the same."""
        twin = self.shape.twin_of(self.machine)
        self.machine.tracing()
        self.log = np.full(steps * native.LOG_WIDTH, -1, np.int64)
        self.run(steps)
        events = [plain(event) for event in self.machine.events()]
        for step, entry in enumerate(self.log.reshape(steps, native.LOG_WIDTH).tolist()):
            if entry[0] >= 0:
                answer = _repeat(twin, entry[:5], self.table)
                assert answer == entry[5], f"step {step}, {entry[:5]}: {entry[5]}, twin {answer}"
        self.log = np.zeros(0, np.int64)
        self.machine.tracing(False)
        assert events == twin.events
        assert self.machine.snapshot() == msgspec.convert(twin.snapshot(), State)
        twin.validate()


def _repeat(twin, entry, table):
    """Carry out a logged operation on the twin; its answer as the log has it."""
    kind, a, b, c, d = entry
    if kind == native.ALLOC:
        pfn = twin.alloc_pages(a, table.external(b), d, nid=c)
        return -1 if pfn is None else pfn
    if kind == native.BULK:
        return len(twin.alloc_bulk(a, table.external(b), d, nid=c))
    if kind == native.FREE:
        twin.free_pages(a, b, c)
    elif kind == native.DRAIN_BATCH:
        twin.drain_zone_pages(a, b)
    else:
        twin.drain_pages_zone(a, b)
    return 0
