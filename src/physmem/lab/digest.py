# SPDX-License-Identifier: GPL-2.0-or-later
"""What a result was computed from, as digests: the bytes of files, the sources, a task's inputs."""

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from physmem.lib.errors import BadInputError

_PACKAGE = Path(__file__).parents[1]
_PIECE = 1 << 20


def bytes_digest(data: bytes) -> str:
    """Digest of bytes: 128 bits in hexadecimal.

    Examples
    --------
    >>> bytes_digest(b"")
    'cae66941d9efbd404e4d88758ea67670'
    """
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def file_digest(path: str | Path) -> str:
    """Digest of a file's bytes, as `bytes_digest`; read again only when the file has changed.

    Raises
    ------
    BadInputError
        It cannot be read.
    """
    try:
        stat = Path(path).stat()
        return _file_digest(str(path), stat.st_ino, stat.st_mtime_ns, stat.st_size)
    except OSError as error:
        raise BadInputError(f"{path}: {error.strerror or error}; name a readable file") from None


@functools.lru_cache(maxsize=1024)
def _file_digest(path: str, _inode: int, _mtime_ns: int, _size: int) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with Path(path).open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


@functools.cache
def source_digest() -> str:
    """Digest of all sources of physmem: two that are equal compute the same.

    Examples
    --------
    >>> len(source_digest())
    32
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(_PACKAGE.rglob("*.py"), key=lambda path: path.relative_to(_PACKAGE).parts):
        digest.update(path.relative_to(_PACKAGE).as_posix().encode() + b"\0")
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


def key_of(inputs: Mapping[str, Any]) -> str:
    """Digest of plain inputs (text, numbers, lists, mappings), whatever their order.

    Examples
    --------
    >>> key_of({"a": 1, "b": "x"}) == key_of({"b": "x", "a": 1})
    True
    >>> key_of({"a": 1}) == key_of({"a": "1"})
    False
    """
    return bytes_digest(json.dumps(inputs, sort_keys=True, separators=(",", ":")).encode())
