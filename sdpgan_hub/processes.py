"""The processes of one command: this one alone, or those that `accelerate launch` or torchrun started.

Accelerate is needed for several only. They talk by gloo, so that who waits for the others keeps no GPU busy.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

from .errors import SDPGANError

T = TypeVar("T")


class Processes:
    """This process, alone until `start`; then what each method does is done by all processes together.

    Attributes:
        several: whether there are others.
        is_main: whether this is the one that speaks to the user.
    """

    def __init__(self) -> None:
        self.several, self.is_main = False, True
        self._done = 0
        self._state: Any = None
        self._store: Any = None

    def start(self, device: str | None) -> str | None:
        """Meets the others where there are some, and gives the device of this process.

        device: as the user named it. Where it is "cuda", or None on a machine with GPUs, each process gets its own.

        Raises:
            SDPGANError: where there are others and Accelerate is missing.
        """
        count = os.environ.get("WORLD_SIZE", "1")
        if count == "1":
            return device
        try:
            from accelerate import PartialState
        except ImportError as error:
            raise SDPGANError(
                f"WORLD_SIZE={count}: several processes take another library: pip install accelerate."
            ) from error
        import torch

        on_gpus = device == "cuda" or (device is None and torch.cuda.is_available())
        try:
            self._store, rank, size = next(torch.distributed.rendezvous("env://"))
        except ValueError as error:  # a job's template sets WORLD_SIZE for others
            raise SDPGANError(
                f"WORLD_SIZE is {count}, but {error}; start with `accelerate launch`, or unset WORLD_SIZE."
            ) from error
        group = {"backend": "gloo", "store": self._store, "rank": rank, "world_size": size}
        self._state = PartialState(cpu=not on_gpus, **group)
        self.several, self.is_main = True, self._state.is_main_process
        return str(self._state.device) if on_gpus else device

    def agreed(self, make: Callable[[], T]) -> T:
        """What `make` gives in the main process, which alone calls it; its SDPGANError is raised in all."""
        return self.gathered(self.together(lambda: [make()] if self.is_main else []))[0]

    def together(self, make: Callable[[], T]) -> T:
        """What `make` gives in this process; an SDPGANError in one is raised in all, when all have called it."""
        errors: list[SDPGANError] = []
        try:
            made = make()
        except SDPGANError as error:
            errors = [error]
        errors = self.gathered(errors)
        if errors:
            raise errors[0]
        return made

    def share(self, items: list[T]) -> list[T]:
        """Which of `items`, the same in all processes, are this one's: each is one process's."""
        if not self.several:
            return items
        with self._state.split_between_processes(items) as share:
            # for a process without a share Accelerate 1.0 gives the last item
            return share if self._state.process_index < len(items) else []

    def count(self, more: int) -> int:
        """How many items are done in all processes, after `more` that are done in this one."""
        if self.several:
            return self._store.add("done", more)
        self._done += more
        return self._done

    def gathered(self, rows: list[T]) -> list[T]:
        """The rows of all processes, in their order."""
        if not self.several:
            return rows
        from accelerate.utils import gather_object

        return gather_object(rows)

    def wait(self) -> None:
        """Until all are here: the launcher ends all processes as soon as one has failed."""
        if self.several:
            self._state.wait_for_everyone()
