#!/usr/bin/env python
"""Trains variants of one recipe with the same data, seed and number of steps, and compares them.

    python training/ablate.py --base training/configs/vangogh.yaml --max_steps 2000 \\
        --photos DIR --paintings DIR --val_photos DIR --val_paintings DIR --output DIR \\
        [--variants full no_mask no_con_s ...] [--set crop_size=128 ...] [--launch="--num_processes 4"]

A variant is a YAML file of training/configs, by its name, or any other by its path: its keys replace those of --base,
and those of --set replace both. `full` is the base alone. Each is trained by `accelerate launch training/train.py` in
OUTPUT/VARIANT (the style, checkpoints/, config.yaml, train.log) and measured by training/evaluate.py (evaluation.json,
pictures/). OUTPUT/sheet.png shows photos in rows and variants in columns, each with its saliency map below;
OUTPUT/table.md and table.json hold the figures. The same command goes on after a stop: what is finished is not done
again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import yaml

if not __package__:  # run as a file: the repository's root is not on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from sdpgan_hub import SDPGAN
from sdpgan_hub.errors import SDPGANError
from sdpgan_hub.files import write_whole
from sdpgan_hub.saliency import reference
from sdpgan_hub.visualization import heat_map
from training.data import pictures
from training.data.sources import image_files, spread
from training.evaluate import evaluate
from training.metrics import style
from training.metrics.report import headline, markdown
from training.run.config import TrainingConfig, differences, read_config

CONFIGS = Path(__file__).resolve().parent / "configs"
TRAIN = Path(__file__).resolve().parent / "train.py"
FULL = "full"
VARIANTS = (FULL, "no_mask", "no_con_s", "no_saliency_network", "no_concatenation", "no_decay", "cartoongan")
"""The ablations of Sec. V-D without those of w_con (`w_con_0.1` to `w_con_10`), and what is left of all of them."""
GAP = 6
CAPTION_HEIGHT = 24


@dataclasses.dataclass(frozen=True)
class Variant:
    """One training of the comparison: all its settings, and those that differ from the base's."""

    name: str
    changes: dict[str, Any]
    config: TrainingConfig


def read_variants(
    names: list[str], base: Path | None, settings: dict[str, str] | None = None, seed: int = 0
) -> list[Variant]:
    """The variants called `names`, over the settings of `base` and under `settings`, all with one seed.

    Raises:
        SDPGANError: a name is no file, comes twice, or a key or value is wrong.
    """
    common = {"seed": seed} | dict(settings or {})
    base_values = _settings(base)
    reference_config = dataclasses.asdict(_merged(base_values, common, base))
    variants = []
    for name in names:
        path = None if name == FULL else _config_path(name)
        config = _merged(base_values | _settings(path), common, path or base)
        values = dataclasses.asdict(config)
        changes = {key: value for key, value in values.items() if value != reference_config[key]}
        variants.append(Variant(name if path is None else path.stem, changes, config))
    name, count = Counter(variant.name for variant in variants).most_common(1)[0]
    if count > 1:
        raise SDPGANError(f"Two variants are called {name}; give each a file name of its own.")
    return variants


def _config_path(name: str) -> Path:
    for path in (Path(name), CONFIGS / f"{name}.yaml"):
        if path.is_file():
            return path
    known = ", ".join([FULL, *(path.stem for path in sorted(CONFIGS.glob("*.yaml")))])
    raise SDPGANError(f"There is no variant {name!r}; give a YAML file or one of {known}.")


def _settings(path: Path | None) -> dict[str, Any]:
    """The keys that a YAML file gives, checked."""
    if path is None:
        return {}
    config = read_config(path)
    return {key: getattr(config, key) for key in yaml.safe_load(path.read_text()) or {}}


def _merged(values: dict[str, Any], common: dict[str, Any], path: Path | None) -> TrainingConfig:
    try:
        return read_config(None, values | common)
    except SDPGANError as error:
        raise SDPGANError(f"{path or 'The defaults'} with the settings of --set: {error}") from error


def train(variant: Variant, options: argparse.Namespace) -> str | None:
    """Trains the variant, or goes on, unless it is finished; None, or why it failed in one sentence.

    Raises:
        SDPGANError: its folder holds a training with other settings, data or steps.
    """
    folder = options.output / variant.name
    record = folder / "ablation.json"
    plan = json.loads(json.dumps({
        "config": dataclasses.asdict(variant.config), "max_steps": options.max_steps, "photos": str(options.photos),
        "paintings": str(options.paintings), "launch": options.launch, "mixed_precision": options.mixed_precision,
        "masks": None if options.masks is None else str(options.masks),
    }))  # fmt: skip
    done = _read_json(record)
    if done and done.get("plan") != plan:
        raise SDPGANError(
            f"{folder} holds a training with another {_differences(done.get('plan') or {}, plan)}; give another "
            "--output, or delete it."
        )
    if done.get("finished"):
        return None
    _write_json(record, {"plan": plan, "finished": False})
    write_whole(folder / "config.yaml", yaml.safe_dump(plan["config"], sort_keys=False).encode())
    command = [sys.executable, "-m", "accelerate.commands.launch", *shlex.split(options.launch), str(TRAIN),
               "--config", folder / "config.yaml", "--photos", options.photos, "--paintings", options.paintings,
               "--cache", options.output / "cache", "--output", folder, "--max_steps", options.max_steps]  # fmt: skip
    for key in ("masks", "vgg_weights", "mixed_precision"):
        if getattr(options, key) is not None:
            command += [f"--{key}", getattr(options, key)]
    if options.cpu:
        command.append("--cpu")
    if any((folder / "checkpoints").glob("step_*")):
        command += ["--resume_from_checkpoint", "latest"]
    log = folder / "train.log"
    earlier = log.stat().st_size if log.exists() else 0
    with log.open("a") as file:
        code = subprocess.run([str(part) for part in command], stdout=file, stderr=subprocess.STDOUT).returncode
    if code:
        text = log.read_bytes()[earlier:].decode(errors="replace")
        said = [line for line in text.splitlines() if line.startswith("train.py: ")]
        return said[-1].removeprefix("train.py: ") if said else f"train.py ended with code {code}; see {log}."
    _write_json(record, {"plan": plan, "finished": True})
    return None


def measure(variant: Variant, options: argparse.Namespace) -> dict[str, Any]:
    """What evaluate.py says of the variant on the validation images; kept, and read again where nothing differs."""
    folder = options.output / variant.name
    keys = ("size", "limit", "inception", "feature_layer", "vgg_weights", "seed")
    keywords = {"masks": options.val_masks} | {key: getattr(options, key) for key in keys}
    asked = {key: value if isinstance(value, int) else str(value) for key, value in keywords.items()}
    asked |= {"val_photos": str(options.val_photos), "val_paintings": str(options.val_paintings)}
    asked |= {"weights": (folder / "model.safetensors").stat().st_mtime_ns}
    kept = _read_json(folder / "evaluation.json")
    if kept.get("asked") == asked:
        return kept["result"]
    shutil.rmtree(folder / "pictures", ignore_errors=True)  # of other photos or sizes
    result = evaluate(
        options.val_photos,
        options.val_paintings,
        style_name=str(folder),
        write=folder / "pictures",
        device="cpu" if options.cpu else None,
        workers=options.workers,
        **keywords,
    )
    _write_json(folder / "evaluation.json", {"asked": asked, "result": result})
    return result


def sheet(variants: list[Variant], output: Path, photos: int) -> np.ndarray:
    """uint8 H x W x 3: a pair of rows for each of `photos` photos, the picture and the saliency map below it.

    The photos are spread over those that were measured. The first column is the photo and its saliency reference; then
    a column for each variant, its painting and its own map of the photo, white where it has no saliency network. All
    are cut to their middle square.
    """
    measured = output / variants[0].name / "pictures" / "photos"
    paths = spread(sorted(measured.rglob("*.png")), photos)
    originals = [pictures.read(path) for path in paths]
    names = ["photo", *(variant.name for variant in variants)]
    columns = [[(photo, heat_map(reference(photo))) for photo in originals]]
    for variant in variants:
        model = SDPGAN.from_pretrained(output / variant.name)
        columns.append([])
        for path, photo in zip(paths, originals, strict=True):
            painting = pictures.read(output / variant.name / "pictures" / "outputs" / path.relative_to(measured))
            map_ = np.full_like(photo, 255) if model.saliency_network is None else heat_map(model.saliency_map(photo))
            columns[-1].append((painting, map_))
    pairs = [pair for row in zip(*columns, strict=True) for pair in row]
    cells = [np.concatenate([pictures.centre_square(one) for one in pair]) for pair in pairs]
    return pictures.contact_sheet(cells, len(names), GAP, names, CAPTION_HEIGHT)


def table(
    variants: list[Variant], results: dict[str, dict[str, Any]], failures: dict[str, str], options: argparse.Namespace
) -> str:
    """The figures of the variants as a Markdown table, with what they were made from."""
    first = next(iter(results.values()))
    settings, layer = first["settings"], first["settings"]["feature_layer"]
    fid, kid = style.figure("FID", layer), style.figure("KID", layer)
    names = list(headline(first))
    base = "the defaults" if options.base is None else options.base.name
    made_from = (
        f"{options.max_steps} steps each, seed {options.seed}, base {base}; {settings['photos']} photos, "
        f"{settings['paintings']} paintings; layer {layer}, {settings['resize']}; VGG {settings['vgg_weights']}."
    )
    rows = []
    for variant in variants:
        differs = ", ".join(f"{key} {value}" for key, value in variant.changes.items())
        if variant.name in failures:
            cells = [f"failed: {failures[variant.name]}", *[""] * (len(names) - 1)]
        else:
            cells = ["" if value is None else f"{value:.4g}" for value in headline(results[variant.name]).values()]
        rows.append([variant.name, differs, *cells])
    for key, label in (("photos", "untouched photos"), ("paintings", "half of the paintings against the other half")):
        figures = first["style"][key]
        cells = {kid: f"{figures[kid]:.4g}", fid: f"{figures[fid]:.4g}"}
        rows.append([f"*{label}*", "", *(cells.get(name, "") for name in names)])
    return f"{made_from}\n\n{markdown(['variant', 'differs in', *names], rows)}\n"


def ablate(options: argparse.Namespace) -> dict[str, str]:
    """Everything the module says; variant -> why it failed. See `parse_arguments` for the options.

    Raises:
        SDPGANError: nothing can be trained or measured, and why.
    """
    given = dict(_key_and_value(text) for text in options.set)
    variants = read_variants(options.variants or list(VARIANTS), options.base, given, options.seed)
    if options.max_steps < 1:
        raise SDPGANError(f"--max_steps is {options.max_steps}; it must be at least 1.")
    for folder in (options.val_photos, options.val_paintings):
        image_files(folder)  # refused here, not after hours of training
    results: dict[str, dict[str, Any]] = {}
    failures: dict[str, str] = {}
    for number, variant in enumerate(variants, 1):
        print(f"{variant.name} ({number} of {len(variants)})", file=sys.stderr, flush=True)
        failure = train(variant, options)
        if failure is None:
            results[variant.name] = measure(variant, options)
        else:
            failures[variant.name] = failure
            print(f"{variant.name} failed: {failure}", file=sys.stderr, flush=True)
    if not results:
        raise SDPGANError(f"No variant could be trained; {variants[0].name}: {failures[variants[0].name]}")
    measured = [variant for variant in variants if variant.name in results]
    pictures.write(options.output / "sheet.png", sheet(measured, options.output, options.sheet_photos))
    text = table(variants, results, failures, options)
    write_whole(options.output / "table.md", text.encode())
    first = results[measured[0].name]
    document = {
        "max_steps": options.max_steps,
        "seed": options.seed,
        "settings": first["settings"],
        "photos_and_paintings": {key: first["style"][key] for key in ("photos", "paintings")},
        "variants": {
            variant.name: {"changes": variant.changes, "figures": headline(results[variant.name])}
            if variant.name in results
            else {"changes": variant.changes, "failed": failures[variant.name]}
            for variant in variants
        },
    }
    _write_json(options.output / "table.json", document)
    print(text, end="")
    return failures


def _key_and_value(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition("=")
    if not separator or key not in {field.name for field in dataclasses.fields(TrainingConfig)}:
        raise SDPGANError(f"--set takes KEY=VALUE with a key of the config files, not {text!r}.")
    return key, value.split(",") if isinstance(getattr(TrainingConfig, key), tuple) else value


def _differences(before: dict[str, Any], now: dict[str, Any]) -> str:
    """The first thing in which two plans differ."""
    flat = ({**plan.get("config", {}), **plan, "config": None} for plan in (before, now))
    return next(iter(differences(*flat)), "settings")


def _read_json(path: Path) -> dict[str, Any]:
    """What `_write_json` wrote; {} where it has not, or is broken."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def _write_json(path: Path, value: dict[str, Any]) -> None:
    write_whole(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ablate.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--variants", nargs="+", action="extend", metavar="NAME|FILE",
                        help=f"default: {' '.join(VARIANTS)}")  # fmt: skip
    parser.add_argument("--base", type=Path, metavar="FILE", help="YAML file that all share (default: the paper's)")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="settings over every file"
    )
    parser.add_argument("--max_steps", type=int, required=True, help="of each variant")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--photos", required=True, metavar="SOURCE", help="to train on, as for train.py")
    parser.add_argument("--paintings", required=True, metavar="SOURCE", help="to train on, as for train.py")
    parser.add_argument("--masks", type=Path, metavar="DIR", help="human masks to train with")
    parser.add_argument("--val_photos", type=Path, required=True, metavar="DIR", help="to measure on")
    parser.add_argument("--val_paintings", type=Path, required=True, metavar="DIR", help="to measure against")
    parser.add_argument("--val_masks", type=Path, metavar="DIR", help="human masks to measure with")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--vgg_weights", type=Path, metavar="FILE", help="as for train.py and evaluate.py")
    parser.add_argument("--inception", type=Path, metavar="FILE", help="as for evaluate.py")
    parser.add_argument("--feature_layer", default=style.FULL_LAYER, choices=style.LAYERS, help="as for evaluate.py")
    parser.add_argument("--size", type=int, default=256, help="as for evaluate.py")
    parser.add_argument("--limit", type=int, help="as for evaluate.py")
    parser.add_argument("--workers", type=int, default=0, help="as for evaluate.py")
    parser.add_argument("--mixed_precision", choices=("no", "fp16", "bf16"), help="as for train.py")
    parser.add_argument("--cpu", action="store_true", help="train and measure on the CPU")
    parser.add_argument("--launch", default="", metavar="ARGUMENTS", help="of `accelerate launch`, in one string")
    parser.add_argument("--sheet_photos", type=int, default=6, help="rows of the sheet (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """The command line: 0; 1 when a variant failed; 2 for what stops everything; 130 after Ctrl-C."""
    options = parse_arguments(argv)
    try:
        return 1 if ablate(options) else 0
    except SDPGANError as error:
        print(f"ablate.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ablate.py: stopped; run the same command again to go on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
