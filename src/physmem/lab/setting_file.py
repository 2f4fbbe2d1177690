# SPDX-License-Identifier: GPL-2.0-or-later
"""Settings that name a Python file, such as `policy=mine.py`: the file counts, not its name.

Its text is part of what a task is known by, and travels to workers that do not have the file.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from physmem.lab.digest import bytes_digest
from physmem.lib.errors import BadStudyError
from physmem.lib.output import replace_file

_FILE = re.compile(r"(.+\.py)((?::\w+)?)")


class SettingFile(msgspec.Struct, frozen=True):
    """A file that a setting names.

    Attributes
    ----------
    path : where it is on the computer that asks
    text : its content
    """

    path: str
    text: str

    @property
    def digest(self) -> str:
        """Digest of the content."""
        return bytes_digest(self.text.encode())


def setting_files(settings: Mapping[str, str], folder: Path) -> dict[str, SettingFile]:
    """Files that settings name, by knob; relative names are looked for in `folder`.

    Raises
    ------
    BadStudyError
        There is no such file.

    Examples
    --------
    >>> setting_files({"mobility": "on"}, Path())
    {}
    """
    found = {}
    for knob, value in settings.items():
        match = _FILE.fullmatch(value)
        if match is None:
            continue
        path = (folder / match[1]).absolute()
        try:
            found[knob] = SettingFile(str(path), path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise BadStudyError(f"{knob}={value}: {path}: {reason}; name a Python file") from None
    return found


def place_files(
    settings: Mapping[str, str], files: Mapping[str, SettingFile], folder: str
) -> dict[str, str] | None:
    """Settings with the paths of their files here.

    Parameters
    ----------
    folder : where a file is written that is not here as it should be; "": nowhere, and the answer
        is None

    Examples
    --------
    >>> place_files({"mobility": "on"}, {}, "")
    {'mobility': 'on'}
    """
    placed = dict(settings)
    for knob, file in files.items():
        path = Path(file.path)
        if not _holds(path, file.text):
            if not folder:
                return None
            path = Path(folder) / file.digest / path.name
            if not _holds(path, file.text):
                path.parent.mkdir(parents=True, exist_ok=True)
                with replace_file(path) as out:
                    out.write(file.text.encode())
        match = _FILE.fullmatch(settings[knob])
        placed[knob] = f"{path}{match[2] if match else ''}"
    return placed


def _holds(path: Path, text: str) -> bool:
    try:
        return path.read_text(encoding="utf-8") == text
    except (OSError, UnicodeDecodeError):
        return False
