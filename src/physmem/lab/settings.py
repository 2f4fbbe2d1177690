# SPDX-License-Identifier: GPL-2.0-or-later
"""Settings of a variant: what `--set` says, sorted by who carries it out.

    movablecore=128M                  an option of the kernel's command line
    min_free_kbytes=65536             a sysctl of /proc/sys/vm ("vm." may stand before it)
    kernel=6.12, page_size=64K        another profile, another build of the same architecture
    mobility=off, pcp=off             a knob of the model (`physmem.machine.tuning`)

`name=`, and for options that are sizes also `name=0` and `name=off`, take an option away that the
recorded command line has.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from physmem.firmware.cmdline import CommandLine
from physmem.lib.errors import BadInputError
from physmem.machine.profiles import PROFILES

BOOT_SIZES = (
    *("movablecore", "kernelcore", "mem", "memmap", "highmem", "vmalloc", "reservetop"),
    *("crashkernel", "cma", "numa_fake"),
)
"""Boot options that "0" and "off" take away."""
BOOT_WORDS = (
    *("numa", "numa_zonelist_order", "transparent_hugepage", "movable_node", "hashdist"),
    *("dhash_entries", "ihash_entries", "mhash_entries", "mphash_entries", "debug_pagealloc"),
    *("gbpages", "nogbpages"),
)
SWITCHES = ("movable_node", "gbpages", "nogbpages")
SYSCTLS = {
    "min_free_kbytes": "KiB that zones keep free in all",
    "watermark_scale_factor": "distance of the watermarks, in 1/10000 of a zone",
    "watermark_boost_factor": "how far a fallback raises the watermarks, in 1/10000; 0: not",
    "lowmem_reserve_ratio": "one divisor per zone, lowest first, as 256:256:32:0",
    "percpu_pagelist_high_fraction": "per-CPU lists hold this fraction of a zone; 0: not set",
}
PAGE_SIZES = {"4K": 12, "16K": 14, "64K": 16}
_PAIR = re.compile(r",(?=[A-Za-z_][\w.-]*=)")


@dataclass(frozen=True)
class Settings:
    """What distinguishes a variant from the recorded machine.

    Attributes
    ----------
    text : as it was written, "" for none
    boot : option -> value; None: without it
    sysctl : name -> value
    kernel : profile, "" for the recorded one
    page_shift : log2 of the bytes of a page; 0 as recorded
    knobs : name -> value of `physmem.machine.tuning`
    """

    text: str = ""
    boot: Mapping[str, str | None] = field(default_factory=dict)
    sysctl: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    kernel: str = ""
    page_shift: int = 0
    knobs: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, pairs: Mapping[str, str], text: str = "") -> "Settings":
        """Sort settings and check their values.

        Raises
        ------
        BadInputError
            No such setting, or a value that it cannot have; the message lists what there is.

        Examples
        --------
        >>> settings = Settings.parse({"movablecore": "0", "vm.min_free_kbytes": "4096"})
        >>> settings.boot, settings.sysctl
        ({'movablecore': None}, {'min_free_kbytes': (4096,)})
        >>> Settings.parse({"movablecores": "1G"})
        Traceback (most recent call last):
            ...
        physmem.lib.errors.BadInputError: movablecores: no such setting; did you mean movablecore?
        """
        boot: dict[str, str | None] = {}
        sysctl: dict[str, tuple[int, ...]] = {}
        knobs: dict[str, str] = {}
        kernel, page_shift = "", 0
        for given, value in pairs.items():
            name = given.strip().removeprefix("vm.").replace("-", "_")
            if name in BOOT_SIZES or name in BOOT_WORDS:
                boot[name] = _boot_value(name, value.strip())
            elif name in SYSCTLS:
                sysctl[name] = _numbers(name, value)
            elif name == "kernel":
                kernel = _one_of(name, value, PROFILES)
            elif name == "page_size":
                page_shift = PAGE_SIZES[_one_of(name, value.upper().removesuffix("IB"), PAGE_SIZES)]
            elif name in knob_names():
                knobs[name] = value.strip()
            else:
                raise BadInputError(f"{given}: no such setting; {_nearest(name)}")
        if knobs:
            parse_knobs(knobs)
        text = text or ",".join(f"{name}={value}" for name, value in pairs.items())
        return cls(text, boot, sysctl, kernel, page_shift, knobs)

    @property
    def changes_nothing(self) -> bool:
        """The recorded machine itself."""
        return not (self.boot or self.sysctl or self.kernel or self.page_shift or self.knobs)

    def cmdline(self, recorded: str) -> str:
        """Command line of the variant.

        Examples
        --------
        >>> Settings.parse({"movablecore": "1G"}).cmdline("quiet movablecore=128M")
        'quiet movablecore=1G'
        >>> Settings.parse({"movablecore": "off"}).cmdline("quiet movablecore=128M")
        'quiet'
        """
        head, dashes, rest = recorded.partition(" -- ")
        words = [word for word in head.split() if _name(word) not in self.boot]
        for name, value in self.boot.items():
            if value is not None:
                words.append(_word(name, value))
        return " ".join(words) + dashes + rest


def _name(word: str) -> str:
    name = word.partition("=")[0].replace("-", "_")
    return "numa_fake" if word.startswith("numa=fake") else name


def _word(name: str, value: str) -> str:
    if name == "numa_fake":
        return f"numa=fake={value}"
    return name if name in SWITCHES else f"{name}={value}"


def _boot_value(name: str, value: str) -> str | None:
    if not value or (name in (*BOOT_SIZES, *SWITCHES) and value.lower() in ("0", "off", "no")):
        return None
    if name in SWITCHES and value.lower() not in ("1", "on", "yes"):
        raise BadInputError(f"{name}={value}: write on or off")
    CommandLine.parse(_word(name, value))
    return value


def _numbers(name: str, value: str) -> tuple[int, ...]:
    parts = re.split(r"[:/\s]+", value.strip())
    try:
        numbers = tuple(int(part) for part in parts)
    except ValueError:
        numbers = (-1,)
    if min(numbers) < 0 or (len(numbers) > 1 and name != "lowmem_reserve_ratio"):
        what = "numbers such as 256:256:32:0" if name == "lowmem_reserve_ratio" else "a number"
        raise BadInputError(f"{name}={value}: write {what}")
    return numbers


def _one_of(name: str, value: str, known: Iterable[str]) -> str:
    if value.strip() not in known:
        raise BadInputError(f"{name}={value}: write one of {', '.join(known)}")
    return value.strip()


def _tuning() -> Any:
    """The model's knobs, if this version has them."""
    try:
        return import_module("physmem.machine.tuning")
    except ModuleNotFoundError:
        return None


def knob_names() -> tuple[str, ...]:
    """Names of the model's knobs."""
    module = _tuning()
    return tuple(knob.name for knob in module.KNOBS) if module else ()


def parse_knobs(knobs: Mapping[str, str]) -> Any:
    """The knobs as the model takes them; errors as it raises them."""
    return _tuning().Tuning.parse(knobs)


def setting_names() -> tuple[str, ...]:
    """Every name that `--set` knows."""
    return (*BOOT_SIZES, *BOOT_WORDS, *SYSCTLS, "kernel", "page_size", *knob_names())


def _nearest(name: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, setting_names(), 1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(setting_names())}"


def pairs_of(text: str) -> dict[str, str]:
    """Names and values of one `--set`: pairs joined by commas; a value may have commas, too.

    Raises
    ------
    BadInputError
        No pair, or a name twice.

    Examples
    --------
    >>> pairs_of("movablecore=128M,memmap=1M@2M,3M@4M")
    {'movablecore': '128M', 'memmap': '1M@2M,3M@4M'}
    """
    pairs: dict[str, str] = {}
    for part in _PAIR.split(text.strip()):
        name, equals, value = part.partition("=")
        if not equals or not name.strip():
            raise BadInputError(f"--set {text}: write name=value, or name=value,name=value")
        if name in pairs:
            raise BadInputError(f"--set {text}: {name} is there twice")
        pairs[name] = value
    return pairs


def parse_group(text: str | Mapping[str, str], seed: int = 0) -> Settings:
    """One variant: what one `--set` says, or a mapping of names to values.

    Parameters
    ----------
    seed : for settings that draw lots and do not name a seed (shuffle=on)

    Raises
    ------
    BadInputError
        What `pairs_of` and `Settings.parse` refuse.

    Examples
    --------
    >>> parse_group("movablecore=128M,min_free_kbytes=8192").sysctl
    {'min_free_kbytes': (8192,)}
    """
    pairs = pairs_of(text) if isinstance(text, str) else dict(text)
    if pairs.get("shuffle") in ("", "on", "seed"):
        pairs["shuffle"] = str(seed)
    return Settings.parse(pairs, text.strip() if isinstance(text, str) else "")
