"""Frames of a film one after the other, painted so that the strokes stay where they are on things.

A frame by itself is painted from the noise where `filters.noise_origin` says and with S's map of that frame; both
tremble from frame to frame, and so would the strokes. In a scene the photo and S's map are eased over the frames, the
noise moves with the picture as a whole, and where the optical flow between two photos is sure, the painting is mixed
with the one before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from . import filters, imaging

FLOW_SIDE = 640
"""The longer side, in pixels, at which the optical flow is found; larger frames are shrunk for it."""
EASE = 0.15
"""What a frame's own map counts, beside the maps before."""
KEPT = 0.95
"""What the frame before counts where the flow is sure; the rest is the frame's own."""
KEPT_MOVING = 0.85
"""The same for what moves within the picture, which would become soft where it is fetched from again and again."""
STANDING = 0.25
"""Pixels by which something may move beside most of the picture and counts as standing in it."""
MARGIN = 5
"""Pixels across which all of the flow has to be sure: beside what moves away it is not."""
SAME = 0.07
"""Difference of two photos along the flow, in [0, 1], at which the painting before counts 1/e of `KEPT`."""
CALM = 0.004
"""Difference of two photos by which one along the motion of most of the picture may be larger than along the flow."""
TREMBLE = 0.1
"""Pixels that most of a picture may move from one frame to the next and the camera still counts as standing."""
CUT = 0.25
"""A new scene begins where the flow is sure on less than this share of a frame."""


class Scene:
    """What a frame of a film takes over from the frames before; give the same one to `SDPGAN.stylize` for each frame.

    It finds cuts by itself, and frames of another size begin anew too.

        >>> scene = Scene()  # doctest: +SKIP
        >>> paintings = [model.stylize(frame, scene=scene) for frame in frames]  # doctest: +SKIP

    Attributes:
        cuts: how many frames began a scene, the first one included.
    """

    def __init__(self) -> None:
        self.cuts = 0
        self._photo: Any = None  # H x W x 3, uint8, the last frame
        self._eased: Any = None  # H x W x 3, float32 from 0 to 255, the last frame as it was painted
        self._painting: Any = None  # H x W x 3, float32 in [-1, 1]
        self._map: Tensor | None = None  # 1 x 1 x h x w, S's of its copy, in [-1, 1]
        self._origin: Tensor | None = None  # 1 x 2
        self._flow: Any = None  # H x W x 2, from the frame to the one before, in pixels
        self._sure: Any = None  # H x W, in [0, 1]

    def state(self) -> dict[str, np.ndarray]:
        """All that the next frame takes over, for `resume`."""
        kept = {"cuts": np.array(self.cuts), "photo": self._photo, "eased": self._eased, "painting": self._painting}
        tensors = {"map": self._map, "origin": self._origin}
        kept |= {name: None if tensor is None else tensor.float().cpu().numpy() for name, tensor in tensors.items()}
        return {name: value for name, value in kept.items() if value is not None}

    def resume(self, state: Mapping[str, np.ndarray]) -> None:
        """Goes on where the scene with this `state` was."""
        self.cuts = int(state["cuts"])
        self._photo, self._eased, self._painting = (state.get(name) for name in ("photo", "eased", "painting"))
        self._map, self._origin = (
            torch.from_numpy(state[name]) if name in state else None for name in ("map", "origin")
        )

    def enter(self, photo: Tensor) -> Tensor:
        """Takes the next frame, 1 x 1 or 3 x H x W in any dtype of images, and gives what is painted of it.

        That is the frame eased over time, without its noise, which the painting would exaggerate: 1 x 3 x H x W in
        [-1, 1], float32.
        """
        signed = imaging.to_signed(photo).expand(-1, 3, -1, -1)
        frame = imaging.channels_last(imaging.from_signed(signed)[0])
        self._flow = self._sure = None
        if self._photo is not None and self._photo.shape == frame.shape:
            flow, sure = flow_between(frame, self._photo)
            if sure.mean() >= CUT:
                self._flow, self._sure = flow, sure
        if self._flow is None:
            self.cuts += 1
            self._painting = self._map = self._origin = None
            self._eased = frame.astype(np.float32)
        else:
            # what changed little by little looks like the frame before, and not like what has been kept of all before
            self._sure = self._sure * _alike(_difference(frame, self._eased, self._flow))
            self._eased = self._mixed(frame.astype(np.float32), self._eased)
        self._photo = frame
        return imaging.to_signed(imaging.channels_first(self._eased / 255)).to(photo.device)

    def eased(self, map_: Tensor) -> Tensor:
        """S's map of this frame, 1 x 1 x h x w in [-1, 1], after those before, which have moved with the picture."""
        before = self._map
        if before is not None and self._flow is not None:
            height, width = map_.shape[-2:]
            tall, wide = self._flow.shape[:2]
            flow = cv2.resize(self._flow, (width, height), interpolation=cv2.INTER_AREA)
            moved = warped(
                before[0, 0].float().cpu().numpy(), flow * np.array([width / wide, height / tall], np.float32)
            )
            map_ = torch.lerp(torch.from_numpy(moved)[None, None].to(map_), map_, EASE)
        self._map = map_
        return map_

    def origin(self, map_: Tensor, size: tuple[int, int]) -> Tensor:
        """Where this frame's noise begins, as `filters.noise_origin`; from the second frame on, moved as most of it.

        size: of the frame with what is mirrored beyond its border, which S's map shows.
        """
        if self._origin is None:
            self._origin = filters.noise_origin(map_).cpu()
        elif self._flow is not None:
            across, down = _most(self._flow)
            self._origin = self._origin - torch.tensor([[down / size[0], across / size[1]]])
        return self._origin

    def steady(self, painting: Tensor) -> Tensor:
        """The painting of this frame, 1 x 3 x H x W in [-1, 1], mixed with the one before where the flow is sure."""
        own = painting[0].float().permute(1, 2, 0).cpu().numpy()
        self._painting = own if self._painting is None else self._mixed(own, self._painting)
        np.clip(self._painting, -1, 1, out=self._painting)
        return imaging.channels_first(self._painting).to(painting.device)

    def _mixed(self, own: np.ndarray, before: np.ndarray) -> np.ndarray:
        apart = np.linalg.norm(self._flow - _most(self._flow), axis=-1)
        kept = KEPT_MOVING + (KEPT - KEPT_MOVING) * np.exp(-2 * np.maximum(0, apart - STANDING))
        return own + (kept * self._sure)[..., None] * (warped(before, self._flow) - own)


def flow_between(photo: np.ndarray, before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel of a photo was in the one before, and how sure that is.

    The flow is dense inverse search (Kroeger et al., ECCV 2016), checked by the flow of the other direction (Sundaram
    et al., ECCV 2010) and by the difference of the photos along it.

    Args:
        photo: H x W x 3, uint8.
        before: of the same shape.

    Returns:
        H x W x 2 in pixels, rightwards and down, and H x W in [0, 1]; float32.
    """
    height, width = photo.shape[:2]
    scale = min(1.0, FLOW_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if scale < 1:
        photo, before = (cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in (photo, before))
    back, forth = _calm_flow(photo, before), _calm_flow(before, photo)
    there = warped(forth, back)
    apart = np.square(back + there).sum(-1)
    lengths = np.square(back).sum(-1) + np.square(there).sum(-1)
    difference = _difference(photo, before, back)
    sure = (apart < 0.01 * lengths + 0.5) & _inside(back)
    sure = cv2.erode(sure.astype(np.float32), np.ones((MARGIN, MARGIN)))
    sure = cv2.GaussianBlur(sure * _alike(difference), (0, 0), 1)
    if scale < 1:
        back = cv2.resize(back, (width, height)) * np.array([width / size[0], height / size[1]], np.float32)
        sure = cv2.resize(sure, (width, height))
    return back, sure


def warped(image: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """An image, H x W or H x W x C, fetched from where the flow, H x W x 2 in pixels, points; mirrored beyond."""
    columns, rows = _places(flow)
    return cv2.remap(image, columns, rows, cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REFLECT)


def _places(flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.indices(flow.shape[:2], np.float32)
    return columns + flow[..., 0], rows + flow[..., 1]


def _inside(flow: np.ndarray) -> np.ndarray:
    columns, rows = _places(flow)
    return (columns >= 0) & (rows >= 0) & (columns <= flow.shape[1] - 1) & (rows <= flow.shape[0] - 1)


def _calm_flow(photo: np.ndarray, before: np.ndarray) -> np.ndarray:
    """As `flow_between`; what looks the same moved as most of the picture has moved so, as a wall behind a head."""
    if min(photo.shape[:2]) < 32:  # OpenCV's search crashes on the smallest
        return np.zeros((*photo.shape[:2], 2), np.float32)
    grey, grey_before = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (photo, before))
    search: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow = search.calc(grey, grey_before, None)
    most = np.broadcast_to(_most(flow), flow.shape)
    found, calm = (_difference(photo, before, by) for by in (flow, most))
    return np.where((calm <= found + CALM)[..., None], most, flow)


def _most(flow: np.ndarray) -> np.ndarray:
    """How most of the picture moved, right and down in pixels; what a camera that stands still trembles is nothing."""
    most = np.median(flow.reshape(-1, 2), axis=0)
    return most if np.abs(most).max() > TREMBLE else np.zeros(2, np.float32)


def _alike(difference: np.ndarray) -> np.ndarray:
    """From 1 where photos do not differ to 0 where they differ by more than `SAME`."""
    return np.exp(-np.square(difference / SAME))


def _difference(photo: np.ndarray, before: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """H x W in [0, 1]: what differs around each pixel of two photos along the flow."""
    difference = np.abs(warped(before, flow).astype(np.float32) - photo).mean(-1) / 255
    return cv2.GaussianBlur(difference, (0, 0), 2)
