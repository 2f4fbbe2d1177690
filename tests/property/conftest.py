# SPDX-License-Identifier: GPL-2.0-or-later
"""How long Hypothesis looks: HYPOTHESIS_PROFILE chooses dev, ci (the default) or nightly."""

import os

from hypothesis import HealthCheck, Phase, settings

_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("dev", max_examples=10, stateful_step_count=25, **_COMMON)
settings.register_profile(
    "ci",
    max_examples=150,
    stateful_step_count=40,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    **_COMMON,
)
settings.register_profile("nightly", max_examples=4000, stateful_step_count=80, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
