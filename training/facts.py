"""What a training tells its readers: training.json, and from it the sections of the model card."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import shlex
from pathlib import Path
from typing import Any

import torch

from sdpgan_hub.checkpoint import write_whole
from sdpgan_hub.errors import SDPGANError

from .config import TrainingConfig

FACTS_FILE = "training.json"
DISCRIMINATOR_FILE = "discriminator.safetensors"
"""D's weights beside a training's result."""
BEYOND_THE_PAPER = ("w_identity",)


def hardware(device: torch.device) -> str:
    """The accelerator's name, or how many CPU cores there are."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} CPU core{'s' if cores != 1 else ''} ({platform.machine()})"


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
    initialization = facts["initialization_steps"]
    parts = {
        "saliency_network": "the saliency network, L_sali and L_con_s",
        "feature_concatenation": "the feature concatenation",
        "saliency_mask": "the mask of Eq. 4",
        "edge_blurred": "the edge-blurred paintings",
    }
    left_out = [part for key, part in parts.items() if not config[key]]
    rows = {
        "photos, paintings": f"{facts['photos']}, {facts['paintings']}",
        "first weights": _first_weights(facts.get("initial_style")),
        "saliency reference (Eq. 7)": facts["saliency_reference"],
        "steps": f"{initialization} of initialisation ({_first_terms(config)}), {facts['steps'] - initialization} "
        "adversarial",
        "batch": f"{config['batch_size'] * config['gradient_accumulation_steps'] * facts['processes']} crops of "
        f"{config['crop_size']} px, from photos with a shorter side of {_sides(config, 'photo_scales')} px and "
        f"paintings of {_sides(config, 'painting_scales')} px",
        "width": f"{config['base_channels']} channels, {config['residual_blocks']} residual blocks, "
        f"{config['upsampling']} up-sampling",
        "weights of Eq. 1": _weights(config),
        "left out": ", ".join(left_out) or "nothing",
        "D": f"{config['discriminator']}, {config['adversarial_loss']}; right on {_accuracy(facts['numbers'])}",
        "S": "trained with G" if config["train_saliency"] else "as it came with the first weights",
        "learning rate": f"{config['learning_rate']}, of D {config['discriminator_learning_rate']}, x "
        f"{config['lr_gamma']} at {config['lr_milestones']} of the adversarial steps planned",
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


def _first_weights(style: str | None) -> str:
    if style is None:
        return "random"
    return f"G, S and, where it was kept, D of the style {style}"


def _weights(config: dict[str, Any]) -> str:
    beyond = "".join(f", {key} {config[key]} (beyond the paper)" for key in BEYOND_THE_PAPER if config.get(key))
    w_con = f"w_con {config['w_con']} (x {config['w_con_decay']} every {config['w_con_decay_epochs']} epochs)"
    if config["saliency_mask"] and config["mask_peak"] != TrainingConfig.mask_peak:
        w_con += f", the mask of Eq. 4 up to {config['mask_peak']} (the paper: {TrainingConfig.mask_peak})"
    if not config["saliency_network"]:
        return w_con + beyond
    w_sali = f", w_sali {config['w_sali']}" if config["train_saliency"] else ""
    return f"{w_con}, w_con_s {config['w_con_s']}{w_sali}{beyond}"


def _first_terms(config: dict[str, Any]) -> str:
    """The terms of the initialisation phase."""
    terms = {"L_con": True, "L_sali": config["saliency_network"] and config["train_saliency"],
             "identity": config["w_identity"]}  # fmt: skip
    return ", ".join(term for term, there in terms.items() if there)


def _sides(config: dict[str, Any], scales: str) -> str:
    sides = sorted({round(config["image_size"] * scale) for scale in config[scales]})
    return " to ".join(map(str, sides))


def _accuracy(numbers: dict[str, float]) -> str:
    """D's accuracy at the end of the run, each kind of image a figure."""
    names = {"painting": "paintings", "edge_blurred": "edge-blurred paintings", "generated": "results"}
    found = {name: numbers.get(f"discriminator_accuracy/{kind}") for kind, name in names.items()}
    shares = [f"{share:.0%} of {name}" for name, share in found.items() if share is not None]
    return ", ".join(shares) or "nothing yet: it was not trained"
