# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux physical memory management as a fast, exact library.

    import physmem

    machine = physmem.boot("1GiB")                   # a machine of your own ...
    pfn = machine.alloc_pages(order=3)
    print(machine.buddyinfo())

    machine = physmem.load("recording.physmem")      # ... or one in a recorded state
    result = physmem.replay("recording.physmem")     # and the whole recording, compared
    report = physmem.whatif("recording.physmem", "movablecore=128M")   # or under other rules

Names are imported when they are first used: `import physmem` alone loads neither NumPy nor Numba.
"""

from importlib import import_module

from physmem.lib.version import __version__

TYPE_CHECKING = False  # type checkers know the name; `typing` would double the import time

if TYPE_CHECKING:
    from physmem.boot.start import boot
    from physmem.experiments.registry import experiment
    from physmem.firmware.hardware import Hardware
    from physmem.lab.run import whatif
    from physmem.lib import errors
    from physmem.lib.errors import (
        AlreadyMappedError,
        BadCaptureError,
        BadFreeError,
        BadInputError,
        BadMachineError,
        BadMappingError,
        BadRequestError,
        BadStateError,
        BadTraceError,
        BootAllocError,
        CorruptStateError,
        MisalignedError,
        NotCanonicalError,
        OutOfMemoryError,
        PageFaultError,
        PhysmemError,
        PolicyError,
        StaleTlbError,
        TableInUseError,
        TuningError,
    )
    from physmem.machine.layout import Layout
    from physmem.machine.machine import Machine, open_machine
    from physmem.machine.machine import open_machine as open  # noqa: A004 - physmem.open(path)
    from physmem.machine.policy import Policy, load_policy, policy
    from physmem.machine.tuning import KNOBS, Tuning, tune
    from physmem.mm.compare import compare_states
    from physmem.mm.state import State
    from physmem.pgtable.formats import page_table_formats
    from physmem.replay.report import Result
    from physmem.replay.session import load_machine as load
    from physmem.replay.session import replay_capture as replay


_FROM = {
    "physmem.machine.machine": {"Machine": "Machine", "open_machine": "open_machine"}
    | {"open": "open_machine"},
    "physmem.experiments.registry": {"experiment": "experiment"},
    "physmem.firmware.hardware": {"Hardware": "Hardware"},
    "physmem.machine.layout": {"Layout": "Layout"},
    "physmem.machine.policy": {name: name for name in ("Policy", "load_policy", "policy")},
    "physmem.machine.tuning": {name: name for name in ("KNOBS", "Tuning", "tune")},
    "physmem.mm.state": {"State": "State"},
    "physmem.mm.compare": {"compare_states": "compare_states"},
    "physmem.replay.session": {"load": "load_machine"},
    "physmem.lab.run": {"whatif": "whatif"},
    "physmem.pgtable.formats": {"page_table_formats": "page_table_formats"},
    "physmem.replay.report": {"Result": "Result"},
    "physmem.lib.errors": {
        name: name
        for name in (
            "AlreadyMappedError",
            "BadCaptureError",
            "BadFreeError",
            "BadInputError",
            "BadMachineError",
            "BadMappingError",
            "BadRequestError",
            "BadStateError",
            "BadTraceError",
            "BootAllocError",
            "CorruptStateError",
            "MisalignedError",
            "NotCanonicalError",
            "OutOfMemoryError",
            "PageFaultError",
            "PhysmemError",
            "PolicyError",
            "StaleTlbError",
            "TableInUseError",
            "TuningError",
        )
    },
}
_WHERE = {
    public: (module, name) for module, names in _FROM.items() for public, name in names.items()
}

__all__ = [
    "KNOBS",
    "AlreadyMappedError",
    "BadCaptureError",
    "BadFreeError",
    "BadInputError",
    "BadMachineError",
    "BadMappingError",
    "BadRequestError",
    "BadStateError",
    "BadTraceError",
    "BootAllocError",
    "CorruptStateError",
    "Hardware",
    "Layout",
    "Machine",
    "MisalignedError",
    "NotCanonicalError",
    "OutOfMemoryError",
    "PageFaultError",
    "PhysmemError",
    "Policy",
    "PolicyError",
    "Result",
    "StaleTlbError",
    "State",
    "TableInUseError",
    "Tuning",
    "TuningError",
    "__version__",
    "boot",
    "compare_states",
    "errors",
    "experiment",
    "load",
    "load_policy",
    "open",
    "open_machine",
    "page_table_formats",
    "policy",
    "replay",
    "tune",
    "whatif",
]


def __getattr__(name: str) -> object:
    if name == "errors":
        return import_module("physmem.lib.errors")
    if name in {"boot", "replay"}:
        return import_module(f"physmem.{name}")  # packages that can be called
    if name not in _WHERE:
        raise AttributeError(f"module 'physmem' has no attribute {name!r}")
    module, inner = _WHERE[name]
    value: object = getattr(import_module(module), inner)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
