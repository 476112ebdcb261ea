"""training/data/sources.py: folders, lists and data sets as photos and paintings."""

import io
import json
import subprocess
import sys
import tarfile
from functools import partial
from pathlib import Path, PurePosixPath

import hub_server
import numpy as np
import pytest
from assertions import refusal
from PIL import Image

from sdpgan_hub.files import read_rgb
from training import prepare as prepare_module
from training.data import sources
from training.data.cache import PAINTINGS_READ, prepare, result_path
from training.data.sources import Folder, HubDataset, PathList, fetch, open_source
from training.prepare import main


def picture(seed: int, size: tuple[int, int] = (40, 56)) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=(*size, 3), dtype=np.uint8)


def encoded(seed: int, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture(seed)).save(file, kind)
    return file.getvalue()


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def shard(path: Path, entries: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in entries.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def fetched(source: object, cache: Path) -> list[bytes]:
    return [path.read_bytes() for path in open_source(source).files(cache)]


# lists of paths


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A list in one folder with images in it, below it and outside of it."""
    for seed, name in enumerate(["lists/b.png", "lists/sub/a.png", "elsewhere/a.png"]):
        write(tmp_path / name, encoded(seed))
    text = f"\ufeff# photos\n\nsub/a.png\n  b.png  \n../elsewhere/a.png\n{tmp_path}/lists/./b.png\n# gone.png\n"
    (tmp_path / "lists" / "photos.txt").write_text(text, encoding="utf-8")
    return tmp_path / "lists" / "photos.txt"


def test_a_list_is_its_paths_in_order_each_once_relative_to_the_list(listed: Path, monkeypatch):
    root = listed.parents[1]
    expected = [root / "lists/sub/a.png", root / "lists/b.png", root / "elsewhere/a.png"]
    assert open_source(listed).files("unused") == expected
    monkeypatch.chdir(root)
    assert open_source("lists/photos.txt").files("unused") == expected


def test_the_results_of_listed_images_have_names_of_their_own_inside_the_cache(listed: Path, tmp_path: Path):
    cache = tmp_path / "cache"
    summary = prepare(None, listed, cache, workers=1, progress=False)
    assert (summary.made, summary.failed) == (3, {})
    results = [result_path(cache, PAINTINGS_READ, listed, path) for path in open_source(listed).files(cache)]
    assert len(set(results)) == 3
    assert all(path.is_file() and path.resolve().is_relative_to(cache / "readable/paintings") for path in results)
    assert results[:2] == [cache / "readable/paintings/sub/a.png.png", cache / "readable/paintings/b.png.png"]
    assert prepare(None, str(listed), cache, workers=1, progress=False).kept == 3


def test_a_listed_file_that_is_not_there_is_named_and_skipped(listed: Path, tmp_path: Path, capsys):
    (listed.parent / "b.png").unlink()
    summary = prepare(None, listed, tmp_path / "cache", workers=1, progress=False)
    assert (summary.made, summary.failed) == (2, {str(listed.parent / "b.png"): "no such file"})
    assert "b.png: no such file" in capsys.readouterr().err


# WebDataset shards


@pytest.fixture
def shards(tmp_path: Path, monkeypatch) -> str:
    """Two shards of three samples each, with texts among the images."""
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for number in range(2):
        entries = {}
        for sample in range(3):
            entries |= {f"{sample}.jpg": encoded(3 * number + sample, "JPEG"), f"{sample}.txt": b"caption"}
        shard(tmp_path / f"shards/part-{number:03}.tar", entries)
    return f"{tmp_path / 'shards'}:train"


def test_train_py_takes_a_list_and_shards(launcher, images: Path, tmp_path: Path):
    pytest.importorskip("datasets")
    (tmp_path / "photos.txt").write_text("\n".join(map(str, sorted((images / "photos").iterdir()))))
    shard(tmp_path / "tar/0.tar", {path.name: path.read_bytes() for path in (images / "paintings").iterdir()})
    sources = {"photos": tmp_path / "photos.txt", "paintings": f"{tmp_path}/tar:train", "cache": tmp_path / "cache"}
    settings = {"saliency_network": "false", "saliency_mask": "false"}  # no time for references
    launcher.run(tmp_path / "style", max_steps=5, **settings, **sources)
    facts = json.loads((tmp_path / "style/training.json").read_text())
    assert (facts["steps"], facts["photos"], facts["paintings"]) == (5, 8, 6)


def test_an_interrupted_fetch_goes_on_with_the_row_where_it_stopped(shards: str, tmp_path: Path, monkeypatch):
    store, seen = sources._store, []

    def interrupted(content: bytes | None, stem: Path) -> str | None:
        if len(seen) == 4:
            raise KeyboardInterrupt
        seen.append(content)
        return store(content, stem)

    with monkeypatch.context() as patch:
        patch.setattr(sources, "_store", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch(shards, tmp_path, progress=False)
    assert len(fetched(shards, tmp_path)) == 4
    half = {path: path.stat().st_mtime_ns for path in open_source(shards).files(tmp_path)}
    assert fetch(shards, tmp_path, progress=False) == {}
    assert fetched(shards, tmp_path) == [encoded(seed, "JPEG") for seed in range(6)]
    assert all(path.stat().st_mtime_ns == time for path, time in half.items())


def test_max_images_bounds_a_fetch_and_is_remembered_until_another_is_given(shards: str, tmp_path: Path):
    for limit, expected in ((2, 2), (None, 2), (4, 4), (3, 4), (100, 6)):
        fetch(shards, tmp_path, limit, progress=False)
        assert len(fetched(shards, tmp_path)) == expected
    refusal(lambda: fetch(shards, tmp_path, 0), "max_images is 0")


def test_what_cannot_be_read_in_a_shard_is_named_and_skipped_once_and_for_all(shards: str, tmp_path: Path, capsys):
    broken = {"a.jpg": b"no image", "b.jpg": encoded(1)[:400], "c.jpg": encoded(2)}
    shard(tmp_path / "shards/part-000.tar", broken)
    summary = prepare(None, shards, tmp_path / "cache", workers=1, progress=False)
    errors = capsys.readouterr().err
    assert "train row 0" in errors and "train row 1" in errors and "Traceback" not in errors
    assert summary.made == 4 and encoded(2) in fetched(shards, tmp_path / "cache")
    again = prepare(None, shards, tmp_path / "cache", workers=1, progress=False)
    assert again.failed == summary.failed and again.kept == summary.made and capsys.readouterr().err == ""


def test_formats_that_a_folder_of_images_does_not_have_are_stored_as_png(shards: str, tmp_path: Path):
    shard(tmp_path / "other/a.tar", {"one.jpg": encoded(5, "PPM"), "two.jpg": encoded(6, "WEBP")})
    source = f"{tmp_path}/other:train"
    fetch(source, tmp_path, progress=False)
    first, second = open_source(source).files(tmp_path)
    assert (first.suffix, second.suffix) == (".png", ".webp")
    assert np.array_equal(read_rgb(first), picture(5))


# data sets through `datasets`


@pytest.fixture
def data_set(tmp_path: Path, monkeypatch) -> Path:
    """Parquet files as the Hub has them: a train split with two columns of images and a test split."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    features = datasets.Features(
        {"imageA": datasets.Image(), "text": datasets.Value("string"), "imageB": datasets.Image()}
    )
    rows = {
        "imageA": [{"bytes": encoded(seed), "path": None} for seed in range(5)],
        "text": list("abcde"),
        "imageB": [{"bytes": encoded(10 + seed, "JPEG"), "path": None} for seed in range(4)] + [None],
    }
    folder = tmp_path / "org" / "name"
    (folder / "data").mkdir(parents=True)
    whole = datasets.Dataset.from_dict(rows, features=features)
    for split, numbers in (("train", range(5)), ("test", range(2))):
        whole.select(numbers).to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def test_a_column_of_a_data_set_is_fetched_byte_for_byte_and_a_row_without_image_is_named(
    data_set: Path, tmp_path: Path
):
    source = f"{data_set}:train/imageB"
    skipped = fetch(source, tmp_path / "cache", progress=False)
    assert fetched(source, tmp_path / "cache") == [encoded(10 + seed, "JPEG") for seed in range(4)]
    assert list(skipped) == [f"{data_set}:train row 4"]
    fetch(f"{data_set}:test/imageA", tmp_path / "cache", progress=False)
    assert fetched(f"{data_set}:test/imageA", tmp_path / "cache") == [encoded(0), encoded(1)]


def test_an_image_folder_is_read_through_datasets_too(tmp_path: Path):
    pytest.importorskip("datasets")
    for seed in range(3):
        write(tmp_path / "folder" / "train" / f"{seed}.png", encoded(seed))
    fetch(f"{tmp_path}/folder:train", tmp_path / "cache", progress=False)
    assert fetched(f"{tmp_path}/folder:train", tmp_path / "cache") == [encoded(seed) for seed in range(3)]


def test_photos_and_paintings_of_one_data_set_are_prepared_by_the_command_line(data_set: Path, tmp_path: Path, capsys):
    arguments = ["--cache", str(tmp_path / "cache"), "--workers", "1", "--quiet", "--max_images", "2"]
    arguments += ["--no_references"]
    arguments += ["--photos", f"{data_set}:train/imageA", "--paintings", f"{data_set}:train/imageB"]
    assert main(arguments) == 0
    assert capsys.readouterr().out == "4 made, 0 already there, 0 skipped\n"
    results = [path.relative_to(tmp_path / "cache").parts for path in tmp_path.glob("cache/readable/**/*.png")]
    assert sorted(parts[1] for parts in results) == ["paintings"] * 2 + ["photos"] * 2
    assert main(arguments) == 0
    assert capsys.readouterr().out == "0 made, 4 already there, 0 skipped\n"


def test_a_split_or_column_that_is_not_there_or_not_said_is_one_sentence_with_the_choice(
    data_set: Path, tmp_path: Path
):
    for rest, sentence in (
        (":val/imageA", "no split 'val'; it has train, test"),
        (":train", "one column of images and has several (imageA, imageB)"),
        (":train/text", "no column of images 'text'; it has imageA, imageB"),
    ):
        refusal(partial(fetch, f"{data_set}{rest}", tmp_path / "cache", progress=False), sentence)
    assert not (tmp_path / "cache").exists()


def test_a_name_that_is_neither_here_nor_on_the_hub_is_one_sentence_with_both(tmp_path: Path, monkeypatch, capsys):
    pytest.importorskip("datasets")
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    assert main(["--paintings", "no/such", "--cache", "cache", "--quiet"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: no/such ") and error.count("\n") == 1


class DataSetHandler(hub_server._HubHandler):
    """What `datasets` asks of the Hub: the repositories of the loopback Hub as data sets."""

    routes = (
        ("GET", f"/api/datasets/{hub_server.REPO}(/revision/(?P<revision>[^/]+))?", "info"),
        ("GET", f"/api/datasets/{hub_server.REPO}/tree/(?P<revision>[^/]+)(/(?P<folder>.+))?", "below"),
        ("POST", f"/api/datasets/{hub_server.REPO}/paths-info/(?P<revision>[^/]+)", "paths_info"),
        ("GET", f"/datasets/{hub_server.REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
    )

    def info(self, repo: str, revision: str | None = None) -> None:
        repository, oid = self._open(repo, revision or "main")
        siblings = [{"rfilename": path} for path in sorted(repository.commits[oid])]
        facts = {"id": repo, "private": repository.private, "gated": repository.gated, "sha": oid}
        self.answer_json({**facts, "siblings": siblings, "tags": [], "downloads": 0, "likes": 0})

    def entries(self, repo: str, revision: str) -> list[dict[str, object]]:
        repository, oid = self._open(repo, revision)
        blobs = repository.commits[oid]
        folders = {parent for path in blobs for parent in PurePosixPath(path).parents} - {PurePosixPath(".")}
        files = [hub_server._tree_entry(path, blob) for path, blob in sorted(blobs.items())]
        return files + [{"type": "directory", "path": str(path), "oid": "0" * 40, "size": 0} for path in folders]

    def below(self, repo: str, revision: str, folder: str = ".") -> None:
        paths = [(PurePosixPath(str(entry["path"])), entry) for entry in self.entries(repo, revision)]
        self.answer_json([entry for path, entry in paths if str(path.parent) == folder])

    def paths_info(self, repo: str, revision: str) -> None:
        asked = json.loads(self.body)["paths"]
        self.answer_json([entry for entry in self.entries(repo, revision) if entry["path"] in asked])


@pytest.mark.slow
def test_data_sets_of_the_hub_are_fetched_over_http_with_the_users_token(hub, data_set: Path, tmp_path: Path):
    images = {f"train/{seed}.png": encoded(seed) for seed in range(3)}
    tables = {f"data/{path.name}": path.read_bytes() for path in (data_set / "data").iterdir()}
    hub.add("user/images", images | {"README.md": b"---\nlicense: mit\n---\n"}, private=True)
    hub.add("user/tables", tables)
    server = hub_server._serve(DataSetHandler, hub)

    def run(source: str, token: str | None) -> tuple[int, str]:
        command = [sys.executable, prepare_module.__file__, "--paintings", source, "--cache", "cache", "--workers", "1"]
        environment = hub.environment(tmp_path / f"home {token}", token=token, HF_ENDPOINT=hub_server._address(server))
        done = subprocess.run([*command, "--quiet"], env=environment, cwd=tmp_path, capture_output=True, text=True)
        return done.returncode, done.stderr

    try:
        assert run("user/images", hub.token) == (0, "")
        assert run("user/tables:test/imageA", None) == (0, "")
        code, error = run("user/images:train", None)
        assert code == 2 and "user/images" in error and error.count("\n") == 1
    finally:
        server.shutdown()
        server.server_close()
    assert fetched("user/images", tmp_path / "cache") == list(images.values())
    assert fetched("user/tables:test/imageA", tmp_path / "cache") == [encoded(0), encoded(1)]


# which is which


def test_the_form_of_a_source_says_its_kind(listed: Path, tmp_path: Path):
    assert open_source(tmp_path) == Folder(tmp_path)
    assert open_source(listed) == PathList(listed)
    for text, expected in (
        ("org/name", ("org/name", None, None)),
        ("org/name:test", ("org/name", "test", None)),
        ("org/name/imageA", ("org/name", None, "imageA")),
        ("huggan/vangogh2photo:train/imageB", ("huggan/vangogh2photo", "train", "imageB")),
    ):
        source = open_source(text)
        assert isinstance(source, HubDataset) and (source.data_set, source.split, source.column) == expected
        assert open_source(source) is source


@pytest.mark.parametrize("text", ["nowhere", "./no/where", "/no/such/folder", "film.mp4", "0.tar", "a/b/c/d", ""])
def test_what_is_none_of_the_three_is_refused(text: str, here: Path):
    assert refusal(lambda: open_source(text).files("cache")).startswith(f"{text} ")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_a_list_is_read_in_the_encoding_that_its_editor_writes(listed: Path, encoding: str):
    names = open_source(listed).files("")
    listed.write_text(listed.read_text(), encoding=encoding)
    assert open_source(listed).files("") == names


def test_lists_that_are_not_there_empty_or_binary_are_refused(tmp_path: Path):
    refusal(lambda: open_source(tmp_path / "none.txt"), "none.txt")
    for content, sentence in ((b"# nothing\n", "names no image"), (b"\xff\xfe\x00", "text file of paths")):
        (tmp_path / "list.txt").write_bytes(content)
        refusal(lambda: open_source(tmp_path / "list.txt").files(tmp_path), sentence)


def test_a_source_that_is_not_fetched_says_what_to_run(tmp_path: Path):
    refusal(lambda: open_source("org/name").files(tmp_path), "org/name", "training/prepare.py")


def test_a_missing_library_is_named_with_the_command_that_installs_it(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: None)
    refusal(lambda: fetch("org/name", tmp_path, progress=False), "pip install 'datasets")


def test_a_full_disk_stops_a_fetch_with_one_sentence(shards: str, tmp_path: Path, full_disk):
    refusal(lambda: fetch(shards, tmp_path, progress=False), "cannot be written: No space left")
    assert not list((tmp_path / "images").rglob("*.jpg"))
