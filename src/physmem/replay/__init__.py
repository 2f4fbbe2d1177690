# SPDX-License-Identifier: GPL-2.0-or-later
"""Replay of captures. The package can be called: `physmem.replay(capture)` is `replay_capture`."""

import sys
from types import ModuleType

TYPE_CHECKING = False  # `typing` would double the time of `import physmem`

if TYPE_CHECKING:
    from typing import Any


class _Package(ModuleType):
    """The package's own type: a name cannot be a function and a package in any other way."""

    def __call__(self, *args: "Any", **kwargs: "Any") -> "Any":
        from physmem.replay.session import replay_capture

        return replay_capture(*args, **kwargs)


sys.modules[__name__].__class__ = _Package
