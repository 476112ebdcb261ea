"""A style's name leads to a folder, a shipped style or a Hub repository, in this order."""

from pathlib import Path

import pytest
from assertions import refusal

from sdpgan_hub import SDPGAN, styles


@pytest.fixture
def shipped(tmp_path, monkeypatch) -> Path:
    """A shipped style "monet" (a tiny model), the only one."""
    folder = tmp_path / "shipped"
    SDPGAN(base_channels=4, residual_blocks=1).save_pretrained(folder / "monet")
    (folder / "unfinished").mkdir()
    monkeypatch.setattr(styles, "SHIPPED", folder)
    return folder


def test_available_maps_each_shipped_style_to_its_folder(shipped):
    assert styles.available() == {"monet": shipped / "monet"}


def test_a_folder_goes_before_a_shipped_style_which_one_without_a_config_does_not_hide(shipped, here):
    assert styles.resolve("monet") == shipped / "monet"
    (here / "monet").mkdir()
    assert styles.resolve("monet") == shipped / "monet"
    (here / "monet" / "config.json").write_text("{}")
    assert styles.resolve("monet") == Path("monet")


def test_a_folder_goes_before_a_hub_id(shipped, here):
    assert styles.resolve("org/name") == "org/name"
    (here / "org" / "name").mkdir(parents=True)
    assert styles.resolve("org/name") == Path("org/name")


@pytest.mark.parametrize(
    "name", ["cezanne", "", "./out/monet", "/absent/folder", "a/b/c", "org/na me", "...", Path("org/name"), None, 3]
)
def test_anything_else_is_refused_and_the_shipped_styles_are_named(shipped, here, name):
    refusal(lambda: styles.resolve(name), "monet", repr(str(name) if isinstance(name, Path) else name))


def test_a_file_is_refused_and_its_folder_asked_for(shipped):
    file = shipped / "monet" / "model.safetensors"
    refusal(lambda: SDPGAN.from_pretrained(file), "folder", file)


def test_a_folder_name_may_start_at_home(shipped, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(shipped))
    assert styles.resolve("~/monet") == shipped / "monet"
