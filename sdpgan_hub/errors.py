"""The one exception that this package raises for what a user can put right, the one warning, and their words."""

from __future__ import annotations

import re
from collections.abc import Mapping


class SDPGANError(ValueError):
    """An input, a file or a setting that cannot be used; the message names it and the way out in one sentence."""


class SDPGANWarning(UserWarning):
    """What was done with an input that is not wholly in order; the message names it, in one sentence."""


def one_line(error: BaseException) -> str:
    """The first line of an exception's message after the name of its kind."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def reworded(error: Exception, words: Mapping[str, str]) -> str:
    """The message of `error` in the words of the place where it appears; words: Python's name -> its name there.

    A part of a path or of a name stays as it is.
    """
    message = str(error)
    for python, there in words.items():
        before = r"(?<![\w./\\])" if python[0].isalnum() else r"(?<![/\\])"
        after = r"(?![\w/\\])" if python[-1].isalnum() else r"(?![/\\])"
        message = there.join(re.split(before + re.escape(python) + after, message))
    return message
