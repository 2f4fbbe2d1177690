# SPDX-License-Identifier: GPL-2.0-or-later
"""What can be set of a machine that is there: the names, their values, what they do.

A knob is a boot option or a sysctl of Linux where there is one, else an experiment: a rule that
some paper or patch proposes. `Tuning` holds values of them, `physmem.machine.tuning.tune` applies
them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from physmem.firmware.size import parse_size
from physmem.lib.errors import BadMachineError, TuningError
from physmem.mm.mmzone import NR_PAGE_ORDERS

MOST_PCP = 1 << 24
MOST_BATCH = 1 << 16
FALLBACKS = ("linux", "defrag", "none")
LIST_ORDERS = ("linux", "lifo", "fifo", "address")


@dataclass(frozen=True)
class Knob:
    """One setting of a machine.

    Attributes
    ----------
    name : as in `Tuning` and in settings
    values : allowed values, in words
    help : what it does
    linux : boot option, sysctl or patch that does the same; "" if there is none
    """

    name: str
    values: str
    help: str
    linux: str = ""


_ORDERS = f"1 .. {NR_PAGE_ORDERS - 1}"
KNOBS = (
    Knob(
        "mobility",
        "on | off",
        "group pages by mobility; off: one list for all types, as where memory is too small",
        "page_group_by_mobility_disabled",
    ),
    Knob(
        "pageblock_order",
        _ORDERS,
        "log2 of the frames of a pageblock, at most max_order",
        "PAGE_BLOCK_MAX_ORDER (6.16)",
    ),
    Knob(
        "max_order",
        _ORDERS,
        "largest order of a free block, inclusive; a smaller one lowers pageblock_order with it",
        "ARCH_FORCE_MAX_ORDER",
    ),
    Knob(
        "pcp",
        "off | auto | frames",
        "per-CPU lists: none, as a kernel sizes them, or drained at so many frames of a zone",
        "vm.percpu_pagelist_high_fraction; off: zone_pcp_disable()",
    ),
    Knob(
        "batch",
        f"1 .. {MOST_BATCH}",
        "frames that a per-CPU list takes or gives at a time; its high is at least four times that",
        "pcp->batch",
    ),
    Knob(
        "shuffle",
        "off | seed (a number)",
        "swap free blocks of the largest order at random, and free such blocks to a random end",
        "page_alloc.shuffle=1",
    ),
    Knob(
        "highatomic",
        "on | off",
        "set pageblocks aside for atomic requests above order 0",
        "MIGRATE_HIGHATOMIC",
    ),
    Knob(
        "fallback",
        " | ".join(FALLBACKS),
        "when a type has no free block: as the kernel; whole pageblocks only until a request"
        " would fail; or nothing from other types",
        "defrag: vm.defrag_mode (6.15)",
    ),
    Knob(
        "list_order",
        " | ".join(LIST_ORDERS),
        "free block that is next: as the kernel; the last freed; the first freed; the lowest",
    ),
    Knob(
        "confine",
        "off | size[@low|@high]",
        "unmovable and reclaimable memory stays in a region of this size at one end of the zones,"
        " movable memory outside of it until all of that is full",
        "Contiguitas (ISCA 2023)",
    ),
    Knob(
        "tree",
        "on | off",
        "each CPU fills one tree of 8 pageblocks at a time for each type, half-full ones first",
        "LLFree (ATC 2023)",
    ),
    Knob(
        "min_free_kbytes",
        "auto | KiB",
        "reserve that the watermarks come from; auto: as a kernel computes it",
        "vm.min_free_kbytes",
    ),
    Knob(
        "watermark_scale_factor",
        "1 .. 3000",
        "distance of the watermarks, in 1/10000 of a zone",
        "vm.watermark_scale_factor",
    ),
    Knob(
        "watermark_boost_factor",
        "0 .. 1000000",
        "how far a fallback raises the watermarks, in 1/10000 of the high one; 0: not at all",
        "vm.watermark_boost_factor",
    ),
    Knob(
        "policy",
        "FILE.py | FILE.py:NAME | module:NAME",
        "placement policy of one's own (docs/policies.md)",
    ),
)
"""All knobs, in the order in which they are documented."""
_BY_NAME = {knob.name: knob for knob in KNOBS}


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """Values of knobs; None leaves a setting as it is.

    Attributes
    ----------
    mobility, highatomic, tree : on or off
    pageblock_order, max_order : orders
    pcp : frames (0: off), or "auto"
    batch : frames
    shuffle : seed, or "off"
    fallback : "linux", "defrag" or "none"
    list_order : "linux", "lifo", "fifo" or "address"
    confine : bytes, 0: off
    confine_end : "low" or "high"
    min_free_kbytes : KiB, or "auto"
    watermark_scale_factor, watermark_boost_factor : 1/10000
    policy : where a policy is

    Examples
    --------
    >>> tuning = Tuning.parse({"mobility": "off", "pcp": "off", "confine": "64MiB"})
    >>> tuning.mobility, tuning.pcp, tuning.confine
    (False, 0, 67108864)
    >>> tuning.settings()
    {'mobility': 'off', 'pcp': 'off', 'confine': '67108864@low'}
    >>> Tuning.parse({"fallback": "some"})
    Traceback (most recent call last):
    ...
    physmem.lib.errors.TuningError: fallback='some': write linux | defrag | none
    """

    mobility: bool | None = None
    pageblock_order: int | None = None
    max_order: int | None = None
    pcp: int | Literal["auto"] | None = None
    batch: int | None = None
    shuffle: int | Literal["off"] | None = None
    highatomic: bool | None = None
    fallback: Literal["linux", "defrag", "none"] | None = None
    list_order: Literal["linux", "lifo", "fifo", "address"] | None = None
    confine: int | None = None
    confine_end: Literal["low", "high"] = "low"
    tree: bool | None = None
    min_free_kbytes: int | Literal["auto"] | None = None
    watermark_scale_factor: int | None = None
    watermark_boost_factor: int | None = None
    policy: str | None = None

    @classmethod
    def parse(cls, settings: Mapping[str, str]) -> "Tuning":
        """Tuning from texts, as a command line gives them.

        Raises
        ------
        TuningError
            No such knob, or not a value of it; the message names both, and what is allowed.
        """
        values: dict[str, Any] = {}
        for name, text in settings.items():
            if name not in _BY_NAME:
                raise TuningError(f"{name}: no such knob; there are {', '.join(_BY_NAME)}")
            values |= _parse(name, str(text).strip())
        return cls(**values)

    def settings(self) -> dict[str, str]:
        """Texts that `parse` makes the same tuning of; what is not set is left out."""
        found = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None or field.name == "confine_end":
                continue
            text = str(value)
            if isinstance(value, bool):
                text = "on" if value else "off"
            elif field.name == "pcp" and value == 0:
                text = "off"
            elif field.name == "confine":
                text = f"{value}@{self.confine_end}" if value else "off"
            found[field.name] = text
        return found


_ON_OFF = ("mobility", "highatomic", "tree")
_CHOICES = {"fallback": FALLBACKS, "list_order": LIST_ORDERS}
_RANGES: dict[str, tuple[int, int, dict[str, Any]]] = {
    "pageblock_order": (1, NR_PAGE_ORDERS - 1, {}),
    "max_order": (1, NR_PAGE_ORDERS - 1, {}),
    "pcp": (0, MOST_PCP, {"off": 0, "auto": "auto"}),
    "batch": (1, MOST_BATCH, {}),
    "shuffle": (0, (1 << 63) - 1, {"off": "off"}),
    "min_free_kbytes": (0, 1 << 40, {"auto": "auto"}),
    "watermark_scale_factor": (1, 3000, {}),
    "watermark_boost_factor": (0, 1_000_000, {}),
}
"""Least and greatest number, and words that stand for something."""


def _parse(name: str, text: str) -> dict[str, Any]:
    wrong = TuningError(f"{name}={text!r}: write {_BY_NAME[name].values}")
    if name in _ON_OFF:
        if text not in ("on", "off"):
            raise wrong
        return {name: text == "on"}
    if name in _CHOICES:
        if text not in _CHOICES[name]:
            raise wrong
        return {name: text}
    if name == "policy":
        if not text:
            raise wrong
        return {name: text}
    if name == "confine":
        return _parse_confine(text, wrong)
    least, most, words = _RANGES[name]
    if text in words:
        return {name: words[text]}
    if not (text.isascii() and text.isdecimal()) or not least <= int(text) <= most:
        raise wrong
    return {name: int(text)}


def _parse_confine(text: str, wrong: TuningError) -> dict[str, Any]:
    if text == "off":
        return {"confine": 0}
    size, _, end = text.partition("@")
    if end not in ("", "low", "high") or (not end and "@" in text):
        raise wrong
    try:
        return {"confine": parse_size(size), "confine_end": end or "low"}
    except BadMachineError:
        raise wrong from None
