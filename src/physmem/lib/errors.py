# SPDX-License-Identifier: GPL-2.0-or-later
"""The errors of physmem, one class for each thing a caller can act on.

Every message says what is wrong, where, and what to do. The command line prints the message as one
line and exits with status 2; Python callers catch the class.
"""


class PhysmemError(Exception):
    """Base of every error that physmem raises on purpose."""


class BadInputError(PhysmemError):
    """A file that was read is missing, empty, truncated, damaged or of the wrong kind."""


class BadTraceError(BadInputError):
    """A trace text that cannot be read as ftrace events."""


class BadStateError(BadInputError):
    """A recorded memory state that contradicts itself (a frame on two lists, a wrong counter)."""


class BadCaptureError(BadInputError):
    """A capture file that is damaged, truncated or of an unknown format."""


class BadMachineError(PhysmemError, ValueError):
    """A machine that cannot exist (no memory, overlapping zones, absurd sizes)."""


class BadRequestError(PhysmemError, ValueError):
    """An allocator call with arguments that no kernel would accept (order, cpu, gfp)."""


class OutOfMemoryError(PhysmemError, MemoryError):
    """No zone of the zonelist could serve the request (the kernel would return NULL)."""


class BadFreeError(PhysmemError):
    """A frame was freed that is not allocated: double free, wild frame or wrong order."""


class CorruptStateError(PhysmemError):
    """`validate()` found a broken invariant; `invariant` names it."""

    def __init__(self, invariant: str, detail: str) -> None:
        super().__init__(f"{invariant}: {detail}")
        self.invariant = invariant
        self.detail = detail


class BootAllocError(PhysmemError):
    """A boot allocator gave up as the kernel would (panic, BUG), or was used after shut-down."""


class BadMappingError(PhysmemError, ValueError):
    """A change of a page table that no kernel would make; subclasses name the mistake."""


class AlreadyMappedError(BadMappingError):
    """Something is mapped there already; unmap it first, or change its protection."""


class MisalignedError(BadMappingError):
    """An address or size that is no multiple of the page size in question."""


class NotCanonicalError(BadMappingError):
    """A virtual address that the format cannot express, or a range that leaves its half."""


class TableInUseError(PhysmemError):
    """A page table was freed while mappings are in it, or while another one shares it."""


class PageFaultError(PhysmemError):
    """An access that the page table does not allow; `reason` is the walk's name for why."""

    def __init__(self, va: int, reason: str, detail: str) -> None:
        super().__init__(f"page fault at {va:#x}: {detail}")
        self.va = va
        self.reason = reason
        self.detail = detail


class StaleTlbError(PhysmemError):
    """A TLB still holds what the page table no longer says: a flush was forgotten."""
