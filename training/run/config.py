"""A training's settings: the defaults are the paper's (Sec. III-B, IV-B, V-D) and its release's."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import typing
from collections.abc import Callable
from pathlib import Path

import yaml

from sdpgan_hub.errors import SDPGANError

from ..losses.terms import ADVERSARIAL_LOSSES, DISCRIMINATORS, TERMS

RANGES: tuple[tuple[str, Callable[[typing.Any], bool], str], ...] = (
    (
        "batch_size image_size checkpointing_steps sample_steps logging_steps gradient_accumulation_steps "
        "w_con_decay_epochs checkpoints_total_limit",
        lambda value: value >= 1,
        "at least 1",
    ),
    (
        "learning_rate discriminator_learning_rate epochs initialization_epochs max_grad_norm num_workers "
        "adversarial_steps w_con w_con_decay w_con_s w_sali w_identity w_shift w_distill lr_gamma",
        lambda value: 0 <= value < math.inf,
        "a number from 0 up",
    ),
    ("adam_beta1 adam_beta2", lambda value: 0 <= value < 1, "a number from 0 up and below 1"),
    ("seed", lambda value: 0 <= value < 2**32, "from 0 to 4294967295"),
    ("crop_size", lambda value: value >= 32 and value % 4 == 0, "a multiple of 4 and at least 32"),
    (
        "clear_lines",
        lambda value: len(value) == 2 and all(width in (0, *range(3, 16, 2)) for width in value),
        "two widths, each 0 or an odd number of pixels from 3 to 15",
    ),
    ("shock_filter", lambda value: 0 <= value <= 16, "a number of steps from 0 to 16"),
    ("mask_peak", lambda value: 1 <= value < math.inf, "a number from 1 up (the paper's is 2)"),
    (
        "keep_detail tone_jitter identity_chroma distill_color distill_hue distill_light distill_dark distill_plain "
        "distill_flat distill_ink distill_real clear_grain ema_decay",
        lambda value: 0 <= value <= 1,
        "a number from 0 to 1",
    ),
    (
        "photo_scales painting_scales",
        lambda value: len(value) == 2 and 0 < value[0] <= value[1],
        "two numbers above 0, the smaller one first",
    ),
    (
        "distill_chroma",
        lambda value: len(value) == 2 and min(value) >= 0,
        "two numbers from 0 up: where people look, and elsewhere",
    ),
    (
        "distill_shade",
        lambda value: len(value) == 3 and max(map(abs, value)) <= 255,
        "three numbers from -255 to 255: for red, green and blue",
    ),
    ("adversarial_loss", ADVERSARIAL_LOSSES.__contains__, f"one of {', '.join(ADVERSARIAL_LOSSES)}"),
    ("discriminator", DISCRIMINATORS.__contains__, f"one of {', '.join(DISCRIMINATORS)}"),
)
"""Settings, what must hold of each, and how a message says it."""


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """What a YAML file of training/configs may set, and `--KEY VALUE` on the command line overrides."""

    # networks
    base_channels: int = 64
    residual_blocks: int = 8
    upsampling: str = "transposed"
    feature_concatenation: bool = True
    """False: G does not take in S's features (Fig. 11)."""
    saliency_network: bool = True
    """False: no S, so no concatenation, no L_sali, no L_con_s; the mask is that of the reference (Fig. 9 (c))."""
    context_blocks: int = 0
    """Dilated bottleneck blocks between S's encoder and decoder; 0: none (the paper)."""
    saliency_size: int = 0
    """S sees the whole photo as a square copy of this many pixels; 0: what G sees (the paper)."""
    normalization: str = "instance"
    """Of G: instance (the paper), or pixel, inside the residual blocks alone."""
    antialiasing: bool = False
    """True: a binomial filter before every convolution of stride 2 of S and G."""
    noise: float = 0.0
    """Amplitude of the smooth noise added to G's input, in units of [-1, 1]; 0: none (the paper)."""
    brush_size: int = 0
    """The shorter side at which larger photos are painted first, then coarse to fine; 0: once, as they are (the paper).
    Photos are trained on at this size and at twice of it, as `photo_scales` spreads them."""
    clear_lines: tuple[int, ...] = (0, 0)
    """Two widths in pixels, each 0 (off) or odd from 3 to 15, for the second size and for later ones: dark lines and
    dots that are narrower, which the smaller painting added to the photo, are filled in before it is painted over."""
    clear_grain: float = 0.0
    """Height, in units of [-1, 1], of the fine structure that results over a smaller painting are rid of."""
    shock_filter: int = 0
    """Steps of a filter that makes the contours of results crisp; 0: none (the paper)."""
    keep_detail: float = 0.0
    """The share of the photo's fine structure that results have where S is highest; 0: none (the paper)."""
    discriminator: str = "patch"
    """patch: D of Fig. 2 (b); projected: that and heads on VGG features (training/losses/discriminators.py)."""
    discriminator_channels: int = 32

    # data
    image_size: int = 256
    """The shorter side that photos and paintings are scaled to, in pixels."""
    photo_scales: tuple[float, ...] = (1.0, 1.0)
    """Photos are scaled to a random share of `image_size` (of `brush_size`, where there is one) between these two, and
    never below `crop_size`."""
    painting_scales: tuple[float, ...] = (1.0, 1.0)
    """Paintings are scaled to a random share of `image_size` between these two; above the photos': broader strokes."""
    tone_jitter: float = 0.0
    """Share of photos and of paintings that are darkened or lightened, so that G learns to keep tone."""
    crop_size: int = 256
    """The side of the random crop that the networks see, in pixels."""
    batch_size: int = 4
    """Photos a step on each process."""
    num_workers: int = 2

    human_masks: bool = True
    """False: z of Eq. 7 is the saliency reference for every photo, though --masks names human-drawn masks."""

    # objective, Eq. 1
    adversarial_loss: str = "bce"
    w_con: float = 0.0625
    """The paper's 0.25. Its release gives VGG images that are not divided by ImageNet's deviation, so its features are
    a quarter of ours (mean |conv4_4| 1.08 against 4.33)."""
    w_con_decay: float = 0.96
    w_con_decay_epochs: int = 10
    w_con_s: float = 1.5
    """0: S(G(x)) is not computed (Fig. 10)."""
    w_sali: float = 1.0
    train_saliency: bool = True
    """False: S stays as it came with --initial_style; L_sali and references are not needed."""
    w_identity: float = 0.0
    """Of |G(y) - y|_1 on half of the paintings (CycleGAN), beyond Eq. 1; 0: not computed (the paper)."""
    identity_chroma: float = 1.0
    """What the identity loss multiplies the chroma of G's input with: below 1, G learns to paint stronger colours than
    the photo's."""
    w_shift: float = 0.0
    """Of the change of one photo's painting when its crop starts 1 to 3 px further, beyond Eq. 1; 0: not computed."""
    w_distill: float = 0.0
    """Of the distance of G(x) from T(x), where T is the G of --teacher, beyond Eq. 1: a smaller G learns its
    paintings; 0: not computed."""
    distill_chroma: tuple[float, ...] = (1.0, 1.0)
    """What the chroma of T(x) is multiplied with: where S's map is 1, and where it is 0 or there is no S."""
    distill_color: float = 0.0
    """How much of the photo's strong colours T(x) takes over (`taught.with_strong_colors`): 0 to 1."""
    distill_hue: float = 0.0
    """How much of the photo's chroma T(x) takes over where there is any (`taught.with_hues`): 0 to 1."""
    distill_light: float = 0.0
    """How much of the photo's luma T(x) takes over where that is bright (`taught.with_lights`): 0 to 1."""
    distill_dark: float = 0.0
    """How much of the photo's chroma, times 1.5, T(x) takes over where it is dark (`taught.with_dark_hues`): 0 to 1."""
    distill_shade: tuple[float, ...] = (0.0, 0.0, 0.0)
    """What red, green and blue of T(x) get where it is dark and grey, of 255 (`taught.with_shades`)."""
    distill_plain: float = 0.0
    """How much of the texture of its input T does not see where nobody looks (`taught.plain`): 0 to 1."""
    distill_flat: float = 0.0
    """How much T(x) is made of areas of one colour each (`taught.flat`): 0 to 1."""
    distill_ink: float = 0.0
    """How dark the photo's contours are in T(x), at the last size or where people look (`taught.ink_lines`): 0 to 1."""
    distill_real: float = 0.0
    """Share of D's paintings that are T(x), with all of the above, in place of the painter's: 0 to 1."""
    saliency_mask: bool = True
    """False: L_con without the mask of Eq. 4 (Fig. 9 (d)); without `saliency_network` too, what ref. [8] minimises."""
    mask_peak: float = 2.0
    """What Eq. 4 scales the highest value of each saliency map to; 2: the paper, 1: no mask."""
    edge_blurred: bool = True

    # schedule
    initialization_epochs: float = 10
    """Epochs of L_con and L_sali alone before the adversarial ones; a fraction is allowed."""
    epochs: float = 200
    """Adversarial epochs; a fraction is allowed."""
    adversarial_steps: int = 0
    """The length of the training whatever the number of photos; 0: `epochs` gives it."""
    learning_rate: float = 2e-4
    """Of G and S."""
    discriminator_learning_rate: float = 2e-4
    adam_beta1: float = 0.5
    adam_beta2: float = 0.999
    lr_milestones: tuple[float, ...] = (0.5, 0.75)
    """Shares of the adversarial steps, or of all where there are none, after which the learning rate is multiplied by
    `lr_gamma`."""
    lr_gamma: float = 0.1
    gradient_accumulation_steps: int = 1
    max_grad_norm: float = 0.0
    """Gradients of G and S, and of D, are scaled down to this norm; 0: never."""
    use_ema: bool = False
    """Ship an exponential moving average of S and G."""
    ema_decay: float = 0.999
    stop_on_collapse: bool = True
    """False: only warn of a collapse (training/run/health.py); a number that is not finite always stops."""
    seed: int = 0

    # the model card
    title: str = ""
    training_data: str = ""
    """What the photos and the paintings are, and their terms."""

    # housekeeping
    checkpointing_steps: int = 500
    checkpoints_total_limit: int = 3
    sample_steps: int = 500
    logging_steps: int = 20

    def __post_init__(self) -> None:
        for keys, holds, wanted in RANGES:
            for key in keys.split():
                if not holds(getattr(self, key)):
                    raise SDPGANError(f"{key} is {getattr(self, key)!r}; it must be {wanted}.")
        if self.w_shift and self.crop_size < 64:
            raise SDPGANError(f"crop_size is {self.crop_size}; w_shift needs one of at least 64.")
        for key in (field.name for field in dataclasses.fields(self) if field.name.startswith("distill_")):
            if getattr(self, key) != getattr(TrainingConfig, key) and not self.w_distill:
                raise SDPGANError(f"{key} is {getattr(self, key)}; it needs a w_distill, such as 20.")
        if self.distill_real and not (self.adversarial_steps or self.epochs):
            raise SDPGANError(f"distill_real is {self.distill_real}; it needs adversarial_steps.")
        if self.brush_size and not self.saliency_size:
            raise SDPGANError(f"brush_size is {self.brush_size}; it needs a saliency_size, such as 128.")
        if self.initialization_epochs and not any(term.active(vars(self)) for term in TERMS if not term.adversarial):
            raise SDPGANError("w_con is 0 and the initialisation phase has no other loss; set initialization_epochs 0.")
        if self.crop_size > self.image_size:
            raise SDPGANError(f"crop_size {self.crop_size} is larger than image_size {self.image_size}; lower it.")

    @property
    def references(self) -> bool:
        """Whether the photos' saliency references are needed: for L_sali of S, or as the mask of Eq. 4 without S."""
        return self.train_saliency if self.saliency_network else self.saliency_mask

    @property
    def network(self) -> dict[str, typing.Any]:
        """The arguments of `SDPGAN`."""
        keys = ("base_channels", "residual_blocks", "upsampling", "saliency_network", "context_blocks",
                "saliency_size", "normalization", "antialiasing", "noise", "brush_size",
                "clear_lines", "clear_grain", "shock_filter")  # fmt: skip
        arguments = {key: getattr(self, key) for key in keys}
        return arguments | {
            "feature_concatenation": self.feature_concatenation and self.saliency_network,
            "keep_detail": self.keep_detail if self.saliency_network else 0.0,
        }


def read_config(path: str | Path | None, overrides: dict[str, typing.Any] | None = None) -> TrainingConfig:
    """A YAML file of `TrainingConfig` keys (None: the defaults), with `overrides` on top.

    Raises:
        SDPGANError: the file cannot be read, or a key or the type of its value is unknown.
    """
    values: dict[str, typing.Any] = {}
    if path is not None:
        try:
            values = yaml.safe_load(Path(path).read_text()) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise SDPGANError(f"{path} is not a readable YAML file ({' '.join(str(error).split())}).") from error
        if not isinstance(values, dict):
            raise SDPGANError(f"{path} must hold `key: value` lines.")
    kinds = typing.get_type_hints(TrainingConfig)
    unknown = sorted(set(values) - set(kinds))
    if unknown:
        raise SDPGANError(f"{path} has the unknown key {unknown[0]!r}; the known ones are {', '.join(kinds)}.")
    values |= overrides or {}
    return TrainingConfig(**{key: _cast(key, value, kinds[key]) for key, value in values.items()})


def check_batch(config: TrainingConfig, photos: int, processes: int = 1) -> None:
    """Refuses a step that takes more photos than there are."""
    batch = config.batch_size * config.gradient_accumulation_steps * processes
    if batch > photos:
        raise SDPGANError(
            f"A step takes {batch} photos (batch_size {config.batch_size}), and there are {photos}; lower batch_size, "
            "or give more photos."
        )


def differences(before: dict[str, typing.Any], now: dict[str, typing.Any]) -> list[str]:
    """The settings of `now` that `before` has otherwise, as KEY (VALUE there, VALUE here)."""
    there, here = json.loads(json.dumps([before, now]))  # as training.json has them: lists in place of tuples
    return [f"{key} ({there.get(key)!r} there, {here[key]!r} here)" for key in here if there.get(key) != here[key]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One `--key` for each setting, None where it is not given."""
    group = parser.add_argument_group("settings (override the config file)")
    weights = {term.key: f"weight of {term.symbol} " for term in TERMS}
    for key, kind in typing.get_type_hints(TrainingConfig).items():
        several = typing.get_origin(kind) is tuple
        text = f"{weights.get(key, '')}(default: {getattr(TrainingConfig, key)})"
        group.add_argument(f"--{key}", nargs="*" if several else None, metavar=key.upper(), default=None, help=text)


def given_arguments(arguments: argparse.Namespace) -> dict[str, typing.Any]:
    """What of `add_arguments` was given."""
    keys = (field.name for field in dataclasses.fields(TrainingConfig))
    return {key: getattr(arguments, key) for key in keys if getattr(arguments, key) is not None}


def _cast(key: str, value: typing.Any, kind: typing.Any) -> typing.Any:
    """`value` from YAML or the command line as `kind`, or one sentence."""
    try:
        if kind is str and value is None:  # YAML's null
            return ""
        if typing.get_origin(kind) is tuple:
            of = typing.get_args(kind)[0]
            if isinstance(value, str) or (of is int and any(isinstance(one, (bool, float)) for one in value)):
                raise TypeError
            return tuple(of(one) for one in value)
        if kind is bool:
            return {"true": True, "false": False}[str(value).lower()]
        if (kind is int and isinstance(value, (bool, float))) or (kind is str and not isinstance(value, str)):
            raise TypeError
        return kind(value)
    except (TypeError, ValueError, KeyError) as error:
        several = {tuple[float, ...]: "numbers", tuple[int, ...]: "whole numbers"}
        wanted = several.get(kind) or kind.__name__
        raise SDPGANError(f"{key} is {value!r}; it must be {wanted}.") from error
