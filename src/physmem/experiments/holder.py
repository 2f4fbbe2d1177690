# SPDX-License-Identifier: GPL-2.0-or-later
"""The Python side of `frag`: a set of held frames of a machine, and what is done with them."""

from typing import Any

import numpy as np

from physmem.experiments.frag import (
    Frag,
    frag_alloc,
    frag_choose,
    frag_free,
    frag_replace,
    frag_shuffle,
)
from physmem.experiments.machines import flags
from physmem.experiments.random32 import start_random
from physmem.lib.errors import BadRequestError
from physmem.lib.jit import ready
from physmem.lib.struct import address, attach, dtype_of
from physmem.machine.machine import Machine

_PART = 1 << 18
"""Frames per call of a kernel: so that progress is seen and an interrupt is heard."""


class Holder:
    """Single frames of one machine.

    Examples
    --------
    >>> machine = Machine.build("64MiB")
    >>> holder = Holder(machine, seed=1)
    >>> holder.alloc(1000), holder.free(400), holder.held
    (1000, 400, 600)
    """

    def __init__(
        self,
        machine: Machine,
        *,
        seed: int,
        gfp: str = "GFP_HIGHUSER_MOVABLE",
        room: int | None = None,
        node: int = 0,
    ) -> None:
        self.machine = machine
        frames = int(machine.tables.zones["managed_pages"].sum()) if room is None else room
        self._pfns: Any = np.zeros(frames, np.uint32)
        self._record: Any = np.zeros(1, dtype_of(Frag))
        record = self._record[0]
        record["memory_addr"] = address(machine.tables.memory)
        record["gfp"] = flags(machine, gfp)
        record["node"] = node
        record["nr_cpus"] = machine.layout.nr_cpus
        attach(record, "frag_pfn", self._pfns)
        ready(start_random)(record["random"], seed, 0)
        self.handle = address(self._record)

    @property
    def held(self) -> int:
        """Frames that are held."""
        return int(self._record[0]["held"])

    @property
    def operations(self) -> int:
        """Allocations and frees so far."""
        return int(self._record[0]["operations"])

    def alloc(self, count: int) -> int:
        """Allocate up to `count` frames; how many were obtained."""
        done = 0
        while done < count:
            part = min(_PART, count - done)
            got = int(ready(frag_alloc)(self.handle, part))
            done += got
            if got < part:
                break
        return done

    def need(self, count: int) -> None:
        """Allocate exactly `count` frames.

        Raises
        ------
        BadRequestError
            The machine is too small for the experiment.
        """
        got = self.alloc(count)
        if got < count:
            raise BadRequestError(
                f"the machine gave {got} of {count} frames before it fell to its watermarks;"
                " take more memory or a smaller share"
            )

    def shuffle(self) -> None:
        """Bring the held frames into random order."""
        ready(frag_shuffle)(self.handle)

    def choose(self, count: int) -> None:
        """Bring random frames to the end, where `free` begins."""
        ready(frag_choose)(self.handle, count)

    def free(self, count: int) -> int:
        """Free the last `count` held frames."""
        return int(ready(frag_free)(self.handle, count))

    def replace(self, count: int) -> None:
        """Free a random frame and allocate another, `count` times.

        Raises
        ------
        BadRequestError
            The machine is too small for the experiment.
        """
        if int(ready(frag_replace)(self.handle, count)) < count:
            raise BadRequestError("the machine fell to its watermarks; take more memory")

    def cpus(self, count: int) -> None:
        """Let requests come from the first `count` CPUs only, in turn."""
        self._record[0]["nr_cpus"] = count
