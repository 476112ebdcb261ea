#!/usr/bin/env python
"""A training in one folder, for a machine that has torch, timm, accelerate, opencv, safetensors and no network.

    python training/prepare.py --pack DIR --config FILE --photos SOURCE --paintings SOURCE --vgg_weights FILE
        [--masks DIR] [--initial_style STYLE] [--max_minutes 9] [--megabytes 60] [--KEY VALUE ...]
    sh DIR/run.sh [MINUTES] [options of train.py]          there; python DIR/code/training/run/pack.py does the same

    DIR/photos, DIR/paintings      JPEG files, as large as the config scales them
    DIR/masks, DIR/cache           human masks and saliency references, where the config needs them
    DIR/vgg19.safetensors          in half precision
    DIR/start                      G, S and D of --initial_style
    DIR/config.yaml, DIR/code      every setting, and the programs

run.sh stops the training when its minutes are over and leaves in $OUT, or in DIR/out, state.tar.00, state.tar.01 ... of
at most 15 MB, the last sheet of samples and train.log. `cat state.tar.* | tar x` gives the style as it is loaded,
logs and samples. The next run goes on from the parts in $OUT, DIR/out or DIR/taken. They hold weights, D and moving
average in half precision and no moments of Adam, which begin anew: the first ones alone would not fit.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import yaml

if not __package__:  # run as a file: the repository's root is not on the path
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from sdpgan_hub.errors import SDPGANError
from sdpgan_hub.files import UNFINISHED
from training.data import pictures
from training.data.cache import available_cores, masks_of, prepare
from training.data.sources import fetch, open_source
from training.run import config as configuration
from training.run.checkpoints import Checkpoints
from training.run.config import TrainingConfig

ROOT = Path(__file__).resolve().parents[2]
LIMIT_MB = 60
PART_BYTES = 15_000_000
PARTS = "state.tar."
QUALITIES = (92, 86, 80)
"""Of JPEG: the first at which a set fits; at the last, a part of the set is taken."""
REFERENCE_BYTES_PER_PIXEL = 0.3
"""Room that is kept for a saliency reference, a PNG of flat patches, until its size is known."""
REFERENCE_LABEL_BYTES = 200
LARGEST_SHARE_OF_PAINTINGS = 0.5
VGG_FILE, CONFIG_FILE, RUN_FILE, START, LOG = "vgg19.safetensors", "config.yaml", "run.yaml", "start", "train.log"
AVERAGE = "average.txt"
"""In a state: which file of the checkpoint is the moving average, whose values are the style's."""
RUN = """#!/bin/sh
# Trains for {minutes:g} minutes, or as many as given: sh run.sh [MINUTES] [options of train.py]
exec python3 "$(dirname "$0")/code/training/run/pack.py" "$@"
"""


def pack(
    folder: Path,
    config: TrainingConfig,
    photos: str,
    paintings: str,
    vgg_weights: Path,
    *,
    masks: Path | None = None,
    initial_style: str | None = None,
    max_minutes: float = 9,
    mixed_precision: str = "bf16",
    megabytes: float = LIMIT_MB,
    cache: Path | None = None,
    max_images: int | None = None,
) -> dict[str, int]:
    """Writes `folder` and returns how many photos and paintings it holds and how many there were.

    Paintings take at most half of the room that is left for images. Of a set that does not fit, a random part is taken.

    Raises:
        SDPGANError: the folder is not empty, an input cannot be read, a setting of the networks is wrong or not that of
            the initial style, or what is not an image takes all the room.
    """
    from sdpgan_hub import SDPGAN
    from training.losses import discriminators
    from training.run import initial_style as start

    model = SDPGAN(**config.network)
    discriminator = discriminators.build(config.discriminator, config.discriminator_channels)
    if initial_style is not None:  # what does not fit is said here, not there
        start.load(initial_style, model, discriminator)
    elif config.w_distill or (config.saliency_network and not config.train_saliency):
        raise SDPGANError("The config starts from a trained style (w_distill, train_saliency); add --initial_style.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SDPGANError(f"{folder} is there already; give a new folder, or an empty one.")
    with _whole(folder) as folder:
        _copy_code(folder / "code")
        _halve(vgg_weights, folder / VGG_FILE)
        if initial_style is not None:
            _copy_style(initial_style, folder / START)
        settings = json.loads(json.dumps(dataclasses.asdict(config)))  # lists in place of tuples, which YAML lacks
        (folder / CONFIG_FILE).write_text(yaml.safe_dump(settings, sort_keys=False))
        (folder / RUN_FILE).write_text(yaml.safe_dump({"minutes": max_minutes, "mixed_precision": mixed_precision}))
        (folder / "run.sh").write_text(RUN.format(minutes=max_minutes))

        limit, masks = int(megabytes * 1e6), masks if config.human_masks and config.references else None
        with tempfile.TemporaryDirectory() as temporary:
            cache = Path(temporary) if cache is None else cache
            sources = open_source(paintings), open_source(photos)
            for source in sources:
                fetch(source, cache, max_images)
            files, photo_files = (source.files(cache) for source in sources)
            room = (limit - size_of(folder)) * LARGEST_SHARE_OF_PAINTINGS
            side = round(config.image_size * max(config.painting_scales))
            kept_paintings = _write_images(files, folder / "paintings", side, room)
            mask_of = masks_of(sources[1], cache, masks)
            side = round((2 * config.brush_size or config.image_size) * max(config.photo_scales))
            reserved = REFERENCE_BYTES_PER_PIXEL if config.references else 0.0
            room = limit - size_of(folder)
            kept_photos = _write_images(photo_files, folder / "photos", side, room, mask_of, reserved)
        if not kept_paintings or not kept_photos:
            raise SDPGANError(
                f"Weights and code take {size_of(folder) / 1e6:.1f} MB of {megabytes:g}: no image fits; raise "
                "--megabytes."
            )
        if config.references:
            there = folder / "masks" if (folder / "masks").exists() else None
            prepare(folder / "photos", None, folder / "cache", masks=there, progress=False)
            while size_of(folder) > limit and kept_photos > 1:  # where references are larger than expected
                kept_photos -= 1
                for place in ("photos", "masks", "cache/saliency"):
                    for file in (folder / place).glob(f"{kept_photos:05d}.*"):
                        file.unlink()
        counts = {"photos": kept_photos, "photos_there": len(photo_files)}
        return counts | {"paintings": kept_paintings, "paintings_there": len(files)}


@contextlib.contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` that becomes it at the end, or is gone where that is not reached."""
    unfinished = folder.with_name(f".{folder.name}{UNFINISHED}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    if folder.exists():
        folder.rmdir()
    unfinished.rename(folder)


def size_of(folder: Path) -> int:
    """Bytes of all files below `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _copy_code(target: Path) -> None:
    """What train.py needs of this repository: both packages, without the weights of shipped styles, and the card."""
    for name, patterns in (("sdpgan_hub", ["*.py"]), ("training", ["*.py", "*.yaml"]), ("model_cards", ["*.md"])):
        for path in sorted(file for pattern in patterns for file in (ROOT / name).rglob(pattern)):
            place = target / path.relative_to(ROOT)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)


def _halve(weights: Path, target: Path) -> None:
    """VGG-19 up to conv4_4, checked, in half precision."""
    from safetensors.torch import save_file

    from training.losses.perceptual import PerceptualFeatures

    layers = PerceptualFeatures(weights).layers
    save_file({f"features.{name}": value.half() for name, value in layers.state_dict().items()}, target)


def _copy_style(name: str, target: Path) -> None:
    from sdpgan_hub import SDPGAN
    from training.run.provenance import DISCRIMINATOR_FILE

    source = SDPGAN.from_pretrained(name).source
    target.mkdir()
    for path in (source.config, source.weights, source.beside(DISCRIMINATOR_FILE)):
        if path is not None:
            shutil.copyfile(path, target / path.name)


def _write_images(
    files: list[Path],
    folder: Path,
    side: int,
    room: float,
    mask_of: dict[Path, Path] | None = None,
    reference_bytes_per_pixel: float = 0.0,
) -> int:
    """Images of a shorter side of at most `side` px, numbered, and their masks, until `room` bytes are full.

    Room is kept for the saliency reference of each, which is its mask where it has one. Returns how many there are.
    """
    shuffled = [files[number] for number in np.random.default_rng(0).permutation(len(files))]
    for quality in QUALITIES:
        kept: list[tuple[bytes, bytes | None]] = []
        left = room
        for image, mask in _scaled(shuffled, side, mask_of or {}):
            jpeg = pictures.encode(image, ".jpg", quality=quality, subsampling=2)
            png = None if mask is None else pictures.encode(mask, ".png")
            reference = reference_bytes_per_pixel * image.shape[0] * image.shape[1]
            left -= len(jpeg) + (reference if png is None else 2 * len(png) + REFERENCE_LABEL_BYTES)
            if left < 0:
                break
            kept.append((jpeg, png))
        else:
            break
    folder.mkdir()
    for number, (jpeg, png) in enumerate(kept):
        (folder / f"{number:05d}.jpg").write_bytes(jpeg)
        if png is not None:
            (folder.parent / "masks").mkdir(exist_ok=True)
            (folder.parent / "masks" / f"{number:05d}.png").write_bytes(png)
    return len(kept)


def _scaled(files: list[Path], side: int, mask_of: dict[Path, Path]) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Each readable image with a shorter side of at most `side` px, uint8 H x W x 3, and its mask, uint8 H x W."""
    for file in files:
        try:
            image = pictures.read(file)
        except SDPGANError as error:
            print(f"warning: skipped {error}", file=sys.stderr)
            continue
        scale = min(1, side / min(image.shape[:2]))
        height, width = (max(1, round(scale * length)) for length in image.shape[:2])
        try:
            mask = pictures.read_mask(mask_of[file], height, width) if file in mask_of else None
        except SDPGANError as error:
            print(f"warning: skipped {error}", file=sys.stderr)
            continue
        yield pictures.scaled(image, height, width), mask


# There


def leave(style: Path, out: Path, log: Path) -> list[Path]:
    """What the training in `style` has come to, in parts of at most `PART_BYTES`, and what one looks at first."""
    import torch
    from safetensors.torch import load_file, save_file

    out.mkdir(parents=True, exist_ok=True)
    checkpoint = Checkpoints(style / "checkpoints").newest_whole()
    light = style / ".light"
    shutil.rmtree(light, ignore_errors=True)
    light.mkdir()
    for path in checkpoint.iterdir():
        if path.suffix == ".safetensors":
            save_file(
                {name: value.half() for name, value in load_file(path).items()}, light / path.name, {"format": "pt"}
            )
        elif path.name == "optimizer.bin":
            torch.save(torch.load(path, weights_only=True) | {"state": {}}, light / path.name)
        elif path.name.startswith("custom_checkpoint_") and "step" not in torch.load(path, weights_only=True):
            (light / AVERAGE).write_text(path.name)
        elif path.suffix in (".pkl", ".bin", ".pt"):
            shutil.copyfile(path, light / path.name)
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        tar.add(light, f"checkpoint/{checkpoint.name}")
        for path in sorted(style.iterdir()):
            if path.is_file() or path.name == "logs":
                tar.add(path, f"style/{path.name}")
    shutil.rmtree(light)
    sheets = sorted((style / "samples").glob("*.png"))
    for old in out.glob(f"{PARTS}*"):
        old.unlink()
    content.seek(0)
    parts = []
    while data := content.read(PART_BYTES):
        parts.append(out / f"{PARTS}{len(parts):02d}")
        parts[-1].write_bytes(data)
    if sheets:
        pictures.write(out / "samples.jpg", pictures.read(sheets[-1]), quality=90)
    (out / LOG).write_bytes(log.read_bytes()[-PART_BYTES:])
    return parts


def take_up(folders: list[Path], style: Path) -> Path | None:
    """The state in the first of `folders` that has one as a checkpoint of `style`; None where there is none.

    Raises:
        SDPGANError: a part is missing or cut short.
    """
    import torch
    from safetensors.torch import load_file

    parts = next((found for folder in folders if (found := sorted(folder.glob(f"{PARTS}*")))), None)
    if parts is None:
        return None
    place = style / ".taken"
    shutil.rmtree(place, ignore_errors=True)
    try:
        if [part.name for part in parts] != [f"{PARTS}{number:02d}" for number in range(len(parts))]:
            raise ValueError("a number is left out")
        with tarfile.open(fileobj=io.BytesIO(b"".join(part.read_bytes() for part in parts))) as tar:
            tar.extractall(place, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
        (light,) = (place / "checkpoint").iterdir()
    except (tarfile.TarError, OSError, ValueError) as error:
        raise SDPGANError(f"{parts[0].parent} holds no whole state ({error}); are all its parts there?") from error
    step, checkpoints = int(light.name.removeprefix("step_")), Checkpoints(style / "checkpoints")
    if checkpoints.all() and checkpoints.all()[-1].name >= light.name:  # what is here is as new, and whole
        shutil.rmtree(place)
        return checkpoints.newest_whole()
    average = light / AVERAGE
    if average.exists():
        torch.save(load_file(place / "style" / "model.safetensors"), light / average.read_text())
        average.unlink()
    checkpoints.discard_unfinished()
    checkpoints.folder.mkdir(parents=True, exist_ok=True)
    light.rename(checkpoints.unfinished)
    checkpoints.add(step)
    shutil.copytree(place / "style", style, dirs_exist_ok=True)
    shutil.rmtree(place)
    return checkpoints.path(step)


def run(folder: Path, minutes: float | None, options: list[str]) -> int:
    """Trains what was packed in `folder` and leaves its parts; returns 0, or the exit code of a failed training."""
    started, settings = time.monotonic(), yaml.safe_load((folder / RUN_FILE).read_text())
    seconds = 60 * (settings["minutes"] if minutes is None else minutes)
    out, style = Path(os.environ.get("OUT") or folder / "out"), folder / "work"
    style.mkdir(exist_ok=True)
    for path in (folder / "cache").rglob("*.png"):  # copying may have made the photos newer
        path.touch()
    # as many processes that load data as a GPU can be fed with
    workers = max(yaml.safe_load((folder / CONFIG_FILE).read_text())["num_workers"], min(8, available_cores() // 2))
    command = [sys.executable, folder / "code/training/train.py", "--config", folder / CONFIG_FILE, "--output", style,
               "--photos", folder / "photos", "--paintings", folder / "paintings", "--cache", folder / "cache",
               "--vgg_weights", folder / VGG_FILE, "--num_workers", workers,
               "--mixed_precision", settings["mixed_precision"]]  # fmt: skip
    for option, name in (("masks", "masks"), ("initial_style", START)):
        command += [f"--{option}", folder / name] if (folder / name).exists() else []
    taken = take_up([out, folder / "out", folder / "taken"], style)
    if taken is not None:
        print(f"goes on from {taken.name}")
        command += ["--resume_from_checkpoint", taken]
    elif Checkpoints(style / "checkpoints").all():  # of a run that was killed before it could leave its parts
        command += ["--resume_from_checkpoint", "latest"]
    with (style / LOG).open("ab") as log:
        training = subprocess.Popen(
            [str(part) for part in [*command, *options]],
            stdout=log, stderr=subprocess.STDOUT, env=os.environ | {"TQDM_MININTERVAL": "10"},
        )  # fmt: skip
        with contextlib.suppress(subprocess.TimeoutExpired):
            training.wait(max(0, seconds - (time.monotonic() - started)))
        if training.poll() is None:
            training.send_signal(signal.SIGTERM)  # ends the step under way, with a checkpoint and a style
    code = training.wait()
    said = (style / LOG).read_text(errors="replace").strip().splitlines()
    print(said[-1] if said else f"train.py ended with code {code}")
    if not Checkpoints(style / "checkpoints").all():
        return code or 1
    parts = leave(style, out, style / LOG)
    print(f"{len(parts)} parts in {out}")
    return 0 if code in (0, 128 + signal.SIGTERM) else code


def main(argv: list[str] | None = None) -> int:
    """In a pack: `run`. `prepare.py --pack` calls `pack_command`."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        minutes = float(argv[0]) if argv and not argv[0].startswith("-") else None
        return run(ROOT.parent, minutes, argv[int(minutes is not None) :])
    except (SDPGANError, ValueError, OSError) as error:
        print(f"pack.py: {error}", file=sys.stderr)
        return 2


def pack_command(argv: list[str]) -> int:
    """`prepare.py --pack DIR ...`; SDPGANError or OSError for what cannot be packed."""
    parser = argparse.ArgumentParser(
        prog="prepare.py", description="Writes a folder that trains on a bare machine (training/run/pack.py)."
    )
    parser.add_argument("--pack", type=Path, metavar="DIR", required=True)
    parser.add_argument("--photos", metavar="SOURCE", required=True, help="as for train.py")
    parser.add_argument("--paintings", metavar="SOURCE", required=True, help="as for train.py")
    parser.add_argument("--config", type=Path, metavar="FILE", help="as for train.py")
    parser.add_argument("--masks", type=Path, metavar="DIR", help="as for train.py")
    parser.add_argument("--vgg_weights", type=Path, metavar="FILE", required=True, help="as for train.py")
    parser.add_argument("--initial_style", metavar="NAME|FOLDER|HUB_ID", help="as for train.py")
    parser.add_argument("--mixed_precision", choices=("no", "fp16", "bf16"), default="bf16", help="there")
    parser.add_argument("--max_minutes", type=float, default=9, help="of a run there (default: %(default)s)")
    parser.add_argument("--megabytes", type=float, default=LIMIT_MB, help="of the folder (default: %(default)s)")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="of streamed sources")
    parser.add_argument("--max_images", type=int, metavar="N", help="of streamed sources")
    configuration.add_arguments(parser)
    options = parser.parse_args(argv)
    config = configuration.read_config(options.config, configuration.given_arguments(options))
    keys = ("masks", "initial_style", "max_minutes", "mixed_precision", "megabytes", "cache", "max_images")
    settings = {key: getattr(options, key) for key in keys}
    counts = pack(options.pack, config, options.photos, options.paintings, options.vgg_weights, **settings)
    kinds = (f"{counts[kind]} of {counts[f'{kind}_there']} {kind}" for kind in ("photos", "paintings"))
    command = shlex.join(["sh", str(options.pack / "run.sh")])
    print(f"{options.pack}: {', '.join(kinds)}, {size_of(options.pack) / 1e6:.1f} MB; {command}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
