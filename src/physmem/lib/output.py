# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that appear whole or not at all."""

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


def _is_special(path: Path) -> bool:
    """Tell whether the path is a device or pipe: renaming a file onto it would replace it."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(21, "is a directory; name a file in it", str(path))
    return not stat.S_ISREG(mode)


@contextlib.contextmanager
def replace_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` that takes its name when the block ends well.

    On any exception (an interrupt too) the temporary file is removed and `path` is as it was.

    Raises
    ------
    OSError
        The file cannot be written; `filename` is `path`.

    Examples
    --------
    >>> import tempfile
    >>> name = Path(tempfile.mkdtemp()) / "a"
    >>> with replace_file(name) as out:
    ...     _ = out.write(b"whole")
    >>> name.read_bytes()
    b'whole'
    """
    target = Path(path).resolve()
    try:
        special = _is_special(target)
        part = target if special else target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        done = False
        try:
            with part.open("wb" if special else "xb") as out:
                yield out
            if not special:
                part.replace(target)
            done = True
        finally:
            if not done and not special:
                part.unlink(missing_ok=True)
    except OSError as error:
        error.filename = str(path)
        raise
