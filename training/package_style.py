#!/usr/bin/env python
"""Makes a shipped style of a finished training: weights, D if it is kept, config, provenance, card and gallery.

    python training/package_style.py --run OUTPUT_OF_TRAIN --name vangogh

Writes sdpgan_hub/styles/NAME/{config.json,model.safetensors,discriminator.safetensors,training.json,README.md,
gallery.jpg}. The gallery shows the twelve photos of space/examples, in the order of their names, as the style paints
them at 512 px. README's picture, docs/styles.jpg, is cut from the galleries and made anew.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

ROOT = Path(__file__).resolve().parents[1]
if not __package__:  # run as a file: the repository's root is not on the path
    sys.path[0] = str(ROOT)

from sdpgan_hub import SDPGAN  # noqa: E402
from sdpgan_hub.errors import SDPGANError  # noqa: E402
from sdpgan_hub.styles import SHIPPED  # noqa: E402
from training.data import pictures  # noqa: E402
from training.data.sources import image_files  # noqa: E402
from training.run.provenance import DISCRIMINATOR_FILE, card_keywords, read_facts, write_facts  # noqa: E402

CELL = (384, 512)
"""Height and width of a painting in the gallery, in pixels."""
GAP = 8
COLUMNS = 3
OVERVIEW = {"photos": ("astronaut", "flower", "castle"), "styles": ("vangogh", "monet", "ukiyoe", "peppercarrot")}
"""What README's picture shows, from top to bottom and from left to right."""
CREDITS = (
    "Photos, cut and shrunk: NASA, U.S. Navy, Alf van Beem, Derek Jensen, John Severns, Simon Steinberger, Seth "
    "Zeigler (public domain), Rachel Michetti, Stefan van der Walt (CC0), danielbuechele, vultilion (CC BY 2.0), "
    "Aitzol Berasategi (CC BY 4.0)."
)
"""Of space/examples, as its README.md has them; another --photos takes other credits."""


def gallery(model: SDPGAN, photos: list[Path]) -> np.ndarray:
    """Paintings of photos cut to `CELL`, each with its photo in a corner, `COLUMNS` a row; uint8 H x W x 3."""
    cells = []
    for path in photos:
        photo = np.array(ImageOps.fit(Image.fromarray(pictures.read(path)), CELL[::-1], Image.Resampling.LANCZOS))
        cell = model.stylize(photo)
        small = pictures.scaled(photo, CELL[0] // 4, CELL[1] // 4)
        small = np.pad(small, ((3, 0), (0, 3), (0, 0)), constant_values=255)
        cell[-small.shape[0] :, : small.shape[1]] = small
        cells.append(cell)
    return pictures.contact_sheet(cells, COLUMNS, GAP)


def overview(names: list[str]) -> np.ndarray:
    """README's picture: cells of the shipped galleries, whose photos have these `names`; uint8 H x W x 3."""
    galleries = [pictures.read(SHIPPED / style / "gallery.jpg") for style in OVERVIEW["styles"]]
    cells = []
    for photo in OVERVIEW["photos"]:
        row, column = divmod(names.index(photo), COLUMNS)
        top, left = row * (CELL[0] + GAP), column * (CELL[1] + GAP)
        cells += [image[top : top + CELL[0], left : left + CELL[1]] for image in galleries]
    return pictures.contact_sheet(cells, len(galleries), GAP)


def package(run: Path, name: str, limits: str = "", evaluation: str = "", history: str = "") -> Path:
    """Writes the folder of the shipped style and returns it."""
    facts = read_facts(run) | ({"history": history} if history else {})
    model = SDPGAN.from_pretrained(run)
    folder = SHIPPED / name
    paths = image_files(ROOT / "space" / "examples")
    keywords = card_keywords(facts) | {
        "gallery": "![Paintings, each with its photo in the corner](gallery.jpg)\n\n"
        f"Painted by these weights at 512 x 384 px; the photo is in the corner. {CREDITS}"
    }
    keywords |= {key: text for key, text in (("limits", limits), ("evaluation", evaluation)) if text}
    model.save_pretrained(folder, repo_id=name, model_card_kwargs=keywords)
    if (run / DISCRIMINATOR_FILE).exists():
        shutil.copyfile(run / DISCRIMINATOR_FILE, folder / DISCRIMINATOR_FILE)
    write_facts(folder, facts)
    pictures.write(folder / "gallery.jpg", gallery(model, paths), quality=80, subsampling=2)
    if name in OVERVIEW["styles"]:
        names = [path.stem for path in paths]
        pictures.write(ROOT / "docs" / "styles.jpg", overview(names), quality=80, subsampling=2)
    return folder


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--run", type=Path, required=True, help="the output folder of train.py")
    parser.add_argument("--name", required=True, help="the style's name")
    parser.add_argument("--evaluation", type=Path, help="the card's figures: what evaluate.py printed")
    parser.add_argument("--limits", default="", help="the card's paragraph on limits, in Markdown")
    parser.add_argument("--history", default="", help="what went before the run, for the card's section on training")
    arguments = parser.parse_args(argv)
    try:
        evaluation = arguments.evaluation.read_text() if arguments.evaluation else ""
        print(package(arguments.run, arguments.name, arguments.limits, evaluation, arguments.history))
    except (SDPGANError, OSError) as error:
        print(f"package_style.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
