# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's command line: what it says about memory, typed; the rest is kept as it is.

A kernel ignores what it cannot read, with a line in its log at best. Here a bad value is an error
that names the option, for the person who typed it is still there.

Linux: parse_args(), kernel/params.c; Documentation/admin-guide/kernel-parameters.txt (6.1)
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from physmem.firmware.cmdline_values import (
    Amount,
    Cma,
    CrashKernel,
    MemMap,
    parse_amount,
    parse_cma,
    parse_crashkernel,
    parse_memmap,
    whole,
)
from physmem.lib.errors import BadInputError


@dataclass(frozen=True, kw_only=True)
class CommandLine:
    """A command line. None or False: the option was not given.

    Attributes
    ----------
    text : as it was
    options : all (name, value or None), in order, known or not
    unknown : names of options that are none of the below
    mem : bytes; `mem_nopentium` : no large pages
    memmap : changes of the firmware's map, in order
    kernelcore, movablecore, movable_node : how ZONE_MOVABLE is made
    numa : "off", "noacpi", or "" ; `numa_fake` : value of numa=fake=
    numa_zonelist_order : "default", "node" or "zone"
    highmem, vmalloc, reservetop : bytes
    nogbpages, gbpages, nokaslr : switches; `noexec` : "on" or "off"
    transparent_hugepage : "always", "madvise", "never"
    memblock_debug : memblock=debug
    hashdist : hash tables spread over the nodes
    dhash_entries, ihash_entries, mhash_entries, mphash_entries, thash_entries : entries
    cma, crashkernel : areas set aside
    debug_pagealloc, page_owner, page_poison, init_on_alloc, init_on_free : on or off
    log_buf_len : bytes
    possible_cpus, nr_cpus, maxcpus : CPUs

    Examples
    --------
    >>> line = CommandLine.parse("mem=512M movablecore=128M quiet root=/dev/sda")
    >>> line.mem >> 20, line.movablecore.size >> 20, line.unknown
    (512, 128, ('quiet', 'root'))
    """

    text: str = ""
    options: tuple[tuple[str, str | None], ...] = ()
    unknown: tuple[str, ...] = ()
    mem: int | None = None
    mem_nopentium: bool = False
    memmap: tuple[MemMap, ...] = ()
    kernelcore: Amount | None = None
    movablecore: Amount | None = None
    movable_node: bool = False
    numa: str = ""
    numa_fake: str = ""
    numa_zonelist_order: str = ""
    highmem: int | None = None
    vmalloc: int | None = None
    reservetop: int | None = None
    nogbpages: bool = False
    gbpages: bool = False
    noexec: str = ""
    nokaslr: bool = False
    transparent_hugepage: str = ""
    memblock_debug: bool = False
    hashdist: bool | None = None
    dhash_entries: int | None = None
    ihash_entries: int | None = None
    mhash_entries: int | None = None
    mphash_entries: int | None = None
    thash_entries: int | None = None
    cma: Cma | None = None
    crashkernel: tuple[CrashKernel, ...] = ()
    debug_pagealloc: bool | None = None
    page_owner: bool | None = None
    page_poison: bool | None = None
    init_on_alloc: bool | None = None
    init_on_free: bool | None = None
    log_buf_len: int | None = None
    possible_cpus: int | None = None
    nr_cpus: int | None = None
    maxcpus: int | None = None

    @classmethod
    def parse(cls, text: str, *, strict: bool = True) -> "CommandLine":
        """Read a command line.

        Parameters
        ----------
        strict : a bad value is an error; otherwise it counts as unknown, as kernels take it

        Raises
        ------
        BadInputError
            An option has a value that it cannot have; the message names it and says what to write.

        Examples
        --------
        >>> CommandLine.parse("memmap=64M$0x10000000").memmap
        (MemMap(kind='$', size=67108864, start=268435456, old=None, new=None),)
        >>> CommandLine.parse("mem=lots")
        Traceback (most recent call last):
            ...
        physmem.lib.errors.BadInputError: mem=lots: write a size such as 512M, 4G or nopentium
        """
        options = tuple(_split(text))
        line = cls(text=text, options=options)
        unknown = []
        for name, value in options:
            # the kernel takes - and _ in a name for the same
            reader = _READERS.get(name.replace("-", "_"))
            if reader is None:
                unknown.append(name)
                continue
            try:
                line = _read(line, reader, name, value)
            except BadInputError:
                if strict:
                    raise
                unknown.append(name)
        return replace(line, unknown=tuple(unknown))

    def has(self, name: str) -> bool:
        """Whether an option of that name was given, known or not.

        Examples
        --------
        >>> CommandLine.parse("quiet").has("quiet")
        True
        """
        return any(given == name for given, _ in self.options)

    def value(self, name: str) -> str | None:
        """Text of the last option of that name."""
        return next((value for given, value in reversed(self.options) if given == name), None)


def _split(text: str) -> Iterator[tuple[str, str | None]]:
    """Words at blanks outside of double quotes, up to "--" (what follows is for init).

    Linux: next_arg(), lib/cmdline.c (6.1)
    """
    for match in re.finditer(r'(?:[^\s"]|"[^"]*(?:"|$))+', text):
        word = match[0]
        if word == "--":
            return
        name, equals, value = word.partition("=")
        yield name.strip('"'), value.strip('"') if equals else None


_Reader = tuple[Callable[[CommandLine, str], dict[str, Any]], str]


def _read(line: CommandLine, reader: _Reader, name: str, value: str | None) -> CommandLine:
    function, wanted = reader
    try:
        changes = function(line, "" if value is None else value)
    except (BadInputError, ValueError):
        given = name if value is None else f"{name}={value}"
        raise BadInputError(f"{given}: write {wanted}") from None
    return replace(line, **changes)


# -- readers: (line so far, value) -> fields to change --


def _size(field_name: str, what: str = "a size such as 512M or 4G") -> _Reader:
    return lambda _, text: {field_name: whole(text)}, what


def _count(field_name: str) -> _Reader:
    return lambda _, text: {field_name: whole(text)}, "a number"


def _switch(field_name: str) -> _Reader:
    def read(_: CommandLine, text: str) -> dict[str, Any]:
        if text:
            raise ValueError(text)
        return {field_name: True}

    return read, "it without a value"


def _on_off(field_name: str) -> _Reader:
    words = {"": True, "on": True, "1": True, "y": True, "off": False, "0": False, "n": False}

    def read(_: CommandLine, text: str) -> dict[str, Any]:
        if text not in words:
            raise ValueError(text)
        return {field_name: words[text]}

    return read, "on or off"


def _choice(field_name: str, *words: str) -> _Reader:
    def read(_: CommandLine, text: str) -> dict[str, Any]:
        if text not in words:
            raise ValueError(text)
        return {field_name: text}

    return read, f"one of {', '.join(words)}"


def _amount(field_name: str) -> _Reader:
    mirror = field_name == "kernelcore"
    wanted = "a size such as 512M or 4G, a percentage such as 30%" + (", or mirror" * mirror)
    return lambda _, text: {field_name: parse_amount(text, mirror=mirror)}, wanted


def _mem(_: CommandLine, text: str) -> dict[str, Any]:
    if text == "nopentium":
        return {"mem_nopentium": True}
    size = whole(text)
    if not size:
        raise ValueError(text)
    return {"mem": size}


def _memmap(line: CommandLine, text: str) -> dict[str, Any]:
    """Linux: parse_memmap_opt(), arch/x86/kernel/e820.c (6.1)"""
    return {"memmap": line.memmap + tuple(parse_memmap(part) for part in text.split(","))}


def _numa(line: CommandLine, text: str) -> dict[str, Any]:
    if text.startswith("fake="):
        fake = text.removeprefix("fake=")
        if not re.fullmatch(r"\d+[KMGTkmgt]?[Uu]?|[\d*,]*\d[\d*,]*", fake):
            raise ValueError(text)
        return {"numa_fake": fake}
    if text not in {"off", "on", "noacpi", "nohmat"}:
        raise ValueError(text)
    return {"numa": line.numa if text == "nohmat" else "" if text == "on" else text}


def _memblock(_: CommandLine, text: str) -> dict[str, Any]:
    if "debug" not in text:
        raise ValueError(text)
    return {"memblock_debug": True}


def _cma(_: CommandLine, text: str) -> dict[str, Any]:
    return {"cma": parse_cma(text)}


def _crashkernel(line: CommandLine, text: str) -> dict[str, Any]:
    return {"crashkernel": (*line.crashkernel, parse_crashkernel(text))}


_MEMMAP = (
    "exactmap, a size such as 512M, or size@start (memory), size#start (ACPI), size$start "
    "(reserved), size!start (persistent), size%start-type+type"
)
_READERS: dict[str, _Reader] = {
    "mem": (_mem, "a size such as 512M, 4G or nopentium"),
    "memmap": (_memmap, _MEMMAP),
    "kernelcore": _amount("kernelcore"),
    "movablecore": _amount("movablecore"),
    "movable_node": _switch("movable_node"),
    "numa": (_numa, "off, noacpi, fake=4 or fake=512M"),
    "numa_zonelist_order": _choice(
        "numa_zonelist_order", "default", "node", "zone", "Default", "Node", "Zone", "d", "n", "z"
    ),
    "highmem": _size("highmem"),
    "vmalloc": _size("vmalloc"),
    "reservetop": _size("reservetop"),
    "nogbpages": _switch("nogbpages"),
    "gbpages": _switch("gbpages"),
    "noexec": _choice("noexec", "on", "off"),
    "nokaslr": _switch("nokaslr"),
    "transparent_hugepage": _choice("transparent_hugepage", "always", "madvise", "never"),
    "memblock": (_memblock, "memblock=debug"),
    "hashdist": _on_off("hashdist"),
    "dhash_entries": _count("dhash_entries"),
    "ihash_entries": _count("ihash_entries"),
    "mhash_entries": _count("mhash_entries"),
    "mphash_entries": _count("mphash_entries"),
    "thash_entries": _count("thash_entries"),
    "cma": (_cma, "a size such as 64M, size@base or size@base-limit"),
    "crashkernel": (
        _crashkernel,
        "a size such as 256M, 256M@16M, 256M,high, or ranges such as 2G-8G:256M,8G-:512M",
    ),
    "debug_pagealloc": _on_off("debug_pagealloc"),
    "page_owner": _on_off("page_owner"),
    "page_poison": _on_off("page_poison"),
    "init_on_alloc": _on_off("init_on_alloc"),
    "init_on_free": _on_off("init_on_free"),
    "log_buf_len": _size("log_buf_len"),
    "possible_cpus": _count("possible_cpus"),
    "nr_cpus": _count("nr_cpus"),
    "maxcpus": _count("maxcpus"),
}
