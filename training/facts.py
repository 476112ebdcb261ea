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
BEYOND_THE_PAPER = ("w_detail", "w_colour_grain", "w_flat_grain", "w_grid", "w_texture")


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
        "steps": f"{initialization} of initialisation (L_con, L_sali), {facts['steps'] - initialization} adversarial",
        "batch": f"{config['batch_size'] * config['gradient_accumulation_steps'] * facts['processes']} crops of "
        f"{config['crop_size']} px, from images of {config['image_size']} px",
        "width": f"{config['base_channels']} channels, {config['residual_blocks']} residual blocks, "
        f"{config['upsampling']} up-sampling",
        "weights of Eq. 1": _weights(config),
        "left out": ", ".join(left_out) or "nothing",
        "learning rate": f"{config['learning_rate']}, x {config['lr_gamma']} at {config['lr_milestones']} of the "
        "adversarial steps planned",
        "moving average": f"decay {config['ema_decay']}" if config["use_ema"] else "none",
        "VGG-19": facts["vgg_weights"],
        "hardware": f"{facts['hardware']}, {facts['processes']} process(es), precision {facts['mixed_precision']}",
        "time": f"{facts['minutes']} minutes",
        "seed": config["seed"],
    }
    table = "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])
    figures = facts.get("validation")
    command = shlex.join(facts["command"])
    history = f"{facts['history']}\n\n" if facts.get("history") else ""
    keywords = {
        "training": f"{history}```sh\n{command}\n```\n\n{table}\n\nEvery setting is in `{FACTS_FILE}`.",
        "evaluation": _evaluation(figures, config["select_by"]) if figures else "",
        "title": config["title"],
        "training_data": config["training_data"],
    }
    return {name: value for name, value in keywords.items() if value}


def _first_weights(style: str | None) -> str:
    if style is None:
        return "random"
    return f"G and S of the style {style}, a new D"


def _weights(config: dict[str, Any]) -> str:
    beyond = "".join(f", {key} {config[key]} (beyond the paper)" for key in BEYOND_THE_PAPER if config.get(key))
    w_con = f"w_con {config['w_con']} (x {config['w_con_decay']} every {config['w_con_decay_epochs']} epochs)"
    if config["saliency_mask"] and config["mask_peak"] != TrainingConfig.mask_peak:
        w_con += f", the mask of Eq. 4 up to {config['mask_peak']} (the paper: {TrainingConfig.mask_peak})"
    if not config["saliency_network"]:
        return w_con + beyond
    return f"{w_con}, w_con_s {config['w_con_s']}, w_sali {config['w_sali']}{beyond}"


def _evaluation(figures: dict[str, float], selected_by: str) -> str:
    chosen = f" These weights are those with the lowest {selected_by} of the run." if selected_by else ""
    return (
        f"On {figures['photos']} photos that it was not trained on: kernel distance of the results to other paintings "
        f"of the style {figures['kernel_distance']:.4g}, content distance to the photos {figures['content']:.4g} "
        "(VGG-19 conv4_4; `training/selection.py` defines both; they compare runs with the same images, not papers)."
        f"{chosen}"
    )
