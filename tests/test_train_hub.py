"""--push_to_hub against the loopback Hub: what arrives, and what is left where nothing does."""

import json
import subprocess
import sys

import torch
import training_extra  # noqa: F401
from safetensors.torch import load_file
from training_fixtures import ROOT

from sdpgan_hub import SDPGAN

PUSHED = {
    ".gitattributes", "README.md", "config.json", "discriminator.safetensors", "model.safetensors", "sample_sheet.jpg",
    "training.json",
}  # fmt: skip


def start(launcher, hub, home, output, *flags, token="hf_loopback", **settings) -> subprocess.Popen:
    arguments = launcher.arguments(output, *flags, max_steps=4, use_ema="false", **settings)
    environment = hub.environment(home, token=token) | {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(ROOT / "training/train.py"), *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_style_is_pushed_at_the_end_and_on_the_way_and_a_failed_push_is_retried_by_the_printed_command(
    launcher, hub, tmp_path
):
    good, bad = tmp_path / "good", tmp_path / "a bad one"
    pushing = start(launcher, hub, tmp_path / "home", good, push_to_hub="org/painter", hub_every=2)
    failing = start(
        launcher, hub, tmp_path / "home2", bad, "--no_sample_sheet_in_card", token="hf_wrong", push_to_hub="org/other"
    )
    out, err = pushing.communicate(timeout=120)
    assert pushing.returncode == 0, err
    commits = hub.repositories["org/painter"].commits
    assert out.count(f"pushed {hub.endpoint}/org/painter/commit/") == 2 and len(commits) == 3  # the first is empty
    files = hub.files("org/painter")
    assert files.keys() <= PUSHED and files.keys() >= PUSHED - {".gitattributes"}
    for name in files.keys() - {".gitattributes"}:
        assert files[name] == (good / name).read_bytes()
    card = files["README.md"].decode()
    assert 'SDPGAN.from_pretrained("org/painter")' in card and "(sample_sheet.jpg)" in card
    assert "--photos PHOTOS" in card and "--max_steps 4" in card and str(tmp_path) not in card
    assert json.loads(files["training.json"])["numbers"]["loss/con"] > 0

    still = {"learning_rate": 0, "discriminator_learning_rate": 0}
    further = start(
        launcher, hub, tmp_path / "home3", tmp_path / "further", initial_style="org/painter", initialization_epochs=0,
        **still,
    )  # fmt: skip
    out, err = failing.communicate(timeout=120)
    assert failing.returncode == 1 and "Traceback" not in err
    assert "The push failed" in err and "does not accept the token" in err
    assert "org/other" not in hub.repositories
    SDPGAN.from_pretrained(bad)
    assert "sample_sheet" not in (bad / "README.md").read_text() and not (bad / "sample_sheet.jpg").exists()

    command = err[err.index("Try again with: ") :].splitlines()[0].removeprefix("Try again with: ")
    again = subprocess.run(
        command, shell=True, env=hub.environment(tmp_path / "home"), capture_output=True, text=True, timeout=60
    )
    assert again.returncode == 0, again.stderr
    files = hub.files("org/other")
    assert files["model.safetensors"] == (bad / "model.safetensors").read_bytes()
    assert files.keys() - {".gitattributes"} == PUSHED - {".gitattributes", "sample_sheet.jpg"}

    _, err = further.communicate(timeout=120)
    assert further.returncode == 0, err
    kept, taken = (load_file(folder / "discriminator.safetensors") for folder in (good, tmp_path / "further"))
    assert kept.keys() == taken.keys() and all(torch.equal(kept[name], taken[name]) for name in kept)


def test_a_push_without_a_token_is_refused_before_training(hub, launcher, tmp_path):
    process = start(launcher, hub, tmp_path / "home", tmp_path / "style", token=None, push_to_hub="org/painter")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2 and "org/painter needs a token" in err and len(err.splitlines()) == 1
