"""The data of a training, its configuration, and real runs of train.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sdpgan_hub.errors import SDPGANError

try:
    from training.config import TrainingConfig, read_config
    from training.data import SampleNumbers, UnpairedImages
    from training.perceptual import TEXTURE_LAYERS, PerceptualFeatures, textures
    from training.train import Progress, Schedule, frozen, update_average
except (ImportError, RuntimeError) as error:  # torchvision of another torch build raises RuntimeError
    pytest.skip(f"the extra 'training' is not installed ({error})", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[1]


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


def test_each_ablation_of_the_paper_is_a_key_and_leaves_out_its_terms():
    def terms(**settings) -> dict[str, float]:
        return Schedule(TrainingConfig(initialization_epochs=0, **settings), 100).weights(50 * 100)

    assert terms() == pytest.approx({"con": 0.25 * 0.96**5, "sali": 1, "gan": 1, "con_s": 1.5})
    assert terms(w_con=5, w_con_decay=1)["con"] == 5  # Figs. 7 and 8
    assert terms(saliency_network=False).keys() == {"con", "gan"}  # Fig. 9 (c)
    assert terms(w_con_s=0).keys() == {"con", "sali", "gan"}  # Fig. 10
    assert TrainingConfig(saliency_network=False).network["feature_concatenation"] is False
    assert TrainingConfig(detail_skip=0.5, saliency_network=False).network["detail_skip"] == 0
    assert TrainingConfig(detail_skip=0.5).network["detail_skip"] == 0.5
    assert TrainingConfig(feature_concatenation=False).network["saliency_network"] is True  # Fig. 11
    assert Schedule(TrainingConfig(), 100).weights(0).keys() == {"con", "sali"}


def test_a_config_file_and_the_command_line_are_read_strictly(tmp_path: Path):
    path = tmp_path / "style.yaml"
    path.write_text("w_con: 5\nuse_ema: true\nlr_milestones: [0.3]\n")
    config = read_config(path, {"batch_size": "8", "edge_blurred": "false"})
    assert (config.w_con, config.use_ema, config.lr_milestones, config.batch_size) == (5.0, True, (0.3,), 8)
    assert config.edge_blurred is False
    path.write_text("select_by: null")
    assert read_config(path).select_by == ""
    for text, named in [("w_conn: 1", "w_conn"), ("batch_size: four", "batch_size"), ("crop_size: 33", "crop_size"),
                        ("use_ema: maybe", "use_ema"), ("- 1", "key: value"), ("batch_size: 2.5", "batch_size"),
                        ("select_by: kid", "select_by"), ("epochs: -1", "epochs"),
                        ("mask_peak: 0.5", "mask_peak"), ("mask_peak: .inf", "mask_peak"),
                        ("detail_skip: 1.5", "detail_skip"),
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
    grams = []
    for name in [0, 2, "M", 5, 7, "M", 10, 12, 14, 16, "M", 19, 21, 23, 25]:
        if name == "M":
            x = torch.nn.functional.max_pool2d(x, 2)
        else:
            x = torch.nn.functional.conv2d(
                x, state[f"features.{name}.weight"], state[f"features.{name}.bias"], padding=1
            )
            x = x if name == 25 else x.relu()
            if name in (2, 7, 12, 19):  # the convolutions before relu1_2, relu2_2, relu3_2, relu4_1
                grams.append(torch.einsum("ncyx,ndyx->ncd", x, x) / (x.shape[2] * x.shape[3]))
    torch.testing.assert_close(result, x, rtol=1e-4, atol=1e-4)
    again, shallower = features.with_shallower(image, TEXTURE_LAYERS)
    torch.testing.assert_close(again, result)
    torch.testing.assert_close(textures(shallower), grams, rtol=1e-4, atol=1e-4)
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
    for step, share in [(0, 0.9), (10**6, 0.1)]:
        old, new = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
        torch.nn.init.zeros_(old.weight)
        torch.nn.init.ones_(new.weight)
        update_average(old, new, step, 0.9)
        assert old.weight.item() == pytest.approx(share)


def test_progress_survives_its_checkpoint():
    progress = Progress()
    progress.load_state_dict(Progress(12, 3.5, -0.5, 10).state_dict())
    assert progress == Progress(12, 3.5, -0.5, 10)
