"""What a style is taught beside its own paintings, against plain NumPy."""

import numpy as np
import pytest
import scipy.ndimage
import torch

from training.losses import taught


def values(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2


def luma(image: np.ndarray) -> np.ndarray:
    return np.einsum("c,ncyx->nyx", [0.299, 0.587, 0.114], image)[:, None]


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    reach = round(3 * sigma)
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    for axis in (2, 3):
        image = scipy.ndimage.convolve1d(image, taps / taps.sum(), axis, mode="mirror")
    return image


def smoothly(values: np.ndarray, low: float, high: float) -> np.ndarray:
    w = np.clip((values - low) / (high - low), 0, 1)
    return w**2 * (3 - 2 * w)


def test_a_strong_color_of_the_photo_replaces_the_paintings_and_a_weak_one_gives_its_chroma_alone():
    painting, photo = 0.3 * values(0, 1, 3, 24, 40), torch.zeros(1, 3, 24, 40, dtype=torch.float64)
    photo[..., :20] = torch.tensor([0.9, -0.5, -0.4])[:, None, None]
    photo[..., 20:] = torch.tensor([0.3, 0.1, 0.0])[:, None, None]
    p, x = painting.numpy(), photo.numpy()
    broad, change = blurred(x, 3), blurred(x - p, 3)
    distance = np.sqrt(((broad - luma(broad)) ** 2).sum(1, keepdims=True))
    result = taught.with_strong_colors(painting, photo, 0.8).numpy()
    w = smoothly(distance, 0.4, 0.9)
    np.testing.assert_allclose(result, p + 0.8 * w * change, rtol=1e-5, atol=1e-7)
    assert np.array_equal(result[..., 32:], p[..., 32:]) and w[..., :8].min() == 1
    result = taught.with_hues(painting, photo, 0.8).numpy()
    change -= luma(change)
    np.testing.assert_allclose(result, p + 0.8 * smoothly(distance, 0.1, 0.4) * change, rtol=1e-5, atol=1e-6)


def test_what_is_white_in_the_photo_keeps_its_luma_and_nothing_else_does():
    painting, photo = 0.3 * values(0, 1, 3, 48, 80), torch.ones(1, 3, 48, 80, dtype=torch.float64)
    photo[..., 40:] = torch.tensor([0.9, 0.3, -0.8])[:, None, None]
    p, light = painting.numpy(), luma(photo.numpy())
    change = blurred(light - luma(p), 6)
    result = taught.with_lights(painting, photo, 0.8).numpy()
    np.testing.assert_allclose(result, p + 0.8 * smoothly(blurred(light, 6), 0.5, 0.95) * change, rtol=1e-5, atol=1e-6)
    assert np.array_equal(result[..., 60:], p[..., 60:])


def test_what_is_dark_has_the_chroma_of_the_photo_and_nothing_else_has():
    painting, photo = (
        torch.full((1, 3, 24, 60), -0.7, dtype=torch.float64),
        torch.zeros(1, 3, 24, 60, dtype=torch.float64),
    )
    painting += 0.1 * values(0, 3, 1, 1)  # brown
    painting[..., 20:40] += 0.6
    painting[..., 40:] += 1.3
    photo[:] = torch.tensor([-0.6, -0.3, -0.8])[:, None, None]  # dark green
    p, broad = painting.numpy(), blurred(photo.numpy(), 3)
    w = 1 - smoothly(luma(p), -0.45, 0.2)
    result = taught.with_dark_hues(painting, photo, 0.8).numpy()
    expected = p + 0.8 * w * (1.5 * (broad - luma(broad)) - (p - luma(p)))
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(luma(result), luma(p), atol=1e-6)  # lights stay
    assert w[..., :20].min() == 1 and 0 < w[..., 20:40].min() < 1 and np.array_equal(result[..., 40:], p[..., 40:])


def test_what_is_dark_and_grey_gets_the_shade_and_nothing_else_does():
    painting = torch.full((1, 3, 8, 50), -0.7, dtype=torch.float64)
    painting[..., 10:20] = torch.tensor([-0.3, -0.5, -0.8])[:, None, None]  # a dark brown, somewhat
    painting[..., 20:30] = torch.tensor([0.5, -0.8, -0.9])[:, None, None]  # a dark red
    painting[..., 30:40] = -0.1
    painting[..., 40:] = 0.3
    p, shade = painting.numpy(), np.array([-20, 3, 32]).reshape(1, 3, 1, 1) / 127.5
    distance = np.sqrt(((p - luma(p)) ** 2).sum(1, keepdims=True))
    w = (1 - smoothly(luma(p), -0.45, 0.2)) * (1 - smoothly(distance, 0.2, 0.45))
    result = taught.with_shades(painting, (-20, 3, 32)).numpy()
    np.testing.assert_allclose(result, p + w * shade, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(result[..., :10] - p[..., :10], np.broadcast_to(shade, (1, 3, 8, 10)), atol=1e-7)
    assert 0 < w[..., 10:20].min() < 1 and 0 < w[..., 30:40].min() < 1
    assert np.array_equal(result[..., 20:30], p[..., 20:30]) and np.array_equal(result[..., 40:], p[..., 40:])


def test_areas_are_flat_where_gradients_are_not_worth_their_price():
    """Xu et al. 2011, Algorithm 1, and its energy: sum (S - I)^2 + lambda C(S), C the pixels with a gradient."""
    image = torch.full((1, 3, 48, 80), -0.5)
    image[..., 40:] = 0.4
    noisy = (image + 0.02 * values(0, 1, 3, 48, 80)).float()
    result = taught.flattened(noisy, 0.01)
    np.testing.assert_allclose(result.numpy(), numpy_l0(noisy.numpy(), 0.01), atol=1e-4)
    assert result[..., 8:32].std() < 0.1 * noisy[..., 8:32].std()
    assert (result[..., 44] - result[..., 35]).mean() == pytest.approx(0.9, abs=0.02)  # the edge stays
    flat = taught.flat(noisy, image, 0.25)
    np.testing.assert_allclose(flat, noisy + 0.25 * (taught.flattened(noisy, taught.FLATNESS) - noisy), atol=1e-6)


def test_a_photo_loses_its_texture_where_nobody_looks():
    photo = (0.02 * values(0, 1, 3, 48, 80)).float()
    looked_at = torch.zeros(1, 1, 48, 80)
    looked_at[..., 40:] = 1
    result = taught.plain(photo, looked_at, 0.8)
    expected = photo + 0.8 * (1 - looked_at) * (taught.flattened(photo, taught.PLAINNESS) - photo)
    np.testing.assert_allclose(result, expected, atol=1e-6)
    assert torch.equal(result[..., 40:], photo[..., 40:]) and result[..., :40].std() < 0.3 * photo[..., :40].std()


def numpy_l0(image: np.ndarray, flatness: float) -> np.ndarray:
    edges = [(0, 0), (0, 0), (16, 16), (16, 16)]
    start = np.pad((image + 1) / 2, edges, mode="reflect")
    kernels = [np.zeros(start.shape[2:]) for _ in range(2)]
    kernels[0][0, 0], kernels[0][-1, 0], kernels[1][0, 0], kernels[1][0, -1] = -1, 1, -1, 1
    spectra = [np.fft.fft2(kernel) for kernel in kernels]
    s, beta = start, 2 * flatness
    while beta < 1e5:
        steps = [np.real(np.fft.ifft2(spectrum * np.fft.fft2(s))) for spectrum in spectra]
        small = sum(step**2 for step in steps).sum(1, keepdims=True) < flatness / beta
        steps = [np.where(small, 0, step) for step in steps]
        above = np.fft.fft2(start)
        above = above + beta * sum(np.conj(one) * np.fft.fft2(step) for one, step in zip(spectra, steps, strict=True))
        s = np.real(np.fft.ifft2(above / (1 + beta * sum(abs(one) ** 2 for one in spectra))))
        beta *= 4
    return (2 * s - 1)[..., 16:-16, 16:-16]


def test_a_disc_has_a_line_around_it_and_specks_and_flat_areas_have_none():
    rows, columns = np.mgrid[:96, :96]
    distance = np.hypot(rows - 48, columns - 48)
    photo = np.where(distance < 26, 0.7, -0.2) + 0.0 * rows
    photo[4:7, 4:7] = 0.7  # a speck
    lines = taught.ink_lines(torch.from_numpy(np.broadcast_to(photo, (1, 3, 96, 96)).copy()).float())[0, 0].numpy()
    angle = np.arctan2(rows - 48, columns - 48) // (np.pi / 8)
    ring = (distance > 25) & (distance < 30)
    assert all(lines[ring & (angle == part)].max() > 0.8 for part in np.unique(angle))  # it is closed
    assert lines[distance < 22].max() < 0.05 and lines[distance > 34].max() < 0.05
    darkest = distance[lines > 0.5]
    assert darkest.mean() > 26  # on the dark side
    assert taught.ink_lines(torch.full((1, 3, 64, 64), 0.3)).abs().max() == 0


def test_lines_are_thinned_out_where_they_crowd():
    stripes = torch.zeros(1, 3, 96, 160)
    stripes[..., :6] = stripes[..., 120:] = 0.8
    single = taught.ink_lines(stripes)[0, 0, 20:-20, 110:125].max()
    for start in range(12, 120, 8):
        stripes[..., start : start + 4] = 0.8
    crowded = taught.ink_lines(stripes)[0, 0, 20:-20, 40:80].max()
    assert crowded < 0.7 * single, (crowded, single)


def test_ink_covers_the_painting_along_the_lines():
    painting, lines = values(0, 2, 3, 8, 8).clamp(-1, 1).float(), values(1, 2, 1, 8, 8).abs().clamp(0, 1).float()
    k = lines.numpy()
    np.testing.assert_allclose(taught.inked(painting, lines), (1 - k) * painting.numpy() + k * taught.INK, atol=1e-6)
