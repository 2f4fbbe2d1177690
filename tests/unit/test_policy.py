# SPDX-License-Identifier: GPL-2.0-or-later
# ruff: noqa: ARG001, ARG002, ARG004, N805, RUF043 - hooks have all their arguments, and no self
"""Policies of one's own: what they decide, and what happens when they are wrong."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import physmem
from physmem import Machine, PolicyError, Tuning, tune
from physmem.lib.jit import PURE, ready
from physmem.machine.policy import check_policy, load_policy
from physmem.mm.entry import do_alloc_pages
from physmem.mm.policy import BUILTIN, HEAD, NONE, TAIL, Zone, first_free, last_free

pytestmark = pytest.mark.pure

MOVABLE = "GFP_HIGHUSER_MOVABLE"
KERNELS = ("2.6.24", "6.1", "6.12")


def direct(kernel="6.1", size="64MiB"):
    """Machine without per-CPU lists: each request asks the policy."""
    return tune(Machine.build(size, kernel=kernel), Tuning.parse({"pcp": "off"}))


# ---- what a policy decides -----------------------------------------------------------------------


@physmem.policy
class Silent:
    """No opinion on anything."""

    def choose_migratetype(zone: Zone, order: int, gfp: int, mt: int) -> int:
        return BUILTIN

    def choose_block(zone: Zone, order: int, mt: int, flags: int) -> int:
        return BUILTIN

    def choose_fallback(zone: Zone, order: int, mt: int, flags: int) -> int:
        return BUILTIN

    def choose_list_end(zone: Zone, pfn: int, order: int, mt: int) -> int:
        return BUILTIN

    def claim_block(zone: Zone, pfn: int, order: int, mt: int) -> int:
        return BUILTIN


@physmem.policy
class Highest:
    """The highest block, and count in scratch what was asked."""

    @staticmethod
    def choose_block(zone: Zone, order: int, mt: int, flags: int) -> int:
        zone.scratch[order] += 1
        for current in range(order, zone.max_order + 1):
            pfn = last_free(zone, current, mt)
            if pfn != NONE:
                return pfn
        return NONE

    @staticmethod
    def choose_fallback(zone: Zone, order: int, mt: int, flags: int) -> int:
        for current in range(zone.max_order, order - 1, -1):
            for donor in range(3):
                if donor != mt and first_free(zone, current, donor) != NONE:
                    return first_free(zone, current, donor)
        return NONE


def work(machine, steps=400):
    """Some requests of all sorts; the frames that came."""
    held, told = [], []
    for step in range(steps):
        if step % 3 == 2:
            pfn, order = held.pop(step * 7 % len(held))
            machine.free_pages(pfn, order, cpu=0)
            continue
        order = (0, 0, 1, 0, 3, 0, 5)[step % 7]
        gfp = ("GFP_KERNEL", MOVABLE, "GFP_KERNEL|__GFP_RECLAIMABLE")[step % 5 % 3]
        held.append((machine.alloc_pages(order, gfp), order))
        told.append(held[-1][0])
    machine.validate()
    return told


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("pcp", ["off", "auto"])
def test_a_policy_without_opinion_changes_nothing(kernel, pcp):
    plain = tune(Machine.build("64MiB", kernel=kernel), Tuning.parse({"pcp": pcp}))
    asked = plain.copy()
    asked.set_policy(Silent)
    assert work(plain) == work(asked)
    assert plain == asked


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_highest_block_first(kernel):
    machine = direct(kernel)
    machine.set_policy(Highest)
    frames = [machine.alloc_pages(gfp=MOVABLE) for _ in range(40)]
    assert max(frames) - min(frames) < 1024
    assert machine.tables.scratch[0] == 40
    work(machine)
    machine.set_policy(None)
    assert machine.policy is None
    work(machine)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    "name", ["EverythingMovable", "FreeToTail", "NoInstantReuse", "SmallestFirst"]
)
def test_the_policies_that_come_with_physmem(kernel, name):
    machine = tune(
        Machine.build("32MiB", kernel=kernel),
        Tuning.parse({"policy": f"physmem.lab.policies:{name}", "pcp": "off"}),
    )
    assert machine.policy.name == name
    assert work(machine) != work(direct(kernel, "32MiB"))
    letters = "".join(zone.pageblocks for zone in machine.snapshot().zones)
    if name == "EverythingMovable":
        assert set(letters) <= set("MX")
    if name == "SmallestFirst":  # the first block of each type is a whole one
        assert sum(zone.nr_claims for zone in machine.zones) <= 2


def test_claims_are_a_policys_to_make():
    claims = {}
    for answer in (0, 1):

        @physmem.policy
        class Claim:
            def claim_block(zone: Zone, pfn: int, order: int, mt: int) -> int:
                return answer  # noqa: B023 - a constant when it is compiled

        for kernel in KERNELS:
            machine = direct(kernel)
            movable = [machine.alloc_pages(gfp=MOVABLE) for _ in range(15_000)]
            for pfn in movable[::3]:
                machine.free_pages(pfn)
            machine.set_policy(Claim)
            before = sum(zone.nr_claims for zone in machine.zones)
            for _ in range(1000):
                machine.alloc_pages()
            claims[kernel, answer] = sum(zone.nr_claims for zone in machine.zones) - before
            machine.validate()
    for kernel in KERNELS:
        assert claims[kernel, 0] < claims[kernel, 1], claims


# ---- wrong answers -------------------------------------------------------------------------------


@physmem.policy
class NoType:
    def choose_migratetype(zone: Zone, order: int, gfp: int, mt: int) -> int:
        return 7


@physmem.policy
class NoEnd:
    def choose_list_end(zone: Zone, pfn: int, order: int, mt: int) -> int:
        return 2


@physmem.policy
class Wild:
    def choose_block(zone: Zone, order: int, mt: int, flags: int) -> int:
        return 1 << 40


@physmem.policy
class InUse:
    def choose_block(zone: Zone, order: int, mt: int, flags: int) -> int:
        return zone.scratch[0]


@physmem.policy
class OtherList:
    def choose_block(zone: Zone, order: int, mt: int, flags: int) -> int:
        return first_free(zone, zone.max_order, 1)


@physmem.policy
class TooSmall:
    def choose_fallback(zone: Zone, order: int, mt: int, flags: int) -> int:
        return first_free(zone, 0, 1)


@physmem.policy
class NoVerdict:
    def claim_block(zone: Zone, pfn: int, order: int, mt: int) -> int:
        return 3


@physmem.policy
class OutOfBounds:
    def choose_block(zone: Zone, order: int, mt: int, flags: int) -> int:
        return int(zone.mem_map[1 << 31].next)


@physmem.policy
class Raises:
    def choose_list_end(zone: Zone, pfn: int, order: int, mt: int) -> int:
        if zone.number >= 0:
            raise ValueError
        return HEAD


def steps(machine):
    """Requests in which each hook is asked."""
    movable = [machine.alloc_pages(gfp=MOVABLE) for _ in range(2100)]
    for pfn in movable[::2]:
        machine.free_pages(pfn)
    for _ in range(1500):
        machine.alloc_pages(0)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("policy", "hook", "words"),
    [
        (NoType, "choose_migratetype", "answered 7: that is no migratetype"),
        (NoEnd, "choose_list_end", "answered 2: that is no end of a list"),
        (Wild, "choose_block", "answered 1099511627776: that frame is not in the zone"),
        (InUse, "choose_block", "no free block begins at that frame"),
        (OtherList, "choose_block", "on a list that it may not take from"),
        (OutOfBounds, "choose_block", "index out of bounds"),
        (Raises, "choose_list_end", "it raised an exception"),
    ],
)
def test_a_wrong_answer_is_caught_and_named(kernel, policy, hook, words):
    machine = direct(kernel, "32MiB")
    held = machine.alloc_pages()
    machine.set_policy(policy)
    machine.tables.scratch[0] = held
    free = machine.nr_free_pages

    def requests():
        for _ in range(3):
            machine.free_pages(machine.alloc_pages())

    with pytest.raises(PolicyError) as caught:
        requests()
    assert f"{policy.name}.{hook}(" in str(caught.value)
    assert words in str(caught.value)
    assert "zone DMA" in str(caught.value)
    assert caught.value.function == hook
    machine.validate()
    assert machine.nr_free_pages == free
    machine.set_policy(None)
    steps(machine)
    machine.validate()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("policy", "hook", "words"),
    [
        (TooSmall, "choose_fallback", "that block is too small"),
        (NoVerdict, "claim_block", "answered 3: that is no answer"),
    ],
)
def test_a_wrong_answer_to_a_fallback(kernel, policy, hook, words):
    machine = direct(kernel, "32MiB")
    movable = [machine.alloc_pages(gfp=MOVABLE) for _ in range(6000)]
    for pfn in movable[::2]:
        machine.free_pages(pfn)
    machine.set_policy(policy)

    def requests():
        for _ in range(3000):
            machine.alloc_pages(4 if policy is TooSmall else 0)

    with pytest.raises(PolicyError) as caught:
        requests()
    assert f"{policy.name}.{hook}(" in str(caught.value)
    assert words in str(caught.value)
    machine.validate()


def test_a_loop_checks_once_at_its_end():
    machine = direct()
    machine.set_policy(NoType)
    for _ in range(10):
        ready(do_alloc_pages)(machine._h, 0, 0xCC0, 0, 0)
    with pytest.raises(PolicyError, match="NoType.choose_migratetype"):
        check_policy(machine.tables, machine.layout.zone_names)
    check_policy(machine.tables)  # told once


def test_a_bulk_request_gives_its_frames_back():
    machine = direct()
    machine.set_policy(NoType)
    free = machine.nr_free_pages
    with pytest.raises(PolicyError, match="NoType.choose_migratetype"):
        machine.alloc_pages_bulk(10)
    assert machine.nr_free_pages == free
    machine.validate()


# ---- what is no policy ---------------------------------------------------------------------------


def no_hints(zone, order, gfp, mt):
    return 0


def too_few(zone: Zone, order: int) -> int:
    return 0


def wrong_result(zone: Zone, order: int, gfp: int, mt: int) -> bool:
    return True


@pytest.mark.parametrize("function", [no_hints, too_few, wrong_result])
def test_a_function_of_another_form(function):
    made = type("Mine", (), {"choose_migratetype": staticmethod(function)})
    with pytest.raises(PolicyError) as caught:
        physmem.policy(made)
    assert (
        "Mine.choose_migratetype: write it as choose_migratetype(zone: Zone, order: int, gfp"
        in (str(caught.value))
    )


def test_other_things_that_are_no_policy():
    with pytest.raises(PolicyError, match="there is no such hook; there are choose_migratetype,"):
        physmem.policy(type("Mine", (), {"chose_block": staticmethod(no_hints)}))
    with pytest.raises(PolicyError, match="it has none of choose_migratetype"):
        physmem.policy(type("Mine", (), {}))
    with pytest.raises(PolicyError, match="made of a class or a function"):
        physmem.policy(3)
    with pytest.raises(PolicyError, match="is no policy: make one with @physmem.policy"):
        Machine.build("32MiB").set_policy(3)


@pytest.mark.skipif(PURE, reason="plain Python compiles nothing")
def test_a_policy_that_cannot_be_compiled():
    @physmem.policy
    class Broken:
        def choose_list_end(zone: Zone, pfn: int, order: int, mt: int) -> int:
            return zone.no_such_field

    machine = Machine.build("32MiB")
    before = machine.copy()
    with pytest.raises(PolicyError, match="Broken.choose_list_end cannot be compiled: .*no_such"):
        machine.set_policy(Broken)
    assert machine.policy is None
    assert machine == before


# ---- files and copies ----------------------------------------------------------------------------

_FILE = """
import physmem
from physmem.mm.entry import do_alloc_pages
from physmem.mm.policy import TAIL, Zone

@physmem.policy
class Mine:
    def choose_list_end(zone: Zone, pfn: int, order: int, mt: int) -> int:
        zone.scratch[0] += 1
        return TAIL
"""


def test_a_policy_in_a_file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(_FILE)
    for source in (str(file), f"{file}:Mine"):
        assert load_policy(source).name == "Mine"
    made = tune(Machine.build("32MiB"), Tuning.parse({"policy": str(file)}))
    made.drain()
    work(made)
    made.drain()
    assert made.tables.scratch[0] > 0


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nowhere.py", "there is no file nowhere.py"),
        ("physmem.lab.policies", "name one as physmem.lab.policies:NAME"),
        ("physmem.lab.policies:Missing", "has no policy 'Missing'; it has EverythingMovable"),
        ("no.such.module:X", "cannot be loaded"),
        ("physmem.mm.gfp:parse_gfp", "has no policy 'parse_gfp'; it has none"),
    ],
)
def test_a_policy_that_is_not_there(source, words):
    with pytest.raises(PolicyError) as caught:
        load_policy(source)
    assert words in str(caught.value)
    assert source in str(caught.value)


def test_a_file_that_fails(tmp_path):
    file = tmp_path / "bad.py"
    file.write_text("1 / 0\n")
    with pytest.raises(PolicyError, match="cannot be loaded .ZeroDivisionError"):
        load_policy(str(file))


def test_copies_have_the_policy_files_its_name(tmp_path):
    machine = direct()
    machine.set_policy(Highest)
    work(machine, 100)
    copied = machine.copy()
    assert copied.policy is Highest
    path = tmp_path / "machine"
    machine.save(path)
    with pytest.raises(PolicyError, match="saved under the policy Highest; open it with that"):
        physmem.open(path)
    with pytest.raises(PolicyError, match="Highest; open it with that .policy=...., not with Sile"):
        physmem.open(path, policy=Silent)
    opened = physmem.open(path, policy=Highest)
    assert opened == machine
    assert (opened.tables.scratch == machine.tables.scratch).all()
    assert work(opened) == work(copied) == work(machine)
    plain = direct()
    plain.save(path)
    with pytest.raises(PolicyError, match="saved under no policy"):
        physmem.open(path, policy=Silent)


@pytest.mark.slow
def test_both_modes_do_the_same(tmp_path):
    """The work of this file in a process of the other mode."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from tests.unit import test_policy as t\n"
        "for kernel in t.KERNELS:\n"
        "    for policy in (t.Silent, t.Highest):\n"
        "        machine = t.direct(kernel); machine.set_policy(policy); print(t.work(machine))\n"
    )
    root = str(Path(__file__).parents[2])
    told = [
        subprocess.run(
            [sys.executable, "-c", script, root],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PHYSMEM_PURE": mode},
            cwd=root,
        ).stdout
        for mode in "01"
    ]
    assert told[0] == told[1]
    assert told[0].count("\n") == 6
    assert TAIL == 1
