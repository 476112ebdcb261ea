"""A style with fewer residual blocks learns what its teacher, the --initial_style, paints of the same input."""

from pathlib import Path

import numpy as np
import pytest
import torch
import training_extra  # noqa: F401
from assertions import refusal
from training_fixtures import batch_of

from sdpgan_hub import SDPGAN
from sdpgan_hub.filters import crop_and_resize
from training.losses import discriminators, objective, taught
from training.run import initial_style
from training.run.arguments import read_command_line

NETWORKS = {"base_channels": 4, "normalization": "pixel", "saliency_size": 32, "noise": 0.1, "brush_size": 32}
LITE = NETWORKS | {
    "residual_blocks": 2, "train_saliency": "false", "w_con": 0, "w_con_s": 0, "w_distill": 1, "learning_rate": 2e-3,
    "use_ema": "false",
}  # fmt: skip


def distance(painting, target) -> float:
    """The distillation loss without lines."""
    return np.abs(np.asarray(painting.detach()) - np.asarray(target)).mean()


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    """Six blocks that matter: as they are built, residuals are a tenth of what they are added to."""
    torch.manual_seed(0)
    model, folder = SDPGAN(**NETWORKS, residual_blocks=6), tmp_path_factory.mktemp("teacher")
    with torch.no_grad():
        for block in model.generator.residual:
            block.body[-1].weight.mul_(10)
        model.generator.output[0].weight.mul_(10)
    model.save_pretrained(folder, dtype=torch.float32)
    return folder


@pytest.mark.parametrize(("count", "kept"), [(6, range(6)), (4, (0, 2, 3, 5)), (3, (1, 3, 5)), (2, (1, 4)), (1, (3,))])
def test_fewer_blocks_are_the_teachers_at_even_distances(teacher: Path, count: int, kept):
    style, model = SDPGAN.from_pretrained(teacher), SDPGAN(**NETWORKS, residual_blocks=count)
    initial_style.load(str(teacher), model, discriminators.build("patch", 4))
    assert len(model.generator.residual) == count
    for block, number in zip(model.generator.residual, kept, strict=True):
        for name, value in style.generator.residual[number].state_dict().items():
            assert torch.equal(block.state_dict()[name], value)
    rest = {name: value for name, value in model.state_dict().items() if ".residual." not in name}
    assert len(rest) > 10 and all(torch.equal(value, style.state_dict()[name]) for name, value in rest.items())


@pytest.mark.parametrize(("key", "value"), [("residual_blocks", 7), ("base_channels", 8)])
def test_a_style_with_fewer_blocks_or_of_another_width_is_no_start(teacher: Path, key: str, value: int):
    model = SDPGAN(**{**NETWORKS, "residual_blocks": 2, key: value})
    refusal(lambda: initial_style.load(str(teacher), model, discriminators.build("patch", 4)), key, value)


def test_distillation_alone_runs_neither_vgg_nor_d(trainer, teacher: Path):
    one = trainer("--initial_style", str(teacher), initialization_epochs=1, **LITE)
    batch, ran = batch_of(one), []
    one.vgg.layers[0].register_forward_hook(lambda *_: ran.append("VGG"))
    one.discriminator.register_forward_hook(lambda *_: ran.append("D"))
    numbers = one.backward(batch)
    assert {name for name in numbers if name.startswith("loss/")} == {"loss/distill"} and not ran
    assert all(parameter.grad is not None for parameter in one.model.generator.parameters())
    assert all(parameter.grad is None for parameter in one.step.teacher.parameters())


def test_the_teacher_paints_what_the_student_paints(trainer, teacher: Path):
    one = trainer("--initial_style", str(teacher), **LITE, w_identity=1, w_shift=1, crop_size=64, image_size=64)
    seen: list[list[torch.Tensor]] = []
    given: list[torch.Tensor] = []
    one.model.register_forward_hook(lambda module, inputs, output: seen.append([*inputs, output[0]]))
    one.step.teacher.register_forward_hook(lambda module, inputs, output: given.extend([*inputs, output[0]]))
    loss = one.backward(batch_of(one))["loss/distill"]
    student = seen[-1]  # before it paints the first size of the second photo
    assert len(student[0]) == 4 and len(given[0]) == 2  # two photos, one painting and a shifted photo
    for whole, part in zip(student[:4], given[:4], strict=True):
        assert torch.equal(whole[:2], part)
    assert loss.item() == pytest.approx(distance(student[4][:2], given[4]), rel=1e-5)
    assert loss > 0.01


def test_the_teachers_chroma_is_multiplied_by_one_factor_where_people_look_and_by_another_elsewhere(trainer, teacher):
    settings = LITE | {"distill_chroma": [0.5, 3], "crop_size": 64, "image_size": 64}
    one = trainer("--initial_style", str(teacher), initialization_epochs=1, **settings)
    batch, seen, given = batch_of(one), [], []
    one.model.register_forward_hook(lambda module, inputs, output: seen.append(output))
    one.step.teacher.register_forward_hook(lambda module, inputs, output: given.append(output[0].numpy()))
    loss = one.backward(batch)["loss/distill"]
    painting, saliency = (output.detach()[:2] for output in seen[-1])
    attended = (crop_and_resize(saliency, batch["photo_box"], 64, 64).numpy() + 1) / 2
    luma = np.einsum("c,ncyx->nyx", [0.299, 0.587, 0.114], given[0])[:, None]
    target = luma + (0.5 * attended + 3 * (1 - attended)) * (given[0] - luma)
    assert loss.item() == pytest.approx(distance(painting, np.clip(target, -1, 1)), rel=1e-4)
    assert np.abs(target - given[0]).mean() > 0.01


@pytest.mark.parametrize(
    ("key", "change", "least"),
    [
        ("distill_color", taught.with_strong_colors, 0.01),
        ("distill_hue", taught.with_hues, 0.01),
        ("distill_light", taught.with_lights, 0.01),
        ("distill_dark", taught.with_dark_hues, 0.01),
        ("distill_flat", taught.flat, 0.003),
        ("distill_shade", lambda painting, photo, share: taught.with_shades(painting, (-80, 12, 128)), 0.01),
    ],
)
def test_what_is_taught_is_the_teachers_painting_changed(trainer, teacher: Path, key: str, change, least):
    value = (-80, 12, 128) if key == "distill_shade" else 0.8
    settings = LITE | {key: value, "crop_size": 64, "image_size": 64}
    one = trainer("--initial_style", str(teacher), initialization_epochs=1, **settings)
    batch, seen, given = batch_of(one), [], []
    batch["photo"][:, :, :32] = 0.85 + batch["photo"][:, :, :32] / 8  # nearly white
    one.model.register_forward_hook(lambda module, inputs, output: seen.append(output[0].detach()[:2]))
    one.step.teacher.register_forward_hook(lambda module, inputs, output: given.append(output[0]))
    loss = one.backward(batch)["loss/distill"]
    target = change(given[0], batch["photo"], 0.8).clamp(-1, 1)
    assert loss.item() == pytest.approx(distance(seen[-1], target), rel=1e-4)
    assert (target - given[0]).abs().mean() > least


def test_the_teacher_does_not_see_the_texture_where_nobody_looks(trainer, teacher: Path):
    settings = LITE | {"distill_plain": 0.8, "crop_size": 64, "image_size": 64}
    one = trainer("--initial_style", str(teacher), initialization_epochs=1, **settings)
    batch, seen, given = batch_of(one), [], []
    one.model.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output[1].detach())))
    one.step.teacher.register_forward_hook(lambda module, inputs, output: given.append(inputs[0]))
    one.backward(batch)
    photo, saliency = (each[:2] for each in seen[-1])
    looked_at = (crop_and_resize(saliency, batch["photo_box"], 64, 64) + 1) / 2
    torch.testing.assert_close(given[0], taught.plain(photo, looked_at, 0.8))
    assert (given[0] - photo).abs().mean() > 0.003


def test_contours_are_inked_at_the_last_size_and_where_people_look(trainer, teacher: Path):
    settings = LITE | {"distill_ink": 0.8, "crop_size": 64, "image_size": 64}
    one = trainer("--initial_style", str(teacher), initialization_epochs=1, **settings)
    batch, seen, given = batch_of(one), [], []
    batch["repainted"] = torch.tensor([False, True])
    batch["photo"][:] = -0.5
    batch["photo"][..., 30:] = 0.5
    one.model.register_forward_hook(lambda module, inputs, output: seen.append(output))
    one.step.teacher.register_forward_hook(lambda module, inputs, output: given.append(output[0]))
    loss = one.backward(batch)["loss/distill"]
    painting, saliency = (output.detach()[:2] for output in seen[-1])
    looked_at = (crop_and_resize(saliency, batch["photo_box"], 64, 64) + 1) / 2
    lines = 0.8 * taught.ink_lines(batch["photo"]) * torch.stack([looked_at[0], torch.ones_like(looked_at[1])])
    target = taught.inked(given[0], lines).clamp(-1, 1)
    assert loss.item() == pytest.approx(objective.distillation_loss(painting, target, lines).item(), rel=1e-4)
    assert (target - given[0]).abs().mean() > 0.01


@pytest.mark.parametrize("share", [0, 1])
def test_d_takes_what_is_taught_for_paintings(trainer, teacher: Path, share: float):
    one = trainer("--initial_style", str(teacher), **LITE, distill_real=share, crop_size=64, image_size=64)
    batch, judged, given = batch_of(one), [], []
    one.discriminator.register_forward_hook(lambda module, inputs, output: judged.append(inputs[0].detach()))
    one.step.teacher.register_forward_hook(lambda module, inputs, output: given.append(output[0]))
    one.backward(batch)
    np.testing.assert_allclose(judged[0][:2], given[0] if share else batch["painting"], atol=1e-5)


def test_features_of_lines_are_compared_where_the_heads_need_them_anyway(trainer, teacher: Path):
    settings = LITE | {"distill_ink": 0.8, "crop_size": 64, "image_size": 64, "discriminator": "projected"}
    one = trainer("--initial_style", str(teacher), **settings)
    batch, seen, given = batch_of(one), [], []
    batch["repainted"] = torch.tensor([True, True])
    one.model.register_forward_hook(lambda module, inputs, output: seen.append(output[0].detach()[:2]))
    one.step.teacher.register_forward_hook(lambda module, inputs, output: given.append(output[0]))
    loss = one.backward(batch)["loss/distill"]
    lines = 0.8 * taught.ink_lines(batch["photo"])
    target = taught.inked(given[0], lines).clamp(-1, 1)
    near, wanted = ([layer.detach() for layer in one.vgg.pyramid(image)[:3]] for image in (seen[-1], target))
    features = objective.feature_distance(near, wanted)
    expected = objective.distillation_loss(seen[-1], target, lines) + 0.1 * features
    assert loss.item() == pytest.approx(expected.item(), rel=1e-3) and 0.1 * features > 0.03 * loss


def test_a_student_comes_close_to_its_teacher(trainer, teacher: Path):
    one = trainer("--initial_style", str(teacher), initialization_epochs=20, epochs=0, **LITE)
    held_out = batch_of(one, tuple(range(10_000, 10_008)))

    def apart() -> float:
        paintings = [net(held_out["photo"], held_out["photo_whole"], held_out["photo_box"])[0] for net in networks]
        return (paintings[0] - paintings[1]).abs().mean().item()

    networks = (one.model, one.step.teacher)
    with torch.no_grad():
        before = apart()
        with torch.enable_grad():
            assert one.train() == 0
        after = apart()
    assert after < 0.6 * before, (before, after)
    shipped = SDPGAN.from_pretrained(one.output)
    assert shipped.config["residual_blocks"] == 2
    card = (one.output / "README.md").read_text()
    assert "distillation" not in shipped.config and "w_distill" in card
    assert "| D | patch, bce; not trained in this run |" in card


def test_the_teacher_may_be_another_style_than_the_start(trainer, teacher: Path, tmp_path: Path):
    start = tmp_path / "start"
    SDPGAN(**NETWORKS, residual_blocks=2).save_pretrained(start, dtype=torch.float32)
    one = trainer("--initial_style", str(start), "--teacher", str(teacher), **LITE, initialization_epochs=1)
    expected = {name: SDPGAN.from_pretrained(name).state_dict() for name in (start, teacher)}
    for network, name in ((one.model, start), (one.step.teacher, teacher)):
        assert all(torch.equal(value, expected[name][key]) for key, value in network.state_dict().items())


def test_a_teacher_without_a_distillation_is_refused(launcher, tmp_path: Path):
    given = launcher.arguments(tmp_path / "style", teacher="vangogh")
    refusal(lambda: read_command_line(given), "--teacher", "vangogh", "w_distill")


def test_a_teacher_that_sees_otherwise_is_refused(trainer, teacher: Path, tmp_path: Path):
    SDPGAN(**NETWORKS | {"saliency_size": 0, "brush_size": 0}, residual_blocks=2).save_pretrained(tmp_path / "other")
    refusal(
        lambda: trainer("--initial_style", str(teacher), "--teacher", str(tmp_path / "other"), **LITE), "other", "32"
    )


def test_a_style_is_not_replaced_by_what_learns_from_it(launcher, teacher: Path):
    given = launcher.arguments(teacher, initial_style=teacher, w_distill=2)
    refusal(lambda: read_command_line(given), teacher, "--output")


def test_a_frozen_s_is_one_that_was_trained(launcher, teacher: Path, tmp_path: Path):
    given = launcher.arguments(tmp_path / "style", train_saliency="false")
    refusal(lambda: read_command_line(given), "train_saliency", "--initial_style")


def test_a_resumed_run_says_that_it_has_another_teacher(trainer, teacher: Path, tmp_path: Path, capsys):
    other = tmp_path / "other"
    SDPGAN(**NETWORKS, residual_blocks=2).save_pretrained(other)
    assert trainer("--initial_style", str(other), "--teacher", str(teacher), **LITE, max_steps=1).train() == 0
    capsys.readouterr()
    trainer("--initial_style", str(other), "--resume_from_checkpoint", "latest", **LITE)
    assert "teacher" in capsys.readouterr().err


def test_a_distillation_without_a_teacher_is_refused(launcher, tmp_path: Path):
    refusal(
        lambda: read_command_line(launcher.arguments(tmp_path / "style", w_distill=2)), "w_distill", "--initial_style"
    )
