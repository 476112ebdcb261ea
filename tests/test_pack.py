"""training/run/pack.py: what a pack holds, how large it is, and that it trains where little is installed."""

import dataclasses
import functools
import importlib.metadata
import json
import os
import re
import shlex
import subprocess
import sys
import venv
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import training_extra  # noqa: F401
import yaml
from assertions import refusal
from PIL import Image
from safetensors.torch import load_file
from training_fixtures import TINY

from sdpgan_hub import SDPGAN
from training import prepare
from training.data.cache import RECIPE_KEY
from training.run import logs
from training.run import pack as packing
from training.run.checkpoints import Checkpoints, fault
from training.run.config import read_config
from training.run.provenance import DISCRIMINATOR_FILE

CONFIG = read_config(None, {key: str(value) for key, value in TINY.items()})


@pytest.fixture(scope="module")
def twenty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """photos/, masks/ of all but one photo, paintings/: 20 images of noise on discs each, 100 x 140 px."""
    folder, random = tmp_path_factory.mktemp("twenty"), np.random.default_rng(0)
    for kind in ("photos", "masks", "paintings"):
        (folder / kind).mkdir()
    for number in range(20):
        for kind in ("photos", "paintings"):
            image, mask = random.integers(256, size=(100, 140, 3), dtype=np.uint8), np.zeros((100, 140), np.uint8)
            for target, colour in ((image, [number * 12] * 3), (mask, 255)):
                cv2.circle(target, (40 + 3 * number, 50), 30, colour, -1)
            cv2.imwrite(str(folder / kind / f"{number}.png"), image)
            if kind == "photos" and number:
                cv2.imwrite(str(folder / "masks" / f"{number}.png"), mask)
    return folder


@pytest.fixture(scope="module")
def pack(twenty: Path, vgg_weights: Path) -> Callable[..., dict[str, int]]:
    """`packing.pack` of these twenty images; takes a folder and more settings, or others in place of these."""
    kinds = {kind: twenty / kind for kind in ("photos", "paintings", "masks")}
    return functools.partial(packing.pack, config=CONFIG, vgg_weights=vgg_weights, **kinds)


def test_a_pack_holds_images_at_their_size_masks_references_weights_settings_and_code(
    pack, vgg_weights: Path, launcher, tmp_path: Path
):
    launcher.run(tmp_path / "style", max_steps=1)
    folder = tmp_path / "pack"
    counts = pack(folder, initial_style=str(tmp_path / "style"), max_minutes=7)
    assert counts == {"photos": 20, "photos_there": 20, "paintings": 20, "paintings_there": 20}
    for kind in ("photos", "paintings"):
        files = sorted((folder / kind).iterdir())
        assert [path.name for path in files] == [f"{number:05d}.jpg" for number in range(20)]
        assert all(cv2.imread(str(path)).shape == (48, 67, 3) for path in files)
    assert len(list((folder / "masks").iterdir())) == 19
    targets = (Image.open(path) for path in (folder / "cache/saliency").iterdir())
    methods = Counter(json.loads(image.info[RECIPE_KEY])["method"] for image in targets)
    assert methods == {"human mask": 19, "saliency reference": 1}
    for path in (folder / "masks").iterdir():  # each belongs to its photo: the disc is one grey, the rest is noise
        photo, mask = cv2.imread(str(folder / f"photos/{path.stem}.jpg")), cv2.imread(str(path), 0) > 0
        assert photo[cv2.erode(mask.astype(np.uint8), np.ones((5, 5))) > 0].std() < 0.5 * photo[~mask].std()
    assert read_config(folder / "config.yaml") == CONFIG
    halves, whole = load_file(folder / "vgg19.safetensors"), load_file(vgg_weights)
    assert halves.keys() == whole.keys() and {value.dtype for value in halves.values()} == {torch.float16}
    assert {path.name for path in (folder / "start").iterdir()} == {
        "config.json", "model.safetensors", DISCRIMINATOR_FILE
    }  # fmt: skip
    assert yaml.safe_load((folder / "run.yaml").read_text()) == {"minutes": 7, "mixed_precision": "bf16"}
    assert (folder / "run.sh").read_text().startswith("#!/bin/sh")
    code = {path.relative_to(folder / "code").as_posix() for path in (folder / "code").rglob("*") if path.is_file()}
    assert {"training/train.py", "sdpgan_hub/networks.py", "model_cards/card.md"} < code
    assert not any(name.endswith((".safetensors", ".jpg", ".pyc")) for name in code)
    assert packing.size_of(folder) < 60e6


def test_images_that_do_not_fit_are_left_out_and_the_limit_is_kept(pack, tmp_path: Path):
    pack(tmp_path / "all")
    everything = packing.size_of(tmp_path / "all")
    images = sum(packing.size_of(tmp_path / "all" / kind) for kind in ("photos", "paintings", "masks", "cache"))
    limit = (everything - images / 2) / 1e6
    counts = pack(tmp_path / "half", megabytes=limit)
    assert 2 < counts["photos"] < 18 and 2 < counts["paintings"] < 18
    assert packing.size_of(tmp_path / "half") <= limit * 1e6
    references = {path.name for path in (tmp_path / "half/cache/saliency").glob("*.jpg.png")}
    assert references == {f"{path.name}.png" for path in (tmp_path / "half/photos").iterdir()}
    refusal(lambda: pack(tmp_path / "none", megabytes=1), "--megabytes")
    assert {path.name for path in tmp_path.iterdir()} == {"all", "half"}  # so that the command can be repeated
    refusal(lambda: pack(tmp_path / "half"), tmp_path / "half")


def test_a_pack_without_need_of_references_has_none_and_small_images_are_not_enlarged(
    twenty: Path, vgg_weights: Path, tmp_path: Path, capsys
):
    folder = tmp_path / "a pack"
    arguments = ["--pack", str(folder), "--photos", str(twenty / "photos"), "--paintings",
                 str(twenty / "paintings"), "--masks", str(twenty / "masks"), "--vgg_weights", str(vgg_weights),
                 "--saliency_network", "false", "--saliency_mask", "false", "--image_size", "80", "--crop_size", "32",
                 "--painting_scales", "0.5", "2"]  # fmt: skip
    assert prepare.main(arguments) == 0
    said = capsys.readouterr().out
    assert "20 of 20 photos, 20 of 20 paintings" in said
    assert shlex.split(said.rpartition("; ")[2]) == ["sh", str(folder / "run.sh")]
    assert not (folder / "masks").exists() and not (folder / "cache").exists()
    assert cv2.imread(str(folder / "photos/00000.jpg")).shape == (80, 112, 3)
    assert cv2.imread(str(folder / "paintings/00000.jpg")).shape == (100, 140, 3)
    assert prepare.main(arguments) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_networks_that_cannot_be_built_or_started_are_refused_before_anything_is_packed(pack, tiny, tmp_path):
    for settings, start, named in [({"upsampling": "foo"}, str(tiny), "'foo'"), ({"base_channels": 8}, str(tiny), tiny),
                                   ({"w_distill": 2}, None, "--initial_style"),
                                   ({"train_saliency": False}, None, "--initial_style")]:  # fmt: skip
        config = dataclasses.replace(CONFIG, **settings)
        refusal(functools.partial(pack, tmp_path / "pack", config=config, initial_style=start), named)
    assert not (tmp_path / "pack").exists()


def test_a_state_in_parts_is_taken_up_with_weights_d_average_and_step(launcher, tmp_path: Path, monkeypatch):
    style, out = tmp_path / "style", tmp_path / "out"
    settings = {"discriminator": "projected", "adversarial_loss": "hinge"}
    launcher.run(style, max_steps=6, **settings)
    (style / "train.log").write_text("step 6")
    monkeypatch.setattr(packing, "PART_BYTES", 100_000)
    parts = packing.leave(style, out, style / "train.log")
    assert len(parts) > 2 and all(part.stat().st_size <= 100_000 for part in parts)
    assert {path.name for path in out.iterdir()} - {part.name for part in parts} == {"samples.jpg", "train.log"}

    again = tmp_path / "again"
    again.mkdir()
    taken = packing.take_up([tmp_path / "nothing", out], again)
    assert taken == again / "checkpoints/step_00000006" and fault(taken) is None
    before = style / "checkpoints/step_00000006"
    for name in ("model.safetensors", "model_1.safetensors"):
        expected, actual = load_file(before / name), load_file(taken / name)
        assert all(torch.equal(expected[key].half(), actual[key].half()) for key in expected)
    average, kept = (torch.load(path / "custom_checkpoint_1.pkl", weights_only=True) for path in (before, taken))
    assert all(torch.equal(average[key].half(), kept[key].half()) for key in average)
    for file in ("model.safetensors", DISCRIMINATOR_FILE, "training.json"):
        assert (again / file).read_bytes() == (style / file).read_bytes()
    assert packing.size_of(taken) < packing.size_of(before) / 2

    text = launcher.run(again, max_steps=8, resume_from_checkpoint=taken, **settings)
    assert "resumed step_00000006" in text
    assert json.loads((again / "training.json").read_text())["steps"] == 8
    assert packing.take_up([out], again).name == "step_00000008"  # what is there is newer than the parts
    parts[1].unlink()
    (tmp_path / "broken").mkdir()
    refusal(lambda: packing.take_up([out], tmp_path / "broken"), out)
    assert packing.take_up([tmp_path / "nothing"], tmp_path / "broken") is None


def test_numbers_are_lines_of_json(tmp_path: Path):
    from accelerate.state import PartialState

    PartialState()
    log = logs.JsonLines(tmp_path / "logs")
    log.store_init_configuration({"seed": 0})
    values = (1, 3.0), (2, 2.0), (2, 1.0)  # a resumed run does step 2 again
    for step, value in values:
        log.log({"loss/con": value, "learning_rate": 0.1}, step=step)
    steps = (tmp_path / "logs" / logs.FILE).read_text().splitlines()
    assert [json.loads(line) for line in steps] == [
        {"step": step, "loss/con": value, "learning_rate": 0.1} for step, value in values
    ]


BARE = ("torch", "timm", "accelerate", "opencv-python-headless", "safetensors")


def bare_python(folder: Path) -> Path:
    """The interpreter of a virtual environment with `BARE` and what these need, linked from here, and nothing else."""
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    missing, done = [*BARE], set()
    while missing:
        name = missing.pop()
        if name in done:
            continue
        done.add(name)
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        for file in distribution.files or []:
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not (site / top).exists():
                (site / top).symlink_to(Path(distribution.locate_file(top)).resolve())
        for requirement in distribution.requires or []:
            if "extra ==" not in requirement:
                missing.append(re.match(r"[\w.-]+", requirement)[0])
    return folder / "bin" / "python3"


@pytest.mark.slow
def test_a_pack_trains_by_the_clock_where_little_is_installed_and_the_next_run_goes_on(pack, tmp_path: Path):
    python = bare_python(tmp_path / "bare")
    environment = {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1",
                   "HOME": str(tmp_path)}  # fmt: skip
    for name in ("tensorboard", "skimage", "gradio", "datasets", "torch_fidelity"):
        found = subprocess.run([python, "-c", f"import {name}"], env=environment, capture_output=True)
        assert found.returncode != 0, name
    pack(tmp_path / "pack", max_minutes=1, mixed_precision="no")
    steps = []
    for number in range(2):
        # the next run: a machine that has only the pack and the parts
        place = tmp_path / f"machine_{number}"
        (tmp_path / "pack").rename(place)
        if number:
            (tmp_path / "out").rename(place / "taken")
        command = ["sh", str(place / "run.sh"), "--epochs", "100000"]
        done = subprocess.run(
            command, env=environment | {"OUT": str(tmp_path / "out")}, capture_output=True, text=True, timeout=180
        )
        log = (place / "work/train.log").read_text()
        assert done.returncode == 0, done.stdout + done.stderr + log
        assert "Traceback" not in log and ("TensorBoard is not installed" in log) and "SIGTERM" in log
        parts = sorted((tmp_path / "out").glob("state.tar.*"))
        assert parts and all(part.stat().st_size <= 15_000_000 for part in parts)
        steps.append(json.loads((place / "work/training.json").read_text())["steps"])
        assert SDPGAN.from_pretrained(place / "work").config["base_channels"] == 4
        assert (place / "work/logs" / logs.FILE).read_text().count("loss/con") >= steps[-1] - 1
        for leftover in ("work", "taken"):
            if (place / leftover).exists():
                (place / leftover).rename(tmp_path / f"{leftover}_{number}")
        place.rename(tmp_path / "pack")
    assert 0 < steps[0] < steps[1]
    assert Checkpoints(tmp_path / "work_1/checkpoints").all()
    assert sys.prefix != str(tmp_path / "bare")
