"""What tests in several files say of what they test."""

from collections.abc import Callable

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
