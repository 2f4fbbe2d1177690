# SPDX-License-Identifier: GPL-2.0-or-later
import importlib

import pytest

from physmem.machine.profiles import PROFILES, has_feature
from physmem.slab.slub_config import SLUB_RULES

pytestmark = pytest.mark.pure


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_a_profile_is_a_table_of_named_and_dated_features(profile):
    names = [feature.name for feature in PROFILES[profile]]
    assert len(names) == len(set(names)) > 0
    for feature in PROFILES[profile]:
        assert feature.since[0].isdigit()
        where = feature.where if "/" in feature.where else f"mm/{feature.where}"
        module = importlib.import_module(f"physmem.{where.replace('/', '.')}")
        assert "Linux:" in module.__doc__


@pytest.mark.parametrize("kernel", SLUB_RULES)
def test_rules_of_slub_are_named_and_dated(kernel):
    features = [rule.feature for rule in SLUB_RULES[kernel]]
    assert len(features) == len(set(features))
    for rule in SLUB_RULES[kernel]:
        assert rule.since[0].isdigit()
        module = importlib.import_module(f"physmem.slab.{rule.where}")
        assert "Linux:" in module.__doc__
    if kernel in PROFILES:
        assert has_feature(kernel, "slub") != has_feature(kernel, "slab")
