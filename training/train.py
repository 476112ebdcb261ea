#!/usr/bin/env python
"""Trains a style (Li et al., IEEE TIP 2021, Sec. III-B and IV-B): photos and paintings in, a model folder out.

    accelerate launch training/train.py --config training/configs/vangogh.yaml \\
        --photos DIR --paintings DIR --output DIR

Saliency references and edge-blurred paintings are prepared first (training/prepare.py) unless they are cached already.
OUTPUT gets config.json, model.safetensors and README.md, which `SDPGAN.from_pretrained` and `sdpgan stylize --style`
load; checkpoints/, which `--resume_from_checkpoint latest` continues from; samples/ with sheets of photos, results and
saliency maps; and logs/ for TensorBoard. A step is one update of D and one of G and S.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import shutil
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, from anywhere

from sdpgan_hub import SDPGAN
from sdpgan_hub.errors import SDPGANError
from sdpgan_hub.networks import Discriminator
from training import objective, prepare
from training.config import TrainingConfig, add_arguments, given_arguments, read_config
from training.data import SampleNumbers, UnpairedImages
from training.facts import card_keywords, hardware, write_facts
from training.perceptual import PerceptualFeatures


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--config", type=Path, help="YAML file of settings (training/configs/*.yaml)")
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos, the source domain X")
    parser.add_argument("--paintings", type=Path, required=True, help="folder of paintings, the target domain Y")
    parser.add_argument("--output", type=Path, required=True, help="folder that becomes the style")
    parser.add_argument("--cache", type=Path, help="what prepare.py writes and reuses (default: OUTPUT/cache)")
    parser.add_argument("--masks", type=Path, help="human-drawn masks to use as saliency references where there are")
    parser.add_argument("--sample_photos", type=Path, help="photos of the sample sheets (default: of --photos)")
    parser.add_argument("--vgg_weights", type=Path, help="VGG-19 as a safetensors file (default: timm's download)")
    parser.add_argument("--mixed_precision", choices=("no", "fp16", "bf16"), help="default: Accelerate's setting")
    parser.add_argument("--cpu", action="store_true", help="train on the CPU though there is an accelerator")
    parser.add_argument("--resume_from_checkpoint", metavar="latest|DIR", help="continue from a checkpoint")
    parser.add_argument("--max_minutes", type=float, help="stop in time, with a checkpoint and a loadable result")
    parser.add_argument("--max_steps", type=int, help="stop after this many steps in all, likewise")
    add_arguments(parser)
    return parser.parse_args(argv)


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
        return self.initialization_steps + round(self.config.epochs * self.steps_per_epoch)

    def adversarial(self, step: int) -> bool:
        return step >= self.initialization_steps

    def w_con(self, step: int) -> float:
        """Eq. 9; the initialisation phase has its first value."""
        epoch = max(0, step - self.initialization_steps) / self.steps_per_epoch
        return objective.content_weight(
            self.config.w_con, int(epoch), self.config.w_con_decay, self.config.w_con_decay_epochs
        )

    def learning_rate(self, step: int) -> float:
        adversarial_steps = max(1, self.total_steps - self.initialization_steps)
        done = (step - self.initialization_steps) / adversarial_steps
        passed = sum(done >= milestone for milestone in self.config.lr_milestones)
        return self.config.learning_rate * self.config.lr_gamma**passed


@dataclasses.dataclass
class Progress:
    """What a checkpoint holds beside networks, optimisers and random states."""

    step: int = 0
    seconds: float = 0.0

    def state_dict(self) -> dict[str, float]:
        return dataclasses.asdict(self)

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.step, self.seconds = int(state["step"]), float(state["seconds"])


def frozen(module: nn.Module, *inputs: Tensor):
    """`module(*inputs)` whose gradient reaches the inputs and not the parameters."""
    parameters = {name: parameter.detach() for name, parameter in module.named_parameters()}
    return functional_call(module, parameters, inputs)


def moving_average(decay: float):
    """Exponential moving average that forgets its first values faster: min(decay, (1 + n) / (10 + n))."""

    def average(averaged: Tensor, current: Tensor, number: Tensor) -> Tensor:
        return torch.lerp(current, averaged, min(decay, (1 + int(number)) / (10 + int(number))))

    return average


class Trainer:
    """One run: `Trainer(arguments, config).train()`."""

    def __init__(self, arguments: argparse.Namespace, config: TrainingConfig):
        self.arguments, self.config = arguments, config
        self.output: Path = arguments.output
        self.accelerator = Accelerator(
            mixed_precision=arguments.mixed_precision,
            cpu=arguments.cpu,
            gradient_accumulation_steps=config.gradient_accumulation_steps,
            log_with="tensorboard",
            project_dir=self.output,
            kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
        )
        set_seed(config.seed)
        cache = arguments.cache or self.output / "cache"
        if self.accelerator.is_main_process:
            self.output.mkdir(parents=True, exist_ok=True)
            prepare.prepare(arguments.photos, arguments.paintings, cache, masks=arguments.masks)
        self.accelerator.wait_for_everyone()
        self.data = UnpairedImages(
            arguments.photos, arguments.paintings, cache, config.image_size, config.crop_size, config.seed
        )
        self.samples_per_step = config.batch_size * config.gradient_accumulation_steps * self.accelerator.num_processes
        self.schedule = Schedule(config, len(self.data) / self.samples_per_step)
        self.progress = Progress()

        self.vgg = PerceptualFeatures(arguments.vgg_weights).to(
            self.accelerator.device, memory_format=torch.channels_last
        )
        self.model = SDPGAN(**config.network).train().to(memory_format=torch.channels_last)
        self.discriminator = Discriminator(config.discriminator_channels).to(memory_format=torch.channels_last)
        self.ema = AveragedModel(self.model, avg_fn=moving_average(config.ema_decay)) if config.use_ema else None
        betas = (config.adam_beta1, config.adam_beta2)
        self.optimizer = torch.optim.Adam(self.model.parameters(), config.learning_rate, betas)
        self.discriminator_optimizer = torch.optim.Adam(self.discriminator.parameters(), config.learning_rate, betas)
        (
            self.prepared_model,
            self.prepared_discriminator,
            self.optimizer,
            self.discriminator_optimizer,
        ) = self.accelerator.prepare(self.model, self.discriminator, self.optimizer, self.discriminator_optimizer)
        self.accelerator.register_for_checkpointing(self.progress)
        if self.ema is not None:
            self.ema.to(self.accelerator.device)
            self.accelerator.register_for_checkpointing(self.ema)
        if arguments.resume_from_checkpoint:
            self.resume(arguments.resume_from_checkpoint)

    def train(self) -> None:
        config, schedule, progress = self.config, self.schedule, self.progress
        self.accelerator.init_trackers("logs", config=_tracked(config))
        stop = min(schedule.total_steps, self.arguments.max_steps or math.inf)
        loader = self.accelerator.prepare(
            DataLoader(
                self.data,
                batch_size=config.batch_size,
                sampler=SampleNumbers(progress.step * self.samples_per_step, stop * self.samples_per_step),
                num_workers=config.num_workers,
                drop_last=True,
                pin_memory=self.accelerator.device.type == "cuda",
                persistent_workers=config.num_workers > 0,
            )
        )
        bar = tqdm(
            total=stop, initial=progress.step, unit="step", desc="train", disable=not self.accelerator.is_main_process
        )
        started, earlier = time.monotonic(), progress.seconds
        for batch in loader:
            with self.accelerator.accumulate(self.prepared_model, self.prepared_discriminator):
                losses = self.step(batch)
            if not self.accelerator.sync_gradients:
                continue
            if self.ema is not None:
                self.ema.update_parameters(self.model)
            progress.step += 1
            progress.seconds = earlier + time.monotonic() - started
            bar.update()
            step = progress.step
            if step % config.logging_steps == 0 or step == stop:
                self.log(losses, bar)
            out_of_time = (
                self.arguments.max_minutes is not None and time.monotonic() - started > 60 * self.arguments.max_minutes
            )
            if step % config.sample_steps == 0 or step == stop or out_of_time:
                self.write_samples()
            if step % config.checkpointing_steps == 0 or step == stop or out_of_time:
                self.write_checkpoint()
                self.write_result()
            if out_of_time:
                break
        bar.close()
        self.accelerator.end_training()

    def step(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """One update of D (not in the initialisation phase) and one of G and S; the losses, detached."""
        config, step = self.config, self.progress.step
        adversarial = self.schedule.adversarial(step)
        for optimizer in (self.optimizer, self.discriminator_optimizer):
            for group in optimizer.param_groups:
                group["lr"] = self.schedule.learning_rate(step)
        photo = batch["photo"].contiguous(memory_format=torch.channels_last)
        losses: dict[str, Tensor] = {}

        with self.accelerator.autocast():
            stylized, saliency = self.prepared_model(photo)

        if adversarial:
            kinds = [batch["painting"], batch["edge_blurred"]] if config.edge_blurred else [batch["painting"]]
            with self.accelerator.autocast():
                logits = self.prepared_discriminator(torch.cat([*kinds, stylized.detach().to(photo.dtype)]))
            logits = logits.float().chunk(len(kinds) + 1)
            loss = objective.discriminator_loss(
                logits[0], logits[1] if config.edge_blurred else None, logits[-1], config.adversarial_loss
            )
            self.accelerator.backward(loss)
            self.discriminator_optimizer.step()
            self.discriminator_optimizer.zero_grad()
            losses["discriminator"] = loss.detach()
            accuracy = [(logits[0] > 0).float().mean()] + [(one < 0).float().mean() for one in logits[1:]]
            losses["discriminator_accuracy"] = torch.stack(accuracy).mean()

        with self.accelerator.autocast():
            with torch.no_grad():
                photo_features = self.vgg(photo)
            stylized_features = self.vgg(stylized)
            if adversarial:
                generated_logits = frozen(self.discriminator, stylized)
                # Eq. 6 against S(x) of this batch: the parameters of S are constants here, the stylised image is not
                stylized_saliency = frozen(self.model.saliency_network, stylized)[0] if config.w_con_s else None
        mask = objective.saliency_mask(saliency) if config.saliency_mask else None
        losses["con"] = objective.content_loss(stylized_features, photo_features, mask)
        losses["sali"] = objective.saliency_loss(saliency, batch["reference"])
        loss = self.schedule.w_con(step) * losses["con"] + config.w_sali * losses["sali"]
        if adversarial:
            losses["gan"] = objective.generator_loss(generated_logits.float(), config.adversarial_loss)
            loss = loss + losses["gan"]
            if stylized_saliency is not None:
                losses["con_s"] = objective.saliency_content_loss(saliency, stylized_saliency)
                loss = loss + config.w_con_s * losses["con_s"]
        self.accelerator.backward(loss)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return {name: value.detach() for name, value in losses.items()}

    def log(self, losses: dict[str, Tensor], bar: tqdm) -> None:
        """Losses averaged over the processes, w_con and the learning rate, to TensorBoard and the progress bar."""
        means = {name: self.accelerator.reduce(value, "mean").item() for name, value in losses.items()}
        for name, value in means.items():
            if not math.isfinite(value):
                raise SDPGANError(
                    f"The loss {name!r} is {value} at step {self.progress.step}: the run diverged; resume an earlier "
                    "checkpoint with a lower learning_rate, or without fp16."
                )
        step = self.progress.step
        schedule = {"w_con": self.schedule.w_con(step), "learning_rate": self.schedule.learning_rate(step)}
        self.accelerator.log({f"loss/{name}": value for name, value in means.items()} | schedule, step=step)
        bar.set_postfix({name: f"{value:.3g}" for name, value in means.items()}, refresh=False)

    def shipped_model(self) -> SDPGAN:
        """What the style is made of: the moving average where there is one, else the current weights."""
        return self.model if self.ema is None else self.ema.module

    @torch.no_grad()
    def write_samples(self, photos: int = 8) -> None:
        """samples/step_N.png: columns are photos; rows the photo, the result and the saliency map."""
        if not self.accelerator.is_main_process:
            return
        folder = self.arguments.sample_photos or self.arguments.photos
        paths = prepare.image_files(folder)
        paths = paths[:: max(1, len(paths) // photos)][:photos]
        model, size = self.shipped_model().eval(), self.config.image_size
        columns = []
        for path in paths:
            photo = cv2.resize(prepare.read_rgb(path), (size, size), interpolation=cv2.INTER_AREA)
            result, saliency = model.stylize(photo, return_saliency=True)
            grey = cv2.cvtColor(np.round(saliency * 255).astype(np.uint8), cv2.COLOR_GRAY2RGB)
            columns.append(np.concatenate([photo, result, grey]))
        model.train()
        sheet = np.concatenate(columns, axis=1)
        target = self.output / "samples" / f"step_{self.progress.step:06d}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(target), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
        for tracker in self.accelerator.trackers:
            tracker.log_images({"samples": sheet[None]}, step=self.progress.step, dataformats="NHWC")

    def write_checkpoint(self) -> None:
        """checkpoints/step_N, complete or not there at all, and without the oldest ones over the limit."""
        folder = self.output / "checkpoints"
        target = folder / f"step_{self.progress.step:08d}"
        unfinished = folder / f".unfinished_{target.name}"
        self.accelerator.save_state(unfinished)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            shutil.rmtree(target, ignore_errors=True)
            unfinished.rename(target)
            for old in sorted(folder.glob("step_*"))[: -self.config.checkpoints_total_limit]:
                shutil.rmtree(old)
        self.accelerator.wait_for_everyone()

    def resume(self, which: str) -> None:
        folder = self.output / "checkpoints"
        if which == "latest":
            found = sorted(folder.glob("step_*"))
            if not found:
                raise SDPGANError(f"{folder} holds no checkpoint to resume from; leave --resume_from_checkpoint out.")
            target = found[-1]
        else:
            target = Path(which)
            if not target.is_dir():
                raise SDPGANError(f"{target} is not a checkpoint folder; name one of {folder}, or 'latest'.")
        self.accelerator.load_state(target)
        self.accelerator.print(f"resumed {target.name}")

    def write_result(self) -> None:
        """The style as it is now, loadable, with how it was trained in training.json."""
        if not self.accelerator.is_main_process:
            return
        facts = {
            "command": ["accelerate", "launch", *_without_folders(self.arguments)],
            "steps": self.progress.step,
            "initialization_steps": min(self.progress.step, self.schedule.initialization_steps),
            "photos": len(self.data.photos),
            "paintings": len(self.data.paintings),
            "minutes": round(self.progress.seconds / 60, 1),
            "vgg_weights": self.vgg.source,
            "saliency_reference": "human masks where there are, else the mean of RBD and MB+"
            if self.arguments.masks
            else "the mean of RBD and MB+",
            "hardware": hardware(self.accelerator.device),
            "processes": self.accelerator.num_processes,
            "mixed_precision": self.accelerator.mixed_precision,
            "torch": torch.__version__,
            "config": dataclasses.asdict(self.config),
        }
        self.shipped_model().save_pretrained(self.output, model_card_kwargs=card_keywords(facts))
        write_facts(self.output, facts)


def _tracked(config: TrainingConfig) -> dict[str, str | int | float | bool]:
    return {key: str(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(config).items()}


def _without_folders(arguments: argparse.Namespace) -> list[str]:
    """The command that repeats this run, without the paths and the limits of one machine."""
    command = ["training/train.py", "--photos", "PHOTOS", "--paintings", "PAINTINGS", "--output", "STYLE"]
    if arguments.config is not None:
        command += ["--config", f"training/configs/{arguments.config.name}"]
    for key in ("masks", "vgg_weights"):
        if getattr(arguments, key) is not None:
            command += [f"--{key}", "MASKS" if key == "masks" else arguments.vgg_weights.name]
    for key, value in given_arguments(arguments).items():
        command += [f"--{key}", *(value if isinstance(value, list) else [value])]
    return command


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    try:
        config = read_config(arguments.config, given_arguments(arguments))
        Trainer(arguments, config).train()
    except SDPGANError as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
