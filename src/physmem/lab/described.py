# SPDX-License-Identifier: GPL-2.0-or-later
"""The recorded machine, ready to be booted again: with its own kernel and options, or with others.

With memblock=debug in the boot log each call of the boot allocator is made again, also under other
options, as long as these do not change what memory there is or who asks for it. Otherwise the calls
are those of a typical build.
"""

import re
import zlib
from dataclasses import dataclass, replace

from physmem.arch.registry import ARCHS, arch_for
from physmem.boot.boot import Boot
from physmem.boot.booted import BootedMemory
from physmem.boot.from_log import boot_of_log, cpu_nodes, hardware_of, profile_of
from physmem.boot.start import boot_hardware
from physmem.boot.start_kernel import start_kernel
from physmem.firmware.bootlog import BootLog, parse_boot_log
from physmem.firmware.e820 import E820Entry
from physmem.firmware.hardware import DtMemory, Hardware, MemoryAffinity
from physmem.lab.settings import Settings
from physmem.lib.errors import BadCaptureError, BadInputError, BadMachineError
from physmem.replay.columns import profile_for
from physmem.trace.info import CaptureInfo, MachineInfo

SAME_CALLS = frozenset({"movablecore", "kernelcore", "numa_zonelist_order", "transparent_hugepage"})
"""Boot options under which the boot allocator is asked for the same."""
_RAM = 1
_VERSION = re.compile(r"(\d+)\.(\d+)")
_GUESSED = (
    "the capture holds no boot log: the machine is put together from its zones, and what its boot"
    " kept is that of a typical build"
)


@dataclass(frozen=True)
class Described:
    """What a capture tells of its machine.

    Attributes
    ----------
    info : of the capture
    log : its boot log; None: there is none
    """

    info: CaptureInfo
    log: BootLog | None

    @classmethod
    def of(cls, info: CaptureInfo) -> "Described":
        """Read the boot log of a capture.

        Raises
        ------
        BadCaptureError
            The log is damaged, or neither log nor zones tell what machine it was.
        """
        if not info.boot_log:
            if not info.machine.zones or not info.machine.arch:
                raise BadCaptureError(
                    "the capture tells neither the boot log nor the zones of its machine, so that"
                    " it cannot be booted again: import a recording with dmesg.txt"
                )
            return cls(info, None)
        try:
            text = zlib.decompress(info.boot_log).decode("utf-8", "replace")
        except zlib.error as error:
            raise BadCaptureError(
                f"damaged boot log ({error}); import the recording again"
            ) from None
        log = parse_boot_log(text, "boot log of the capture")
        version = _VERSION.search(info.machine.kernel)
        if not log.release and version:
            number = int(version[1]), int(version[2])
            log = replace(log, release=info.machine.kernel, version=number)
        return cls(info, log)

    @property
    def cmdline(self) -> str:
        """Command line of the recorded kernel."""
        if self.log is not None and self.log.cmdline:
            return self.log.cmdline
        return self.info.machine.cmdline

    @property
    def kernel(self) -> str:
        """Profile that the recording is replayed with."""
        return profile_for(self.info)

    def boot(self, settings: Settings) -> tuple[BootedMemory, tuple[str, ...]]:
        """Boot a variant; what it is, and what had to be assumed.

        Raises
        ------
        BadMachineError, BadInputError
            No kernel could start so.
        """
        cmdline = settings.cmdline(self.cmdline)
        kernel = settings.kernel or self.kernel
        if self._same_calls(settings, kernel):
            memory = start_kernel(self._boot_log(cmdline))
            return memory, memory.assumptions
        hardware = self.hardware(settings.page_shift)
        memory = boot_hardware(hardware, kernel=kernel, cmdline=cmdline).memory
        assumed = [*memory.assumptions]
        if self.log is None:
            assumed.append(_GUESSED)
        elif self.log.debug:
            assumed.append(
                "what the boot allocator gave to whom is that of a typical build: these settings"
                " change what the recorded kernel asked it for"
            )
        return memory, tuple(assumed)

    def _same_calls(self, settings: Settings, kernel: str) -> bool:
        return (
            self.log is not None
            and not settings.page_shift
            and kernel == profile_of(self.log)
            and set(settings.boot) <= SAME_CALLS
        )

    def _boot_log(self, cmdline: str) -> Boot:
        if self.log is None:
            raise RuntimeError("asked for without a log")
        return boot_of_log(replace(self.log, cmdline=cmdline))

    def hardware(self, page_shift: int = 0) -> Hardware:
        """The machine; with pages of another size where its architecture has them.

        Raises
        ------
        BadMachineError
            The architecture has no such pages.
        """
        hardware = self._from_zones() if self.log is None else self._from_log(self.log)
        if page_shift and arch_for(hardware.arch).page_shift != page_shift:
            family = hardware.arch.split("-", maxsplit=1)[0]
            fits = [
                name
                for name, arch in ARCHS.items()
                if name.split("-")[0] == family and arch.page_shift == page_shift
            ]
            if not fits:
                raise BadMachineError(
                    f"page_size={1 << (page_shift - 10)}K: {hardware.arch} has no such pages"
                )
            hardware = replace(hardware, arch=fits[0])
        return hardware

    def _from_log(self, log: BootLog) -> Hardware:
        try:
            return hardware_of(log)
        except BadInputError:
            return replace(self._from_zones(), cpu_domain=cpu_nodes(log))

    def _from_zones(self) -> Hardware:
        machine = self.info.machine
        shift = machine.page_size.bit_length() - 1
        spans = [
            (zone.node, zone.start << shift, (zone.start + zone.spanned) << shift)
            for zone in machine.zones
            if zone.spanned
        ]
        arch = _arch_name(machine)
        cpus = tuple(machine.cpu_node)
        distance = tuple(map(tuple, machine.node_distance)) if machine.nr_nodes > 1 else ()
        if arch.startswith(("x86", "i386")):
            return Hardware(
                arch=arch,
                e820=tuple(E820Entry(start, end - start, _RAM) for _, start, end in spans),
                srat=tuple(
                    MemoryAffinity(domain=node, base=start, length=end - start)
                    for node, start, end in spans
                )
                if machine.nr_nodes > 1
                else (),
                cpu_domain=cpus,
                distance=distance,
            )
        return Hardware(
            arch=arch,
            memory=tuple(
                DtMemory(base=start, size=end - start, nid=node) for node, start, end in spans
            ),
            cpu_domain=cpus,
            distance=distance,
        )


def _arch_name(machine: MachineInfo) -> str:
    """Architecture of the model, by that of the recording and its pages."""
    pages = {16384: "-16k", 65536: "-64k"}.get(machine.page_size, "")
    name = {"aarch64": "arm64", "i686": "i386"}.get(machine.arch, machine.arch)
    return name + pages if name == "arm64" else name
