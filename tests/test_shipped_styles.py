"""Every shipped style paints real photos: each differently, none of them flat, none of them left as it was."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdpgan_hub import SDPGAN, styles

EXAMPLES = sorted((Path(__file__).resolve().parents[1] / "space" / "examples").glob("*.jpg"))
SIDE = 192


@pytest.fixture(scope="module", params=sorted(styles.available()))
def style(request: pytest.FixtureRequest) -> SDPGAN:
    return SDPGAN.from_pretrained(request.param)


def photos(paths: list[Path]) -> list[np.ndarray]:
    return [np.asarray(Image.open(path).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)) for path in paths]


def check(model: SDPGAN, paths: list[Path]) -> None:
    originals = photos(paths)
    paintings = [painting.astype(np.float32) for painting in model.stylize(originals)]
    for path, original, painting in zip(paths, originals, paintings, strict=True):
        assert painting.std() > 15, f"{path.name} became nearly constant"
        assert np.abs(painting - original).mean() > 8, f"{path.name} was left as it was"
        luminance = [image.mean(2).ravel() for image in (original.astype(np.float32), painting)]
        assert np.corrcoef(*luminance)[0, 1] > 0.4, f"{path.name} cannot be recognised by its light and dark"
    for (one, first), (other, second) in itertools.combinations(zip(paths, paintings, strict=True), 2):
        assert np.abs(first - second).mean() > 10, f"{one.name} and {other.name} became alike"


def test_the_example_photos_become_paintings_that_differ(style: SDPGAN):
    assert len(EXAMPLES) >= 4
    check(style, EXAMPLES)


def test_forty_validation_photos_become_paintings_that_differ(style: SDPGAN, shared: Path):
    check(style, sorted((shared / "data" / "photos" / "val").glob("*.jpg"))[::3][:40])


def test_the_saliency_network_finds_the_flower(style: SDPGAN):
    path = next(path for path in EXAMPLES if path.stem == "flower")
    saliency = style.saliency_map(str(path))
    y, x = np.mgrid[: saliency.shape[0], : saliency.shape[1]]
    inside = (x - 308) ** 2 + (y - 223) ** 2 < 110**2
    outside = ((x - 308) ** 2 + (y - 223) ** 2 > 160**2) & (y < 360)
    assert saliency[inside].mean() > saliency[outside].mean() + 0.2


def test_the_flower_keeps_more_of_its_fine_structure_than_the_generator_alone_leaves_it(style: SDPGAN):
    photo = np.asarray(Image.open(next(path for path in EXAMPLES if path.stem == "flower")).convert("RGB"))
    assert style.config["detail_skip"] > 0
    steps = [np.diff(image.astype(np.float32).mean(2)[150:290, 240:370], axis=1).ravel() for image in
             (photo, style.stylize(photo), style.stylize(photo, detail_skip=0))]  # fmt: skip
    kept, alone = (np.corrcoef(steps[0], one)[0, 1] for one in steps[1:])
    assert kept > 0.85 and kept > alone + 0.02
