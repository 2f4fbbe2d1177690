# SPDX-License-Identifier: GPL-2.0-or-later
"""What a walk through the tables found, level by level."""

from dataclasses import dataclass

from physmem.pgtable import record
from physmem.pgtable.format import NAMES, U64, Format

REASONS = {
    record.OK: "ok",
    record.NOT_CANONICAL: "not_canonical",
    record.NOT_PRESENT: "not_present",
    record.PROT_NONE: "prot_none",
    record.BAD_ENTRY: "bad_entry",
    record.OUTSIDE_RAM: "outside_ram",
    record.OLD: "not_accessed",
    record.NO_USER: "no_user",
    record.NO_READ: "no_read",
    record.NO_WRITE: "no_write",
    record.NO_EXEC: "no_exec",
}
_TEXT = {
    "not_canonical": "the address is not canonical",
    "not_present": "{name} entry {entry:#x} is not present",
    "prot_none": "{name} entry {entry:#x} is PROT_NONE",
    "bad_entry": "{name} entry {entry:#x} is malformed",
    "outside_ram": "the table behind {name} entry {entry:#x} is outside of memory",
    "not_accessed": "{name} entry {entry:#x} has no access flag",
    "no_user": "not for user space",
    "no_read": "not readable",
    "no_write": "not writable",
    "no_exec": "not executable",
}


@dataclass(frozen=True)
class Step:
    """One generic level of a walk.

    A folded level has no table: its entry is that of the level above, and `folded` is true.
    """

    name: str
    slot: int
    entry: int
    folded: bool


@dataclass(frozen=True, kw_only=True)
class Walk:
    """Result of a translation.

    Attributes
    ----------
    paddr : int or None
        Physical address; None when the hardware would fault whatever the access.
    reason : str
        "ok", or why the access faults: one of `REASONS`.
    steps : tuple of Step
        Generic levels pgd, p4d, ... as far as the walk came, folded ones included.
    size : int
        Bytes that the leaf maps, 0 without one.
    kernel, user : str
        What the kernel and a user may do, as in "rw-".
    """

    va: int
    paddr: int | None
    reason: str
    steps: tuple[Step, ...]
    size: int
    kernel: str
    user: str
    detail: str

    @property
    def ok(self) -> bool:
        """Whether the access is allowed."""
        return self.reason == "ok"

    def __str__(self) -> str:
        lines = [
            f"{step.name}  at {step.slot:#014x}  {step.entry:#018x}"
            for step in self.steps
            if not step.folded
        ]
        target = self.detail if self.paddr is None else f"{self.paddr:#x}"
        more = "" if self.ok or self.paddr is None else f" ({self.detail})"
        return "\n".join([*lines, f"{self.va:#x} -> {target}{more}"])


def rwx(perm: int) -> str:
    """Permissions as text."""
    return "".join(
        sign if perm & bit else "-"
        for sign, bit in (("r", record.READ), ("w", record.WRITE), ("x", record.EXEC))
    )


def make_walk(fmt: Format, row: object, va: int, code: int) -> Walk:
    """Result from what a walk left in its record."""
    found: dict[str, int] = {
        name: int(row[f"walk_{name}"])  # type: ignore[index]  # a NumPy record
        for name in ("level", "perm", "paddr")
    }
    level = found["level"]
    width = 32 if fmt.entry_bytes == 4 else 64
    steps: list[Step] = []
    for n in range(level + 1):
        slot = int(row["walk_slot"][n])  # type: ignore[index]  # as above
        entry = int(row["walk_entry"][n]) & U64  # type: ignore[index]  # as above
        first = NAMES.index(fmt.levels[n].name)
        stop = NAMES.index(fmt.levels[n + 1].name) if n + 1 < len(fmt.levels) else len(NAMES)
        steps += [
            Step(NAMES[k], slot, entry & ((1 << width) - 1), k != first) for k in range(first, stop)
        ]
    reason = REASONS[code]
    last = steps[-1] if steps else Step("pgd", 0, 0, folded=False)
    mapped = found["paddr"] >= 0
    leaf = fmt.levels[level] if level >= 0 else fmt.levels[0]
    shift = leaf.shift
    if mapped and fmt.cont_low and last.entry & fmt.cont_bit:
        shift = leaf.cont_shift
    return Walk(
        va=va,
        paddr=found["paddr"] if mapped and code != record.OLD else None,
        reason=reason,
        steps=tuple(steps),
        size=1 << shift if mapped else 0,
        kernel=rwx(found["perm"]),
        user=rwx(found["perm"] >> 4),
        detail=_TEXT.get(reason, "ok").format(name=leaf.name, entry=last.entry),
    )
