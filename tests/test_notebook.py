"""notebooks/sdpgan_hub.ipynb runs from its first cell to its last, as in a kernel."""

import ast
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdpgan_hub import SDPGAN

NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks" / "sdpgan_hub.ipynb"


def code_cells() -> list[dict]:
    return [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]


def run(source: str, names: dict) -> object:
    """Executes a cell among `names`; gives the value of its last line, which a notebook shows, or None."""
    tree = ast.parse(source)
    last = ast.Expression(tree.body.pop().value) if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, NOTEBOOK.name, "exec"), names)
    return None if last is None else eval(compile(last, NOTEBOOK.name, "eval"), names)


def test_the_notebook_is_stored_without_results_and_its_parameters_can_be_replaced():
    cells = code_cells()
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells)
    assert [cell["metadata"].get("tags") for cell in cells] == [["parameters"]] + [None] * (len(cells) - 1)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="the extra 'training' is not installed")
def test_the_notebook_paints_shows_the_map_and_trains_a_style(vgg_weights: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(NOTEBOOK.parent)
    monkeypatch.syspath_prepend(NOTEBOOK.parent)  # what the notebook puts into sys.path goes again, too
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    parameters, *cells = ("".join(cell["source"]) for cell in code_cells())
    names: dict = {}
    run(parameters, names)
    given = {"VGG_WEIGHTS": vgg_weights, "STEPS": 4, "OUTPUT": tmp_path / "runs", "PHOTOS": tmp_path / "photos"}
    assert given.keys() <= names.keys()
    names |= given
    (tmp_path / "photos").mkdir()
    for number in range(4):
        noise = np.random.default_rng(number).integers(256, size=(9, 12, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((120, 96)).save(tmp_path / "photos" / f"{number}.jpg")
    shown = [value for value in (run(cell, names) for cell in cells) if value is not None]
    painting, maps, sheet = (image for image in shown if isinstance(image, Image.Image))
    photo = names["photo"]
    assert painting.size == photo.size and np.abs(np.asarray(painting, int) - np.asarray(photo)).mean() > 5
    assert maps.size == (3 * photo.width, photo.height) and len(np.unique(names["saliency"])) > 100
    assert Path(sheet.filename).name == "step_000004.png" and names["own_painting"].size == photo.size
    style = tmp_path / "runs" / "style"
    assert SDPGAN.from_pretrained(style).config["base_channels"] == 8
    assert json.loads((style / "training.json").read_text())["steps"] == 4
