"""sdpgan_hub/scene.py: frames of a film are painted alike where they show the same, and anew after a cut."""

from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch

from sdpgan_hub import SDPGAN
from sdpgan_hub.scene import Scene, flow_between, warped

SIDE = 96


def wide_photo(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 255, (SIDE, SIDE + 40, 3), dtype=np.uint8)
    return cv2.normalize(cv2.GaussianBlur(image, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)


def pan(count: int, step: int = 2, noise: float = 0.0) -> list[np.ndarray]:
    """A still photo that moves by `step` px a frame, with the grain of a film."""
    rng = np.random.default_rng(1)
    image = wide_photo()
    frames = [image[:, step * number : step * number + SIDE] for number in range(count)]
    return [np.clip(frame + rng.normal(0, noise, frame.shape), 0, 255).astype(np.uint8) for frame in frames]


@pytest.fixture(scope="module")
def model() -> SDPGAN:
    torch.manual_seed(0)
    return SDPGAN(base_channels=4, residual_blocks=1, saliency_size=32, noise=0.3, normalization="pixel").eval()


def test_the_flow_of_a_pan_is_the_pan_and_sure():
    before, photo = pan(2)
    flow, sure = flow_between(photo, before)
    inner = np.s_[16:-16, 16:-16]
    assert np.abs(flow[inner] - [2, 0]).max() < 0.3
    assert sure[inner].min() > 0.8
    assert np.abs(warped(before, flow)[inner].astype(int) - photo[inner]).mean() < 3


def trembling(model: SDPGAN, frames: list[np.ndarray], scene: Scene | None) -> float:
    """How much paintings of a pan differ where they show the same."""
    paintings = [model.stylize(frame, scene=scene).astype(float) for frame in frames]
    inner = np.s_[16:-16, 16:-16]
    return np.mean([np.abs(np.roll(a, -2, 1) - b)[inner].mean() for a, b in pairwise(paintings)])


def test_a_panned_photo_is_painted_steadily(model):
    frames = pan(6, noise=6)
    alone, scene = trembling(model, frames, None), trembling(model, frames, Scene())
    assert scene < alone / 2


def test_the_noise_moves_with_the_picture_and_starts_anew_at_a_cut(model):
    scene = Scene()
    origins = []
    for frame in [*pan(4), wide_photo(seed=5)[:, :SIDE]]:
        model.stylize(frame, scene=scene)
        origins.append(scene._origin[0, 1].item() * SIDE)
    assert np.allclose(np.diff(origins[:4]), -2, atol=0.2)
    assert scene.cuts == 2


def test_after_a_cut_a_frame_is_painted_as_by_itself(model):
    other = wide_photo(seed=5)[:, :SIDE]
    scene = Scene()
    for frame in pan(3):
        model.stylize(frame, scene=scene)
    assert np.abs(model.stylize(other, scene=scene).astype(int) - model.stylize(other)).max() <= 1
    smaller = other[: SIDE - 16]
    assert np.abs(model.stylize(smaller, scene=scene).astype(int) - model.stylize(smaller)).max() <= 1
    assert scene.cuts == 3


def test_what_changes_in_a_scene_leaves_no_ghost(model):
    """A square that jumps: where it was and where it is, the painting is that of the frame alone."""
    frames = [pan(1)[0].copy() for _ in range(4)]
    for number, frame in enumerate(frames):
        frame[40:60, 10 + 50 * (number % 2) : 30 + 50 * (number % 2)] = (255, 0, 0)
    scene = Scene()
    last = [model.stylize(frame, scene=scene) for frame in frames][-1].astype(int)
    assert scene.cuts == 1
    for left in (10, 60):
        part = np.s_[45:55, left + 5 : left + 15]
        alone = [model.stylize(frame)[part].astype(int) for frame in frames[-2:]]
        assert np.abs(last[part] - alone[1]).mean() < np.abs(alone[0] - alone[1]).mean() / 4


def test_what_changes_its_colour_alone_is_painted_in_the_new_one(model):
    """Red and green of one luma, which the flow does not tell apart."""
    frames = [pan(1)[0].copy() for _ in range(2)]
    for frame, colour in zip(frames, [(200, 60, 40), (40, 141, 40)], strict=True):
        frame[30:66, 30:66] = colour
    scene = Scene()
    last = [model.stylize(frame, scene=scene) for frame in frames][-1].astype(int)
    assert scene.cuts == 1
    assert np.abs(last - model.stylize(frames[1]))[40:56, 40:56].mean() < 2


def test_what_changes_little_by_little_is_painted_as_it_is_now(model):
    """A square that grows dark by 8 levels a frame: no two frames differ much, the last and the first do."""
    frames = [pan(1)[0].copy() for _ in range(16)]
    for number, frame in enumerate(frames):
        frame[30:66, 30:66] = 220 - 8 * number
    scene = Scene()
    last = [model.stylize(frame, scene=scene) for frame in frames][-1].astype(int)
    alone = [model.stylize(frame)[40:56, 40:56].astype(int) for frame in (frames[0], frames[-1])]
    assert np.abs(last[40:56, 40:56] - alone[1]).mean() < np.abs(alone[0] - alone[1]).mean() / 3
    assert scene.cuts == 1


def test_a_scene_goes_on_from_its_state(model):
    frames = pan(5, noise=4)
    whole = Scene()
    expected = [model.stylize(frame, scene=whole) for frame in frames]
    first, second = Scene(), Scene()
    for frame in frames[:3]:
        model.stylize(frame, scene=first)
    second.resume(first.state())
    assert np.array_equal([model.stylize(frame, scene=second) for frame in frames[3:]], expected[3:])


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
def test_frames_of_every_kind_and_batches_of_frames(model, kind):
    frames = np.stack(pan(3, noise=4))
    white = {"uint8": 255, "uint16": 65535, "float32": 1.0}[kind]
    typed = (frames / 255 * white).astype(kind)
    scene = Scene()
    paintings = np.stack([model.stylize(frame, scene=scene) for frame in typed])
    assert np.array_equal(model.stylize(list(typed), scene=Scene()), paintings)
    eight = np.stack(model.stylize(list(frames), scene=Scene()))
    assert paintings.dtype == kind and scene.cuts == 1
    assert np.abs(paintings / white - eight / 255).max() < 0.02
    batch = model.stylize(torch.from_numpy(typed).permute(0, 3, 1, 2), scene=Scene())
    assert np.allclose(batch.permute(0, 2, 3, 1).numpy(), paintings, atol=white / 200)


@pytest.mark.parametrize("shape", [(20, 20), (11, 40), (1, 1), (1, 2000)])
def test_small_thin_and_grey_frames_are_painted(model, shape):
    frame = np.full(shape, 90, np.uint8)
    scene = Scene()
    assert [model.stylize(frame, scene=scene).shape for _ in range(2)] == [(*shape, 3)] * 2
    assert scene.cuts == 1
