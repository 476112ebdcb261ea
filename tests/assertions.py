"""What tests in several files say of what they test."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from sdpgan_hub import SDPGANError


def refusal(call: Callable[[], object], *named: object) -> str:
    """The one sentence with which `call` is refused, each of `named` in it."""
    with pytest.raises(SDPGANError) as error:
        call()
    message = str(error.value)
    assert message and "\n" not in message
    assert all(str(name) in message for name in named), message
    return message


def one_line(capsys: pytest.CaptureFixture) -> str:
    """What was written on stderr, which is one line."""
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1, errors
    return errors


@contextmanager
def not_root() -> Iterator[None]:
    """As one whom permissions bind, root or not; all in the working folder can be used by relative paths."""
    os.chmod(".", 0o755)
    is_root = os.getuid() == 0
    if is_root:
        os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        if is_root:
            os.setresuid(0, 0, 0)
