# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine as one file: a ZIP archive of its tables, of which only the written pages are kept.

    physmem-machine.json   format number, layout; of each table length, record form and parts;
                           the slab allocator, if it runs
    <table>.<n>.chunks     numbers of the pages that follow (int64, little endian)
    <table>.<n>.bytes      their bytes
    ram.<n>.bytes          a written part of the machine's memory

Format 2 is a machine without slab allocator; one with it is format 3, whose tables begin "slab.".

Addresses in the records mean nothing in another process; they are set again when a file is opened.
What is opened is checked like any machine, so that no list leads a kernel out of its tables.
"""

import json
import os
import struct
import zipfile
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from physmem.lib.errors import BadInputError, CorruptStateError
from physmem.lib.output import replace_file
from physmem.lib.ram import Ram
from physmem.lib.struct import dtype_of
from physmem.machine.buffers import CHUNK, load_chunks, reserve, written_chunks
from physmem.machine.layout import Layout
from physmem.machine.origin import Origin
from physmem.machine.placement import arrange, set_placement, trees_fit
from physmem.machine.policy import without_hooks
from physmem.machine.profiles import feature_bits
from physmem.machine.tables import Tables, nr_heads, nr_pageblocks
from physmem.machine.validate import validate_tables
from physmem.mm import mmzone
from physmem.mm.mmzone import Memory, Page, PerCpuPages, Zone, Zoneref
from physmem.mm.placement import HOOKED, TREES

FORMAT = 3
_HEADER = "physmem-machine.json"
_RAM_PART = 16 << 20
_DTYPES: dict[str, Any] = {
    "memory": dtype_of(Memory),
    "mem_map": dtype_of(Page),
    "zones": dtype_of(Zone),
    "pageset": dtype_of(PerCpuPages),
    "pageblock_flags": np.dtype(np.uint8),
    "block_zone": np.dtype(np.uint8),
    "zonelist": dtype_of(Zoneref),
    "cpu_node": np.dtype(np.int64),
    "tree_at": np.dtype(np.int64),
    "scratch": np.dtype(np.int64),
}
"""Tables in the file; the trace buffer belongs to the process, maps and counters are made anew."""
_ZONE_INDICES = ("zone_normal", "zone_movable", "zone_highmem", "zone_dma32", "zone_dma")
DAMAGE = (
    *(OSError, EOFError, zipfile.BadZipFile, zlib.error, struct.error),
    *(LookupError, ValueError, TypeError, ArithmeticError, RuntimeError),
)
"""What reading a damaged archive or header may end in."""


SavedSlab = tuple[dict[str, Any], dict[str, NDArray[Any]]]
"""A slab allocator as `physmem.slab.saved` gives it: plain data, and arrays by name."""


class Stored(NamedTuple):
    """What a file holds."""

    tables: Tables
    layout: Layout
    origin: Origin
    ram: Ram | None
    slab: SavedSlab | None
    policy: str  # name; empty: none


def _form(dtype: Any) -> str:
    return f"{dtype.descr} {dtype.itemsize}"


def save_tables(stored: Stored, path: str | os.PathLike[str]) -> None:
    """Write a machine to a file that appears whole or not at all; of `ram` what was written.

    Of a policy only the name is kept: addresses mean nothing in another process.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    tables = stored.tables
    arrays: dict[str, NDArray[Any]] = {name: getattr(tables, name) for name in _DTYPES}
    arrays["zones"] = without_hooks(tables.zones)
    arrays["memory"] = tables.memory.copy()
    arrays["memory"]["placement"] = arrays["zones"][0]["placement"]
    with (
        replace_file(path) as out,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
    ):
        lengths = {name: _save_array(archive, name, array) for name, array in arrays.items()}
        header = {"format": FORMAT, "layout": asdict(stored.layout), "tables": lengths}
        header["slab"] = None
        if stored.slab is not None:
            fields, arrays = stored.slab
            header["slab"] = fields
            header["slab_tables"] = {
                name: _save_array(archive, f"slab.{name}", array) for name, array in arrays.items()
            }
        header["origin"] = stored.origin.to_dict()
        header["policy"] = stored.policy
        header["ram"] = None if stored.ram is None else _save_ram(archive, stored.ram)
        archive.writestr(_HEADER, json.dumps(header))


def is_machine(path: str | os.PathLike[str]) -> bool:
    """Tell whether a file looks like one that `Machine.save` wrote."""
    try:
        with zipfile.ZipFile(Path(path)) as archive:
            return _HEADER in archive.namelist()
    except DAMAGE:
        return False


def _save_array(archive: zipfile.ZipFile, name: str, array: NDArray[Any]) -> list[Any]:
    """Write the parts of a table that were written; its length, form and number of parts."""
    parts = 0
    for numbers, content in written_chunks(array):
        archive.writestr(f"{name}.{parts}.chunks", numbers.astype("<i8").tobytes())
        archive.writestr(f"{name}.{parts}.bytes", content.tobytes())
        parts += 1
    return [len(array), _form(array.dtype), parts]


def _save_ram(archive: zipfile.ZipFile, ram: Ram) -> dict[str, Any]:
    """Write the bytes that were written; the overlays are tables, and kept as such."""
    parts: list[list[int]] = []
    for start, end in ram.written():
        for at in range(start, end, _RAM_PART):
            stop = min(at + _RAM_PART, end)
            archive.writestr(f"ram.{len(parts)}.bytes", ram.stored(at, stop - at))
            parts.append([at, stop - at])
    return {"size": ram.size, "parts": parts}


def _read_ram(archive: zipfile.ZipFile, header: dict[str, Any] | None, end: int) -> Ram | None:
    if header is None:
        return None
    if int(header["size"]) > end + CHUNK:
        raise ValueError("more bytes than frames")
    ram = Ram(int(header["size"]))
    for number, (at, size) in enumerate(header["parts"]):
        content = archive.read(f"ram.{number}.bytes")
        if len(content) != size:
            raise ValueError("bytes of the memory are missing")
        ram.write(int(at), content)
    return ram


def open_tables(path: str | os.PathLike[str]) -> Stored:
    """Read a machine from a file; its policy is named, not attached.

    Raises
    ------
    BadInputError
        No such file, not a machine, damaged, cut off, or written by a newer physmem.
    """
    source = os.fspath(path)
    try:
        with zipfile.ZipFile(Path(path)) as archive:
            header = json.loads(archive.read(_HEADER))
            if header["format"] != FORMAT:
                raise BadInputError(
                    f"{source}: machine file of format {header['format']}, this physmem reads "
                    f"format {FORMAT}; open it with the physmem that wrote it"
                )
            layout = _read_layout(header["layout"])
            tables = _read_tables(archive, header["tables"])
            origin = Origin.from_dict(header["origin"])
            frames = int(tables.memory[0]["max_pfn"]) if len(tables.memory) else 0
            ram = _read_ram(archive, header["ram"], frames << layout.page_shift)
            slab = None if header["slab"] is None else _read_slab(archive, header)
            policy = str(header["policy"])
        _check_shape(tables, layout)
        bits = int(tables.memory[0]["placement"])
        set_placement(tables, 0)
        tables.zones["map_start"] = 0
        tables.attach()
        validate_tables(tables, layout.zone_names)
        tables = arrange(tables, bits, keep_trees=True)
        validate_tables(tables, layout.zone_names)
    except FileNotFoundError:
        raise BadInputError(f"{source}: no such file") from None
    except CorruptStateError as error:
        raise BadInputError(f"{source}: the machine is damaged ({error})") from None
    except DAMAGE as error:
        raise damaged(source, error) from None
    return Stored(tables, layout, origin, ram, slab, policy)


def damaged(source: str, error: Exception) -> BadInputError:
    """Error for a file whose contents cannot be."""
    reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:100]
    return BadInputError(f"{source}: no machine file, or damaged ({reason})")


def _read_slab(archive: zipfile.ZipFile, header: dict[str, Any]) -> SavedSlab:
    from physmem.slab.saved import DTYPES

    fields, lengths = header["slab"], header["slab_tables"]
    arrays = {
        name: _read_array(archive, f"slab.{name}", dtype, lengths[name])
        for name, dtype in DTYPES[fields["kind"]].items()
    }
    return fields, arrays


def _read_array(
    archive: zipfile.ZipFile, name: str, dtype: Any, shape: tuple[int, str, int]
) -> NDArray[Any]:
    count, form, parts = shape
    if form != _form(dtype):
        raise ValueError(f"the records of {name} have another form")
    if not 0 <= count <= 1 << 32:
        raise ValueError(f"{count} records of {name}")
    array = reserve(count, dtype)
    for part in range(parts):
        numbers = np.frombuffer(archive.read(f"{name}.{part}.chunks"), "<i8").astype(np.int64)
        load_chunks(array, numbers, archive.read(f"{name}.{part}.bytes"))
    return array


def _read_layout(fields: dict[str, Any]) -> Layout:
    layout = Layout(
        zone_names=tuple(map(str, fields["zone_names"])),
        cpu_node=tuple(map(int, fields["cpu_node"])),
        node_distance=tuple(tuple(map(int, row)) for row in fields["node_distance"]),
        max_order=int(fields["max_order"]),
        thp=bool(fields["thp"]),
        watermark_boost_factor=int(fields["watermark_boost_factor"]),
        kernel=str(fields["kernel"]),
        zonelist_order=str(fields["zonelist_order"]),
        page_shift=int(fields["page_shift"]),
    )
    feature_bits(layout.kernel)
    if not (0 < layout.max_order < mmzone.NR_PAGE_ORDERS and 12 <= layout.page_shift <= 16):
        raise ValueError("impossible layout")
    return layout


def _read_tables(archive: zipfile.ZipFile, lengths: dict[str, Any]) -> Tables:
    made = {
        name: _read_array(archive, name, dtype, lengths[name]) for name, dtype in _DTYPES.items()
    }
    return Tables(**made, trace=reserve(0, np.int64))


def _check_shape(tables: Tables, layout: Layout) -> None:
    """Check the fields that every kernel relies on; `validate` checks the rest."""
    memory, zones, nr_cpus = tables.memory, tables.zones, layout.nr_cpus
    nr_zones, frames = len(zones), int(memory[0]["max_pfn"]) if len(memory) == 1 else -1
    block_order = int(memory[0]["pageblock_order"])
    rows = len(tables.zonelist) // max(nr_zones, 1)
    sound = (
        0 < nr_zones == int(memory[0]["nr_zones"]) <= 255
        and 0 < nr_cpus == int(memory[0]["nr_cpus"]) == len(tables.cpu_node)
        and 0 < block_order < mmzone.NR_PAGE_ORDERS
        and 0 < frames == len(tables.mem_map) - nr_heads(nr_zones, nr_cpus)
        and len(tables.pageset) == nr_zones * nr_cpus
        and len(tables.block_zone) << block_order >= frames
        and len(tables.zonelist) == rows * nr_zones
        and bool(((tables.cpu_node >= 0) & (tables.cpu_node < rows)).all())
        and all(mmzone.NONE <= int(memory[0][name]) < mmzone.MAX_NR_ZONES for name in _ZONE_INDICES)
        and bool((tables.zonelist["zone_idx"] < mmzone.MAX_NR_ZONES).all())
        and bool((tables.zonelist["zone_idx"] >= 0).all())
        and bool((tables.zonelist["zone"] < nr_zones).all())
        and bool((tables.zonelist["zone"] >= mmzone.NONE).all())
        and bool((zones["number"] == np.arange(nr_zones)).all())
        and bool((zones["zone_idx"] >= 0).all())
        and bool((zones["zone_idx"] < len(layout.zone_names)).all())
        and bool(((zones["node"] >= 0) & (zones["node"] < rows)).all())
        and bool((zones["pageblock_order"] == block_order).all())
        and bool((zones["max_order"] == layout.max_order).all())
        and bool((zones["features"] == feature_bits(layout.kernel)).all())
        and int(memory[0]["features"]) == feature_bits(layout.kernel)
        and bool((zones["first_block"] == zones["start_pfn"] >> block_order).all())
        and bool((zones["movable_idx"] >= 0).all())
        and bool((zones["movable_idx"] < mmzone.MAX_NR_ZONES).all())
        and bool((zones["start_pfn"] >= 0).all())
        and bool((zones["start_pfn"] < zones["end_pfn"]).all())
        and bool((zones["end_pfn"] <= frames).all())
        and bool(((zones["isolate_type"] >= 3) & (zones["isolate_type"] <= 5)).all())
        and bool(((zones["cma_type"] == mmzone.NONE) | (zones["cma_type"] == 4)).all())
        and sum(map(nr_pageblocks, zones)) <= len(tables.pageblock_flags)
        and 0 <= int(memory[0]["placement"]) < HOOKED
        and bool((zones["placement"] == memory[0]["placement"]).all())
        and not zones["hook"].any()
        and (trees_fit(tables) if int(memory[0]["placement"]) & TREES else not len(tables.tree_at))
    )
    if not sound:
        raise ValueError("its tables do not fit together")
    head = frames
    for number in range(nr_zones):
        for order in range(mmzone.NR_PAGE_ORDERS):
            heads = zones[number]["free_area"][order]["head"]
            sound = sound and bool((heads == head + np.arange(mmzone.MIGRATE_TYPES)).all())
            head += mmzone.MIGRATE_TYPES
        for cpu in range(nr_cpus):
            heads = tables.pageset[number * nr_cpus + cpu]["head"]
            sound = sound and bool((heads == head + np.arange(mmzone.NR_PCP_LISTS)).all())
            head += mmzone.NR_PCP_LISTS
    if not sound:
        raise ValueError("its lists begin in the wrong places")
