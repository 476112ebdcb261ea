"""training/ablate.py: which settings a variant has, what is refused, and a whole comparison at a tiny size."""

import dataclasses
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import training_extra  # noqa: F401
from assertions import refusal
from training_fixtures import TINY

from sdpgan_hub import SDPGAN
from training import ablate as ablation
from training.data import pictures
from training.run.config import TrainingConfig

CONFIGS = Path(__file__).resolve().parents[1] / "training" / "configs"
BASES = ("ablation", "lite", "monet", "peppercarrot", "quick", "start", "ukiyoe", "vangogh")
"""Configs of whole trainings, which are no ablations."""


def test_each_shipped_ablation_differs_from_the_paper_in_what_its_name_says():
    names = sorted(path.stem for path in CONFIGS.glob("*.yaml") if path.stem not in BASES)
    changes = {variant.name: variant.changes for variant in ablation.read_variants(names, CONFIGS / "paper.yaml")}
    assert changes == {
        "cartoongan": {"saliency_network": False, "saliency_mask": False},
        "no_con_s": {"w_con_s": 0},
        "no_concatenation": {"feature_concatenation": False},
        "no_decay": {"w_con_decay": 1},
        "no_mask": {"saliency_mask": False},
        "no_saliency_network": {"saliency_network": False},
        "paper": {},
        **{f"w_con_{w_con:g}": {"w_con": w_con / 4} for w_con in (0.1, 1, 5, 10)},  # in the release's feature scale
        "w_con_0.25": {},
    }
    assert set(ablation.VARIANTS) - {"full"} < set(names)


def test_the_papers_config_is_the_defaults():
    (variant,) = ablation.read_variants(["paper"], None)
    assert variant.config == TrainingConfig() and variant.changes == {}


def test_a_variant_replaces_the_base_and_set_replaces_both(tmp_path: Path):
    (tmp_path / "base.yaml").write_text("w_con: 0.6\nupsampling: bilinear\nbatch_size: 2\n")
    (tmp_path / "mine.yaml").write_text("w_con: 3\nw_con_s: 0.5\nbatch_size: 8\n")
    full, mine, no_mask = ablation.read_variants(
        ["full", str(tmp_path / "mine.yaml"), "no_mask"], tmp_path / "base.yaml", {"batch_size": "1"}, seed=7
    )
    base = TrainingConfig(w_con=0.6, upsampling="bilinear", batch_size=1, seed=7)
    assert full.config == base and full.changes == {}
    assert mine.config == dataclasses.replace(base, w_con=3, w_con_s=0.5) and mine.name == "mine"
    assert mine.changes == {"w_con": 3, "w_con_s": 0.5}
    assert no_mask.config == dataclasses.replace(base, saliency_mask=False)
    assert ablation.read_variants(["full"], None, {"seed": "5"})[0].config.seed == 5


def test_wrong_variants_and_settings_are_one_sentence(tmp_path: Path):
    (tmp_path / "no_mask.yaml").write_text("saliency_mask: false\n")
    (tmp_path / "wrong.yaml").write_text("w_conn: 1\n")
    refusal(lambda: ablation.read_variants(["full", "no_such"], None), "'no_such'", "full,", "cartoongan,", "no_mask")
    refusal(lambda: ablation.read_variants(["no_mask", str(tmp_path / "no_mask.yaml")], None), "no_mask")
    refusal(lambda: ablation.read_variants([str(tmp_path / "wrong.yaml")], None), "'w_conn'")
    refusal(lambda: ablation.read_variants(["no_mask"], None, {"batch_size": "many"}), "batch_size is 'many'")


@pytest.fixture
def command(images: Path, vgg_weights: Path, inception: Path, tmp_path: Path) -> list[str]:
    """A comparison of two variants at the smallest size."""
    for number in range(8):
        stripes = (np.sin(np.arange(70) * (number + 1) / 3)[:, None, None] * 100 + 128) * np.ones((70, 66, 3))
        pictures.write(tmp_path / "val_paintings" / f"{number}.png", stripes.astype(np.uint8))
    settings = [f"{key}={value}" for key, value in TINY.items()]
    return ["--variants", "full", "cartoongan", "--set", *settings, "--max_steps", "6", "--photos",
            str(images / "photos"), "--paintings", str(images / "paintings"), "--masks", str(images / "masks"),
            "--val_photos", str(images / "photos"),
            "--val_paintings", str(tmp_path / "val_paintings"), "--output", str(tmp_path / "out"), "--vgg_weights",
            str(vgg_weights), "--inception", str(inception), "--feature_layer", "64", "--size", "64", "--limit", "4",
            "--cpu", "--sheet_photos", "3",
            "--launch=--cpu --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no"]  # fmt: skip


def test_wrong_options_are_one_sentence_before_any_training(command: list[str], tmp_path: Path, capsys):
    reasons = {
        "--max_steps=0": "--max_steps is 0",
        "--set=w_con": "KEY=VALUE",
        "--set=w_conn=1": "KEY=VALUE",
        "--base=nowhere.yaml": "nowhere.yaml",
        "--val_photos=no_val": "no_val",
        "--val_paintings=no_paintings": "no_paintings",
    }
    for extra, reason in reasons.items():
        assert ablation.main([*command, extra]) == 2
        said = capsys.readouterr().err
        assert said.startswith("ablate.py: ") and reason in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_finished_variant_is_not_trained_again_and_another_plan_is_refused(command: list[str], tmp_path: Path):
    options = ablation.parse_arguments([*command, "--launch=--no-such-option-of-accelerate"])
    (full,) = ablation.read_variants(["full"], None)
    failure = ablation.train(full, options)  # the launcher refuses its option: nothing has been trained
    assert failure is not None and "train.log" in failure
    record = tmp_path / "out/full/ablation.json"
    assert json.loads(record.read_text())["finished"] is False
    record.write_text(json.dumps(json.loads(record.read_text()) | {"finished": True}))
    log = (tmp_path / "out/full/train.log").read_text()
    assert ablation.train(full, options) is None and (tmp_path / "out/full/train.log").read_text() == log
    other = dataclasses.replace(full, config=dataclasses.replace(full.config, w_con=3.0))
    refusal(lambda: ablation.train(other, options), "w_con (0.0625 there, 3.0 here)")
    log = tmp_path / "out/full/train.log"
    log.write_text("train.py: of an earlier run\n")
    record.write_text(json.dumps(json.loads(record.read_text()) | {"finished": False}))
    assert "earlier" not in ablation.train(full, options)
    options.mixed_precision = "bf16"
    refusal(lambda: ablation.train(full, options), "mixed_precision (None there, 'bf16' here)")
    options.max_steps = 7
    refusal(lambda: ablation.train(full, options), "max_steps (6 there, 7 here)")


def test_the_sheet_has_a_pair_of_rows_a_photo_and_a_column_a_variant(tmp_path: Path):
    photo = cv2.resize(np.random.default_rng(0).integers(256, size=(8, 10, 3), dtype=np.uint8), (80, 64))
    variants = ablation.read_variants(["full", "no_saliency_network"], None)
    torch.manual_seed(0)
    models = [SDPGAN(4, 1), SDPGAN(4, 1, feature_concatenation=False, saliency_network=False)]
    for variant, model in zip(variants, models, strict=True):
        model.save_pretrained(tmp_path / variant.name)
        for number in range(4):
            pictures.write(tmp_path / variant.name / "pictures" / "photos" / f"{number}.png", photo)
            painting = np.full_like(photo, 40 * number)
            pictures.write(tmp_path / variant.name / "pictures" / "outputs" / f"{number}.png", painting)
    sheet = ablation.sheet(variants, tmp_path, photos=2)
    side, gap, top = 64, ablation.GAP, ablation.CAPTION_HEIGHT
    assert sheet.shape == (top + 4 * side + gap, 3 * side + 2 * gap, 3)

    def cell(row: int, column: int) -> np.ndarray:
        return sheet[top + row * side + row // 2 * gap :, column * (side + gap) :][:side, :side]

    assert np.array_equal(cell(0, 0), pictures.centre_square(photo))
    assert (cell(0, 1) == 0).all() and (cell(2, 1) == 120).all() and (cell(2, 2) == 120).all()
    assert cell(1, 1).std() > 0 and (cell(1, 2) == 255).all()
    assert (sheet[:top, side + gap : 2 * side] < 128).any()


@pytest.mark.slow
def test_variants_are_trained_measured_compared_and_gone_on_with(command: list[str], tmp_path: Path, capsys):
    out = tmp_path / "out"
    assert ablation.main(command) == 0
    printed = capsys.readouterr().out
    assert printed == (out / "table.md").read_text()
    assert "| cartoongan | saliency_network False, saliency_mask False | " in printed and "KID-64" in printed
    assert "*untouched photos*" in printed
    document = json.loads((out / "table.json").read_text())
    assert list(document["variants"]) == ["full", "cartoongan"]
    assert all(0 < row["figures"]["salient detail kept"] < 1 for row in document["variants"].values())
    assert json.loads((out / "full/training.json").read_text())["steps"] == 6
    assert SDPGAN.from_pretrained(out / "cartoongan").saliency_network is None
    assert cv2.imread(str(out / "sheet.png")).shape[1] == 3 * 64 + 2 * ablation.GAP

    files = [*out.glob("*/train.log"), *out.glob("*/model.safetensors"), *out.glob("*/evaluation.json")]
    before = {path: path.stat().st_mtime_ns for path in files}
    shutil.rmtree(out / "cartoongan")
    shutil.rmtree(out / "full/pictures/outputs")  # would be written again by a new evaluation
    shutil.move(out / "full/checkpoints/step_00000006", tmp_path / "newest")
    (out / "full/evaluation.json").unlink()
    assert ablation.main(command) == 0
    assert capsys.readouterr().out == printed  # the same data, seed and steps: the same figures
    assert len(before) == 6
    for name in ("train.log", "model.safetensors"):
        assert (out / "full" / name).stat().st_mtime_ns == before[out / "full" / name]

    # a variant stopped half-way goes on from its checkpoint
    shutil.rmtree(out / "full/checkpoints")
    shutil.move(tmp_path / "newest", out / "full/checkpoints/step_00000006")
    record = out / "full/ablation.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"finished": False}))
    (out / "full/train.log").write_text("")
    assert ablation.main(command) == 0
    assert "resumed step_00000006" in (out / "full/train.log").read_text()
