"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from evaluation_fixtures import inception  # noqa: F401
from hub_server import hub  # noqa: F401
from training_fixtures import images, launcher, trainer, vgg_weights  # noqa: F401


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real photos, paintings and weights that lies beside a developer's checkout; absent elsewhere."""
    folder = Path(os.environ.get("SDPGAN_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"{folder} (real photos and weights) is not on this machine")
    return folder


@pytest.fixture(scope="session")
def cases() -> Path:
    """The folder of input files that once failed, beside a developer's checkout; absent elsewhere."""
    folder = Path(os.environ.get("SDPGAN_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "cases"
    if not folder.is_dir():
        pytest.skip(f"{folder} (input files that once failed) is not on this machine")
    return folder


# Tests started in the background ignore Ctrl-C, and so would the programs under test, which inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
