# SPDX-License-Identifier: GPL-2.0-or-later
"""Parts of the documentation that follow from the code, between two marks of a page.

`python -m tests.docs.generated` writes them anew; a test tells when that is due.
"""

import enum
import inspect
import re
from pathlib import Path
from typing import get_args

from tests.docs.api_pages import reference
from tests.docs.experiments import stored
from typer.models import ArgumentInfo

import physmem
from physmem.arch.registry import ARCHS, ARCHS_BOOTMEM
from physmem.boot.booted import BootedMemory, BootedZone
from physmem.boot.compare_log import Comparison, Figure, NotCompared
from physmem.boot.features import BOOT_FEATURES
from physmem.boot.stages import StageRecord
from physmem.boot.start import Booted, boot, boot_hardware, boot_log
from physmem.bootalloc.bootmem import Bootmem
from physmem.bootalloc.memblock import Memblock
from physmem.cli.boot import boot as command
from physmem.cli.sweep import sweep
from physmem.cli.tune import tune as tune_command
from physmem.experiments import EXPERIMENTS
from physmem.firmware.e820 import E820Entry
from physmem.firmware.hardware import (
    DtMemory,
    DynamicReservation,
    Hardware,
    MemoryAffinity,
    Reservation,
)
from physmem.firmware.iomem import read_iomem
from physmem.firmware.platform import KernelImage
from physmem.firmware.toml import read_machine
from physmem.firmware.toml_write import write_machine
from physmem.lab.study_example import EXAMPLE
from physmem.lib import errors
from physmem.lib.ram import Ram
from physmem.machine.knobs import KNOBS, Tuning
from physmem.machine.layout import Layout
from physmem.machine.machine import Machine
from physmem.machine.origin import MemMapPiece, Origin, Reserved
from physmem.machine.policy import check_policy, load_policy, policy
from physmem.machine.profiles import PROFILES
from physmem.machine.tuning import tune
from physmem.slab.slub_config import SLUB_RULES

DOCS = Path(__file__).parents[2] / "docs"
_MARK = re.compile(r"(?s)(<!-- generated: ([\w-]+) -->\n).*?(<!-- end -->)")


def _table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def _by_kernel(tables, row):
    """Rows of all profiles, each with the kernels that have it."""
    found = {}
    for kernel, rules in tables.items():
        for rule in rules:
            found.setdefault(row(rule), []).append(kernel)
    return [[*cells, ", ".join(kernels)] for cells, kernels in found.items()]


def profile_rules():
    rows = _by_kernel(
        PROFILES,
        lambda rule: (
            f"`{rule.name}`",
            rule.rule,
            rule.since,
            f"`{rule.where if '/' in rule.where else 'mm/' + rule.where}.py`",
        ),
    )
    return _table(["rule", "what the kernel does", "since", "followed in", "profiles"], rows)


def knobs():
    rows = [
        [
            f"`{knob.name}`",
            f"`{knob.values}`".replace("|", "\\|"),
            knob.help,
            knob.linux or "-",
        ]
        for knob in KNOBS
    ]
    return _table(["knob", "values", "what it does", "in Linux, or whose"], rows)


def boot_rules():
    rows = _by_kernel(
        BOOT_FEATURES,
        lambda rule: (f"`{rule.feature.name}`", rule.rule, rule.since, f"`{rule.where}.py`"),
    )
    return _table(["feature", "what the kernel does", "since", "followed in", "kernels"], rows)


def slub_rules():
    rows = _by_kernel(
        SLUB_RULES,
        lambda rule: (f"`{rule.feature.name}`", rule.rule, rule.since, f"`{rule.where}.py`"),
    )
    return _table(["feature", "what the kernel does", "since", "followed in", "kernels"], rows)


def profiles():
    rows = [
        [
            kernel,
            "bootmem"
            if "MEMBLOCK" not in {r.feature.name for r in BOOT_FEATURES[kernel]}
            else "memblock",
            len(PROFILES[kernel]),
            len(BOOT_FEATURES[kernel]),
            "all"
            if "MEMBLOCK" in {r.feature.name for r in BOOT_FEATURES[kernel]}
            else ", ".join(ARCHS_BOOTMEM),
        ]
        for kernel in BOOT_FEATURES
    ]
    head = ["profile", "boot allocator", "allocator rules", "start-up rules", "`Machine.build` for"]
    return _table(head, rows)


def architectures():
    rows = [
        [
            f"`{arch.name}`",
            f"{arch.page_size >> 10} KiB",
            arch.pageblock_order,
            ", ".join(arch.zones),
            arch.memory_model,
            f"{1 << arch.section_size_bits - 20} MiB" if arch.memory_model != "flatmem" else "-",
            "memblock, bootmem" if arch.name in ARCHS_BOOTMEM else "memblock",
        ]
        for arch in ARCHS.values()
    ]
    head = ["name", "page", "pageblock order", "zones", "memory model", "section", "kernels with"]
    return _table(head, rows)


def boot_options():
    return _options(command)


def sweep_options():
    return _options(sweep)


def tune_options():
    return _options(tune_command)


def study_example():
    return f"```toml\n{EXAMPLE}```"


def _options(function):
    """Read from the signature: the command tree of typer differs from version to version."""
    rows = []
    for name, parameter in inspect.signature(function).parameters.items():
        kind, option = get_args(parameter.annotation)[:2]
        given = [d for d in (option.default, *(option.param_decls or ())) if isinstance(d, str)]
        names = given or [f"--{name.replace('_', '-')}"]
        value = option.metavar or "\\|".join(
            str(choice)
            for part in get_args(kind)
            if isinstance(part, type) and issubclass(part, enum.Enum)
            for choice in part
        )
        if isinstance(option, ArgumentInfo):
            names, value = [option.metavar.replace("|", "\\|")], ""
        else:
            value = value if "\\|" in value else value.replace("|", "\\|")
        meaning = option.help.replace("|", "\\|")
        rows.append([", ".join(f"`{n}`" for n in names), value, meaning])
    return _table(["option", "value", "meaning"], rows)


_ERRORS = sorted(
    (
        thing
        for thing in vars(errors).values()
        if isinstance(thing, type) and issubclass(thing, errors.PhysmemError)
    ),
    key=lambda thing: thing.__name__,
)


def api_errors():
    rows = [
        [f"`{thing.__name__}`", " ".join((thing.__doc__ or "").split("\n\n")[0].split())]
        for thing in _ERRORS
    ]
    return _table(["error", "meaning"], rows)


def _public(thing):
    """Methods and properties with a docstring, also those of its bases, in order of definition."""
    names = {}
    for base in reversed(thing.__mro__[:-1]):
        for name, value in vars(base).items():
            inner = getattr(value, "__func__", getattr(value, "fget", value))
            if not name.startswith("_") and callable(inner) and inner.__doc__:
                names[name] = None
    return tuple(names)


def api_boot():
    return "\n\n".join(
        [
            reference("physmem.boot", boot),
            reference("physmem.boot.start.boot_hardware", boot_hardware),
            reference("physmem.boot.start.boot_log", boot_log),
            reference("physmem.boot.start.Booted", Booted, _public(Booted)),
            reference("physmem.boot.booted.BootedMemory", BootedMemory),
            reference("physmem.boot.booted.BootedZone", BootedZone, _public(BootedZone)),
            reference("physmem.boot.stages.StageRecord", StageRecord, _public(StageRecord)),
            reference("physmem.boot.compare_log.Comparison", Comparison, _public(Comparison)),
            reference("physmem.boot.compare_log.Figure", Figure, _public(Figure)),
            reference("physmem.boot.compare_log.NotCompared", NotCompared),
        ]
    )


def api_hardware():
    return "\n\n".join(
        [
            reference("physmem.Hardware", Hardware, _public(Hardware)),
            reference("physmem.firmware.e820.E820Entry", E820Entry),
            *(
                reference(f"physmem.firmware.hardware.{record.__name__}", record)
                for record in (MemoryAffinity, DtMemory, Reservation, DynamicReservation)
            ),
            reference("physmem.firmware.platform.KernelImage", KernelImage),
            reference("physmem.firmware.toml.read_machine", read_machine),
            reference("physmem.firmware.toml_write.write_machine", write_machine),
            reference("physmem.firmware.iomem.read_iomem", read_iomem),
        ]
    )


def api_machine():
    return "\n\n".join(
        [
            reference("physmem.Machine", Machine, _public(Machine)),
            reference("physmem.open", physmem.open_machine),
            reference("physmem.Layout", Layout),
            reference("physmem.Tuning", Tuning, _public(Tuning)),
            reference("physmem.tune", tune),
            reference("physmem.policy", policy),
            reference("physmem.load_policy", load_policy),
            reference("physmem.machine.policy.check_policy", check_policy),
            reference("physmem.machine.origin.Origin", Origin, _public(Origin)),
            reference("physmem.machine.origin.Reserved", Reserved),
            reference("physmem.machine.origin.MemMapPiece", MemMapPiece),
            reference("physmem.lib.ram.Ram", Ram, _public(Ram)),
        ]
    )


def api_bootalloc():
    return "\n\n".join(
        [
            reference("physmem.bootalloc.memblock.Memblock", Memblock, _public(Memblock)),
            reference("physmem.bootalloc.bootmem.Bootmem", Bootmem, _public(Bootmem)),
        ]
    )


def _shown(value):
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.2f}".rstrip("0").rstrip(".")
    return f"{value:,}" if isinstance(value, int) else str(value)


def experiment_figures():
    rows = []
    for name, found in stored().items():
        label = f"`{name}`"
        for figure in found["figures"]:
            numbers = (_shown(figure["published"]), _shown(figure["ours"]))
            rows.append([label, figure["text"], *numbers, figure["comparison"] or "-"])
            label = ""
        rows.append(["", f"*{found['verdict']['text']}*", "", "", ""])
    return _table(["experiment", "figure", "published", "ours", "comparison"], rows)


def experiment_parameters():
    rows = []
    for each in EXPERIMENTS.values():
        label = f"`{each.name}`"
        for one in each.parameters:
            choices = f" ({', '.join(one.choices)})" if one.choices else ""
            rows.append([label, f"`{one.name}`", f"{one.default}", one.text + choices])
            label = ""
    sources = "\n".join(f"- `{each.name}`: {each.source}" for each in EXPERIMENTS.values())
    table = _table(["experiment", "parameter", "default", "meaning"], rows)
    return f"{table}\n\nSources:\n\n{sources}"


PARTS = {
    "experiment-figures": experiment_figures,
    "experiment-parameters": experiment_parameters,
    "profiles": profiles,
    "profile-rules": profile_rules,
    "knobs": knobs,
    "boot-rules": boot_rules,
    "slub-rules": slub_rules,
    "architectures": architectures,
    "boot-options": boot_options,
    "sweep-options": sweep_options,
    "tune-options": tune_options,
    "study-example": study_example,
    "api-boot": api_boot,
    "api-hardware": api_hardware,
    "api-machine": api_machine,
    "api-bootalloc": api_bootalloc,
    "api-errors": api_errors,
}


def pages():
    """Pages that have generated parts."""
    return [path for path in sorted(DOCS.glob("*.md")) if _MARK.search(path.read_text("utf-8"))]


def renewed(text):
    """Text of a page with its generated parts as they should be."""
    return _MARK.sub(lambda found: f"{found[1]}\n{PARTS[found[2]]()}\n\n{found[3]}", text)


def parts_of(text):
    """Names of the generated parts of a page."""
    return [found[2] for found in _MARK.finditer(text)]


if __name__ == "__main__":
    for page in pages():
        page.write_text(renewed(page.read_text(encoding="utf-8")), encoding="utf-8")
