"""Accelerate as a training uses it, and the set-ups that it refuses."""

from __future__ import annotations

import argparse
import os
import sys
from datetime import timedelta

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.utils import DistributedType, is_tensorboard_available

from sdpgan_hub.errors import SDPGANError
from training.data.cache import available_cores

from .config import TrainingConfig
from .logs import JsonLines


def build(arguments: argparse.Namespace, config: TrainingConfig) -> Accelerator:
    """Raises SDPGANError for a precision that the device lacks and for sharding."""
    try:
        accelerator = Accelerator(
            mixed_precision=arguments.mixed_precision,
            cpu=arguments.cpu,
            gradient_accumulation_steps=config.gradient_accumulation_steps,
            log_with="tensorboard" if is_tensorboard_available() else JsonLines(arguments.output / "logs"),
            project_dir=arguments.output,
            kwargs_handlers=[
                DistributedDataParallelKwargs(broadcast_buffers=False),
                InitProcessGroupKwargs(timeout=timedelta(hours=2)),  # for the others while one prepares the data
            ],
        )
    except ValueError as error:
        raise SDPGANError(f"Accelerate cannot start: {error}") from error
    on_cpu = accelerator.device.type == "cpu"
    if accelerator.mixed_precision == "fp16" and on_cpu:
        raise SDPGANError("fp16 needs an accelerator, on a CPU Accelerate ignores it; take bf16, or no.")
    if not is_tensorboard_available():
        text = f"warning: TensorBoard is not installed; numbers go to {arguments.output / 'logs'}"
        accelerator.print(text, file=sys.stderr)
    if accelerator.device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # all crops have one size
    if on_cpu and torch.backends.cpu.get_cpu_capability() == "AVX2" and accelerator.mixed_precision == "bf16":
        text = "warning: this CPU has no bf16 of its own, and a step can take ten times as long; leave bf16 out."
        accelerator.print(text, file=sys.stderr)
    # `accelerate launch` starts a process with one thread unless told otherwise; one that python starts keeps its own
    one_thread = "ACCELERATE_DYNAMO_BACKEND" in os.environ and os.environ.get("OMP_NUM_THREADS") == "1"
    if on_cpu and accelerator.num_processes == 1 and one_thread:
        torch.set_num_threads(available_cores())
        print(f"Training on {torch.get_num_threads()} CPU thread(s).", file=sys.stderr)
    sharding = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)
    if accelerator.distributed_type in sharding:
        raise SDPGANError(
            f"{accelerator.distributed_type.value} shards large models; these networks fit on every device, so use "
            "`accelerate launch --multi_gpu` (training/README.md)."
        )
    return accelerator
