"""sdpgan_hub/export.py: in ONNX Runtime the file paints what `stylize` paints, at sizes that the export never saw."""

import builtins
from pathlib import Path

import numpy as np
import pytest
import torch
from assertions import one_line, refusal
from skimage import data
from test_model import DEPARTED, TINY

from sdpgan_hub import SDPGAN, export
from sdpgan_hub.cli import main

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

SHIPPED = {**DEPARTED, "context_blocks": 1, "saliency_size": 32, "noise": 0.2, "shock_filter": 2}
MODELS = {
    "paper": TINY,
    "paper, coarse to fine, keeping detail": {**TINY, "brush_size": 32, "keep_detail": 0.5},
    "shipped": SHIPPED,
    "shipped, without features": {**SHIPPED, "feature_concatenation": False},
    "shipped, keeping all detail": {**SHIPPED, "keep_detail": 1.0},
    "without S": {**TINY, "feature_concatenation": False, "saliency_network": False, "noise": 0.2, "brush_size": 32},
}
SIZES = [(1, 7), (45, 62), (61, 90), (203, 118)]
"""Once at their own size, once, twice and three times."""


def built(options: dict) -> SDPGAN:
    """Of which each part shows in the painting and the map, as in a trained one."""
    torch.manual_seed(0)
    model = SDPGAN(**options).eval()
    with torch.no_grad():
        for network in (model.generator, model.saliency_network):
            if network is not None:
                weight = network.output[0].weight
                weight *= 0.5 / (weight.std() * weight[0].numel() ** 0.5)
    return model


def photo(height: int, width: int) -> torch.Tensor:
    image = np.ascontiguousarray(data.astronaut()[:height, 150 : 150 + width])
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255


@pytest.fixture(scope="module", params=MODELS, ids=lambda name: name.replace(" ", "-"))
def exported(request: pytest.FixtureRequest, tmp_path_factory) -> tuple[SDPGAN, onnxruntime.InferenceSession]:
    model = built(MODELS[request.param])
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    assert export.export(model, path) < 1e-3
    return model, onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.fixture
def saved(tmp_path) -> Path:
    built(TINY).save_pretrained(tmp_path / "tiny", dtype=torch.float32)
    return tmp_path / "tiny"


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_file_gives_the_painting_and_the_map_of_stylize(exported, size):
    model, session = exported
    image = photo(*size)
    given = session.run(None, {"photo": image.numpy()})
    if model.saliency_network is None:
        painting, (ours,) = model.stylize(image, tile=None), given
    else:
        (painting, saliency), (ours, map_) = model.stylize(image, return_saliency=True, tile=None), given
        assert map_.shape == (1, 1, *size) and np.abs(map_[:, 0] - saliency).max() < 1e-3
    assert ours.shape == (1, 3, *size) and np.abs(ours - painting.numpy()).max() < 1e-3


def test_several_photos_go_in_at_once(exported):
    model, session = exported
    image = torch.cat([photo(45, 62), photo(62, 45).mT.flip(3)])
    painting = model.stylize(image, tile=None)
    assert np.abs(session.run(["painting"], {"photo": image.numpy()})[0] - painting.numpy()).max() < 1e-3


@pytest.mark.parametrize("brush_size", [0, 32, 172, 204, 256])
def test_the_sizes_in_the_graph_are_those_of_the_painter(brush_size):
    for height, width in [(16, 16), (36, 1200), (512, 516), (300, 400), (308, 304), (736, 732), (1760, 2400)]:
        expected = export.filters.coarse_to_fine(height, width, brush_size)
        assert list(map(tuple, export.coarse_to_fine(height, width, brush_size).tolist())) == expected


def test_the_file_says_what_it_takes_and_gives_and_carries_the_style_s_card(saved, tmp_path):
    export.export(SDPGAN.from_pretrained(saved), tmp_path / "model.onnx", "Tiny")
    file = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(file, full_check=True)
    assert "Tiny" in file.doc_string and "[0, 1]" in file.doc_string
    assert {entry.key: entry.value for entry in file.metadata_props} == {
        "model_card": (saved / "README.md").read_text()
    }
    assert [value.name for value in file.graph.input] == ["photo"]
    assert [value.name for value in file.graph.output] == ["painting", "saliency"]


def test_a_file_that_would_paint_otherwise_is_not_written(tmp_path, monkeypatch):
    sizes = export.coarse_to_fine
    monkeypatch.setattr(export, "coarse_to_fine", lambda height, width, brush: sizes(height, width, 0))
    refusal(lambda: export.export(built(SHIPPED), tmp_path / "model.onnx"), "model.onnx is not written:", "torch")
    assert not list(tmp_path.iterdir())


def test_the_model_stays_as_it_is(tmp_path):
    model = built(SHIPPED).half().train()
    export.export(model, tmp_path / "model.onnx")
    assert model.training and next(model.parameters()).dtype == torch.float16


def test_the_command_writes_the_file_and_says_how_close_it_is(saved, tmp_path, capsys):
    path = tmp_path / "new" / "model.onnx"
    assert main(["export", "--style", str(saved), str(path)]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{path}\n" and "as torch paints" in captured.err
    image = photo(61, 90)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    painting = SDPGAN.from_pretrained(saved).stylize(image)
    assert np.abs(session.run(["painting"], {"photo": image.numpy()})[0] - painting.numpy()).max() < 1e-3


def test_a_file_is_replaced_only_when_asked_to(saved, tmp_path, capsys):
    path = tmp_path / "model.onnx"
    path.write_text("mine")
    assert main(["export", "--style", str(saved), str(path)]) == 2
    assert path.read_text() == "mine" and "--overwrite" in capsys.readouterr().err
    assert main(["export", "--style", str(saved), str(path), "--overwrite"]) == 0
    assert path.stat().st_size > 1000


@pytest.mark.parametrize("name", ["model.pt", "model", "folder.onnx"])
def test_what_is_no_name_of_an_onnx_file_is_refused(name, saved, tmp_path, capsys):
    (tmp_path / "folder.onnx").mkdir()
    assert main(["export", "--style", str(saved), str(tmp_path / name), "--overwrite"]) == 2
    assert name in capsys.readouterr().err
    assert not (tmp_path / name).is_file()


@pytest.mark.parametrize("library", ["onnx", "onnxruntime"])
def test_without_the_extra_one_sentence_names_it(library, saved, tmp_path, monkeypatch, capsys):
    there = builtins.__import__

    def gone(name, *arguments):
        if name == library:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return there(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", gone)
    assert main(["export", "--style", str(saved), str(tmp_path / "model.onnx")]) == 2
    errors = one_line(capsys)
    assert f"needs {library}:" in errors and "sdpgan_hub[onnx]" in errors
