# SPDX-License-Identifier: GPL-2.0-or-later
"""Settings of variants: what may be written, what it becomes, what is refused."""

import doctest

import pytest

from physmem.firmware.cmdline import CommandLine
from physmem.lab import against, metrics, report
from physmem.lab import settings as module
from physmem.lab.settings import Settings, parse_group, setting_names
from physmem.lib.errors import BadInputError, PhysmemError


@pytest.mark.parametrize("what", [module, against, metrics, report])
def test_examples(what):
    assert doctest.testmod(what).failed == 0


def test_groups_hold_several_pairs_and_values_with_commas():
    group = parse_group("movablecore=128M,vm.min_free_kbytes=8192,memmap=1M$16M,1M$32M")
    assert group.boot == {"movablecore": "128M", "memmap": "1M$16M,1M$32M"}
    assert group.sysctl == {"min_free_kbytes": (8192,)}


@pytest.mark.parametrize("gone", ["movablecore=", "movablecore=0", "movablecore=off"])
def test_an_option_can_be_taken_away(gone):
    recorded = "quiet movablecore=128M root=/dev/sda -- movablecore=1"
    assert parse_group(gone).cmdline(recorded) == "quiet root=/dev/sda -- movablecore=1"


def test_numa_fake_is_not_numa():
    line = parse_group("numa_fake=4").cmdline("numa=off numa=fake=2 quiet")
    assert line == "numa=off quiet numa=fake=4"
    assert CommandLine.parse(line).numa_fake == "4"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("movablecor=1G", "did you mean movablecore"),
        ("nonsense=1", "there are movablecore"),
        ("movablecore=lots", "write a size"),
        ("min_free_kbytes=-1", "write a number"),
        ("min_free_kbytes=1:2", "write a number"),
        ("kernel=5.4", "6.1"),
        ("page_size=8K", "4K, 16K, 64K"),
        ("movablecore", "name=value"),
        ("mem=1G,mem=2G", "twice"),
        ("movable_node=maybe", "on or off"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(text, words):
    with pytest.raises(BadInputError, match=words):
        parse_group(text)


def test_every_name_is_known_to_one_place_only():
    names = setting_names()
    boot = {*module.BOOT_SIZES, *module.BOOT_WORDS}
    assert not boot & set(module.SYSCTLS)
    assert {"movablecore", "min_free_kbytes", "kernel", "page_size", "mobility"} <= set(names)


def test_a_seed_is_drawn_where_one_is_asked_for():
    assert parse_group("shuffle=on", 7).knobs == {"shuffle": "7"}
    assert parse_group("shuffle=3", 7).knobs == {"shuffle": "3"}


def test_a_bad_knob_is_refused_by_the_model():
    with pytest.raises(PhysmemError):
        parse_group("mobility=perhaps")


def test_nothing_is_changed_by_nothing():
    assert Settings().changes_nothing
    assert not parse_group("kernel=6.12").changes_nothing
    assert Settings().cmdline("quiet") == "quiet"
