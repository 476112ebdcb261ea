#!/usr/bin/env python
"""Trains a style (Li et al., IEEE TIP 2021, Sec. III-B and IV-B): photos and paintings in, a model folder out.

    accelerate launch training/train.py --config training/configs/vangogh.yaml \\
        --photos DIR --paintings DIR --output DIR

Saliency references, where a term or the mask takes them, are prepared first (training/prepare.py) unless they are
cached already.
A step is one update of D and one of G and S. training/README.md has the rest: what lies in OUTPUT, exit codes, several
GPUs, resuming, ablations, health, the Hub.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: the repository's root is not on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from sdpgan_hub.errors import SDPGANError
from training.run.arguments import read_command_line

if __name__ == "__main__":  # a wrong argument is answered before torch is imported, which takes seconds
    try:
        read_command_line()
    except SDPGANError as error:
        print(f"train.py: {error}", file=sys.stderr)
        sys.exit(2)

import argparse
import contextlib
import copy
import math
import shlex
import shutil
import signal
import threading
import time

import numpy as np
import torch
from accelerate.utils import broadcast_object_list, set_seed
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from sdpgan_hub import SDPGAN
from sdpgan_hub.checkpoint import write_weights
from sdpgan_hub.memory import keep_freed_memory
from training import publish
from training.data import pictures
from training.data.cache import prepare
from training.data.dataset import UnpairedImages
from training.data.dataset import check as check_images
from training.data.sources import fetch, image_files
from training.losses import discriminators, objective
from training.losses.perceptual import PerceptualFeatures, memory_format
from training.losses.step import Step
from training.run import accelerator, initial_style, provenance, samples
from training.run.checkpoints import Checkpoints, fault
from training.run.config import TrainingConfig, check_batch, differences
from training.run.health import WINDOW, Health
from training.run.interruption import Interruption, leave_signals_to_the_parent
from training.run.schedule import Progress, Schedule, update_average

HEALTH_STEPS = 50
"""At least this often the numbers of the steps are looked at; between, they stay on the accelerator."""
CALIBRATION_SAMPLES = 32
"""So many photos and paintings give the scales of the projected discriminator's heads."""
LARGEST_WEIGHT = torch.finfo(torch.float16).max
"""Styles are kept in float16."""
STOP_STEPS = 10
"""Several processes agree this often on whether to stop early; a single one is asked after every step."""


class Trainer:
    """One run: `Trainer(arguments, config).train()`."""

    def __init__(self, arguments: argparse.Namespace, config: TrainingConfig):
        self.arguments, self.config = arguments, config
        self.output: Path = arguments.output
        self.accelerator = accelerator.build(arguments, config)
        set_seed(config.seed)
        if self.accelerator.device.type == "cpu":
            keep_freed_memory()
        self.masks: Path | None = arguments.masks if config.human_masks and config.references else None
        self.checkpoints = Checkpoints(self.output / "checkpoints", config.checkpoints_total_limit)
        checkpoint = self._checkpoint(arguments.resume_from_checkpoint) if arguments.resume_from_checkpoint else None

        # networks before images, which may take hours to prepare: what does not fit is said at once
        self.memory_format = memory_format(self.accelerator.device)
        self.model = SDPGAN(**config.network).train().to(memory_format=self.memory_format)
        self.discriminator = discriminators.build(config.discriminator, config.discriminator_channels)
        self.discriminator.to(memory_format=self.memory_format)
        self.vgg = PerceptualFeatures(arguments.vgg_weights).to(
            self.accelerator.device, memory_format=self.memory_format
        )
        has_discriminator = checkpoint is not None or self._takes_initial_style()
        teacher = None
        if config.w_distill:
            name = arguments.teacher or arguments.initial_style
            teacher = SDPGAN.from_pretrained(name, map_location=self.accelerator.device)
            size = teacher.config["saliency_size"]
            if teacher.saliency_network is not None and size != config.saliency_size:
                raise SDPGANError(
                    f"{name} has saliency_size {size}, the config {config.saliency_size}, so it would not see what it "
                    "was trained on; train with its setting, or take another --teacher."
                )
            teacher.requires_grad_(False).to(memory_format=self.memory_format)
            teacher.generator.bf16 = False  # --mixed_precision says

        self.data = self._prepared_data()
        self.samples_per_step = config.batch_size * config.gradient_accumulation_steps * self.accelerator.num_processes
        check_batch(config, len(self.data), self.accelerator.num_processes)
        self.schedule = Schedule(config, len(self.data) / self.samples_per_step)
        if not self.schedule.total_steps:
            raise SDPGANError(
                f"epochs and initialization_epochs of {len(self.data)} photos come to no step; raise them, or set "
                "adversarial_steps."
            )
        self.progress = Progress()
        self.health = Health(constant_loss=self.constant_discriminator_loss())
        self.unread: list[tuple[int, dict[str, Tensor]]] = []
        """The numbers of steps that are still on the accelerator."""
        self.since_log: list[dict[str, float]] = []
        self.means: dict[str, float] = {}
        """Of the numbers, as last logged."""

        if config.discriminator == "projected" and not has_discriminator:
            self._scale_heads()
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
        prepared_model, prepared_discriminator, self.optimizer = self.accelerator.prepare(
            self.model, self.discriminator, self.optimizer
        )
        self.accelerator.register_for_checkpointing(self.progress)
        if self.ema is not None:
            self.ema.to(self.accelerator.device)
            self.accelerator.register_for_checkpointing(self.ema)
        self.shipped = self.model if self.ema is None else self.ema
        """What the style is made of: the moving average where there is one, else the current weights."""
        self.step = Step(
            config, self.accelerator, self.model, self.discriminator, self.vgg, prepared_model, prepared_discriminator,
            self.shipped, teacher,
        )  # fmt: skip
        if checkpoint is not None:
            self.resume(checkpoint)
        if arguments.overwrite_output_dir and self.accelerator.is_main_process:
            for name in ("checkpoints", "samples", "logs"):  # of the run before
                shutil.rmtree(self.output / name, ignore_errors=True)

    def _prepared_data(self) -> UnpairedImages:
        """The samples, once one process has fetched, checked and prepared the images."""
        arguments, config = self.arguments, self.config
        photos, paintings, limit = arguments.photos, arguments.paintings, arguments.max_images
        cache = arguments.cache or self.output / "cache"
        if self.accelerator.is_main_process:
            for source in (photos, paintings):
                fetch(source, cache, limit)
            for warning in check_images(photos, paintings, config.crop_size, cache):
                print(f"warning: {warning}", file=sys.stderr)
            if arguments.sample_photos is not None:  # read now, not at the first sheet
                samples.squares_of(image_files(arguments.sample_photos), config.image_size)
            prepare(photos, paintings, cache, masks=self.masks, references=config.references, max_images=limit)
        self.accelerator.wait_for_everyone()
        return UnpairedImages(photos, paintings, cache, config)

    def _takes_initial_style(self) -> bool:
        """Starts from the weights of --initial_style, where there is one; whether its D is among them."""
        if self.arguments.initial_style is None:
            return False
        said = initial_style.load(self.arguments.initial_style, self.model, self.discriminator)
        if said:
            self.accelerator.print(said, file=sys.stderr)
        return said is None

    def _scale_heads(self) -> None:
        """Scales the heads of a D that starts anew to these images."""
        some = [self.data[number] for number in range(min(CALIBRATION_SAMPLES, len(self.data)))]
        images = [sample[kind][None] for sample in some for kind in ("photo", "painting")]
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

    def train(self) -> int:
        """Runs to the end, or to --max_steps, --max_minutes or a signal. Returns the exit code of train.py."""
        config, progress = self.config, self.progress
        settings = {key: str(value) if isinstance(value, tuple) else value for key, value in vars(config).items()}
        self.accelerator.init_trackers("logs", settings, {"tensorboard": {"purge_step": progress.step + 1}})
        stop = min(self.schedule.total_steps, self.arguments.max_steps or math.inf)
        if progress.step >= stop:
            key = "--max_steps" if stop < self.schedule.total_steps else "adversarial_steps or epochs"
            text = f"Step {progress.step} is at or past the last, {stop}: nothing to do; more {key} go on from it."
            self.accelerator.print(text)
        loader = self.accelerator.prepare(
            DataLoader(
                self.data,
                batch_size=config.batch_size,
                sampler=range(progress.step * self.samples_per_step, stop * self.samples_per_step),
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
                with self.accelerator.accumulate(self.step.prepared_model, self.step.prepared_discriminator):
                    accumulated.append(self.backward(batch))
                    norms = self.update()
                if not self.accelerator.sync_gradients:
                    continue
                if self.ema is not None:
                    update_average(self.ema, self.model, progress.step, config.ema_decay)
                means = {name: sum(one[name] for one in accumulated) / len(accumulated) for name in accumulated[0]}
                self.unread.append((progress.step, means | norms))
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
                if logs or samples or saves or pushes or len(self.unread) >= HEALTH_STEPS:
                    self.check_metrics()
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
        style = shlex.quote(str(self.output))
        self.accelerator.print(f"The style is in {self.output}; try: sdpgan stylize PHOTO --style {style}")
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
        """The gradients of D and of G and S, all at the present weights; the numbers of the step."""
        return self.step.backward(batch, self.progress.step, self.schedule.weights(self.progress.step))

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

    def check_metrics(self) -> None:
        """Fetches the numbers of the steps since the last call, averaged over the processes, and acts on ill ones.

        Nothing is saved before it: what is on disk is from before a run went wrong.
        """
        flat = torch.stack([value.float() for _, numbers in self.unread for value in numbers.values()])
        values = iter(self.accelerator.reduce(flat, "mean").tolist())
        unread, self.unread = self.unread, []
        for step, numbers in unread:
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
            self.since_log.append(row)

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
        names = dict.fromkeys(name for row in self.since_log for name in row)
        self.means = {name: float(np.mean([row[name] for row in self.since_log if name in row])) for name in names}
        self.since_log = []
        step = self.progress.step
        schedule = {"w_con": self.schedule.w_con(step - 1), "learning_rate": self.schedule.learning_rate(step - 1)}
        self.accelerator.log(self.means | schedule, step=step)
        losses = {name.removeprefix("loss/"): value for name, value in self.means.items() if name.startswith("loss/")}
        bar.set_postfix({name: f"{value:.3g}" for name, value in losses.items()}, refresh=False)

    def sample_sheet(self) -> np.ndarray:
        folder = self.arguments.sample_photos
        photos = self.data.photos if folder is None else image_files(folder)
        return samples.sheet(self.shipped, photos, self.config.image_size)

    def write_samples(self) -> None:
        """samples/step_N.png, and the same to TensorBoard."""
        if not self.accelerator.is_main_process:
            return
        sheet = self.sample_sheet()
        pictures.write(self.output / "samples" / f"step_{self.progress.step:06d}.png", sheet)
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

    def _checkpoint(self, which: str) -> Path:
        """The whole checkpoint that is meant by a path or "latest", the same in every process."""
        chosen = [which]
        if self.accelerator.is_main_process:
            path = self.checkpoints.newest_whole() if which == "latest" else Path(which)
            if which != "latest" and (reason := fault(path)):
                raise SDPGANError(f"{path} is damaged ({reason}); take another, or 'latest'.")
            chosen = [str(path)]
        return Path(broadcast_object_list(chosen)[0])

    def resume(self, target: Path) -> None:
        differ = []
        with contextlib.suppress(SDPGANError):  # a checkpoint may lie elsewhere than in its run's folder
            before = provenance.read_facts(target.resolve().parents[1])
            there, here = vars(TrainingConfig()) | before["config"], dict(vars(self.config))
            if self.config.w_distill:
                there["teacher"] = before.get("teacher") or before.get("initial_style")
                here["teacher"] = provenance.teacher(self.arguments)
            differ = differences(there, here)
        try:
            self.accelerator.load_state(target)
        except (RuntimeError, ValueError, KeyError) as error:
            raise SDPGANError(
                f"{target} does not fit these settings ({', '.join(differ) or _sentence(error)}); resume with the ones "
                "it was trained with."
            ) from error
        for group in self.optimizer.param_groups:  # Adam's state brings those of the checkpoint
            group["betas"] = (self.config.adam_beta1, self.config.adam_beta2)
        self.accelerator.step = 0  # of the batches of one update: a checkpoint is written between updates
        self.accelerator.print(f"resumed {target.name}")
        if differ:
            self.accelerator.print(f"warning: it was trained with other settings: {', '.join(differ)}", file=sys.stderr)

    def write_result(self) -> None:
        """The style as it is now, loadable, with how it was trained in training.json and in the card."""
        if not self.accelerator.is_main_process:
            return
        facts = provenance.of_run(self)
        keywords, sheet = provenance.card_keywords(facts), self.output / "sample_sheet.jpg"
        if self.arguments.no_sample_sheet_in_card:
            sheet.unlink(missing_ok=True)
        else:
            pictures.write(sheet, self.sample_sheet(), quality=90, subsampling=2)
            rows = "photos, results, saliency maps" if self.config.saliency_network else "photos, results"
            keywords["gallery"] = f"![{rows}]({sheet.name})\n\nFrom top to bottom: {rows}."
        self.shipped.save_pretrained(self.output, repo_id=self.arguments.push_to_hub, model_card_kwargs=keywords)
        provenance.write_facts(self.output, facts)
        write_weights(self.output / provenance.DISCRIMINATOR_FILE, self.discriminator.state_dict())

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


def _sentence(error: Exception) -> str:
    """An exception's message; of one that a data loader's worker passes on with its traceback, the last line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if not lines[0].startswith("Caught "):
        return lines[0] if not isinstance(error, SDPGANError) else "\n".join(lines)
    return lines[-1].partition(": ")[2] or lines[-1]


def _tell_of_thread(failure: threading.ExceptHookArgs) -> None:
    """TensorBoard writes in a thread of its own: logs that cannot be written are one sentence and end nothing."""
    print(f"warning: the thread {failure.thread.name} ended: {failure.exc_value}", file=sys.stderr)


def main(argv: list[str] | None = None) -> int:
    """Trains and returns the exit code; what a user can put right becomes one sentence on stderr."""
    threading.excepthook = _tell_of_thread
    try:
        arguments, config = read_command_line(argv)
        return Trainer(arguments, config).train()
    except SDPGANError as error:
        print(f"train.py: {_sentence(error)}", file=sys.stderr)
    except OSError as error:
        print(f"train.py: {error.filename or arguments.output}: {error.strerror or error}.", file=sys.stderr)
    except KeyboardInterrupt:
        print("train.py: stopped at once, and nothing was saved since the last checkpoint.", file=sys.stderr)
        return 130
    return 2


if __name__ == "__main__":
    sys.exit(main())
