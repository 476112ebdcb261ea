"""The one exception that this package raises for what a user can put right, and one line of any other."""


class SDPGANError(ValueError):
    """An input, a file or a setting that cannot be used; the message names it and the way out in one sentence."""


def one_line(error: BaseException) -> str:
    """The first line of an exception's message after the name of its kind."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
