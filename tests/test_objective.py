"""Eqs. 1-9 against plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from training import objective


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
    expected = ((y.numpy() - 1) ** 2).mean() + (c.numpy() ** 2).mean() + (g.numpy() ** 2).mean()
    assert objective.discriminator_loss(y, c, g, "least_squares").item() == pytest.approx(expected, rel=1e-9)


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


def test_the_texture_loss_is_the_relative_squared_distance_of_the_batchs_gram_matrices():
    a, b = [logits(0, 2, 3, 3), logits(1, 2, 4, 4)], [logits(2, 3, 3), logits(3, 4, 4)]
    pairs = [(x.numpy(), y.numpy()) for x, y in zip(a, b, strict=True)]
    each = [((x.mean(0) - y) ** 2).sum() / (y**2).sum() for x, y in pairs]
    assert objective.texture_loss(a, b).item() == pytest.approx(np.mean(each), rel=1e-9)
    calm_and_busy = [torch.stack([one * 0.5, one * 1.5]) for one in b]
    assert objective.texture_loss(calm_and_busy, b).item() == pytest.approx(0, abs=1e-12)


def fine_colour(image: np.ndarray) -> np.ndarray:
    """Cb and Cr, 2 x H x W, of an RGB image 3 x H x W less their means over the 5 x 5 px that are in the image."""
    luma = np.tensordot([0.299, 0.587, 0.114], image, axes=1)
    chroma = np.stack([(image[2] - luma) / 1.772, (image[0] - luma) / 1.402])
    fine = np.empty_like(chroma)
    for y in range(chroma.shape[1]):
        for x in range(chroma.shape[2]):
            around = chroma[:, max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]
            fine[:, y, x] = chroma[:, y, x] - around.mean((1, 2))
    return fine


def test_the_colour_grain_loss_is_the_distance_of_the_fine_colour_differences():
    a, b = (torch.rand(2, 3, 9, 7, generator=torch.Generator().manual_seed(seed)) * 2 - 1 for seed in (0, 1))
    expected = np.mean(
        [np.abs(fine_colour(x) - fine_colour(y)).mean() for x, y in zip(a.numpy(), b.numpy(), strict=True)]
    )
    assert objective.colour_grain_loss(a, b).item() == pytest.approx(expected, rel=1e-5)


def test_the_colour_grain_loss_leaves_brightness_and_even_colour_alone():
    photo = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    brighter = photo + torch.rand(1, 1, 12, 12, generator=torch.Generator().manual_seed(1))
    tinted = photo + torch.tensor([0.3, -0.2, 0.1]).view(1, 3, 1, 1)
    for changed in (brighter, tinted):
        assert objective.colour_grain_loss(changed, photo).item() == pytest.approx(0, abs=1e-6)
    assert objective.colour_grain_loss(photo + 0.1 * torch.rand_like(photo), photo) > 0.005


def luma(image: np.ndarray) -> np.ndarray:
    return np.tensordot([0.299, 0.587, 0.114], image, axes=1)


def around(image: np.ndarray, y: int, x: int) -> np.ndarray:
    """The 5 x 5 px that are in an image H x W."""
    return image[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]


def test_the_flat_grain_loss_is_the_distance_of_the_fine_luma_where_the_photo_is_flat():
    random = torch.Generator().manual_seed(0)
    stylized = torch.rand(2, 3, 9, 7, generator=random) * 2 - 1
    photo = torch.rand(2, 3, 9, 7, generator=random) * torch.linspace(0, 0.2, 7) - 0.5
    terms, weights = [], []
    for result, original in zip(stylized.double().numpy(), photo.double().numpy(), strict=True):
        a, b = luma(result), luma(original)
        for y, x in np.ndindex(a.shape):
            weights.append(max(0, 1 - around(b, y, x).std() / objective.FLAT))
            terms.append(abs(a[y, x] - around(a, y, x).mean() - b[y, x] + around(b, y, x).mean()))
    assert 0 < np.count_nonzero(weights) < len(weights)
    expected = np.mean(np.multiply(weights, terms))
    assert objective.flat_grain_loss(stylized, photo).item() == pytest.approx(expected, rel=1e-3)


def grid_means(image: np.ndarray) -> np.ndarray:
    """Of C x 32 x 32, for each row and column modulo 4 the mean of what is left by a [1 2 2 2 1] / 8 filter."""
    taps = np.array([1, 2, 2, 2, 1]) / 8
    padded = np.pad(image, ((0, 0), (2, 2), (2, 2)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), axis=(1, 2))
    rest = image - np.einsum("chwyx,y,x->chw", windows, taps, taps)
    return np.stack([rest[:, y::4, x::4].mean((1, 2)) for y in range(4) for x in range(4)], 1)


def test_the_grid_loss_is_the_distance_of_the_means_over_equal_places_modulo_4():
    a, b = (torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1 for seed in (0, 1))
    pairs = zip(a.double().numpy(), b.double().numpy(), strict=True)
    expected = np.mean([np.abs(grid_means(x) - grid_means(y)) for x, y in pairs])
    assert objective.grid_loss(a, b).item() == pytest.approx(expected, rel=1e-3)
    halves = torch.cat([a[..., :32], b[..., :32]], dim=3)
    assert objective.grid_loss(halves, halves.flip(3)) > 0.5 * expected  # each window for itself


@pytest.mark.parametrize("period", [2, 4])
def test_the_grid_loss_sees_grids_of_2_and_4_px_and_hardly_those_of_other_periods(period):
    photo = torch.zeros(1, 3, 64, 64)

    def grid(period: int) -> torch.Tensor:
        return (torch.cos(2 * torch.pi * torch.arange(64) / period) * 0.1).expand(1, 3, 64, 64)

    seen, strange = (objective.grid_loss(grid(one), photo).item() for one in (period, 5))
    assert seen > 0.04 and strange < 0.2 * seen
    slope = torch.linspace(-1, 1, 64).expand(1, 3, 64, 64)
    assert objective.grid_loss(slope, photo) < 0.005  # the reflected border apart, nothing


def test_an_unknown_adversarial_loss_is_named():
    with pytest.raises(ValueError, match="hinge"):
        objective.generator_loss(torch.zeros(1), "hinge")


def test_the_mask_weights_the_gradient_of_the_content_loss():
    stylized = torch.zeros(1, 1, 1, 2, requires_grad=True)
    mask = torch.tensor([[[[1.0, 2.0]]]])
    objective.content_loss(stylized, torch.ones(1, 1, 1, 2), mask).backward()
    assert stylized.grad.flatten().tolist() == [-0.5, -1.0]
