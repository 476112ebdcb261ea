"""How a style was made: training.json, and from it the sections of the model card."""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sdpgan_hub.errors import SDPGANError
from sdpgan_hub.files import write_whole

from ..data.cache import available_cores
from ..losses.terms import TERMS
from .config import TrainingConfig, given_arguments

if TYPE_CHECKING:
    from accelerate import Accelerator

    from ..train import Trainer

FACTS_FILE = "training.json"
DISCRIMINATOR_FILE = "discriminator.safetensors"
"""D's weights beside a training's result."""


def hardware(device: torch.device) -> str:
    """The accelerator's name, or how many CPU cores there are."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cores = available_cores()
    return f"{cores} CPU core{'s' if cores != 1 else ''} ({platform.machine()})"


def of_run(trainer: Trainer) -> dict[str, Any]:
    """What training.json says of a run."""
    arguments, config, accelerator = trainer.arguments, trainer.config, trainer.accelerator
    progress, reference = trainer.progress, "the mean of RBD and MB+"
    if trainer.masks:
        reference = f"human masks where there are, else {reference}"
    return {
        "command": _command(arguments, accelerator),
        "steps": progress.step,
        "initialization_steps": min(progress.step, trainer.schedule.initialization_steps),
        "photos": len(trainer.data.photos),
        "paintings": len(trainer.data.paintings),
        "minutes": round(progress.seconds / 60, 1),
        "initial_style": _public_style("initial_style", arguments),
        "teacher": _public_style("teacher", arguments),
        "vgg_weights": trainer.vgg.source,
        "saliency_reference": reference if config.references else "none",
        "hardware": hardware(accelerator.device),
        "processes": accelerator.num_processes,
        "threads": torch.get_num_threads(),
        "mixed_precision": accelerator.mixed_precision,
        "torch": torch.__version__,
        "numbers": trainer.means,
        "config": dataclasses.asdict(config),
    }


def write_facts(folder: Path, facts: dict[str, Any]) -> None:
    """`folder`/training.json, whole or not at all."""
    write_whole(folder / FACTS_FILE, (json.dumps(facts, indent=2) + "\n").encode())


def read_facts(folder: Path) -> dict[str, Any]:
    """What `write_facts` wrote; SDPGANError where it cannot be read."""
    try:
        return json.loads((folder / FACTS_FILE).read_text())
    except (OSError, ValueError) as error:
        raise SDPGANError(f"{folder / FACTS_FILE} cannot be read; give the output folder of train.py.") from error


def card_keywords(facts: dict[str, Any]) -> dict[str, Any]:
    """The keywords of `SDPGAN.save_pretrained(model_card_kwargs=...)` for a training's facts.

    `facts["history"]`, Markdown, says what a training that was not one run of one command went through before.
    """
    config = dataclasses.asdict(TrainingConfig()) | facts["config"]
    initialization, style = facts["initialization_steps"], facts.get("initial_style")
    parts = {
        "saliency_network": "the saliency network, L_sali and L_con_s",
        "feature_concatenation": "the feature concatenation",
        "saliency_mask": "the mask of Eq. 4",
        "edge_blurred": "the edge-blurred paintings",
    }
    planned = "adversarial steps" if config["adversarial_steps"] or config["epochs"] else "steps"
    left_out = [part for key, part in parts.items() if not config[key]]
    rows = {
        "photos, paintings": f"{facts['photos']}, {facts['paintings']}",
        "first weights": f"G, S and, where it was kept, D of the style {style}" if style else "random",
        "saliency reference (Eq. 7)": facts["saliency_reference"],
        "steps": f"{initialization} of initialisation ({_first_terms(config)}), {facts['steps'] - initialization} "
        "adversarial",
        "batch": f"{config['batch_size'] * config['gradient_accumulation_steps'] * facts['processes']} crops of "
        f"{config['crop_size']} px, from photos with a shorter side of {_sides(config, 'photo_scales')}, and "
        f"paintings of {_sides(config, 'painting_scales')}",
        "width": f"{config['base_channels']} channels, {config['residual_blocks']} residual blocks, "
        f"{config['upsampling']} up-sampling",
        "weights of Eq. 1": _weights(config),
        "left out": ", ".join(left_out) or "nothing",
        "D": f"{config['discriminator']}, {config['adversarial_loss']}; {_accuracy(facts['numbers'])}",
        "S": _saliency(config),
        "learning rate": f"{config['learning_rate']}, of D {config['discriminator_learning_rate']}, x "
        f"{config['lr_gamma']} at {list(config['lr_milestones'])} of the {planned} planned",
        "moving average": f"decay {config['ema_decay']}" if config["use_ema"] else "none",
        "VGG-19": facts["vgg_weights"],
        "hardware": f"{facts['hardware']}, {facts['processes']} process(es), precision {facts['mixed_precision']}",
        "time": f"{facts['minutes']} minutes",
        "seed": config["seed"],
    }
    table = "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])
    command = shlex.join(facts["command"])
    history = f"{facts['history']}\n\n" if facts.get("history") else ""
    keywords = {
        "training": f"{history}```sh\n{command}\n```\n\n{table}\n\nEvery setting is in `{FACTS_FILE}`.",
        "title": config["title"],
        "training_data": config["training_data"],
    }
    return {name: value for name, value in keywords.items() if value}


def _weights(config: dict[str, Any]) -> str:
    """Each term with its weight, those of Eq. 1 first."""
    there = [term for term in TERMS if term.key and term.active(config)]
    said = {term.name: f"{term.key} {config[term.key]}" for term in there}
    if "con" in said:
        said["con"] += f" (x {config['w_con_decay']} every {config['w_con_decay_epochs']} epochs)"
        if config["saliency_mask"] and config["mask_peak"] != TrainingConfig.mask_peak:
            said["con"] += f", the mask of Eq. 4 up to {config['mask_peak']} (the paper: {TrainingConfig.mask_peak})"
    return ", ".join(said[term.name] + " (beyond the paper)" * term.beyond_the_paper for term in there)


def _first_terms(config: dict[str, Any]) -> str:
    """The terms of the initialisation phase."""
    return ", ".join(term.symbol for term in TERMS if term.active(config) and not term.adversarial)


def _saliency(config: dict[str, Any]) -> str:
    if not config["saliency_network"]:
        return "none"
    return "trained with G" if config["train_saliency"] else "as it came with the first weights"


def _sides(config: dict[str, Any], scales: str) -> str:
    brush_size = config.get("brush_size", 0) if scales == "photo_scales" else 0
    size, least = brush_size or config["image_size"], config["crop_size"]
    sides = sorted({max(least, round(size * scale)) for scale in config[scales]})
    return " to ".join(map(str, sides)) + (" px and twice of that" if brush_size else " px")


def _accuracy(numbers: dict[str, float]) -> str:
    """D's accuracy at the end of the run, each kind of image a figure."""
    names = {"painting": "paintings", "edge_blurred": "edge-blurred paintings", "generated": "results"}
    found = {name: numbers.get(f"discriminator_accuracy/{kind}") for kind, name in names.items()}
    shares = [f"{share:.0%} of {name}" for name, share in found.items() if share is not None]
    return f"right on {', '.join(shares)}" if shares else "not trained in this run"


def teacher(arguments: argparse.Namespace) -> str | None:
    """The style that a distillation learns from, as it may be published."""
    return _public_style("teacher" if arguments.teacher is not None else "initial_style", arguments)


def _public_style(key: str, arguments: argparse.Namespace) -> str | None:
    """A style's name as it may be published: a name or a Hub id, but for a folder of this machine a placeholder."""
    name = getattr(arguments, key)
    return key.upper() if name is not None and Path(name).is_dir() else name


def _command(arguments: argparse.Namespace, accelerator: Accelerator) -> list[str]:
    """The command that repeats this run, with placeholders for the paths of one machine."""
    command = ["accelerate", "launch", "--num_processes", str(accelerator.num_processes)]
    command += ["--mixed_precision", accelerator.mixed_precision, "training/train.py"]
    if arguments.config is not None:
        command += ["--config", f"training/configs/{arguments.config.name}"]
    shown = {key: key.upper() for key in ("photos", "paintings", "output", "masks", "sample_photos")}
    shown |= {key: _public_style(key, arguments) for key in ("initial_style", "teacher")}
    shown["vgg_weights"] = getattr(arguments.vgg_weights, "name", None)
    shown["max_steps"] = arguments.max_steps
    for key, value in shown.items():
        if getattr(arguments, key) is not None:
            command += [f"--{key}", str(value)]
    for key, value in given_arguments(arguments).items():
        command += [f"--{key}", *(value if isinstance(value, list) else [value])]
    return command
