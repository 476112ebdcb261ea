#!/usr/bin/env python
"""Trains a style (Li et al., IEEE TIP 2021, Sec. III-B and IV-B): photos and paintings in, a model folder out.

    accelerate launch training/train.py --config training/configs/vangogh.yaml \\
        --photos DIR --paintings DIR --output DIR

Saliency references, where a term or the mask takes them, are prepared first (training/prepare.py) unless they are
cached already.
OUTPUT gets config.json, model.safetensors and README.md, which `SDPGAN.from_pretrained` and `sdpgan stylize --style`
load; checkpoints/, which `--resume_from_checkpoint latest` continues from; samples/ with sheets of photos, results and
saliency maps; and logs/ for TensorBoard. A step is one update of D and one of G and S. training/README.md has the rest:
several GPUs, resuming, ablations, health, the Hub.

Exit codes: 0 trained; 1 trained, and the push to the Hub failed; 2 stopped with one sentence on stderr; 130 and 143
ended by Ctrl-C and SIGTERM, with a checkpoint to go on from.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, from anywhere

from sdpgan_hub.errors import SDPGANError
from training.arguments import parse_arguments, read_command_line

if __name__ == "__main__":  # a wrong argument is answered before torch is imported, which takes seconds
    try:
        COMMAND_LINE = read_command_line()
    except SDPGANError as error:
        print(f"train.py: {error}", file=sys.stderr)
        sys.exit(2)

import argparse
import copy
import dataclasses
import math
import signal
import threading
import time
from datetime import timedelta

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.utils import DistributedType, broadcast_object_list, is_tensorboard_available, set_seed
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from sdpgan_hub import SDPGAN, styles
from sdpgan_hub.checkpoint import write_weights, write_whole
from sdpgan_hub.filters import NOISE_PERIOD, crop_and_resize, resized, underpainted
from sdpgan_hub.memory import keep_freed_memory
from training import discriminators, objective, pictures, prepare, publish
from training.checkpoints import Checkpoints, fault
from training.config import TrainingConfig, given_arguments
from training.data import SampleNumbers, UnpairedImages
from training.data import check as check_images
from training.facts import DISCRIMINATOR_FILE, card_keywords, hardware, write_facts
from training.health import WINDOW, Health
from training.logs import JsonLines
from training.perceptual import HEAD_LAYERS, PerceptualFeatures, memory_format
from training.sources import fetch

__all__ = ["Progress", "Schedule", "Trainer", "main", "parse_arguments"]

HEALTH_STEPS = 50
"""At least this often the numbers of the steps are looked at; between, they stay on the accelerator."""
CALIBRATION_SAMPLES = 32
"""So many photos and paintings give the scales of the projected discriminator's heads."""
LARGEST_WEIGHT = torch.finfo(torch.float16).max
"""Styles are kept in float16."""
STOP_STEPS = 10
"""Several processes agree this often on whether to stop early; a single one is asked after every step."""


@dataclasses.dataclass
class Schedule:
    """Everything that depends on the step, as a function of the step alone."""

    config: TrainingConfig
    steps_per_epoch: float

    @property
    def initialization_steps(self) -> int:
        return round(self.config.initialization_epochs * self.steps_per_epoch)

    @property
    def total_steps(self) -> int:
        steps = self.config.adversarial_steps or round(self.config.epochs * self.steps_per_epoch)
        return self.initialization_steps + steps

    def adversarial(self, step: int) -> bool:
        return step >= self.initialization_steps

    def w_con(self, step: int) -> float:
        """Eq. 9; the initialisation phase has its first value."""
        epoch = max(0, step - self.initialization_steps) / self.steps_per_epoch
        return objective.content_weight(
            self.config.w_con, int(epoch), self.config.w_con_decay, self.config.w_con_decay_epochs
        )

    def weights(self, step: int) -> dict[str, float]:
        """Of the terms of Eq. 1 that G and S minimise at this step; a term that is not there is not computed."""
        config = self.config
        weights = {"con": self.w_con(step)}
        if config.saliency_network and config.train_saliency:
            weights["sali"] = config.w_sali
        if config.w_identity:
            weights["identity"] = config.w_identity
        if config.w_shift:
            weights["shift"] = config.w_shift
        if self.adversarial(step):
            weights["gan"] = 1.0
            if config.saliency_network and config.w_con_s:
                weights["con_s"] = config.w_con_s
        return weights

    def learning_rate(self, step: int) -> float:
        """Of G and S; D's falls with it."""
        return self.config.learning_rate * self.decay(step)

    def decay(self, step: int) -> float:
        """What the learning rates are multiplied by at this step."""
        adversarial_steps = max(1, self.total_steps - self.initialization_steps)
        done = (step - self.initialization_steps) / adversarial_steps
        passed = sum(done >= milestone for milestone in self.config.lr_milestones)
        return self.config.lr_gamma**passed


@dataclasses.dataclass
class Progress:
    """What a checkpoint holds beside networks, optimiser and random states."""

    step: int = 0
    seconds: float = 0.0

    def state_dict(self) -> dict[str, float]:
        return dataclasses.asdict(self)

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.step, self.seconds = int(state["step"]), float(state["seconds"])


class Interruption:
    """Within it, Ctrl-C and SIGTERM are noted in `signal` for the step under way to end; a second one acts at once."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: object) -> None:
        self.signal = number
        self.__exit__()


def leave_signals_to_the_parent(_: int) -> None:
    """In a worker of the data loader: Ctrl-C and SIGTERM reach a whole group of processes; the trainer ends them."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def call_with_constant_parameters(module: nn.Module, *inputs: Tensor):
    """`module(*inputs)` whose gradient reaches the inputs and not the parameters."""
    parameters = {name: parameter.detach() for name, parameter in module.named_parameters()}
    return functional_call(module, parameters, inputs)


def pasted(crops: Tensor, whole: Tensor, boxes: Tensor) -> Tensor:
    """Copies of whole photos, N x 3 x s x s, with what was painted of a crop in its place: what S sees for Eq. 6.

    crops: N x 3 x H x W; boxes: N x 4, top, left, height and width of the crops as shares of the photos'.
    """
    results, size = [], whole.shape[-1]
    for crop, copy_, box in zip(crops, whole, boxes.tolist(), strict=True):
        top, left = (min(size - 1, round(size * start)) for start in box[:2])
        height, width = (
            max(1, min(size - start, round(size * side))) for start, side in zip((top, left), box[2:], strict=True)
        )
        inside = torch.zeros_like(copy_[:1])
        inside[:, top : top + height, left : left + width] = 1
        margins = (left, size - left - width, top, size - top - height)
        placed = F.pad(resized(crop[None], height, width)[0], margins)
        results.append(copy_ * (1 - inside) + placed)
    return torch.stack(results)


@torch.no_grad()
def update_average(averaged: nn.Module, current: nn.Module, step: int, decay: float) -> None:
    """Exponential moving average that forgets its first values faster: the decay is min(decay, (1 + n) / (10 + n))."""
    share = 1 - min(decay, (1 + step) / (10 + step))
    for old, new in zip(averaged.parameters(), current.parameters(), strict=True):
        old.lerp_(new, share)


class Trainer:
    """One run: `Trainer(arguments, config).train()`."""

    def __init__(self, arguments: argparse.Namespace, config: TrainingConfig):
        self.arguments, self.config = arguments, config
        self.output: Path = arguments.output
        self.accelerator = self._accelerator()
        set_seed(config.seed)
        if self.accelerator.device.type == "cpu":
            keep_freed_memory()
        self.masks: Path | None = arguments.masks if config.human_masks and config.references else None
        cache = arguments.cache or self.output / "cache"
        if self.accelerator.is_main_process:
            for source in (arguments.photos, arguments.paintings):
                fetch(source, cache, arguments.max_images)
            check = (arguments.photos, arguments.paintings, config.image_size, config.crop_size, cache)
            for warning in check_images(*check):
                print(f"warning: {warning}", file=sys.stderr)
            prepare.prepare(
                arguments.photos, arguments.paintings, cache, masks=self.masks, references=config.references,
                max_images=arguments.max_images,
            )  # fmt: skip
        self.accelerator.wait_for_everyone()
        self.data = UnpairedImages(arguments.photos, arguments.paintings, cache, config)
        self.samples_per_step = config.batch_size * config.gradient_accumulation_steps * self.accelerator.num_processes
        self.schedule = Schedule(config, len(self.data) / self.samples_per_step)
        self.progress = Progress()
        self.checkpoints = Checkpoints(self.output / "checkpoints", config.checkpoints_total_limit)
        self.health = Health(constant_loss=self.constant_discriminator_loss())
        self.pending: list[tuple[int, dict[str, Tensor]]] = []
        self.rows: list[dict[str, float]] = []
        self.means: dict[str, float] = {}
        self.alone = torch.empty(0)
        """G(x) of the last batch that was a single photo."""

        self.memory_format = memory_format(self.accelerator.device)
        self.model = SDPGAN(**config.network).train().to(memory_format=self.memory_format)
        self.discriminator = discriminators.build(config.discriminator, config.discriminator_channels)
        self.discriminator.to(memory_format=self.memory_format)
        self.vgg = PerceptualFeatures(arguments.vgg_weights).to(
            self.accelerator.device, memory_format=self.memory_format
        )
        if not arguments.resume_from_checkpoint:
            self.first_weights(arguments.initial_style)
        if self.model.saliency_network is not None:
            self.model.saliency_network.requires_grad_(config.train_saliency)
        self.ema = copy.deepcopy(self.model).requires_grad_(False) if config.use_ema else None
        self.optimizer = torch.optim.Adam(
            # Adam treats each parameter on its own, so two groups are two optimisers
            [
                {"params": [parameter for parameter in self.model.parameters() if parameter.requires_grad]},
                {"params": list(self.discriminator.parameters()), "lr": config.discriminator_learning_rate},
            ],
            config.learning_rate,
            (config.adam_beta1, config.adam_beta2),
        )
        self.first_rates = [group["lr"] for group in self.optimizer.param_groups]
        self.prepared_model, self.prepared_discriminator, self.optimizer = self.accelerator.prepare(
            self.model, self.discriminator, self.optimizer
        )
        self.accelerator.register_for_checkpointing(self.progress)
        if self.ema is not None:
            self.ema.to(self.accelerator.device)
            self.accelerator.register_for_checkpointing(self.ema)
        if arguments.resume_from_checkpoint:
            self.resume(arguments.resume_from_checkpoint)

    def first_weights(self, name: str | None) -> None:
        """G, S and, where it was kept and fits, D of another style; else D's heads are scaled to these images.

        Adam's moments and the schedule start anew.
        """
        kept = None
        if name is not None:
            style = SDPGAN.from_pretrained(name)
            try:
                self.model.load_state_dict(style.state_dict())
            except RuntimeError as error:
                here, there = self.config.network, style.config
                differs = next((key for key in here if here[key] != there[key]), "a layer")
                raise SDPGANError(
                    f"--initial_style {name} has {differs} {there.get(differs)}, the config {here.get(differs)}; "
                    "train with the style's setting, or start without it."
                ) from error
            path = styles.fetch(name).weights.with_name(DISCRIMINATOR_FILE)
            kept = load_file(path) if path.exists() else None
        if kept is not None:
            expected = self.discriminator.state_dict()
            if kept.keys() == expected.keys() and all(kept[key].shape == expected[key].shape for key in kept):
                self.discriminator.load_state_dict({key: value.float() for key, value in kept.items()})
                return
            self.accelerator.print(f"warning: the D of {name} has other layers; D starts anew", file=sys.stderr)
        if self.config.discriminator == "projected":
            samples = [self.data[number] for number in range(min(CALIBRATION_SAMPLES, len(self.data)))]
            images = [sample[kind][None] for sample in samples for kind in ("photo", "painting")]
            with torch.no_grad():
                self.discriminator.calibrate(
                    [discriminators.pyramids(self.vgg, image.to(self.accelerator.device)) for image in images]
                )

    def constant_discriminator_loss(self) -> float:
        """`loss/discriminator` of a D that takes everything for the same."""
        config = self.config
        loss = objective.constant_discriminator_loss(1 + config.edge_blurred, config.adversarial_loss)
        if config.discriminator == "projected":
            loss += discriminators.SCALES * objective.constant_discriminator_loss(1, config.adversarial_loss)
        return loss

    def _accelerator(self) -> Accelerator:
        try:
            accelerator = Accelerator(
                mixed_precision=self.arguments.mixed_precision,
                cpu=self.arguments.cpu,
                gradient_accumulation_steps=self.config.gradient_accumulation_steps,
                log_with="tensorboard" if is_tensorboard_available() else JsonLines(self.output / "logs"),
                project_dir=self.output,
                kwargs_handlers=[
                    DistributedDataParallelKwargs(broadcast_buffers=False),
                    InitProcessGroupKwargs(timeout=timedelta(hours=2)),  # for the others while one prepares the data
                ],
            )
        except ValueError as error:
            raise SDPGANError(f"Accelerate cannot start: {error}") from error
        if accelerator.mixed_precision == "fp16" and accelerator.device.type == "cpu":
            raise SDPGANError("fp16 needs an accelerator, on a CPU Accelerate ignores it; take bf16, or no.")
        if not is_tensorboard_available() and accelerator.is_main_process:
            print(f"warning: TensorBoard is not installed; numbers go to {self.output / 'logs'}", file=sys.stderr)
        slow = accelerator.device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX2"
        if slow and accelerator.mixed_precision == "bf16" and accelerator.is_main_process:
            text = "warning: this CPU has no bf16 of its own, and a step can take ten times as long; leave bf16 out."
            print(text, file=sys.stderr)
        sharding = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)
        if accelerator.distributed_type in sharding:
            raise SDPGANError(
                f"{accelerator.distributed_type.value} shards large models; these networks fit on every device, so use "
                "`accelerate launch --multi_gpu` (training/README.md)."
            )
        return accelerator

    def train(self) -> int:
        """Runs to the end, or to --max_steps, --max_minutes or a signal. Returns the exit code of train.py."""
        config, progress = self.config, self.progress
        self.accelerator.init_trackers(
            "logs", config=_tracked(config), init_kwargs={"tensorboard": {"purge_step": progress.step + 1}}
        )
        stop = min(self.schedule.total_steps, self.arguments.max_steps or math.inf)
        if progress.step >= stop:
            text = f"Step {progress.step} is at or past the last, {stop}: nothing to do; larger epochs go on from it."
            self.accelerator.print(text)
        loader = self.accelerator.prepare(
            DataLoader(
                self.data,
                batch_size=config.batch_size,
                sampler=SampleNumbers(progress.step * self.samples_per_step, stop * self.samples_per_step),
                num_workers=config.num_workers,
                drop_last=True,
                pin_memory=self.accelerator.device.type == "cuda",
                persistent_workers=config.num_workers > 0,
                worker_init_fn=leave_signals_to_the_parent,
                generator=torch.Generator(),  # the global one stays as it is, for a resumed run to have the same
            )
        )
        bar = tqdm(
            total=stop, initial=progress.step, unit="step", desc="train", disable=not self.accelerator.is_main_process
        )
        started, earlier, pushed = time.monotonic(), progress.seconds, True
        accumulated: list[dict[str, Tensor]] = []
        with Interruption() as interruption, bar:
            for batch in loader:
                with self.accelerator.accumulate(self.prepared_model, self.prepared_discriminator):
                    accumulated.append(self.backward(batch))
                    norms = self.update()
                if not self.accelerator.sync_gradients:
                    continue
                if self.ema is not None:
                    update_average(self.ema, self.model, progress.step, config.ema_decay)
                means = {name: sum(one[name] for one in accumulated) / len(accumulated) for name in accumulated[0]}
                self.pending.append((progress.step, means | norms))
                accumulated = []
                progress.step += 1
                progress.seconds = earlier + time.monotonic() - started
                bar.update()

                last = progress.step >= stop
                early = not last and self.stops_early(interruption, time.monotonic() - started)
                ending = last or early
                logs, samples, saves, pushes = (
                    ending or (every is not None and progress.step % every == 0)
                    for every in (config.logging_steps, config.sample_steps, config.checkpointing_steps,
                                  self.arguments.hub_every)
                )  # fmt: skip
                if logs or samples or saves or pushes or len(self.pending) >= HEALTH_STEPS:
                    self.judge()
                if logs:
                    self.log(bar)
                if samples or saves or pushes:
                    self.check_weights()
                if samples:
                    self.write_samples()
                if saves or pushes:
                    self.write_result()
                if saves:
                    self.write_checkpoint()
                if pushes and interruption.signal is None and self.arguments.push_to_hub is not None:
                    pushed = self.push()
                if ending:
                    break
        self.accelerator.end_training()
        if interruption.signal is not None and progress.step < stop:
            name = signal.Signals(interruption.signal).name
            text = f"stopped by {name} after step {progress.step}; --resume_from_checkpoint latest goes on"
            self.accelerator.print(text)
            return 128 + interruption.signal
        return 0 if pushed else 1

    def stops_early(self, interruption: Interruption, seconds: float) -> bool:
        """Whether to end after this step: the same answer, and the same signal, in every process."""
        limit = self.arguments.max_minutes
        state = [interruption.signal or 0, int(limit is not None and seconds > 60 * limit)]
        if self.accelerator.num_processes > 1:
            if self.progress.step % STOP_STEPS:
                return False
            here = torch.tensor([state], device=self.accelerator.device)
            state = self.accelerator.gather(here).amax(0).tolist()
            interruption.signal = state[0] or None
        return any(state)

    def backward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The gradients of D (not in the initialisation phase) and of G and S, all at the present weights.

        Returns the losses and what else tells how the run goes, detached.
        """
        config, weights = self.config, self.schedule.weights(self.progress.step)
        batch = batch | {"photo": batch["photo"].contiguous(memory_format=self.memory_format)}
        count = len(batch["photo"])
        losses: dict[str, Tensor] = {}
        numbers: dict[str, Tensor] = {}

        shift = torch.randint(1, 4, (2,)).tolist()  # rows and columns, 1 to 3 px
        with self.accelerator.autocast():
            outputs = self.prepared_model(*self.generator_inputs(batch, weights, *shift))
        # Backpropagate each loss to G(x) and S(x) first and free that network's activations; then run one backward pass
        # through G and S with the summed gradients. Peak memory is that of the largest network, not of all.
        leaves = [None if output is None else output.detach().float().requires_grad_() for output in outputs]
        painted, saliency = leaves
        stylized, saliency = painted[:count], None if saliency is None else saliency[:count]

        projected = config.discriminator == "projected" and "gan" in weights
        pyramids: dict[str, list[Tensor]] = {}
        with self.accelerator.autocast():
            with torch.no_grad():
                photo_features = self.vgg(batch["photo"])
                if projected:
                    pyramids["painting"] = discriminators.pyramids(self.vgg, batch["painting"])
            pyramid = discriminators.pyramids(self.vgg, stylized) if projected else [self.vgg(stylized)]
        pyramids["generated"] = [layer.detach() for layer in pyramid]

        if "gan" in weights:
            kinds = ["painting", "edge_blurred"] if config.edge_blurred else ["painting"]
            images = [*(batch[kind] for kind in kinds), stylized.detach()]
            features = [torch.cat(pair) for pair in zip(*pyramids.values(), strict=True)] if projected else ()
            with self.accelerator.autocast():
                pixels, heads = self.prepared_discriminator(torch.cat(images), features)
            judged = [dict(zip([*kinds, "generated"], pixels.float().chunk(len(kinds) + 1), strict=True))]
            judged += [dict(zip(pyramids, head.float().chunk(2), strict=True)) for head in heads]
            each = [
                objective.discriminator_loss(
                    logits["painting"], logits.get("edge_blurred"), logits["generated"], config.adversarial_loss
                )
                for logits in judged
            ]
            loss = each[0] + discriminators.SCALES * sum(each[1:]) / max(1, len(each) - 1)
            self.accelerator.backward(loss)
            losses["discriminator"] = loss.detach()
            for kind in [*kinds, "generated"]:
                right = [
                    objective.accuracy(logits[kind].detach(), kind == "painting", config.adversarial_loss)
                    for logits in judged
                    if kind in logits
                ]
                numbers[f"discriminator_accuracy/{kind}"] = sum(right) / len(right)

        mask = None
        if config.saliency_mask:
            mask = objective.saliency_mask(batch["reference"] if saliency is None else saliency, config.mask_peak)
            if "photo_box" in batch:
                mask = crop_and_resize(mask, batch["photo_box"], *stylized.shape[-2:])
        terms = {"con": objective.content_loss(pyramid[len(HEAD_LAYERS) - 1 if projected else 0], photo_features, mask)}
        if "gan" in weights:
            with self.accelerator.autocast():
                pixels, heads = call_with_constant_parameters(
                    self.discriminator, stylized, pyramid if projected else ()
                )
            fooled = [objective.generator_loss(one.float(), config.adversarial_loss) for one in (pixels, *heads)]
            terms["gan"] = fooled[0] + discriminators.SCALES * sum(fooled[1:]) / max(1, len(heads))
        if "identity" in weights:
            terms["identity"] = objective.identity_loss(painted[count : count + 1], batch["painting"][:1])
        if "shift" in weights:
            terms["shift"] = objective.shift_loss(painted[self.shifted(count)], painted[-1:], *shift)
        self.backpropagate(terms, weights, losses)
        del terms, pyramid, pyramids
        self.backpropagate(self.saliency_terms(batch, stylized, saliency, weights), weights, losses)
        pairs = zip(outputs, leaves, strict=True)
        reached = [
            (output, leaf.grad.to(output.dtype))
            for output, leaf in pairs
            if leaf is not None and leaf.grad is not None and output.requires_grad
        ]
        torch.autograd.backward(*zip(*reached, strict=True))

        results = stylized.detach()
        numbers["output/contrast"] = results.std((2, 3)).mean()
        if len(results) == 1:  # nothing in the batch to differ from: the one before it
            before, self.alone = self.alone, results
            if before.shape == results.shape:
                results = torch.cat([before, results])
        if len(results) > 1:
            numbers["output/variety"] = results.std(0).mean()
        return {f"loss/{name}": loss for name, loss in losses.items()} | numbers

    def generator_inputs(
        self, batch: dict[str, Tensor], weights: dict[str, float], rows: int, columns: int
    ) -> list[Tensor | None]:
        """What G paints in a step: the photos, then, where their terms are there, one painting and a photo once more.

        The latter starts `rows` and `columns` px further, and its noise moves along, but for a pixel of error in
        `filters.noise_origin`. Returns the arguments of `SDPGAN.forward`.
        """
        photos = self.over_smaller_paintings(batch) if self.config.brush_size else batch["photo"]
        whole, boxes = batch.get("photo_whole"), batch.get("photo_box")
        crops, wholes, places = [photos], [whole], [boxes]
        starts = torch.randint(NOISE_PERIOD, (len(photos), 2))
        noise_starts = [starts]
        if "identity" in weights:
            crops.append(objective.with_chroma(batch["painting"][:1], self.config.identity_chroma))
            wholes.append(batch["painting_whole"][:1] if whole is not None else None)
            places.append(batch["painting_box"][:1] if whole is not None else None)
            noise_starts.append(torch.randint(NOISE_PERIOD, (1, 2)))
        if "shift" in weights:
            one = self.shifted(len(photos))
            crops.append(F.pad(photos[one, :, rows:, columns:], (0, columns, 0, rows), mode="reflect"))
            noise_starts.append(starts[one] + torch.tensor([rows, columns]) + torch.randint(-1, 2, (1, 2)))
            if whole is not None:
                height, width = photos.shape[-2:]
                further = boxes.new_tensor([rows / height, columns / width, 0, 0]) * boxes[one][:, [2, 3, 2, 3]]
                wholes.append(whole[one])
                places.append(boxes[one] + further)
        joined = [None if parts[0] is None else torch.cat(parts) for parts in (crops, wholes, places, noise_starts)]
        joined[0] = joined[0].contiguous(memory_format=self.memory_format)
        return joined

    def shifted(self, photos: int) -> slice:
        """Which photo of this step's is painted once more; each in its turn."""
        number = self.progress.step % photos
        return slice(number, number + 1)

    @torch.no_grad()
    def over_smaller_paintings(self, batch: dict[str, Tensor]) -> Tensor:
        """The photos; those `repainted` as G sees them at the second size of `filters.coarse_to_fine`."""
        chosen, photos = batch["repainted"], batch["photo"].clone()
        if not chosen.any():
            return photos
        crops, whole, boxes = (batch[key][chosen] for key in ("photo", "photo_whole", "photo_box"))
        height, width = (4 * round(side / 8) for side in crops.shape[-2:])
        with self.accelerator.autocast():
            painting, saliency = self.shipped_model()(resized(crops, height, width), whole, boxes)
        if saliency is not None:
            saliency = crop_and_resize(saliency, boxes, *crops.shape[-2:])
        photos[chosen] = underpainted(painting.float(), crops, saliency)
        return photos

    def backpropagate(self, terms: dict[str, Tensor], weights: dict[str, float], losses: dict[str, Tensor]) -> None:
        """The gradients of the weighted terms at the leaves; notes the terms in `losses`."""
        if terms:
            self.accelerator.backward(sum(weights[name] * term for name, term in terms.items()))
            losses |= {name: term.detach() for name, term in terms.items()}

    def saliency_terms(
        self, batch: dict[str, Tensor], stylized: Tensor, saliency: Tensor | None, weights: dict[str, float]
    ) -> dict[str, Tensor]:
        """Eq. 6, for which the parameters of S are constants and the stylised image is not, and Eq. 7."""
        terms = {}
        if "con_s" in weights:
            seen = stylized
            if "photo_box" in batch:
                seen = pasted(stylized, batch["photo_whole"], batch["photo_box"])
            with self.accelerator.autocast():
                stylized_saliency = call_with_constant_parameters(self.model.saliency_network, seen)[0]
            terms["con_s"] = objective.saliency_content_loss(saliency, stylized_saliency)
        if "sali" in weights:
            terms["sali"] = objective.saliency_loss(saliency, batch["reference"])
        return terms

    def update(self) -> dict[str, Tensor]:
        """Once all gradients of a step are there: one update of D, G and S. Returns the norms of the gradients."""
        if not self.accelerator.sync_gradients:
            return {}
        for group, first in zip(self.optimizer.param_groups, self.first_rates, strict=True):
            group["lr"] = first * self.schedule.decay(self.progress.step)
        self.accelerator.unscale_gradients()
        norms = {}
        for name, network in (("generator", self.model), ("discriminator", self.discriminator)):
            if name == "generator" or self.schedule.adversarial(self.progress.step):
                norm = nn.utils.clip_grad_norm_(network.parameters(), self.config.max_grad_norm or math.inf)
                # fp16: the scaler leaves a step with an overflow out and goes on
                norms[f"gradient_norm/{name}"] = norm if self.accelerator.scaler is None else norm.nan_to_num(posinf=0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return norms

    def judge(self) -> None:
        """Fetches the numbers of the steps since the last call, averaged over the processes, and acts on ill ones.

        Nothing is saved before it: what is on disk is from before a run went wrong.
        """
        flat = torch.stack([value.float() for _, numbers in self.pending for value in numbers.values()])
        values = iter(self.accelerator.reduce(flat, "mean").tolist())
        pending, self.pending = self.pending, []
        for step, numbers in pending:
            row = {name: next(values) for name in numbers}
            diverged, collapsed = self.health.observe(row, self.schedule.weights(step))
            if diverged is not None:
                raise self.divergence(step + 1, diverged)
            if collapsed is not None and self.config.stop_on_collapse:
                raise SDPGANError(
                    f"The run collapsed by step {step + 1}: {collapsed}; go on from one of the checkpoints in "
                    f"{self.checkpoints.folder} with other weights or a lower learning_rate, or with "
                    "--stop_on_collapse false."
                )
            if collapsed is not None and step % HEALTH_STEPS == 0:
                self.accelerator.print(f"warning: at step {step + 1}, {collapsed}", file=sys.stderr)
            chance = self.health.at_chance()
            if chance is not None and step % WINDOW == 0:
                self.accelerator.print(f"warning: at step {step + 1}, {chance}", file=sys.stderr)
            self.rows.append(row)

    @torch.no_grad()
    def check_weights(self) -> None:
        """Refuses to save weights that the last update has ruined, which the next step's losses would tell."""
        for name, network in (("G or S", self.model), ("D", self.discriminator)):
            if not all((parameter.abs() <= LARGEST_WEIGHT).all() for parameter in network.parameters()):
                raise self.divergence(
                    self.progress.step, f"its update made weights of {name} not finite, or too large for float16"
                )

    def divergence(self, step: int, reason: str) -> SDPGANError:
        return SDPGANError(
            f"The run diverged at step {step}: {reason}; go on from one of the checkpoints in "
            f"{self.checkpoints.folder}, which are from before it, with a lower learning_rate, with max_grad_norm, or "
            "with bf16 in place of fp16."
        )

    def log(self, bar: tqdm) -> None:
        """The means since the last call, w_con and the learning rate, to TensorBoard and the progress bar."""
        names = dict.fromkeys(name for row in self.rows for name in row)
        self.means = {name: float(np.mean([row[name] for row in self.rows if name in row])) for name in names}
        self.rows = []
        step = self.progress.step
        schedule = {"w_con": self.schedule.w_con(step - 1), "learning_rate": self.schedule.learning_rate(step - 1)}
        self.accelerator.log(self.means | schedule, step=step)
        losses = {name.removeprefix("loss/"): value for name, value in self.means.items() if name.startswith("loss/")}
        bar.set_postfix({name: f"{value:.3g}" for name, value in losses.items()}, refresh=False)

    def shipped_model(self) -> SDPGAN:
        """What the style is made of: the moving average where there is one, else the current weights."""
        return self.model if self.ema is None else self.ema

    @torch.no_grad()
    def sample_sheet(self, photos: int = 8) -> np.ndarray:
        """uint8 H x W x 3: columns are photos; rows the photo, the result and the saliency map where there is one."""
        folder = self.arguments.sample_photos
        paths = self.data.photos if folder is None else prepare.image_files(folder)
        paths = paths[:: max(1, len(paths) // photos)][:photos]
        model, size = self.shipped_model().eval(), self.config.image_size
        columns = []
        for path in paths:
            photo = pictures.centre_square(pictures.read_scaled(path, size))
            if self.config.saliency_network:
                result, saliency = model.stylize(photo, return_saliency=True)
                grey = cv2.cvtColor(np.round(saliency * 255).astype(np.uint8), cv2.COLOR_GRAY2RGB)
                columns.append(np.concatenate([photo, result, grey]))
            else:
                columns.append(np.concatenate([photo, model.stylize(photo)]))
        model.train()
        return np.concatenate(columns, axis=1)

    def write_samples(self) -> None:
        """samples/step_N.png, and the same to TensorBoard."""
        if not self.accelerator.is_main_process:
            return
        sheet = self.sample_sheet()
        _write_image(self.output / "samples" / f"step_{self.progress.step:06d}.png", sheet)
        for tracker in self.accelerator.trackers:
            tracker.log_images({"samples": sheet[None]}, step=self.progress.step, dataformats="NHWC")

    def write_checkpoint(self) -> None:
        """checkpoints/step_N, complete or not there at all, and without the oldest ones over the limit."""
        is_main, checkpoints = self.accelerator.is_main_process, self.checkpoints
        try:
            if is_main:
                checkpoints.discard_unfinished()
            self.accelerator.wait_for_everyone()
            self.accelerator.save_state(checkpoints.unfinished)
            self.accelerator.wait_for_everyone()
            if is_main:
                checkpoints.add(self.progress.step)
        except (OSError, RuntimeError, SafetensorError) as error:
            if is_main:
                checkpoints.discard_unfinished()
            whole = [path.name for path in checkpoints.all()]
            kept = f"{whole[-1]} is whole: make room and go on from it" if whole else "make room and start again"
            raise SDPGANError(
                f"The checkpoint of step {self.progress.step} cannot be written to {checkpoints.folder} "
                f"({_sentence(error)}); {kept}."
            ) from error
        self.accelerator.wait_for_everyone()

    def resume(self, which: str) -> None:
        chosen = [which]
        if self.accelerator.is_main_process:
            warn = lambda text: print(f"warning: {text}", file=sys.stderr)  # noqa: E731
            path = self.checkpoints.newest_whole(warn) if which == "latest" else Path(which)
            if which != "latest" and (reason := fault(path)):
                raise SDPGANError(f"{path} is damaged ({reason}); take another, or 'latest'.")
            chosen = [str(path)]
        target = Path(broadcast_object_list(chosen)[0])
        try:
            self.accelerator.load_state(target)
        except (RuntimeError, ValueError, KeyError) as error:
            raise SDPGANError(
                f"{target} does not fit these settings ({_sentence(error)}); resume with the ones it was trained with."
            ) from error
        self.accelerator.print(f"resumed {target.name}")

    def write_result(self) -> None:
        """The style as it is now, loadable, with how it was trained in training.json and in the card."""
        if not self.accelerator.is_main_process:
            return
        facts = {
            "command": _command(self.arguments, self.accelerator),
            "steps": self.progress.step,
            "initialization_steps": min(self.progress.step, self.schedule.initialization_steps),
            "photos": len(self.data.photos),
            "paintings": len(self.data.paintings),
            "minutes": round(self.progress.seconds / 60, 1),
            "initial_style": _public_style(self.arguments),
            "vgg_weights": self.vgg.source,
            "saliency_reference": self.saliency_reference(),
            "hardware": hardware(self.accelerator.device),
            "processes": self.accelerator.num_processes,
            "mixed_precision": self.accelerator.mixed_precision,
            "torch": torch.__version__,
            "numbers": self.means,
            "config": dataclasses.asdict(self.config),
        }
        keywords, sheet = card_keywords(facts), self.output / "sample_sheet.jpg"
        if self.arguments.no_sample_sheet_in_card:
            sheet.unlink(missing_ok=True)
        else:
            _write_image(sheet, self.sample_sheet())
            rows = "photos, results, saliency maps" if self.config.saliency_network else "photos, results"
            keywords["gallery"] = f"![{rows}]({sheet.name})\n\nFrom top to bottom: {rows}."
        self.shipped_model().save_pretrained(
            self.output, repo_id=self.arguments.push_to_hub, model_card_kwargs=keywords
        )
        write_facts(self.output, facts)
        write_weights(self.output / DISCRIMINATOR_FILE, self.discriminator.state_dict())

    def saliency_reference(self) -> str:
        """What z of Eq. 7 is, for the card."""
        if not self.config.references:
            return "none"
        return "human masks where there are, else the mean of RBD and MB+" if self.masks else "the mean of RBD and MB+"

    def push(self) -> bool:
        """The result to the Hub; a push that fails is told of and never ends a training."""
        if not self.accelerator.is_main_process:
            return True
        try:
            message = f"Step {self.progress.step}"
            url = publish.push(self.output, self.arguments.push_to_hub, message, self.arguments.hub_private or None)
        except SDPGANError as error:
            print(f"train.py: {error}", file=sys.stderr)
            return False
        print(f"pushed {url}")
        return True


def _tracked(config: TrainingConfig) -> dict[str, str | int | float | bool]:
    return {key: str(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(config).items()}


def _public_style(arguments: argparse.Namespace) -> str | None:
    """--initial_style as it may be published: a name or a Hub id, but for a folder of this machine a placeholder."""
    name = arguments.initial_style
    return "INITIAL_STYLE" if name is not None and Path(name).is_dir() else name


def _command(arguments: argparse.Namespace, accelerator: Accelerator) -> list[str]:
    """The command that repeats this run, with placeholders for the paths of one machine."""
    command = ["accelerate", "launch", "--num_processes", str(accelerator.num_processes)]
    command += ["--mixed_precision", accelerator.mixed_precision, "training/train.py"]
    if arguments.config is not None:
        command += ["--config", f"training/configs/{arguments.config.name}"]
    for key in ("photos", "paintings", "output", "masks", "sample_photos"):
        if getattr(arguments, key) is not None:
            command += [f"--{key}", key.upper()]
    if arguments.initial_style is not None:
        command += ["--initial_style", _public_style(arguments)]
    if arguments.vgg_weights is not None:
        command += ["--vgg_weights", arguments.vgg_weights.name]
    if arguments.max_steps is not None:
        command += ["--max_steps", str(arguments.max_steps)]
    for key, value in given_arguments(arguments).items():
        command += [f"--{key}", *(value if isinstance(value, list) else [value])]
    return command


def _write_image(path: Path, image: np.ndarray) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SDPGANError(f"{path.parent} cannot be made a folder: {error.strerror}.") from error
    write_whole(path, cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes())


def _sentence(error: Exception) -> str:
    """An exception's message; of one that a data loader's worker passes on with its traceback, the last line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if not lines[0].startswith("Caught "):
        return lines[0] if not isinstance(error, SDPGANError) else "\n".join(lines)
    return lines[-1].partition(": ")[2] or lines[-1]


def _tell_of_thread(failure: threading.ExceptHookArgs) -> None:
    """TensorBoard writes in a thread of its own: logs that cannot be written are one sentence and end nothing."""
    print(f"warning: the thread {failure.thread.name} ended: {failure.exc_value}", file=sys.stderr)


def run(arguments: argparse.Namespace, config: TrainingConfig) -> int:
    """Trains and returns the exit code; what a user can put right becomes one sentence on stderr."""
    threading.excepthook = _tell_of_thread
    try:
        return Trainer(arguments, config).train()
    except SDPGANError as error:
        print(f"train.py: {_sentence(error)}", file=sys.stderr)
    except OSError as error:
        print(f"train.py: {error.filename or arguments.output}: {error.strerror or error}.", file=sys.stderr)
    except KeyboardInterrupt:
        print("train.py: stopped before the first step; there is nothing to save.", file=sys.stderr)
        return 130
    return 2


def main(argv: list[str] | None = None) -> int:
    try:
        arguments, config = read_command_line(argv)
    except SDPGANError as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 2
    return run(arguments, config)


if __name__ == "__main__":
    sys.exit(run(*COMMAND_LINE))
