"""Files that appear under their name only when they are whole."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import SDPGANError

UNFINISHED = ".unfinished"
"""The suffix of a file that is being written."""


def write_whole(path: Path, content: bytes) -> None:
    """Puts `content` in the file at `path`, and makes its folder; a reader, or a crash, never meets half of it."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}{UNFINISHED}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(content)
        os.replace(unfinished, path)
    except OSError as error:
        raise SDPGANError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        unfinished.unlink(missing_ok=True)
