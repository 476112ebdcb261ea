"""What a training tells its readers: training.json, and from it the sections of the model card."""

from __future__ import annotations

import json
import os
import platform
import shlex
from pathlib import Path
from typing import Any

import torch

from sdpgan_hub.errors import SDPGANError

FACTS_FILE = "training.json"


def hardware(device: torch.device) -> str:
    """The accelerator's name, or how many CPU cores there are."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} CPU core{'s' if cores != 1 else ''} ({platform.machine()})"


def write_facts(folder: Path, facts: dict[str, Any]) -> None:
    """`folder`/training.json, whole or not at all."""
    partial = folder / f".{FACTS_FILE}.part"
    partial.write_text(json.dumps(facts, indent=2) + "\n")
    partial.replace(folder / FACTS_FILE)


def read_facts(folder: Path) -> dict[str, Any]:
    """What `write_facts` wrote; SDPGANError where it cannot be read."""
    try:
        return json.loads((folder / FACTS_FILE).read_text())
    except (OSError, ValueError) as error:
        raise SDPGANError(f"{folder / FACTS_FILE} cannot be read; give the output folder of train.py.") from error


def card_keywords(facts: dict[str, Any]) -> dict[str, Any]:
    """The keywords of `SDPGAN.save_pretrained(model_card_kwargs=...)` for a training's facts."""
    config = facts["config"]
    initialization = facts["initialization_steps"]
    rows = {
        "photos, paintings": f"{facts['photos']}, {facts['paintings']}",
        "saliency reference (Eq. 7)": facts["saliency_reference"],
        "steps": f"{initialization} of initialisation (L_con, L_sali), {facts['steps'] - initialization} adversarial",
        "batch": f"{config['batch_size'] * config['gradient_accumulation_steps'] * facts['processes']} crops of "
        f"{config['crop_size']} px, from images of {config['image_size']} px",
        "width": f"{config['base_channels']} channels, {config['residual_blocks']} residual blocks, "
        f"{config['upsampling']} up-sampling",
        "weights of Eq. 1": f"w_con {config['w_con']} (x {config['w_con_decay']} every {config['w_con_decay_epochs']} "
        f"epochs), w_con_s {config['w_con_s']}, w_sali {config['w_sali']}",
        "learning rate": f"{config['learning_rate']}, x {config['lr_gamma']} at {config['lr_milestones']} of the "
        "adversarial steps planned",
        "moving average": f"decay {config['ema_decay']}" if config["use_ema"] else "none",
        "VGG-19": facts["vgg_weights"],
        "hardware": f"{facts['hardware']}, {facts['processes']} process(es), precision {facts['mixed_precision']}",
        "time": f"{facts['minutes']} minutes",
        "seed": config["seed"],
    }
    table = "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])
    command = shlex.join(facts["command"])
    keywords = {
        "training": f"```sh\n{command}\n```\n\n{table}\n\nEvery setting is in `{FACTS_FILE}`.",
        "title": config["title"],
        "training_data": config["training_data"],
    }
    return {name: value for name, value in keywords.items() if value}
