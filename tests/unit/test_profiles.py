# SPDX-License-Identifier: GPL-2.0-or-later
import importlib

import pytest

from physmem.machine.profiles import PROFILES

pytestmark = pytest.mark.pure


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_a_profile_is_a_table_of_named_and_dated_features(profile):
    names = [feature.name for feature in PROFILES[profile]]
    assert len(names) == len(set(names)) > 0
    for feature in PROFILES[profile]:
        assert feature.since[0].isdigit()
        module = importlib.import_module(f"physmem.mm.{feature.where}")
        assert "Linux:" in module.__doc__
