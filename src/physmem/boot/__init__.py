# SPDX-License-Identifier: GPL-2.0-or-later
"""From a firmware map to a running page allocator.

The package can be called: `physmem.boot("64GiB", nodes=2)` is `physmem.boot.start.boot`.
"""

import sys
from types import ModuleType

TYPE_CHECKING = False  # `typing` would double the time of `import physmem`

if TYPE_CHECKING:
    from typing import Any


class _Package(ModuleType):
    """The package's own type: a name cannot be a function and a package in any other way."""

    def __call__(self, *args: "Any", **kwargs: "Any") -> "Any":
        from physmem.boot.start import boot

        return boot(*args, **kwargs)


sys.modules[__name__].__class__ = _Package
