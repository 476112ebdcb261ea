"""Ctrl-C and SIGTERM end the step under way, not the run in the middle of it."""

from __future__ import annotations

import signal


class Interruption:
    """Within it, Ctrl-C and SIGTERM are noted in `signal` for the step under way to end; a second one acts at once."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __enter__(self) -> Interruption:
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: object) -> None:
        self.signal = number
        self.__exit__()


def leave_signals_to_the_parent(_: int) -> None:
    """In a worker of the data loader: Ctrl-C and SIGTERM reach a whole group of processes; the trainer ends them."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
