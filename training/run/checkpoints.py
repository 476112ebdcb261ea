"""The checkpoints of a run: whole or not taken for one, and no more of them than asked for."""

from __future__ import annotations

import shutil
import sys
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open

from sdpgan_hub.errors import SDPGANError

RANDOM_STATES = "random_states_0.pkl"
"""The one file without which Accelerate goes on and says nothing."""


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
        return self.folder / ".unfinished"

    def discard_unfinished(self) -> None:
        shutil.rmtree(self.unfinished, ignore_errors=True)

    def add(self, step: int) -> None:
        """Names what lies in `unfinished`, and removes the oldest ones over the limit.

        Later ones are of what the run went back from; they go, so that the newest is always this run's.
        """
        for later in [path for path in self.all() if path >= self.path(step)]:
            shutil.rmtree(later)
        self.unfinished.rename(self.path(step))
        for old in self.all()[: -self.limit]:
            shutil.rmtree(old)

    def newest_whole(self) -> Path:
        """The newest one that is whole; each that is passed over is named on stderr.

        Raises:
            SDPGANError: there is none.
        """
        for path in reversed(self.all()):
            reason = fault(path)
            if reason is None:
                return path
            print(f"warning: {path} is damaged ({reason}); taking the one before.", file=sys.stderr)
        raise SDPGANError(
            f"{self.folder} holds no whole checkpoint; leave --resume_from_checkpoint out to start again."
        )


def fault(checkpoint: Path) -> str | None:
    """Which of a checkpoint's files was cut short or got lost on its way here; None if none was."""
    if not (checkpoint / RANDOM_STATES).is_file():
        return f"{RANDOM_STATES} is missing"
    for path in sorted(checkpoint.iterdir()):
        try:
            if path.suffix == ".safetensors":
                with safe_open(path, framework="pt"):  # compares the size with the header
                    pass
            elif path.suffix in (".bin", ".pkl", ".pt") and zipfile.ZipFile(path).testzip() is not None:
                return f"{path.name} is not as it was written"
        except (OSError, SafetensorError, zipfile.BadZipFile) as error:
            return f"{path.name} cannot be read: {error}"
    return None
