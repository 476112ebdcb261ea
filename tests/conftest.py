"""Fixtures shared by all tests."""

import os
import signal
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from hub_server import hub  # noqa: F401
from skimage import data
from training_fixtures import images, inception, launcher, trainer, vgg_weights  # noqa: F401

from sdpgan_hub import SDPGAN, networks


def beside_the_checkout(part: str) -> Path:
    folder = Path(os.environ.get("SDPGAN_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not (folder / part).is_dir():
        pytest.skip(f"{folder / part} is not on this machine")
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """A saved SDP-GAN of real layout and little width, whose noise and map frames of a film take over."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("styles") / "tiny"
    SDPGAN(base_channels=4, residual_blocks=1, saliency_size=32, noise=0.1).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """61 x 44 x 3, uint8: odd sides, no multiples of 4."""
    return np.ascontiguousarray(data.astronaut()[20:81, 200:244])


@pytest.fixture
def here(tmp_path: Path, monkeypatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def full_disk(monkeypatch) -> None:
    """No file can be written whole."""
    monkeypatch.setattr(os, "replace", Mock(side_effect=OSError(28, "No space left on device")))


@pytest.fixture(scope="session", autouse=True)
def float32():
    """Equations are tested in float32 on every processor; the tests of bfloat16 set it by themselves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "has_amx", lambda: False)
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real photos, paintings and weights that lies beside a developer's checkout; absent elsewhere."""
    return beside_the_checkout("data")


@pytest.fixture(scope="session")
def cases() -> Path:
    """The folder of input files that once failed, beside a developer's checkout; absent elsewhere."""
    return beside_the_checkout("cases") / "cases"


# Tests started in the background ignore Ctrl-C, and so would the programs under test, which inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
