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


class TuningError(PhysmemError, ValueError):
    """A setting of a machine that does not exist, has no such value, or does not fit it."""


class PolicyError(PhysmemError):
    """A placement policy that cannot be used, or gave an answer that no allocator can follow.

    Attributes
    ----------
    function : name of the policy's function, "" when the policy as a whole is meant
    answer : what it answered; None when it was not asked
    """

    def __init__(self, message: str, *, function: str = "", answer: int | None = None) -> None:
        super().__init__(message)
        self.function = function
        self.answer = answer


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


class CacheNameError(PhysmemError, ValueError):
    """A cache of this name exists already."""


class ObjectError(PhysmemError):
    """A check of an object found something wrong; nothing was changed.

    Attributes
    ----------
    address : of the object, or what was taken for one
    cache : name of the cache, "" when there is none
    slab : first frame of the slab, -1 when there is none
    offset : bytes from the start of the object to what is wrong
    last_users : what is known about the last allocation and the last free
    """

    def __init__(
        self,
        message: str,
        *,
        address: int = 0,
        cache: str = "",
        slab: int = -1,
        offset: int = 0,
        last_users: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.address = address
        self.cache = cache
        self.slab = slab
        self.offset = offset
        self.last_users = last_users


class DoubleFreeError(ObjectError):
    """An object was freed that is free already."""


class BadPointerError(ObjectError):
    """A pointer was freed that is no start of an object, or belongs to another cache."""


class OverrunError(ObjectError):
    """Bytes around an object were written: a red zone or a padding is not as it was left."""


class UseAfterFreeError(ObjectError):
    """Bytes of a free object were written."""


class ObjectsRemainError(ObjectError):
    """A cache was to be destroyed that has objects in use."""


class BadStudyError(BadInputError):
    """A study of a sweep, or a knob or an objective of a search, that cannot be meant."""


class ClusterError(PhysmemError):
    """A cluster that cannot be reached, has no workers, runs other sources, or went away."""
