"""Cost of one training step against the authors' released recipe and against `cartoongan.yaml`, in the same run.

    python tests/benchmarks/bench_training.py [--batch_size 4] [--size 256] [--base_channels 64] [--repeats 3]
        [--threads N] [--mixed_precision no|bf16] [--device cpu|cuda] [--json]

Ours and cartoongan.yaml are adversarial steps of training/train.py's `Trainer`: everything it does for a batch, the
updates included. The recipes alternate, each repeat measures all, and a ratio is that of the medians. Beside the time
stand the multiplications and additions of the convolutions, forwards and backwards, which no noise touches, and the
peak memory of a step with its weights, optimiser and buffers (on a CPU, what a process of its own grows by). On a GPU
its measured bfloat16 peak follows. Photos are made up and VGG-19 has random weights: neither changes the cost.
"""

import argparse
import contextlib
import io
import json
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from accelerate.state import AcceleratorState
from layouts import AuthorsGenerator, AuthorsSaliencyNetwork
from measuring import ROOT, gflop, in_a_new_process, peak_mib, seconds
from torch import Tensor
from training_fixtures import write_vgg

from sdpgan_hub.memory import keep_freed_memory
from sdpgan_hub.networks import Discriminator
from training.data.cache import prepare
from training.losses.perceptual import PerceptualFeatures
from training.losses.step import call_with_constant_parameters
from training.run.arguments import parse_arguments
from training.run.config import read_config
from training.train import Trainer

IMAGES = 8
"""Photos, and paintings; more where a batch is larger."""
CARTOONGAN = ROOT / "training" / "configs" / "cartoongan.yaml"
RECIPES = ("ours", "cartoongan", "authors")
Batch = dict[str, Tensor]


class OurStep:
    """A step of train.py with the settings of `config_file` (None: the paper's) at the size asked for."""

    def __init__(self, options: argparse.Namespace, folder: Path, config_file: Path | None):
        AcceleratorState._reset_state(reset_partial_state=True)  # each recipe chooses its own precision
        command = ["--photos", folder / "photos", "--paintings", folder / "paintings", "--cache", folder / "cache",
                   "--output", folder / "style", "--vgg_weights", folder / "vgg19.safetensors", "--mixed_precision",
                   options.mixed_precision, *(["--cpu"] if options.device == "cpu" else [])]  # fmt: skip
        arguments = parse_arguments([str(part) for part in command])
        settings = {
            "base_channels": options.base_channels,
            "batch_size": options.batch_size,
            "image_size": options.size,
            "crop_size": options.size,
            "initialization_epochs": 0,
        }
        with contextlib.redirect_stderr(io.StringIO()):  # how few the photos are, that they are prepared already
            self.trainer = Trainer(arguments, read_config(config_file, settings))

    def __call__(self, batch: Batch) -> None:
        trainer = self.trainer
        with trainer.accelerator.accumulate(trainer.step.prepared_model, trainer.step.prepared_discriminator):
            trainer.backward(batch)
            trainer.update()


class AuthorsStep:
    """A step of the authors' released recipe, written from its description (the shared design notes), never shipped.

    G(x) runs twice, D's update back-propagates through G, G holds a private saliency network with its decoder, S is
    trained separately on the same photos, D sees its three kinds of images one after the other, least squares are
    taken of a sigmoid, and L_con has no mask. Where the description is silent the cheaper way is taken: VGG(x) without
    a graph, no gradients for D in G's update, our D, fused loss functions.
    """

    def __init__(self, options: argparse.Namespace, folder: Path):
        device = torch.device(options.device)
        bf16 = options.mixed_precision != "no"
        self.autocast = {"device_type": device.type, "dtype": torch.bfloat16, "enabled": bf16}
        self.generator = AuthorsGenerator(options.base_channels).to(device)
        self.saliency_network = AuthorsSaliencyNetwork(options.base_channels).to(device)
        self.discriminator = Discriminator().to(device)
        self.vgg = PerceptualFeatures(folder / "vgg19.safetensors").to(device)
        networks = (self.generator, self.saliency_network, self.discriminator)
        self.optimizers = [torch.optim.Adam(network.parameters(), 2e-4, (0.5, 0.999)) for network in networks]

    def __call__(self, batch: Batch) -> None:
        generator, saliency, discriminator = self.optimizers
        with torch.autocast(**self.autocast):
            kinds = ((batch["painting"], 1), (batch["edge_blurred"], 0), (self.generator(batch["photo"]), 0))
            loss = sum(_least_squares(self.discriminator(images), label) for images, label in kinds)
        self._update(discriminator, loss)
        with torch.autocast(**self.autocast):
            stylized = self.generator(batch["photo"])
            with torch.no_grad():
                photo_features = self.vgg(batch["photo"])
            loss = _least_squares(call_with_constant_parameters(self.discriminator, stylized), 1)
            loss = loss + 0.25 * F.l1_loss(self.vgg(stylized).float(), photo_features.float())
        self._update(generator, loss)
        with torch.autocast(**self.autocast):
            loss = F.l1_loss(self.saliency_network(batch["photo"])[0].float(), batch["reference"] * 2 - 1)
        self._update(saliency, loss)

    def _update(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        loss.backward()
        optimizer.step()
        for each in self.optimizers:
            each.zero_grad()


def _least_squares(logits: Tensor, label: int) -> Tensor:
    probability = logits.float().sigmoid()
    return F.mse_loss(probability, torch.full_like(probability, label))


def recipe(name: str, options: argparse.Namespace, folder: Path) -> Callable[[Batch], None]:
    if name == "authors":
        return AuthorsStep(options, folder)
    return OurStep(options, folder, CARTOONGAN if name == "cartoongan" else None)


def write_inputs(folder: Path, size: int, batch_size: int) -> None:
    """Made-up photos and paintings, a batch of each at least, prepared for training, and VGG-19 with random weights."""
    random = np.random.default_rng(0)
    for kind in ("photos", "paintings"):
        (folder / kind).mkdir()
        for number in range(max(IMAGES, batch_size)):
            image = cv2.resize(random.integers(256, size=(8, 8, 3), dtype=np.uint8), (size, size))
            cv2.imwrite(str(folder / kind / f"{number}.png"), image)
    prepare(folder / "photos", folder / "paintings", folder / "cache", workers=1, progress=False)
    write_vgg(folder / "vgg19.safetensors")


def random_batch(options: argparse.Namespace, batch_size: int | None = None, size: int | None = None) -> Batch:
    shape = (batch_size or options.batch_size, 3, size or options.size, size or options.size)
    generator = torch.Generator().manual_seed(0)
    batch = {kind: torch.rand(shape, generator=generator) * 2 - 1 for kind in ("photo", "painting", "edge_blurred")}
    batch["reference"] = torch.rand((shape[0], 1, *shape[2:]), generator=generator)
    return {name: value.to(options.device) for name, value in batch.items()}


def timed(function: Callable[[], object], device: str) -> dict[str, float]:
    """{"seconds", "cpu_seconds"}: the latter of all threads, which other programs on the machine disturb less."""

    def finished() -> None:
        function()
        if device == "cuda":
            torch.cuda.synchronize()

    return dict(zip(("seconds", "cpu_seconds"), seconds(finished), strict=True))


def peak_and_gflop(name: str, options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Of one step, the optimisers' states being there already: {"peak_mib", "gflop"}; in a process of its own."""
    set_up(options)
    before = _peak_mib(options.device)
    step = recipe(name, options, folder)
    step(random_batch(options, 1, 64))
    if options.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    batch = random_batch(options)
    count = gflop(lambda: step(batch))
    return {"peak_mib": _peak_mib(options.device) - before, "gflop": count}


def _peak_mib(device: str) -> float:
    return torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else peak_mib()


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Time, operations and peak memory of the three recipes, and their ratios."""
    write_inputs(folder, options.size, options.batch_size)
    recipes = {name: in_a_new_process(peak_and_gflop, name, options, folder) for name in RECIPES}
    keys = ("batch_size", "size", "base_channels", "device", "mixed_precision")
    result: dict[str, Any] = {key: getattr(options, key) for key in keys}
    result |= {"threads": torch.get_num_threads(), "recipes": recipes}
    if options.repeats:
        steps = {name: recipe(name, options, folder) for name in RECIPES}
        batch = random_batch(options)
        rounds = [
            {name: timed(partial(step, batch), options.device) for name, step in steps.items()}
            for _ in range(options.repeats + 1)
        ][1:]  # the memory of a step is there after the first
        for name, one in recipes.items():
            one |= {key: statistics.median(each[name][key] for each in rounds) for key in ("seconds", "cpu_seconds")}
        clock = "seconds" if options.device == "cuda" else "cpu_seconds"
        result["ratio_spread"] = {
            other: [pick(one["ours"][clock] / one[other][clock] for one in rounds) for pick in (min, max)]
            for other in ("authors", "cartoongan")
        }
    result["ratios"] = {
        f"ours / {other}": {key: value / recipes[other][key] for key, value in recipes["ours"].items()}
        for other in ("authors", "cartoongan")
    }
    return result


def measured_peak(size: int = 8192, repeats: int = 20) -> float:
    """Operations a second of square bfloat16 products, the most that this GPU gives a program."""
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    times = [timed(lambda: [a @ b for _ in range(repeats)], "cuda")["seconds"] for _ in range(2)]
    return 2 * size**3 * repeats / times[1]  # after one to warm up


def table(result: dict[str, Any]) -> str:
    """The result as Markdown tables."""
    lines = [
        f"One step: batch {result['batch_size']}, {result['size']} px, {result['base_channels']} channels, "
        f"{result['device']}, {result['threads']} threads, precision {result['mixed_precision']}",
        "",
        "| step of | seconds | CPU seconds | GFLOP | peak MiB |",
        "|---|---|---|---|---|",
    ]
    rows = [(name, one, (3, 3, 0, 0)) for name, one in result["recipes"].items()]
    rows += [(f"**{name}**", one, (2, 2, 2, 2)) for name, one in result["ratios"].items()]
    for name, one, digits in rows:
        columns = zip(("seconds", "cpu_seconds", "gflop", "peak_mib"), digits, strict=True)
        cells = [f"{one[key]:.{places}f}" if key in one else "" for key, places in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for other, (low, high) in result.get("ratio_spread", {}).items():
        lines += ["", f"Time of ours / {other} from round to round: {low:.2f} to {high:.2f}"]
    if "bf16_peak_tflops" in result:
        lines += ["", f"Measured bfloat16 peak: {result['bf16_peak_tflops']:.0f} TFLOP/s"]
    return "\n".join(lines)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--size", type=int, default=256, help="side of the crops, in pixels")
    parser.add_argument("--base_channels", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3, help="0: operations and memory alone")
    parser.add_argument("--threads", type=int, help="default: what torch takes")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--mixed_precision", choices=("no", "bf16"), default="no")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(argv)


def set_up(options: argparse.Namespace) -> None:
    """What the options ask of a process."""
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.device == "cpu":
        keep_freed_memory()  # as the trainer does, for the authors' recipe too


def main(argv: list[str] | None = None) -> None:
    options = parse(argv)
    set_up(options)
    with tempfile.TemporaryDirectory(prefix="sdpgan_bench_") as folder:
        result = measure(options, Path(folder))
        if options.device == "cuda":
            result["bf16_peak_tflops"] = measured_peak() / 1e12
    print(json.dumps(result, indent=2) if options.json else table(result))


if __name__ == "__main__":
    main()
