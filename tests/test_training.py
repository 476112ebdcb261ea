"""The data of a training, its configuration, and real runs of train.py."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sdpgan_hub import SDPGAN
from sdpgan_hub.errors import SDPGANError

try:
    import timm

    from training.config import TrainingConfig, read_config
    from training.data import SampleNumbers, UnpairedImages
    from training.perceptual import CONV4_4, PerceptualFeatures
    from training.prepare import prepare
    from training.train import Progress, Schedule, frozen, moving_average
except (ImportError, RuntimeError) as error:  # torchvision of another torch build raises RuntimeError
    pytest.skip(f"the extra 'training' is not installed ({error})", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[1]
TINY = ["--base_channels", "4", "--residual_blocks", "1", "--discriminator_channels", "4", "--image_size", "48",
        "--crop_size", "32", "--batch_size", "2", "--num_workers", "0", "--initialization_epochs", "1",
        "--epochs", "3", "--sample_steps", "100", "--logging_steps", "1", "--use_ema", "true"]  # fmt: skip


@pytest.fixture(scope="module")
def vgg_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of VGG-19's layers up to conv4_4 with random weights; what is tested here does not depend on them."""
    path = tmp_path_factory.mktemp("vgg") / "vgg19.safetensors"
    with torch.device("meta"):
        layers = timm.create_model("vgg19").features[: CONV4_4 + 1]
    random = torch.Generator().manual_seed(0)
    shapes = {name: value.shape for name, value in layers.state_dict().items()}
    state = {}
    for name, shape in shapes.items():
        scale = (2 / (shape[1] * 9)) ** 0.5 if len(shape) == 4 else 0.0
        state[f"features.{name}"] = (torch.randn(shape, generator=random) * scale).half()
    save_file(state, path)
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight photos of discs, six paintings of stripes, and what prepare.py makes of them."""
    folder, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(8):
        photo = np.full((60, 72, 3), random.integers(256, size=3), np.uint8)
        cv2.circle(photo, (36, 30), 14, random.integers(256, size=3).tolist(), -1)
        _write(folder / "photos" / f"{number}.png", photo)
    for number in range(6):
        stripes = (np.sin(np.arange(64) * (number + 1) / 3)[:, None, None] * 100 + 128) * np.ones((64, 64, 3))
        _write(folder / "paintings" / f"{number}.png", stripes.astype(np.uint8))
    prepare(folder / "photos", folder / "paintings", folder / "cache", progress=False, workers=1)
    return folder


def _write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(path), image)


def dataset(images: Path, **settings) -> UnpairedImages:
    settings = {"image_size": 48, "crop_size": 32} | settings
    return UnpairedImages(images / "photos", images / "paintings", images / "cache", **settings)


def test_a_sample_depends_on_its_number_and_the_seed_alone(images: Path):
    first, second = dataset(images), dataset(images)
    second[11]
    for number in (3, 11):
        assert all(torch.equal(first[number][key], second[number][key]) for key in first[number])
    assert not torch.equal(first[3]["photo"], dataset(images, seed=1)[3]["photo"])


def test_an_epoch_shows_every_photo_once_in_a_new_order(images: Path):
    data = dataset(images, crop_size=48)
    colours = [
        [tuple(data[n]["photo"].flatten(1).median(1).values.tolist()) for n in range(k * 8, k * 8 + 8)] for k in (0, 1)
    ]
    assert len(set(colours[0])) == 8 and set(colours[0]) == set(colours[1]) and colours[0] != colours[1]


def test_ranges_and_shapes_are_those_the_networks_take(images: Path):
    sample = dataset(images)[0]
    assert {key: tuple(value.shape) for key, value in sample.items()} == {
        "photo": (3, 32, 32), "reference": (1, 32, 32), "painting": (3, 32, 32), "edge_blurred": (3, 32, 32)
    }  # fmt: skip
    assert sample["photo"].min() >= -1 and sample["reference"].min() >= 0 and sample["reference"].max() <= 1


def test_the_reference_is_cropped_and_mirrored_with_its_photo(images: Path):
    # the disc stands out in both, whatever the crop and the mirroring (the corner may be disc or background)
    for number in range(8):
        sample = dataset(images)[number]
        contrast = (sample["photo"] - sample["photo"][:, :1, :1]).abs().sum(0)
        correlation = torch.corrcoef(torch.stack([contrast.flatten(), sample["reference"].flatten()]))[0, 1]
        assert abs(correlation) > 0.7


def test_a_crop_larger_than_the_image_and_an_unprepared_folder_are_refused(images: Path, tmp_path: Path):
    with pytest.raises(SDPGANError, match="crop_size 64"):
        dataset(images, crop_size=64)
    with pytest.raises(SDPGANError, match="prepared"):
        UnpairedImages(images / "photos", images / "paintings", tmp_path)


def test_the_remaining_sample_numbers_are_those_not_seen():
    assert [*SampleNumbers(0, 3), *SampleNumbers(3, 6)] == list(SampleNumbers(0, 6)) and len(SampleNumbers(3, 6)) == 3


def test_the_schedule_is_the_papers():
    schedule = Schedule(TrainingConfig(), steps_per_epoch=100)
    assert schedule.initialization_steps == 1000 and schedule.total_steps == 21000
    assert not schedule.adversarial(999) and schedule.adversarial(1000)
    assert [schedule.w_con(step) for step in (0, 1999, 2000)] == pytest.approx([0.25, 0.25, 0.24])
    rates = [schedule.learning_rate(step) for step in (0, 10999, 11000, 16000)]
    assert rates == pytest.approx([2e-4, 2e-4, 2e-5, 2e-6])


def test_a_config_file_and_the_command_line_are_read_strictly(tmp_path: Path):
    path = tmp_path / "style.yaml"
    path.write_text("w_con: 5\nuse_ema: true\nlr_milestones: [0.3]\n")
    config = read_config(path, {"batch_size": "8", "edge_blurred": "false"})
    assert (config.w_con, config.use_ema, config.lr_milestones, config.batch_size) == (5.0, True, (0.3,), 8)
    assert config.edge_blurred is False
    for text, named in [("w_conn: 1", "w_conn"), ("batch_size: four", "batch_size"), ("crop_size: 33", "crop_size"),
                        ("use_ema: maybe", "use_ema"), ("- 1", "key: value"), ("batch_size: 2.5", "batch_size"),
                        ("adversarial_loss: hinge", "adversarial_loss"), ("a: [", "YAML")]:  # fmt: skip
        path.write_text(text)
        with pytest.raises(SDPGANError, match=named):
            read_config(path)


@pytest.mark.parametrize("path", sorted((ROOT / "training" / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_config_is_valid(path: Path):
    assert isinstance(read_config(path), TrainingConfig)


def test_perceptual_features_are_conv4_4_before_its_relu(vgg_weights: Path):
    features = PerceptualFeatures(vgg_weights)
    image = torch.rand(1, 3, 32, 48) * 2 - 1
    result = features(image)
    state = {k: v.float() for k, v in load_file(vgg_weights).items()}
    x = ((image + 1) / 2 - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    for name in [0, 2, "M", 5, 7, "M", 10, 12, 14, 16, "M", 19, 21, 23, 25]:
        if name == "M":
            x = torch.nn.functional.max_pool2d(x, 2)
        else:
            x = torch.nn.functional.conv2d(
                x, state[f"features.{name}.weight"], state[f"features.{name}.bias"], padding=1
            )
            x = x if name == 25 else x.relu()
    torch.testing.assert_close(result, x, rtol=1e-4, atol=1e-4)
    assert result.shape == (1, 512, 4, 6) and result.min() < 0
    assert not any(parameter.requires_grad for parameter in features.parameters())


def test_a_wrong_vgg_file_is_named(tmp_path: Path, vgg_weights: Path):
    (tmp_path / "text.safetensors").write_text("not weights")
    state = load_file(vgg_weights)
    del state["features.25.weight"]
    save_file(state, tmp_path / "short.safetensors")
    for name, reason in [("absent", "absent"), ("text", "text"), ("short", "features.25.weight")]:
        with pytest.raises(SDPGANError, match=reason):
            PerceptualFeatures(tmp_path / f"{name}.safetensors")


def test_a_frozen_network_passes_gradients_to_its_input_only():
    network = torch.nn.Linear(3, 2)
    x = torch.ones(1, 3, requires_grad=True)
    frozen(network, x).sum().backward()
    assert network.weight.grad is None
    torch.testing.assert_close(x.grad, network.weight.detach().sum(0, keepdim=True))


def test_the_moving_average_starts_fast_and_ends_at_its_decay():
    average = moving_average(0.9)
    old, new = torch.zeros(1), torch.ones(1)
    assert average(old, new, torch.tensor(0)).item() == pytest.approx(0.9)
    assert average(old, new, torch.tensor(1000)).item() == pytest.approx(0.1)


def run(images: Path, vgg_weights: Path, output: Path, *arguments: str, **popen) -> subprocess.Popen:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", "--num_machines", "1",
               "--mixed_precision", "no", "--dynamo_backend", "no", str(ROOT / "training" / "train.py"), "--photos",
               str(images / "photos"), "--paintings", str(images / "paintings"), "--cache", str(images / "cache"),
               "--output", str(output), "--vgg_weights", str(vgg_weights), *TINY, *arguments]  # fmt: skip
    popen |= {"env": os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}, "cwd": output.parent}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **popen)


def finished(process: subprocess.Popen) -> str:
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    return output


def tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint: networks, optimisers, moving average."""
    found = {}

    def collect(name: str, value: object) -> None:
        if isinstance(value, torch.Tensor):
            found[name] = value
        elif isinstance(value, dict):
            for key, one in value.items():
                collect(f"{name}/{key}", one)
        elif isinstance(value, (list, tuple)):
            for key, one in enumerate(value):
                collect(f"{name}/{key}", one)

    for path in sorted(checkpoint.iterdir()):
        if path.suffix == ".safetensors":
            collect(path.name, load_file(path))
        elif path.suffix in {".bin", ".pkl"} and not path.name.startswith("random"):
            collect(path.name, torch.load(path, weights_only=True))
    return found


def test_a_run_killed_and_resumed_equals_one_that_was_not_in_every_tensor(images, vgg_weights, tmp_path):
    # 8 photos, batch 2: 4 steps an epoch; killed inside an epoch of the adversarial phase
    whole = run(images, vgg_weights, tmp_path / "whole", "--checkpointing_steps", "6", "--max_steps", "9")
    killed = run(images, vgg_weights, tmp_path / "killed", "--checkpointing_steps", "6", start_new_session=True)
    deadline = time.monotonic() + 200
    while not (tmp_path / "killed/checkpoints/step_00000006").exists() and killed.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    finished(whole)
    for newer in sorted((tmp_path / "killed/checkpoints").glob("*"))[1:]:  # it may have got further before the signal
        newer.rename(tmp_path / newer.name)
    arguments = ("--checkpointing_steps", "6", "--max_steps", "9", "--resume_from_checkpoint", "latest")
    resumed = finished(run(images, vgg_weights, tmp_path / "killed", *arguments))
    assert "step_00000006" in resumed
    expected = tensors(tmp_path / "whole/checkpoints/step_00000009")
    actual = tensors(tmp_path / "killed/checkpoints/step_00000009")
    assert len(expected) > 50 and expected.keys() == actual.keys()
    assert [name for name in expected if not torch.equal(expected[name], actual[name])] == []

    # what came out is a style
    model = SDPGAN.from_pretrained(tmp_path / "whole")
    photo = cv2.imread(str(images / "photos" / "0.png"))
    assert model.stylize(photo).shape == photo.shape and model.stylize(photo).std() > 0
    facts = json.loads((tmp_path / "whole/training.json").read_text())
    assert (facts["steps"], facts["photos"], facts["paintings"], facts["config"]["base_channels"]) == (9, 8, 6, 4)
    sheet = cv2.imread(str(tmp_path / "whole/samples/step_000009.png"))
    assert sheet.shape == (3 * 48, 8 * 48, 3)
    assert (tmp_path / "whole/README.md").exists() and any((tmp_path / "whole/logs").iterdir())


def test_max_minutes_ends_with_a_checkpoint_and_a_result(images, vgg_weights, tmp_path):
    finished(run(images, vgg_weights, tmp_path / "style", "--max_minutes", "0"))
    assert [path.name for path in (tmp_path / "style/checkpoints").iterdir()] == ["step_00000001"]
    assert SDPGAN.from_pretrained(tmp_path / "style").config["base_channels"] == 4


def test_a_wrong_folder_is_one_sentence_before_any_training(images, vgg_weights, tmp_path):
    process = run(images, vgg_weights, tmp_path / "style", "--paintings", str(tmp_path / "nothing"))
    output = process.communicate(timeout=300)[0]
    assert process.returncode != 0 and f"train.py: {tmp_path / 'nothing'} is not a folder." in output


def test_progress_survives_its_checkpoint():
    progress = Progress()
    progress.load_state_dict(Progress(step=12, seconds=3.5).state_dict())
    assert progress == Progress(12, 3.5)
