"""The checkpoints of a run: whole or not taken for one, and no more of them than asked for."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from sdpgan_hub.errors import SDPGANError

CHECKSUMS = "checksums.json"
"""What makes a folder a checkpoint: the SHA-256 of every other file in it, written last."""
UNFINISHED = ".unfinished"


class Checkpoints:
    """`folder`/step_NNNNNNNN, at most `limit` of them."""

    def __init__(self, folder: Path, limit: int = 3):
        self.folder, self.limit = folder, limit

    def path(self, step: int) -> Path:
        return self.folder / f"step_{step:08d}"

    def all(self) -> list[Path]:
        """From the oldest to the newest, whole or not."""
        return sorted(self.folder.glob("step_*"))

    @property
    def unfinished(self) -> Path:
        """Where the next one is written before `add` makes it one."""
        return self.folder / UNFINISHED

    def discard_unfinished(self) -> None:
        shutil.rmtree(self.unfinished, ignore_errors=True)

    def add(self, step: int) -> None:
        """Seals what lies in `unfinished`, names it, and removes the oldest ones over the limit."""
        sums = {path.name: _sha256(path) for path in sorted(self.unfinished.iterdir()) if path.name != CHECKSUMS}
        (self.unfinished / CHECKSUMS).write_text(json.dumps(sums, indent=1))
        shutil.rmtree(self.path(step), ignore_errors=True)
        self.unfinished.rename(self.path(step))
        for old in self.all()[: -self.limit]:
            shutil.rmtree(old)

    def newest_whole(self, warn: Callable[[str], None]) -> Path:
        """The newest one that is whole; `warn` is told of each that is passed over.

        Raises:
            SDPGANError: there is none.
        """
        for path in reversed(self.all()):
            reason = fault(path)
            if reason is None:
                return path
            warn(f"{path} is damaged ({reason}); taking the one before.")
        raise SDPGANError(
            f"{self.folder} holds no whole checkpoint; leave --resume_from_checkpoint out to start again."
        )


def fault(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint's files; None if it is whole."""
    try:
        sums = json.loads((checkpoint / CHECKSUMS).read_text())
        for name, expected in sums.items():
            if _sha256(checkpoint / name) != expected:
                return f"{name} is not as it was written"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, AttributeError) as error:
        return f"{CHECKSUMS} or a file it names cannot be read: {error}"
    return None


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
