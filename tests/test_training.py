"""The samples of a training, its configuration and schedule, and the parts that train.py is made of."""

import dataclasses
from functools import partial
from pathlib import Path

import pytest
import torch
import training_extra  # noqa: F401
from assertions import refusal
from safetensors.torch import load_file, save_file
from torchvision.models import vgg19
from torchvision.transforms.functional import normalize
from training_fixtures import ROOT, batch_of

from sdpgan_hub import SDPGAN
from sdpgan_hub.filters import crop_and_resize
from sdpgan_hub.networks import Discriminator
from training import train_saliency
from training.data.cache import available_cores
from training.data.dataset import MAX_ENLARGEMENT, UnpairedImages
from training.losses import discriminators
from training.losses.perceptual import PerceptualFeatures
from training.losses.step import call_with_constant_parameters, pasted
from training.losses.terms import TERMS
from training.run import provenance
from training.run.config import TrainingConfig, read_config
from training.run.schedule import Progress, Schedule, update_average


def dataset(images: Path, **settings) -> UnpairedImages:
    config = TrainingConfig(**{"image_size": 48, "crop_size": 32} | settings)
    return UnpairedImages(images / "photos", images / "paintings", images / "cache", config)


# samples


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
    shapes = {"photo": (3, 32, 32), "reference": (1, 32, 32), "painting": (3, 32, 32), "edge_blurred": (3, 32, 32)}
    assert {key: tuple(value.shape) for key, value in sample.items()} == shapes
    assert sample["photo"].min() >= -1 and sample["reference"].min() >= 0 and sample["reference"].max() <= 1
    sample = dataset(images, saliency_size=40)[0]
    wholes = {"photo_whole": (3, 40, 40), "painting_whole": (3, 40, 40), "photo_box": (4,), "painting_box": (4,)}
    assert {key: tuple(value.shape) for key, value in sample.items()} == shapes | wholes | {"reference": (1, 40, 40)}


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].item()


def test_the_reference_is_cropped_and_mirrored_with_its_photo(images: Path):
    # the disc stands out in both, whatever the crop and the mirroring (the corner may be disc or background)
    for number in range(8):
        for settings, photo in ({}, "photo"), ({"saliency_size": 40}, "photo_whole"):
            sample = dataset(images, **settings)[number]
            contrast = (sample[photo] - sample[photo][:, :1, :1]).abs().sum(0)
            assert abs(correlation(contrast, sample["reference"])) > 0.9


def test_the_crop_of_a_sample_is_the_box_of_its_whole(images: Path):
    data = dataset(images, saliency_size=96, image_size=64, photo_scales=(0.6, 1.5), painting_scales=(0.6, 1.5))
    boxes = []
    for number in range(16):
        sample = data[number]
        for kind in ("photo", "painting"):
            whole, box = sample[f"{kind}_whole"], sample[f"{kind}_box"]
            boxes.append(box)
            if sample[kind].std((1, 2)).max() > 0.05:  # else the crop is all background
                again = crop_and_resize(whole[None], box[None], 32, 32)[0]
                assert correlation(again, sample[kind]) > 0.95
                elsewhere = crop_and_resize(whole[None], (box - torch.tensor([0.07, 0.07, 0, 0]))[None], 32, 32)[0]
                assert correlation(elsewhere, sample[kind]) < correlation(again, sample[kind])
    boxes = torch.stack(boxes)
    assert (boxes >= 0).all() and (boxes[:, :2] + boxes[:, 2:] <= 1 + 1e-6).all()
    assert boxes[:, 2].max() > 1.5 * boxes[:, 2].min() and boxes[:, :2].std() > 0.05


def test_without_a_saliency_size_a_sample_has_the_same_crops(images: Path):
    plain, with_wholes = dataset(images), dataset(images, saliency_size=40)
    for number in (0, 5):
        for key in ("photo", "painting", "edge_blurred"):
            assert torch.equal(plain[number][key], with_wholes[number][key])


def test_tones_are_jittered_in_the_given_share_of_images_darker_more_often_than_lighter(images: Path):
    plain, jittered = dataset(images), dataset(images, tone_jitter=1.0)
    darker = [jittered[n]["photo"].mean() < plain[n]["photo"].mean() - 0.02 for n in range(60)]
    lighter = [jittered[n]["photo"].mean() > plain[n]["photo"].mean() + 0.02 for n in range(60)]
    # each draws from a stream that the jitter shifts, so the crops differ: means over the photo stay comparable
    assert sum(darker) > sum(lighter) > 5 and sum(darker) + sum(lighter) > 40
    least = min(jittered[n]["painting"].max().item() for n in range(60))
    assert least < -0.5 and min(plain[n]["painting"].max().item() for n in range(60)) > 0.2
    half = dataset(images, tone_jitter=0.5)
    whole_range = [half[n]["painting"].max() - half[n]["painting"].min() > 1.2 for n in range(60)]
    assert 10 < sum(whole_range) < 50


def test_scales_of_photos_and_paintings_are_drawn_apart_and_paintings_are_hardly_enlarged(images: Path):
    data = dataset(images, saliency_size=32, image_size=64, photo_scales=(0.5, 0.5), painting_scales=(1, 2))
    samples = [data[number] for number in range(30)]
    assert all(sample["photo_box"][2] == 1 for sample in samples)  # 32 of 64 px are 32 px, the whole height
    sides = [32 / sample["painting_box"][2].item() for sample in samples]
    assert 64 <= min(sides) < 75 and max(sides) == pytest.approx(64 * MAX_ENLARGEMENT)
    enlarged = dataset(images, saliency_size=32, image_size=64, photo_scales=(3, 3))[0]["photo_box"]
    assert 32 / enlarged[2].item() == pytest.approx(192)  # photos may be


def test_with_a_brush_size_every_other_photo_is_twice_as_large_and_painted_over(images: Path):
    samples = [dataset(images, saliency_size=32, brush_size=64)[number] for number in range(4)]
    assert [sample["repainted"].item() for sample in samples] == [False, True, False, True]
    assert [32 / sample["photo_box"][2].item() for sample in samples] == pytest.approx([64, 128, 64, 128])


BRUSH = {
    "saliency_size": 32, "brush_size": 32, "noise": 0.1, "w_identity": 1, "w_shift": 1, "crop_size": 64,
    "image_size": 64,
}  # fmt: skip


def test_photos_are_painted_once_more_from_their_next_pixels(trainer):
    one = trainer(**BRUSH)
    batch, weights = batch_of(one), one.schedule.weights(100)
    crops, whole, boxes, starts = one.step.generator_inputs(batch, weights, [1, 0], 2, 3)
    assert len(crops) == len(whole) == len(boxes) == len(starts) == 6  # two photos, two paintings, the photos once more
    torch.testing.assert_close(crops[2:4], batch["painting"])
    side = batch["photo"].shape[-1]
    for place, photo in ((4, 1), (5, 0)):
        assert torch.equal(crops[place, :, :-2, :-3], crops[photo, :, 2:, 3:])
        assert (starts[place] - starts[photo] - torch.tensor([2, 3])).abs().max() <= 1
        assert torch.equal(whole[place], batch["photo_whole"][photo])
        of_one = batch["photo_whole"][photo : photo + 1]
        seen = [crop_and_resize(of_one, box[None], side, side) for box in boxes[[photo, place]]]
        torch.testing.assert_close(seen[1][..., :-4, :-4], seen[0][..., 2:-2, 3:-1], atol=1e-4, rtol=0)


def test_photos_that_are_painted_over_keep_their_target_and_the_others_stay(trainer):
    one = trainer(**BRUSH)
    batch = batch_of(one)
    photos = one.step.over_smaller_paintings(batch)
    assert torch.equal(photos[0], batch["photo"][0]) and not torch.equal(photos[1], batch["photo"][1])
    assert one.backward(batch)["loss/shift"] > 0


def test_lines_of_the_smaller_painting_are_cleared_in_training_too(trainer):
    one = trainer(**BRUSH, clear_lines=[5, 0])
    batch = batch_of(one)
    cleared = one.step.over_smaller_paintings(batch)
    one.step.config = dataclasses.replace(one.step.config, clear_lines=(0, 0))
    lightened = cleared - one.step.over_smaller_paintings(batch)
    assert lightened.min() > -1e-5 and lightened.max() > 1e-3


@pytest.mark.parametrize("launched", [True, False])
def test_a_training_that_accelerate_starts_takes_every_core(trainer, monkeypatch, launched: bool):
    """`accelerate launch` sets OMP_NUM_THREADS to 1; of a process that python starts, the variable is the user's."""
    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("ACCELERATE_DYNAMO_BACKEND", raising=False)
    if launched:
        monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "NO")
    torch.set_num_threads(1)
    try:
        trainer()
        assert torch.get_num_threads() == (available_cores() if launched else 1)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("kind", ["photos", "masks"])
def test_a_saliency_training_refuses_a_folder_that_is_not_there_before_it_prepares_another(
    images: Path, tmp_path: Path, kind: str
):
    folders = {"photos": [images / "photos"], "masks": [images / "masks"]}
    folders[kind].append(tmp_path / "absent")
    refusal(lambda: train_saliency.load(**folders, cache=tmp_path / "cache", size=32), tmp_path / "absent")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--steps", "20"], "--steps is 20"),
        (["--masks", "a", "b"], "--masks names 2 folders"),
        (["--config", str(ROOT / "training/configs/no_saliency_network.yaml")], "no saliency network"),
        (["--initial_style", "vangogh"], "--config"),
    ],
)
def test_a_saliency_training_that_cannot_start_is_one_sentence(arguments: list[str], named: str, tmp_path, capsys):
    assert train_saliency.main(["--photos", "a", "--output", str(tmp_path), *arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith("train_saliency.py: ") and named in said and said.count("\n") == 1


def test_an_unprepared_folder_is_refused(images: Path, tmp_path: Path):
    refusal(lambda: UnpairedImages(images / "photos", images / "paintings", tmp_path, TrainingConfig()), "prepare")


# schedule and configuration


def test_the_schedule_is_the_papers():
    schedule = Schedule(TrainingConfig(), steps_per_epoch=100)
    assert schedule.initialization_steps == 1000 and schedule.total_steps == 21000
    assert not schedule.adversarial(999) and schedule.adversarial(1000)
    assert [schedule.w_con(step) for step in (0, 1999, 2000)] == pytest.approx([0.0625, 0.0625, 0.06])
    rates = [schedule.learning_rate(step) for step in (0, 10999, 11000, 16000)]
    assert rates == pytest.approx([2e-4, 2e-4, 2e-5, 2e-6])


def test_the_length_in_steps_goes_before_that_in_epochs():
    schedule = Schedule(TrainingConfig(adversarial_steps=300, initialization_epochs=0.5), steps_per_epoch=100)
    assert schedule.initialization_steps == 50 and schedule.total_steps == 350
    assert schedule.learning_rate(200) == pytest.approx(2e-5)


def test_the_learning_rate_falls_in_a_training_without_adversarial_steps_too():
    schedule = Schedule(TrainingConfig(epochs=0, initialization_epochs=2), steps_per_epoch=100)
    assert schedule.total_steps == 200
    assert [schedule.learning_rate(step) for step in (99, 100, 150)] == pytest.approx([2e-4, 2e-5, 2e-6])


def test_a_training_of_no_steps_is_refused(trainer):
    refusal(lambda: trainer(epochs=0, initialization_epochs=0.01), "adversarial_steps")


def test_a_sample_photo_that_cannot_be_read_is_refused_before_the_first_step(trainer, tmp_path: Path):
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "broken.png").write_bytes(b"")
    refusal(lambda: trainer("--sample_photos", str(tmp_path / "samples")), "broken.png")


def test_weights_and_what_a_setting_means_for_the_networks():
    def terms(**settings) -> dict[str, float]:
        return Schedule(TrainingConfig(initialization_epochs=0, **settings), 100).weights(50 * 100)

    assert terms() == pytest.approx({"con": 0.0625 * 0.96**5, "sali": 1, "gan": 1, "con_s": 1.5})
    assert terms(w_con=5, w_con_decay=1)["con"] == 5  # Figs. 7 and 8
    assert terms(w_identity=3)["identity"] == 3
    assert TrainingConfig(saliency_network=False).network["feature_concatenation"] is False
    assert TrainingConfig(keep_detail=0.5, saliency_network=False).network["keep_detail"] == 0
    assert TrainingConfig(keep_detail=0.5).network["keep_detail"] == 0.5
    assert TrainingConfig(feature_concatenation=False).network["saliency_network"] is True  # Fig. 11
    assert Schedule(TrainingConfig(), 100).weights(0).keys() == {"con", "sali"}


def test_every_term_is_weighed_by_its_setting_and_named_on_the_card():
    settings = dataclasses.asdict(TrainingConfig(w_identity=3, w_shift=5, w_distill=7))
    said = provenance._weights(settings)
    for term in TERMS:
        if term.key is not None:
            assert f"{term.key} {settings[term.key]}" in said
    assert said.count("beyond the paper") == 3
    assert provenance._first_terms(settings) == "L_con, L_sali, identity, shift, distillation"
    assert "w_con " not in provenance._weights(settings | {"w_con": 0})
    assert provenance._saliency(settings | {"saliency_network": False}) == "none"
    assert provenance._sides({"image_size": 512, "crop_size": 256, "painting_scales": (0.3, 1)}, "painting_scales") == (
        "256 to 512 px"
    )


def test_a_config_file_and_the_command_line_are_read_strictly(tmp_path: Path):
    path = tmp_path / "style.yaml"
    path.write_text("w_con: 5\nuse_ema: true\nlr_milestones: [0.3]\n")
    config = read_config(path, {"batch_size": "8", "edge_blurred": "false"})
    assert (config.w_con, config.use_ema, config.lr_milestones, config.batch_size) == (5.0, True, (0.3,), 8)
    assert config.edge_blurred is False
    path.write_text("title: null")
    assert read_config(path).title == ""
    for text, named in [("w_conn: 1", "w_conn"), ("batch_size: four", "batch_size"), ("crop_size: 33", "crop_size"),
                        ("use_ema: maybe", "use_ema"), ("- 1", "style.yaml"), ("batch_size: 2.5", "batch_size"),
                        ("epochs: -1", "epochs"), ("adversarial_steps: -1", "adversarial_steps"),
                        ("discriminator_learning_rate: -1", "discriminator_learning_rate"),
                        ("mask_peak: 0.5", "mask_peak"), ("mask_peak: .inf", "mask_peak"),
                        ("keep_detail: 1.5", "keep_detail"), ("clear_lines: [4, 5]", "clear_lines"),
                        ("clear_lines: [5]", "clear_lines"), ("clear_lines: [5, 5.0]", "clear_lines"),
                        ("clear_lines: '50'", "clear_lines"),
                        ("tone_jitter: 2", "tone_jitter"),
                        ("identity_chroma: -0.1", "identity_chroma"), ("discriminator: resnet", "discriminator"),
                        ("photo_scales: [1]", "photo_scales"), ("painting_scales: [2, 1]", "painting_scales"),
                        ("distill_chroma: [1]", "distill_chroma"), ("distill_chroma: [1, -1]", "distill_chroma"),
                        ("distill_shade: [1]", "distill_shade"), ("distill_shade: [1, 2, 256]", "distill_shade"),
                        ("distill_shade: [0, 0, .nan]", "distill_shade"), ("distill_shade: [1, 2, 3]", "w_distill"),
                        ("image_size: 64", "crop_size 256"), ("w_texture: 1", "w_texture"),
                        ("adversarial_loss: wasserstein", "adversarial_loss"), ("a: [", "style.yaml"),
                        ("w_identity: .nan", "w_identity"), ("w_con: -1", "w_con"), ("adam_beta1: 1", "adam_beta1"),
                        ("ema_decay: 2", "ema_decay"), ("seed: -1", "seed"), ("epochs: .inf", "epochs"),
                        ("distill_ink: 0.9", "w_distill"), ("distill_chroma: [1, 2]", "w_distill"),
                        ("distill_real: 1\nw_distill: 9\nepochs: 0", "adversarial_steps"),
                        ("w_con: 0\ntrain_saliency: false", "initialization_epochs")]:  # fmt: skip
        path.write_text(text)
        refusal(lambda: read_config(path), named)


@pytest.mark.parametrize("path", sorted((ROOT / "training" / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_config_is_valid(path: Path):
    assert isinstance(read_config(path), TrainingConfig)


# VGG and D


def test_perceptual_features_are_conv4_4_before_its_relu_and_shallower_ones_after_theirs(vgg_weights: Path):
    features = PerceptualFeatures(vgg_weights)
    image = torch.rand(1, 3, 32, 48) * 2 - 1
    result, pyramid = features(image), features.pyramid(image)
    with torch.device("meta"):
        layers = vgg19().features[:26]
    state = {name.removeprefix("features."): value.float() for name, value in load_file(vgg_weights).items()}
    layers.load_state_dict(state, assign=True)
    outputs = [normalize((image + 1) / 2, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    for layer in layers:
        outputs.append(layer(outputs[-1]))
    torch.testing.assert_close(result, outputs[-1], rtol=1e-4, atol=1e-4)
    relu1_2, relu2_2, relu3_4 = outputs[4], outputs[9], outputs[18]
    torch.testing.assert_close(pyramid, [relu1_2, relu2_2, relu3_4, result], rtol=1e-4, atol=1e-4)
    assert [layer.shape[1] for layer in pyramid] == list(discriminators.VGG_CHANNELS)
    assert result.shape == (1, 512, 4, 6) and result.min() < 0
    assert not any(parameter.requires_grad for parameter in features.parameters())


def test_a_wrong_vgg_file_is_named(tmp_path: Path, vgg_weights: Path):
    (tmp_path / "text.safetensors").write_text("not weights")
    state = load_file(vgg_weights)
    del state["features.25.weight"]
    save_file(state, tmp_path / "short.safetensors")
    for name, reason in [("absent", "absent"), ("text", "text"), ("short", "features.25.weight")]:
        refusal(partial(PerceptualFeatures, tmp_path / f"{name}.safetensors"), reason)


SIDES = (16, 8, 4, 2, 8, 4, 2, 1)
"""Of what the heads see of images of 16 px: four layers at their own size, four at half of it."""


def random_pyramid(count: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    channels = zip(discriminators.VGG_CHANNELS * discriminators.SCALES, SIDES, strict=True)
    return [torch.randn(count, c, side, side, generator=generator) * 10 for c, side in channels]


def test_the_heads_are_shown_the_image_and_its_half(vgg_weights: Path):
    features = PerceptualFeatures(vgg_weights)
    image = torch.rand(2, 3, 32, 32) * 2 - 1
    half = image.unflatten(3, (16, 2)).unflatten(2, (16, 2)).mean((3, 5))
    expected = features.pyramid(image) + features.pyramid(half)
    torch.testing.assert_close(discriminators.pyramids(features, image), expected)


def test_the_projected_d_gives_logits_of_the_pixels_and_of_each_head():
    discriminator = discriminators.build("projected", 4)
    pixels, heads = discriminator(torch.randn(6, 3, 16, 16), random_pyramid(4))
    assert pixels.shape[:2] == (6, 1) and pixels.shape[-1] < 16
    assert [tuple(head.shape) for head in heads] == [(4, 1, side, side) for side in SIDES]
    patch = discriminators.build("patch", 4)
    pixels, heads = patch(torch.randn(6, 3, 16, 16))
    assert pixels.shape[:2] == (6, 1) and heads == []
    assert patch.state_dict().keys() == Discriminator(4).state_dict().keys()  # the paper's, no layer more


def test_the_heads_see_features_over_their_root_mean_square():
    discriminator = discriminators.build("projected", 4)
    pyramids = [random_pyramid(1, seed) for seed in range(8)]
    discriminator.calibrate(pyramids)
    seen = []
    for head in discriminator.heads:
        head.layers[0].register_forward_hook(lambda module, inputs, _: seen.append(inputs[0]))
    discriminator(torch.randn(1, 3, 16, 16), [torch.cat(layers) for layers in zip(*pyramids, strict=True)])
    for features in seen:
        assert features.square().mean((0, 2, 3)).tolist() == pytest.approx([1.0] * features.shape[1], rel=1e-3)


# functions of train.py


def test_a_network_called_with_constant_parameters_passes_gradients_to_its_input_only():
    network = torch.nn.Linear(3, 2)
    x = torch.ones(1, 3, requires_grad=True)
    call_with_constant_parameters(network, x).sum().backward()
    assert network.weight.grad is None
    torch.testing.assert_close(x.grad, network.weight.detach().sum(0, keepdim=True))


def test_a_crop_is_pasted_where_its_box_says_and_takes_the_gradient_alone():
    whole = torch.zeros(2, 3, 16, 16, requires_grad=True)
    crops = torch.ones(2, 3, 8, 8, requires_grad=True)
    boxes = torch.tensor([[0.25, 0.5, 0.5, 0.5], [0.0, 0.0, 0.25, 1.0]])
    result = pasted(crops, whole, boxes)
    expected = torch.zeros(2, 3, 16, 16)
    expected[0, :, 4:12, 8:16] = 1
    expected[1, :, :4] = 1
    torch.testing.assert_close(result, expected)
    weights = torch.rand(2, 3, 16, 16)
    (result * weights).sum().backward()
    # of what is outside of the box nothing reaches the crop, and all that is inside does
    inside = (weights * expected).sum((1, 2, 3))
    torch.testing.assert_close(crops.grad.sum((1, 2, 3)), inside)
    assert (crops.grad > 0).all()
    torch.testing.assert_close(whole.grad, weights * (1 - expected))


@pytest.mark.parametrize("box", [[0.999, 0.999, 0.001, 0.001], [0.0, 0.0, 1.0, 1.0], [0.5, 0.5, 0.5004, 0.5004]])
def test_a_box_at_the_border_stays_inside(box: list[float]):
    result = pasted(torch.ones(1, 3, 8, 8), torch.zeros(1, 3, 16, 16), torch.tensor([box]))
    assert result.shape == (1, 3, 16, 16) and result.amax() == 1


def test_the_moving_average_starts_fast_and_ends_at_its_decay():
    for step, share in [(0, 0.9), (10**6, 0.1)]:
        old, new = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
        torch.nn.init.zeros_(old.weight)
        torch.nn.init.ones_(new.weight)
        update_average(old, new, step, 0.9)
        assert old.weight.item() == pytest.approx(share)


def test_a_compiled_model_saves_what_loads(tmp_path: Path):
    model = SDPGAN(4, 1)
    plain = model.state_dict()
    model.generator = torch.compile(model.generator)
    model.save_pretrained(tmp_path)
    loaded = SDPGAN.from_pretrained(tmp_path).state_dict()
    assert loaded.keys() == plain.keys()
    assert all(torch.equal(loaded[name], value.half().float()) for name, value in plain.items())


def test_progress_survives_its_checkpoint():
    progress = Progress()
    progress.load_state_dict(Progress(12, 3.5).state_dict())
    assert progress == Progress(12, 3.5)
