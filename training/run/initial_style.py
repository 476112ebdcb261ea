"""First weights: those of another style."""

from __future__ import annotations

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from sdpgan_hub import SDPGAN
from sdpgan_hub.errors import SDPGANError

from ..losses.discriminators import PatchDiscriminator, ProjectedDiscriminator
from .provenance import DISCRIMINATOR_FILE

MAY_DIFFER = ("noise", "brush_size", "clear_lines", "clear_grain", "shock_filter", "keep_detail")
"""Options of a style that change neither its layers nor what they see."""


def load(name: str, model: SDPGAN, discriminator: PatchDiscriminator | ProjectedDiscriminator) -> str | None:
    """G and S of the style `name` and, where it was kept and fits, its D. Adam and the schedule start anew.

    A G of fewer residual blocks takes some of the style's, at even distances.

    Returns None where D was loaded, else why not: "" where the style has none, or a warning.

    Raises:
        SDPGANError: the style cannot be had, or its networks are others.
    """
    style = SDPGAN.from_pretrained(name)
    here, there = model.config, style.config
    differ = [key for key in here if here[key] != there[key] and key not in MAY_DIFFER]
    if here["residual_blocks"] < there["residual_blocks"]:
        differ.remove("residual_blocks")
    if differ:
        has, wants = (", ".join(f"{key} {of[key]}" for key in differ) for of in (there, here))
        raise SDPGANError(
            f"--initial_style {name} has {has}, the config {wants}; train with the style's settings, or start without "
            "it."
        )
    model.load_state_dict(_fewer_blocks(style, here["residual_blocks"]))
    try:
        path = style.source.beside(DISCRIMINATOR_FILE)
    except SDPGANError as error:
        return f"warning: the D of {name} cannot be had and starts anew: {error}"
    if path is None:
        return ""
    try:
        kept, expected = load_file(path), discriminator.state_dict()
    except (OSError, SafetensorError) as error:
        return f"warning: the D of {name} cannot be read and starts anew: {error}"
    if {key: value.shape for key, value in kept.items()} != {key: value.shape for key, value in expected.items()}:
        return f"warning: the D of {name} has other layers; D starts anew"
    discriminator.load_state_dict({key: value.float() for key, value in kept.items()})
    return None


def _fewer_blocks(style: SDPGAN, count: int) -> dict[str, Tensor]:
    """A style's weights; where it has more than `count` blocks, the middle ones of `count` equal runs of them."""
    blocks, state = style.generator.residual, style.state_dict()
    if count >= len(blocks):
        return state
    kept = [int((number + 0.5) * len(blocks) / count) for number in range(count)]
    style.generator.residual = nn.Sequential(*(blocks[number] for number in kept))
    return style.state_dict()
