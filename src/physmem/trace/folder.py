# SPDX-License-Identifier: GPL-2.0-or-later
"""The directory of a recording: its files, compressed or not."""

import hashlib
from pathlib import Path

from physmem.lib.errors import BadInputError
from physmem.trace.ftrace import DAMAGED, compression_of, decompressed
from physmem.trace.info import SourceFile

_SUFFIXES = ("", ".xz", ".gz", ".zst")


class RecordingFolder:
    """Files of a recording, each by its plain name.

    Raises
    ------
    BadInputError
        No such directory; later: a file that is truncated or damaged.

    Examples
    --------
    >>> import tempfile
    >>> here = Path(tempfile.mkdtemp())
    >>> _ = (here / "cmdline").write_text("quiet")
    >>> folder = RecordingFolder(here)
    >>> folder.text("cmdline"), folder.text("version"), folder.sources()[0].size
    ('quiet', '', 5)
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            raise BadInputError(f"{path}: no such directory; name the directory of a recording")
        if not path.is_dir():
            raise BadInputError(
                f"{path}: not a directory; put the trace into one as trace.txt and name that"
            )
        self.read: list[Path] = []

    def find(self, *names: str) -> Path | None:
        """Return the first of the names that is there, compressed or not."""
        for name in names:
            for suffix in _SUFFIXES:
                path = self.path / (name + suffix)
                if path.is_file():
                    self.read.append(path)
                    return path
        return None

    def content(self, *names: str) -> bytes | None:
        """Return the plain bytes of a small file, or None."""
        path = self.find(*names)
        if path is None:
            return None
        try:
            kind = compression_of(path)
            with path.open("rb") as file:
                return bytes(decompressed(file, kind).read() if kind else file.read())
        except DAMAGED as error:
            raise BadInputError(f"{path}: truncated or damaged ({error}); copy it again") from None

    def text(self, *names: str) -> str:
        """Return the text of a small file; empty when there is none."""
        return (self.content(*names) or b"").decode("utf-8", "replace")

    def sources(self) -> list[SourceFile]:
        """Name, size and digest of every file that was read."""
        files = []
        for path in dict.fromkeys(self.read):
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            files.append(SourceFile(path.name, path.stat().st_size, digest))
        return files
