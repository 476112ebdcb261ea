"""Eqs. 1-9 against plain NumPy."""

import numpy as np
import pytest
import torch

from training.losses import objective


def logits(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2


def sigmoid(x: torch.Tensor) -> np.ndarray:
    return 1 / (1 + np.exp(-x.numpy()))


def test_equation_3_for_the_discriminator():
    y, c, g = (logits(seed, 2, 1, 4, 4) for seed in range(3))
    expected = -(np.log(sigmoid(y)).mean() + np.log(1 - sigmoid(c)).mean() + np.log(1 - sigmoid(g)).mean())
    assert objective.discriminator_loss(y, c, g).item() == pytest.approx(expected, rel=1e-9)
    without = -(np.log(sigmoid(y)).mean() + np.log(1 - sigmoid(g)).mean())
    assert objective.discriminator_loss(y, None, g).item() == pytest.approx(without, rel=1e-9)


def test_equation_3_for_the_generator_is_its_non_saturating_form():
    g = logits(0, 2, 1, 4, 4)
    assert objective.generator_loss(g).item() == pytest.approx(-np.log(sigmoid(g)).mean(), rel=1e-9)


def test_least_squares_is_the_squared_distance_to_the_labels():
    y, c, g = (logits(seed, 8) for seed in range(3))
    others = sum(((one.numpy() + 1) ** 2).mean() for one in (c, g))
    expected = ((y.numpy() - 1) ** 2).mean() + others
    assert objective.discriminator_loss(y, c, g, "least_squares").item() == pytest.approx(expected, rel=1e-9)
    fooled = ((g.numpy() - 1) ** 2).mean()
    assert objective.generator_loss(g, "least_squares").item() == pytest.approx(fooled, rel=1e-9)


def test_hinge_asks_for_a_margin_of_1_and_for_more_of_the_generator():
    y, c, g = (logits(seed, 8) for seed in range(3))
    real, blurred, fake = (np.maximum(0, one).mean() for one in (1 - y.numpy(), 1 + c.numpy(), 1 + g.numpy()))
    assert objective.discriminator_loss(y, c, g, "hinge").item() == pytest.approx(real + (blurred + fake) / 2, rel=1e-9)
    assert objective.discriminator_loss(y, None, g, "hinge").item() == pytest.approx(real + fake, rel=1e-9)
    assert objective.generator_loss(g, "hinge").item() == pytest.approx(-g.numpy().mean(), rel=1e-9)


@pytest.mark.parametrize("kind", ["bce", "least_squares", "hinge"])
@pytest.mark.parametrize("fakes", [1, 2])
def test_the_loss_of_a_constant_d_is_the_least_over_all_constants(kind: str, fakes: int):
    grid = [torch.tensor([value]) for value in np.linspace(-3, 3, 6001)]
    losses = [objective.discriminator_loss(one, one if fakes == 2 else None, one, kind).item() for one in grid]
    assert objective.constant_discriminator_loss(fakes, kind) == pytest.approx(min(losses), abs=1e-5)


def test_accuracy_is_the_share_of_patches_that_d_tells_right():
    judged = torch.tensor([-2.0, 0.2, 0.7, 3.0])
    assert objective.accuracy(judged, True) == 0.75 and objective.accuracy(judged, False) == 0.25


def test_equation_4_scales_to_two_and_raises_to_one_per_image():
    saliency = torch.tensor([[[[-1.0, 0.0], [0.5, 1.0]]], [[[-0.2, -0.2], [0.0, 0.2]]]])
    # first image: (s + 1) / 2 * 2 = 0, 1, 1.5, 2; second: (s + 0.2) / 0.4 * 2 = 0, 0, 1, 2
    expected = torch.tensor([[[[1.0, 1.0], [1.5, 2.0]]], [[[1.0, 1.0], [1.0, 2.0]]]])
    torch.testing.assert_close(objective.saliency_mask(saliency), expected)


def test_a_higher_peak_weighs_the_salient_region_more_and_a_peak_of_one_is_no_mask():
    saliency = torch.tensor([[[[-1.0, -0.5], [0.0, 1.0]]]])  # scaled to 0..1: 0, 0.25, 0.5, 1
    torch.testing.assert_close(objective.saliency_mask(saliency, 6), torch.tensor([[[[1.0, 1.5], [3.0, 6.0]]]]))
    assert torch.equal(objective.saliency_mask(saliency, 1), torch.ones(1, 1, 2, 2))


def test_the_mask_of_a_map_without_contrast_is_one_everywhere_and_carries_no_gradient():
    saliency = torch.full((1, 1, 4, 4), 0.3, requires_grad=True)
    mask = objective.saliency_mask(saliency)
    assert torch.equal(mask, torch.ones(1, 1, 4, 4)) and not mask.requires_grad


def test_equation_5_is_the_masked_mean_absolute_difference():
    stylized, photo = logits(0, 2, 5, 4, 6), logits(1, 2, 5, 4, 6)
    mask = 1 + torch.rand(2, 1, 32, 48, generator=torch.Generator().manual_seed(2))
    small = mask.numpy().reshape(2, 1, 4, 8, 6, 8).mean((3, 5))
    expected = np.abs(small * (stylized.numpy() - photo.numpy())).mean()
    assert objective.content_loss(stylized, photo, mask).item() == pytest.approx(expected, rel=1e-5)
    plain = np.abs(stylized.numpy() - photo.numpy()).mean()
    assert objective.content_loss(stylized, photo).item() == pytest.approx(plain, rel=1e-5)


def test_equation_6_compares_with_a_constant():
    photo, stylized = (logits(seed, 2, 1, 4, 4).float().requires_grad_() for seed in (0, 1))
    loss = objective.saliency_content_loss(photo, stylized)
    assert loss.item() == pytest.approx(np.abs(photo.detach().numpy() - stylized.detach().numpy()).mean(), rel=1e-6)
    loss.backward()
    assert photo.grad is None and stylized.grad.abs().sum() > 0


def test_equation_7_compares_with_the_reference_mapped_to_the_range_of_the_network():
    saliency = torch.tensor([[[[-1.0, 0.0, 1.0]]]])
    reference = torch.tensor([[[[0.0, 0.25, 0.5]]]])
    assert objective.saliency_loss(saliency, reference).item() == pytest.approx((0 + 0.5 + 1) / 3)


def test_equation_9_steps_down_every_ten_epochs():
    weights = [objective.content_weight(0.25, epoch) for epoch in (0, 9, 10, 19, 20, 199)]
    assert weights == pytest.approx([0.25, 0.25, 0.24, 0.24, 0.2304, 0.25 * 0.96**19])
    assert objective.content_weight(0.25, 150, decay=1.0) == 0.25


def test_the_losses_of_identity_and_distillation():
    repainted, painting = logits(0, 2, 3, 4, 4), logits(1, 2, 3, 4, 4)
    difference = np.abs(repainted.numpy() - painting.numpy())
    assert objective.identity_loss(repainted, painting).item() == pytest.approx(difference.mean(), rel=1e-6)
    assert objective.distillation_loss(repainted, painting).item() == pytest.approx(difference.mean(), rel=1e-6)
    lines = logits(2, 2, 1, 4, 4).abs()
    expected = ((1 + 2 * lines.numpy()) * (difference + 10 * difference**2)).mean()
    assert objective.distillation_loss(repainted, painting, lines).item() == pytest.approx(expected, rel=1e-6)


def test_the_distance_of_features_weighs_each_layer_by_its_scale():
    features = [logits(0, 2, 3, 8, 8), logits(1, 2, 5, 4, 4)]
    wanted = [logits(2, 2, 3, 8, 8), 50 * logits(3, 2, 5, 4, 4)]
    pairs = [(f.numpy(), w.numpy()) for f, w in zip(features, wanted, strict=True)]
    expected = sum(np.abs(f - w).mean() / np.abs(w).mean() for f, w in pairs)
    assert objective.feature_distance(features, wanted).item() == pytest.approx(expected, rel=1e-5)


def test_the_shift_loss_is_the_change_of_what_both_see():
    image = logits(0, 1, 3, 64, 64)
    further = torch.nn.functional.pad(image[:, :, 2:, 3:], (0, 3, 0, 2))
    assert objective.shift_loss(image, further, 2, 3) == 0
    further = further + 0.1
    further[:, :, :16] = further[..., -16:] = 9  # what a border may do
    assert objective.shift_loss(image, further, 2, 3).item() == pytest.approx(0.1, rel=1e-5)
    assert objective.shift_loss(image, further, 3, 2).item() > 0.5


def test_less_chroma_is_the_luma_and_a_share_of_the_rest():
    image = logits(0, 2, 3, 4, 4)
    expected = luma(image.numpy()) + 0.4 * (image.numpy() - luma(image.numpy()))
    np.testing.assert_allclose(objective.with_chroma(image, 0.4).numpy(), expected, rtol=1e-6)


def luma(image: np.ndarray) -> np.ndarray:
    return np.einsum("c,ncyx->nyx", [0.299, 0.587, 0.114], image)[:, None]
