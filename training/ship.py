#!/usr/bin/env python
"""Makes a shipped style of a finished training: weights, config, facts, and a card with a gallery.

    python training/ship.py --run OUTPUT_OF_TRAIN --name vangogh

Writes sdpgan_hub/styles/NAME/{config.json,model.safetensors,training.json,README.md,gallery.jpg}. The gallery shows the
photos of space/examples, whose terms are clear; each with its painting and its saliency map.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sdpgan_hub import SDPGAN  # noqa: E402
from sdpgan_hub.errors import SDPGANError  # noqa: E402
from sdpgan_hub.styles import SHIPPED  # noqa: E402
from sdpgan_hub.visualization import heat_map  # noqa: E402
from training.facts import card_keywords, read_facts, write_facts  # noqa: E402
from training.prepare import image_files, read_rgb  # noqa: E402


def gallery(model: SDPGAN, photos: list[Path], width: int = 320, gap: int = 8, columns: int = 2) -> np.ndarray:
    """Photo, painting and saliency map side by side, `columns` such triples a row; uint8 H x W x 3.

    Each photo is cut to 4:3 about its middle and scaled to `width` px before it is painted.
    """
    height = width * 3 // 4

    def cut(photo: np.ndarray) -> np.ndarray:
        scale = max(width / photo.shape[1], height / photo.shape[0])
        photo = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        top, left = (photo.shape[0] - height) // 4, (photo.shape[1] - width) // 2
        return np.ascontiguousarray(photo[top : top + height, left : left + width])

    def cell(image: np.ndarray) -> np.ndarray:
        return np.pad(image, ((0, gap), (0, gap), (0, 0)), constant_values=255)

    triples = []
    for path in photos:
        photo = cut(read_rgb(path))
        painting, saliency = model.stylize(photo, return_saliency=True)
        triples.append(np.concatenate([cell(photo), cell(painting), cell(heat_map(saliency))], axis=1))
    triples += [np.full_like(triples[0], 255)] * (-len(triples) % columns)
    rows = [np.concatenate(triples[first : first + columns], axis=1) for first in range(0, len(triples), columns)]
    return np.concatenate(rows)[:-gap, :-gap]


def ship(run: Path, name: str, photos: Path, limits: str = "", evaluation: str = "", history: str = "") -> Path:
    """Writes the folder of the shipped style and returns it."""
    facts = read_facts(run) | ({"history": history} if history else {})
    model = SDPGAN.from_pretrained(run)
    folder = SHIPPED / name
    paths = image_files(photos)
    names = ", ".join(path.stem for path in paths)
    keywords = card_keywords(facts) | {
        "gallery": "![Photos, paintings, saliency maps](gallery.jpg)\n\n"
        f"Left to right: photo of 320 x 240 px, painting, saliency map ({names}; sources and "
        "terms in space/examples/README.md)."
    }
    keywords |= {key: text for key, text in (("limits", limits), ("evaluation", evaluation)) if text}
    model.save_pretrained(folder, repo_id=name, model_card_kwargs=keywords)
    write_facts(folder, facts)
    sheet = cv2.cvtColor(gallery(model, paths), cv2.COLOR_RGB2BGR)
    cv2.imwrite(str(folder / "gallery.jpg"), sheet, [cv2.IMWRITE_JPEG_QUALITY, 85])
    return folder


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--run", type=Path, required=True, help="the output folder of train.py")
    parser.add_argument("--name", required=True, help="the style's name")
    parser.add_argument("--photos", type=Path, default=ROOT / "space" / "examples", help="photos of the gallery")
    parser.add_argument("--evaluation", type=Path, help="the card's figures: what evaluate.py printed")
    parser.add_argument("--limits", default="", help="the card's paragraph on limits, in Markdown")
    parser.add_argument("--history", default="", help="what went before the run, for the card's section on training")
    arguments = parser.parse_args(argv)
    try:
        evaluation = arguments.evaluation.read_text() if arguments.evaluation else ""
        print(ship(arguments.run, arguments.name, arguments.photos, arguments.limits, evaluation, arguments.history))
    except SDPGANError as error:
        print(f"ship.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
