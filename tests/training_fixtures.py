"""What tests of training share: tiny images, networks with random weights, and train.py in processes of their own.

A process is forked from one that has imported train.py and has done nothing else, so it starts at once; it is a process
all the same, with its own signals, environment and exit code.
"""

import importlib.util
import multiprocessing
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
TINY = {
    "base_channels": 4, "residual_blocks": 1, "discriminator_channels": 4, "image_size": 48, "crop_size": 32,
    "batch_size": 2, "num_workers": 0, "initialization_epochs": 1, "epochs": 3, "sample_steps": 1000,
    "checkpointing_steps": 1000, "logging_steps": 1, "use_ema": "true",
}  # fmt: skip
"""Four steps an epoch with the eight photos below: steps 0 to 3 are the initialisation phase, 4 to 15 adversarial."""

if importlib.util.find_spec("timm") is not None:
    _SPAWN = multiprocessing.get_context("forkserver")
    _SPAWN.set_forkserver_preload(["training.train", "tensorboard", "torch.utils.tensorboard"])


@pytest.fixture(scope="session")
def vgg_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That of `write_vgg`; what is tested with it does not depend on its weights."""
    path = tmp_path_factory.mktemp("vgg") / "vgg19.safetensors"
    write_vgg(path)
    return path


def write_vgg(path: Path) -> None:
    """A file of VGG-19's layers up to conv4_4 with random weights."""
    import timm
    from safetensors.torch import save_file

    from training.losses.perceptual import CONV4_4

    with torch.device("meta"):
        layers = timm.create_model("vgg19").features[: CONV4_4 + 1]
    random = torch.Generator().manual_seed(0)
    state = {}
    for name, value in layers.state_dict().items():
        scale = (2 / (value.shape[1] * 9)) ** 0.5 if value.ndim == 4 else 0.0
        state[f"features.{name}"] = (torch.randn(value.shape, generator=random) * scale).half()
    save_file(state, path)


@pytest.fixture(scope="session")
def inception(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dict of torch-fidelity's Inception network, random; what is tested with it does not depend on it."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Unloaded(FeatureExtractorInceptionV3):
        def load_state_dict(self, state: dict) -> None:
            random = torch.Generator().manual_seed(0)
            for module in self.modules():
                if isinstance(module, torch.nn.Conv2d):
                    torch.nn.init.kaiming_normal_(module.weight, generator=random)

    folder = tmp_path_factory.mktemp("inception")
    torch.save({}, folder / "empty.pth")
    network = Unloaded("random", ["64"], feature_extractor_weights_path=str(folder / "empty.pth"))
    torch.save(network.state_dict(), folder / "random.pth")
    return folder / "random.pth"


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """photos/ (eight, of discs), masks/ of the discs, paintings/ (six, of grey stripes) and cache/, all prepared.

    The masks stand for saliency references, which take longer than a tiny training.
    """
    from training.data import pictures
    from training.data.cache import prepare

    folder, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(8):
        photo, mask = np.full((60, 72, 3), random.integers(256, size=3), np.uint8), np.zeros((60, 72), np.uint8)
        cv2.circle(photo, (36, 30), 14, random.integers(256, size=3).tolist(), -1)
        cv2.circle(mask, (36, 30), 14, 255, -1)
        pictures.write(folder / "photos" / f"{number}.png", photo[..., ::-1])
        pictures.write(folder / "masks" / f"{number}.png", mask)
    for number in range(6):
        stripes = (np.sin(np.arange(64) * (number + 1) / 3)[:, None, None] * 100 + 128) * np.ones((64, 64, 3))
        pictures.write(folder / "paintings" / f"{number}.png", stripes.astype(np.uint8))
    prepare(
        folder / "photos", folder / "paintings", folder / "cache", masks=folder / "masks", progress=False, workers=1
    )
    return folder


@dataclass
class Process:
    """train.py under way."""

    process: multiprocessing.Process
    log: Path

    def wait(self, timeout: float = 300) -> int:
        self.process.join(timeout)
        if self.process.is_alive():
            self.process.kill()
            raise AssertionError(f"not done after {timeout} s: {self.text}")
        return self.process.exitcode

    def wait_for(self, path: Path, timeout: float = 300) -> None:
        """Until `path` is there or the process has ended."""
        deadline = time.monotonic() + timeout
        while not path.exists() and self.process.is_alive():
            assert time.monotonic() < deadline, self.text
            time.sleep(0.01)
        assert path.exists(), self.text

    @property
    def text(self) -> str:
        return self.log.read_text()


class Launcher:
    """Starts train.py on the tiny images."""

    def __init__(self, images: Path, vgg_weights: Path, folder: Path):
        self.images, self.vgg_weights, self.folder = images, vgg_weights, folder
        self.processes: list[Process] = []

    def arguments(self, output: Path, /, *flags: str, **settings: object) -> list[str]:
        """The command line: `flags` as they are, `settings` over those of `TINY`; a list is several values."""
        given = {"photos": self.images / "photos", "paintings": self.images / "paintings",
                 "masks": self.images / "masks", "output": output, "cache": self.images / "cache",
                 "vgg_weights": self.vgg_weights, **TINY, **settings}  # fmt: skip
        pairs = ((key, value if isinstance(value, (list, tuple)) else [value]) for key, value in given.items())
        return [*(part for key, values in pairs for part in (f"--{key}", *map(str, values))), "--cpu", *flags]

    def start(
        self,
        output: Path,
        *flags: str,
        environment: dict[str, str] | None = None,
        file_size_limit: int | None = None,
        **settings: object,
    ) -> Process:
        """environment: on top of this one's. file_size_limit: no file that it writes can have more bytes."""
        log = self.folder / f"log_{len(self.processes)}.txt"
        arguments = self.arguments(output, *flags, **settings)
        process = _SPAWN.Process(target=_train, args=(arguments, log, environment or {}, file_size_limit))
        process.start()
        self.processes.append(Process(process, log))
        return self.processes[-1]

    def run(self, output: Path, *flags: str, code: int = 0, timeout: float = 300, **settings: object) -> str:
        """Starts, waits, checks the exit code, and gives what was printed."""
        process = self.start(output, *flags, **settings)
        assert process.wait(timeout) == code, process.text
        return process.text


@pytest.fixture(scope="session")
def launcher(images: Path, vgg_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    one = Launcher(images, vgg_weights, tmp_path_factory.mktemp("logs"))
    yield one
    for left in one.processes:  # by a test that failed
        if left.process.is_alive():
            os.killpg(left.process.pid, signal.SIGKILL)


@pytest.fixture
def trainer(launcher: Launcher, tmp_path: Path) -> Iterator[Callable]:
    """A function: settings -> Trainer at its first adversarial step, in this process."""
    from accelerate.state import AcceleratorState

    from training.run.arguments import read_command_line
    from training.train import Trainer

    def build(*flags, **settings) -> Trainer:
        AcceleratorState._reset_state(reset_partial_state=True)
        arguments = launcher.arguments(tmp_path / "style", *flags, **{"initialization_epochs": 0} | settings)
        return Trainer(*read_command_line(arguments))

    yield build
    AcceleratorState._reset_state(reset_partial_state=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ranks(count: int) -> list[dict[str, str]]:
    """The environments of `count` processes as torchrun starts them."""
    shared = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    return [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


def batch_of(trainer, numbers: tuple[int, ...] = (0, 1)) -> dict[str, torch.Tensor]:
    """The samples of these numbers as one batch."""
    samples = [trainer.data[number] for number in numbers]
    return {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}


def expected_terms(trainer, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """What D minimises, and the terms of G and S, all at once from the batch: what `Step.backward` does in parts.

    For an adversarial step in float32.
    """
    from sdpgan_hub.filters import crop_and_resize
    from training.losses import discriminators, objective
    from training.losses.step import call_with_constant_parameters, pasted

    config, model, discriminator, vgg = trainer.config, trainer.model, trainer.discriminator, trainer.vgg
    photo, painting, kind = batch["photo"], batch["painting"], config.adversarial_loss
    whole, box = batch.get("photo_whole"), batch.get("photo_box")
    stylized, saliency = model(photo, whole, box)
    projected = config.discriminator == "projected"

    def judged(network, images: torch.Tensor) -> list[torch.Tensor]:
        pixels, heads = network(images, discriminators.pyramids(vgg, images) if projected else ())
        return [pixels, *heads]

    def with_heads(losses: list[torch.Tensor]) -> torch.Tensor:
        return losses[0] + (discriminators.SCALES * torch.stack(losses[1:]).mean() if losses[1:] else 0)

    real, fake = judged(discriminator, painting), judged(discriminator, stylized.detach())
    blurred = discriminator.pixels if projected else discriminator
    blurred = blurred(batch["edge_blurred"]) if config.edge_blurred else None
    blurred = blurred[0] if isinstance(blurred, tuple) else blurred
    pairs = zip(real, fake, [blurred, *[None] * (len(real) - 1)], strict=True)
    loss_of_d = with_heads([objective.discriminator_loss(y, c, g, kind) for y, g, c in pairs])

    mask = None
    if config.saliency_mask:
        mask = objective.saliency_mask(batch["reference"] if saliency is None else saliency, config.mask_peak)
        if whole is not None:
            mask = crop_and_resize(mask, box, *photo.shape[-2:])
    terms = {"con": objective.content_loss(vgg(stylized), vgg(photo), mask)}
    features = discriminators.pyramids(vgg, stylized) if projected else ()
    pixels, heads = call_with_constant_parameters(discriminator, stylized, features)
    terms["gan"] = with_heads([objective.generator_loss(one, kind) for one in (pixels, *heads)])
    if config.w_identity:
        half = max(1, len(photo) // 2)
        first = [None if one is None else one[:half] for one in map(batch.get, ("painting_whole", "painting_box"))]
        terms["identity"] = objective.identity_loss(
            model(objective.with_chroma(painting[:half], config.identity_chroma), *first)[0], painting[:half]
        )
    if saliency is not None and config.w_con_s:
        seen = stylized if whole is None else pasted(stylized, whole, box)
        again = call_with_constant_parameters(model.saliency_network, seen)[0]
        terms["con_s"] = objective.saliency_content_loss(saliency, again)
    if saliency is not None and config.train_saliency:
        terms["sali"] = objective.saliency_loss(saliency, batch["reference"])
    return loss_of_d, terms


def _train(arguments: list[str], log: Path, environment: dict[str, str], file_size_limit: int | None) -> None:
    """The whole of a forked process."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)
    os.environ.update({"ACCELERATE_USE_CPU": "true", **environment})
    os.setsid()
    if file_size_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size_limit, file_size_limit))
    torch.set_num_threads(1)

    from training.train import main

    sys.exit(main(arguments))


def scalars(output: Path) -> dict[str, dict[int, float]]:
    """What a run has logged: name -> step -> value."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: dict[str, dict[int, float]] = {}
    for folder in sorted({path.parent for path in output.glob("logs/**/events*")}):
        events = EventAccumulator(str(folder)).Reload()
        for name in events.Tags()["scalars"]:
            found.setdefault(name, {}).update({event.step: event.value for event in events.Scalars(name)})
    return found
