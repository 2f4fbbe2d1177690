# SPDX-License-Identifier: GPL-2.0-or-later
"""Placement policies of one's own: a few typed functions, compiled and hooked into a machine.

    import physmem
    from physmem.mm.policy import TAIL, Zone

    @physmem.policy
    class FreeToTail:
        def choose_list_end(zone: Zone, pfn: int, order: int, mt: int) -> int:
            return TAIL

    machine.set_policy(FreeToTail)

The functions that a policy may have, and their arguments, are in `physmem.mm.policy`. A machine's
records hold their addresses, so that the allocator itself need not be compiled again.
"""

import importlib
import inspect
import runpy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from physmem.lib.errors import PolicyError
from physmem.lib.jit import hook, hook_name
from physmem.machine.buffers import reserve
from physmem.machine.describe import frame_state
from physmem.machine.placement import get_placement, set_placement
from physmem.machine.tables import Tables
from physmem.mm import policy as rules
from physmem.mm.mmzone import NR_HOOKS, Zone
from physmem.mm.placement import HOOKED

SCRATCH = 4096
"""Numbers (int64) that a policy may keep in `zone.scratch`, one array for all zones."""
_NUMBERS = {name: number for number, (name, _) in enumerate(rules.HOOKS)}
_ALL_HOOKED = ((1 << NR_HOOKS) - 1) * HOOKED


@dataclass(frozen=True, eq=False)
class Policy:
    """A placement policy: functions by their names.

    Attributes
    ----------
    name : of the class or function that it was made of
    functions : those of `physmem.mm.policy.HOOKS` that it has
    """

    name: str
    functions: Mapping[str, Callable[..., int]]
    _addresses: dict[str, int] = field(default_factory=dict, repr=False)

    def compile(self) -> dict[str, int]:
        """Address of each function's machine code; made once in a process.

        Raises
        ------
        PolicyError
            A function cannot be compiled.
        """
        if not self._addresses:
            found = {name: hook(function, Zone) for name, function in self.functions.items()}
            self._addresses.update(found)
        return self._addresses


def policy(made_of: Any) -> Policy:
    """Make a policy of a class whose functions have the names of hooks, or of one such function.

    Raises
    ------
    PolicyError
        A function with another name, other arguments or without type hints; or none at all.

    Examples
    --------
    >>> @policy
    ... class EverythingMovable:
    ...     def choose_migratetype(zone: Zone, order: int, gfp: int, mt: int) -> int:
    ...         return 1
    >>> from physmem import Machine
    >>> machine = Machine.build("64MiB")
    >>> machine.set_policy(EverythingMovable)
    >>> machine.frame(machine.alloc_pages(order=4))
    'in use, in the block of order 4 at 0x1000, of node 0, zone DMA32'

    Its name and its functions:

    >>> EverythingMovable.name, list(EverythingMovable.functions)
    ('EverythingMovable', ['choose_migratetype'])
    """
    name = getattr(made_of, "__name__", type(made_of).__name__)
    if inspect.isfunction(made_of):
        found: dict[str, Any] = {name: made_of}
    elif inspect.isclass(made_of):
        found = {
            key: value.__func__ if isinstance(value, staticmethod) else value
            for key, value in vars(made_of).items()
            if not key.startswith("_") and (callable(value) or isinstance(value, staticmethod))
        }
    else:
        raise PolicyError(f"{made_of!r}: a policy is made of a class or a function")
    if not found:
        raise PolicyError(f"policy {name}: it has none of {', '.join(_NUMBERS)}")
    for key, function in found.items():
        _check(name, key, function)
    return Policy(name, MappingProxyType(found))


def _check(name: str, key: str, function: Any) -> None:
    """Refuse a function that could not be called as a hook."""
    where = key if name == key else f"{name}.{key}"
    if key not in _NUMBERS:
        raise PolicyError(
            f"policy function {where}: there is no such hook; there are {', '.join(_NUMBERS)}",
            function=key,
        )
    arguments = rules.HOOKS[_NUMBERS[key]][1]
    wanted = f"{key}(zone: Zone, {', '.join(f'{argument}: int' for argument in arguments)}) -> int"
    try:
        signature = inspect.signature(function, eval_str=True)
    except Exception as error:  # noqa: BLE001 - whatever a hint in quotes may do
        raise PolicyError(f"policy function {where}: {error}", function=key) from None
    kinds = [parameter.annotation for parameter in signature.parameters.values()]
    plain = all(
        parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        and parameter.default is inspect.Parameter.empty
        for parameter in signature.parameters.values()
    )
    if kinds != [Zone, int, int, int] or signature.return_annotation is not int or not plain:
        raise PolicyError(f"policy function {where}: write it as {wanted}", function=key)


def load_policy(source: str) -> Policy:
    """Policy from a file or a module: FILE.py, FILE.py:NAME or module:NAME.

    The file's code is run.

    Raises
    ------
    PolicyError
        No such file, module or name; no policy in it, or more than one.
    """
    place, colon, name = source.rpartition(":") if source.count(":") else (source, "", "")
    if place.endswith(".py") and not Path(place).is_file():
        raise PolicyError(f"policy {source}: there is no file {place}")
    try:
        if place.endswith(".py"):
            names = runpy.run_path(place, run_name=Path(place).stem)
        else:
            names = vars(importlib.import_module(place))
    except PolicyError:
        raise
    except Exception as error:  # noqa: BLE001 - it is somebody else's code
        reason = f"{type(error).__name__}: {error}"
        raise PolicyError(f"policy {source}: {place} cannot be loaded ({reason})") from None
    found = {key: value for key, value in names.items() if isinstance(value, Policy)}
    if colon:
        if name not in found:
            known = ", ".join(found) or "none"
            raise PolicyError(f"policy {source}: {place} has no policy {name!r}; it has {known}")
        return found[name]
    if len(set(map(id, found.values()))) != 1:
        known = ", ".join(found) or "none"
        raise PolicyError(
            f"policy {source}: name one as {place}:NAME (policies there: {known});"
            " @physmem.policy makes them"
        )
    return next(iter(found.values()))


# ---- tables --------------------------------------------------------------------------------------


def attach_policy(tables: Tables, chosen: Policy | None, scratch: Any = None) -> Tables:
    """Tables in which a policy decides (None: the kernel's rules again).

    Parameters
    ----------
    scratch : numbers that the policy goes on with; by default all 0
    """
    addresses = chosen.compile() if chosen is not None else {}
    bits = get_placement(tables) & ~_ALL_HOOKED
    table = reserve(SCRATCH if addresses else 0, np.int64)
    if addresses and scratch is not None:
        table[: len(scratch)] = scratch
    tables.zones["hook"] = 0
    tables.zones["verdict"] = 0
    for name, address in addresses.items():
        tables.zones["hook"][:, _NUMBERS[name]] = address
        bits |= HOOKED << _NUMBERS[name]
    made = tables.with_scratch(table)
    set_placement(made, bits)
    return made


def without_hooks(zones: Any) -> Any:
    """Copy of zone records without the addresses of a policy."""
    made = zones.copy()
    made["hook"] = 0
    made["verdict"] = 0
    made["placement"] &= ~_ALL_HOOKED
    return made


_REASONS = {
    rules.NO_SUCH_TYPE: "that is no migratetype: 0 unmovable, 1 movable, 2 reclaimable",
    rules.NO_SUCH_END: "that is no end of a list: 0 HEAD, 1 TAIL",
    rules.NOT_IN_ZONE: "that frame is not in the zone",
    rules.NOT_FREE: "no free block begins at that frame",
    rules.WRONG_LIST: "that block is on a list that it may not take from",
    rules.TOO_SMALL: "that block is too small",
    rules.HAS_RAISED: "it raised an exception, used an index out of bounds, or gave no number",
    rules.NO_ANSWER: "that is no answer: 0 leaves the pageblock, 1 claims it",
}


def check_policy(tables: Tables, zone_names: tuple[str, ...] = ()) -> None:
    """Raise what a policy did wrong since the last check; loops over requests call it at the end.

    The kernel's rule was used instead of each wrong answer, so that the machine is whole.

    Raises
    ------
    PolicyError
        The first wrong answer: function, answer, request and zone.
    """
    wrong = np.flatnonzero(tables.zones["verdict"][:, rules.CODE])
    if not len(wrong):
        return
    zone = tables.zones[int(wrong[0])]
    code, number, answer, *arguments = zone["verdict"].tolist()
    error = _error(tables, zone_names, zone, (code, number, answer, arguments))
    tables.zones["verdict"] = 0
    raise error


def _error(
    tables: Tables, zone_names: tuple[str, ...], zone: Any, verdict: tuple[int, int, int, list[int]]
) -> PolicyError:
    code, number, answer, arguments = verdict
    name, words = rules.HOOKS[number]
    function = hook_name(int(zone["hook"][number])) or name
    request = ", ".join(
        f"{word}={value:#x}" if word in {"pfn", "gfp", "flags"} else f"{word}={value}"
        for word, value in zip(words, arguments, strict=True)
    )
    index = int(zone["zone_idx"])
    where = f"node {int(zone['node'])}, zone {zone_names[index] if zone_names else index}"
    text = f"policy function {function}({request}) of {where}"
    if code == rules.HAS_RAISED:
        return PolicyError(f"{text}: {_REASONS[code]}", function=name)
    shown = str(answer)
    if code in {rules.NOT_FREE, rules.WRONG_LIST, rules.TOO_SMALL}:
        state = frame_state(tables, zone_names, answer) if zone_names else ""
        shown = f"{answer:#x}" + (f" (now {state})" if state else "")
    return PolicyError(f"{text} answered {shown}: {_REASONS[code]}", function=name, answer=answer)
