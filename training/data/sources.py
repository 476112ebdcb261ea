"""Where photos and paintings come from: a folder, a list of paths, or a data set.

    photos/                                  every image below a folder; hidden ones passed over, links followed once
    photos.txt                               a path a line, relative to the file; lines that begin with # are comments
    org/name, org/name:split/column          a data set of the Hub (`pip install datasets`). The split may be left out
                                             where there is one, or one named train; the column where only one holds
                                             images
    FOLDER:split/column                      a data set on disk: a copy of one of the Hub, or WebDataset shards

Every sample of a training is a function of its number, and saliency references are cached by image, so images have to
be addressable: a data set is streamed once (`fetch`) into CACHE/images/, bytes as they are, and read from there. What
was fetched is not compared with its origin again; delete its folder to have it anew. Fetching may be stopped at any
time and goes on where it stopped.
"""

from __future__ import annotations

import codecs
import hashlib
import importlib.util
import io
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from sdpgan_hub.errors import SDPGANError, one_line
from sdpgan_hub.files import HEIF_SUFFIXES, INPUT_SUFFIXES, files_below, is_image_name, opened, read_rgb, write_whole

from . import pictures

IMAGE_SUFFIXES = frozenset(INPUT_SUFFIXES + HEIF_SUFFIXES)
SUFFIX_OF_FORMAT = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tif"}
LIST_SUFFIXES = (".txt", ".lst")
DATASET = re.compile(r"(?P<name>\w[\w.-]*/\w[\w.-]*)(?::(?P<split>[\w.-]+))?(?:/(?P<column>[\w.-]+))?")
DATASET_ON_DISK = re.compile(r"(?P<name>.+):(?P<split>[\w.-]+)(?:/(?P<column>[\w.-]+))?")
STATE_FILE = "fetched.json"
ROWS_BETWEEN_STATES = 100
IMAGES_IN_A_FOLDER = 1000

T = TypeVar("T")


def image_files(folder: str | Path) -> list[Path]:
    """Every image file below `folder`, as `files_below` finds it; SDPGANError where there is none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise SDPGANError(f"{folder} is not a folder.")
    found = [path for path in files_below(folder) if is_image_name(path)]
    if not found:
        raise SDPGANError(f"{folder} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}).")
    return found


def by_stem(folder: str | Path) -> dict[Path, Path]:
    """The image files of a folder: relative path without suffix -> file; PNG wins over the lossy ones."""
    files = sorted(image_files(folder), key=lambda path: path.suffix.lower() == ".png")
    return {path.relative_to(folder).with_suffix(""): path for path in files}


def spread(items: list[T], count: int | None) -> list[T]:
    """`count` of them at even distances; all where there are no more, or for None."""
    if count is None or len(items) <= count:
        return items
    return [items[round(place)] for place in np.linspace(0, len(items) - 1, count)]


@dataclass(frozen=True)
class Source:
    """What `given` names: a `Folder`, a `PathList` or a `HubDataset`.

    `files(cache)` are its images, in a fixed order; SDPGANError where there is none. `name(file, cache)` is a relative
    path that no other of them has; results in the cache are named after it.
    """

    given: Path | str

    def missing(self) -> list[Path]:
        """Files that are named and are not there."""
        return []

    def __str__(self) -> str:
        return str(self.given)


class Folder(Source):
    """Every image below a folder."""

    def files(self, cache: str | Path) -> list[Path]:
        return image_files(self.given)

    def name(self, file: Path, cache: str | Path) -> Path:
        return file.relative_to(self.given)


class PathList(Source):
    """The image files named in a text file, in its order, each once."""

    def files(self, cache: str | Path) -> list[Path]:
        found = [file for file in self._named if file.is_file()]
        if not found:
            raise SDPGANError(f"{self} names no image that is there.")
        return found

    def name(self, file: Path, cache: str | Path) -> Path:
        folder = Path(os.path.abspath(self.given.parent))
        if file.is_relative_to(folder):
            return file.relative_to(folder)
        return Path("@" + file.drive.replace(":", "")) / file.relative_to(file.anchor)

    def missing(self) -> list[Path]:
        return [file for file in self._named if not file.is_file()]

    @cached_property
    def _named(self) -> list[Path]:
        return list(dict.fromkeys(Path(os.path.abspath(self.given.parent / line)) for line in _lines(self.given)))


@dataclass(frozen=True)
class HubDataset(Source):
    """A column of images in a data set that the `datasets` library can stream: of the Hub, or in a folder.

    `fetch` brings it into CACHE/images/<name and digest of what it is>/.
    """

    data_set: str
    split: str | None
    column: str | None

    def folder(self, cache: str | Path) -> Path:
        """Where its images lie in `cache`."""
        readable = re.sub(r"[^\w.-]+", "-", self.given).strip("-.")[-60:]
        identity = json.dumps([self.data_set, self.split, self.column])
        return Path(cache) / "images" / f"{readable}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"

    def files(self, cache: str | Path) -> list[Path]:
        folder = self.folder(cache)
        if not folder.is_dir():
            raise SDPGANError(
                f"{self} is not a folder, and what it names has not been fetched and prepared in {cache}; run "
                "training/prepare.py with this source and cache."
            )
        return image_files(folder)

    def name(self, file: Path, cache: str | Path) -> Path:
        return file.relative_to(Path(cache) / "images")

    def rows(self, start: int) -> Iterator[tuple[str, bytes | None]]:
        """The rows from number `start` on, the same ones every time: how a message calls one, and its file's bytes."""
        if importlib.util.find_spec("datasets") is None:
            raise SDPGANError(f"{self} is not a folder; to read it as a Hub data set: pip install 'datasets>=3'.")
        import fsspec
        from datasets import Image as ImageFeature
        from datasets import load_dataset

        try:
            splits = load_dataset(self.data_set, streaming=True)
        except Exception as error:  # its many kinds: no such repository, no access, no network, unknown format
            raise SDPGANError(
                f"{self} is not a folder here, and the data set {self.data_set} cannot be read: {one_line(error)}"
            ) from error
        split = self.split or ("train" if "train" in splits else _only(list(splits), self, "split"))
        if split not in splits:
            raise SDPGANError(f"{self.data_set} has no split {split!r}; it has {', '.join(splits)}.")
        features = splits[split].features or {}
        image_columns = [name for name, feature in features.items() if isinstance(feature, ImageFeature)]
        column = self.column or _only(image_columns, self, "column of images")
        if column not in image_columns:
            raise SDPGANError(
                f"{self.data_set}:{split} has no column of images {column!r}; it has {', '.join(image_columns) or '-'}."
            )
        images = splits[split].decode(False).select_columns([column])
        for number, row in enumerate(images.skip(start), start):
            image = row[column] or {}
            content = image.get("bytes")
            if content is None and image.get("path"):
                with fsspec.open(image["path"], "rb") as file:
                    content = file.read()
            yield f"{self.data_set}:{split} row {number}", content


def open_source(source: str | Path | Source) -> Source:
    """What `source` names, by its form and what is on disk; SDPGANError for what is none of the three kinds."""
    if isinstance(source, Source):
        return source
    text, path = str(source), Path(source)
    if text and path.is_dir():
        return Folder(path)
    if path.suffix.lower() in LIST_SUFFIXES:
        if not path.is_file():
            raise SDPGANError(f"The list {path} does not exist.")
        return PathList(path)
    match = DATASET_ON_DISK.fullmatch(text)
    if match and Path(match["name"]).is_dir():
        return HubDataset(text, str(Path(match["name"]).resolve()), match["split"], match["column"])
    match = DATASET.fullmatch(text)
    if match and not path.exists():
        return HubDataset(text, match["name"], match["split"], match["column"])
    raise SDPGANError(
        f"{source} is not a folder, nor a list of images (.txt), or a data set (org/name, or FOLDER:train for the "
        "WebDataset shards in FOLDER)."
    )


def fetch(
    source: str | Path | Source, cache: str | Path, max_images: int | None = None, progress: bool = True
) -> dict[str, str]:
    """Bring a streamed source into `cache`, as far as it is not there yet; nothing for a folder and a list.

    max_images: fetch so many at most; by default as many as `cache` was last told to, or all. What is there already
    is kept. Returns what cannot be read -> why; it is named on stderr when met, and skipped. Raises SDPGANError for
    an unknown source, for one without a readable image, for a missing library and for a cache that cannot be written.
    """
    if max_images is not None and max_images < 1:
        raise SDPGANError(f"max_images is {max_images}; it must be at least 1.")
    source = open_source(source)
    if not isinstance(source, HubDataset):
        return {}
    folder = source.folder(cache)
    state = _State.read(folder / STATE_FILE, source)
    state.limit = max_images or state.limit
    if not state.complete and (state.limit is None or state.images < state.limit):
        bar = tqdm(total=state.limit, initial=state.images, desc=f"fetch {source}", unit="image", disable=not progress)
        with bar:
            _fetch_rows(source, folder, state, bar)
    if not state.images:
        raise SDPGANError(f"{source} holds no image that can be read.")
    return state.skipped


@dataclass
class _State:
    """How far a fetch has come."""

    source: str
    rows: int = 0
    images: int = 0
    limit: int | None = None
    complete: bool = False
    skipped: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, source: HubDataset) -> _State:
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return cls(str(source))
        except (OSError, ValueError, TypeError) as error:
            raise SDPGANError(f"{path} cannot be read; delete the folder {path.parent} to fetch again.") from error

    def write(self, path: Path) -> None:
        write_whole(path, json.dumps(asdict(self), indent=1).encode())


def _fetch_rows(source: HubDataset, folder: Path, state: _State, bar: tqdm) -> None:
    try:
        for label, content in source.rows(state.rows):
            problem = _store(content, folder / f"{state.rows // IMAGES_IN_A_FOLDER:05d}" / f"{state.rows:08d}")
            state.rows += 1
            if problem is None:
                state.images += 1
                bar.update()
            else:
                skip(state.skipped, label, problem)
            if state.rows % ROWS_BETWEEN_STATES == 0:
                state.write(folder / STATE_FILE)
            if state.images == state.limit:
                break
        else:
            state.complete = True
    except SDPGANError:
        raise
    except Exception as error:  # whatever a network or a decoder of tables raises
        raise SDPGANError(
            f"{source} broke off after {state.rows} rows ({one_line(error)}); run the same command again to go on."
        ) from error
    finally:
        if state.rows:
            state.write(folder / STATE_FILE)


def skip(skipped: dict[str, str], name: str, reason: str) -> None:
    """Notes in `skipped` why a file has no result, and says so on stderr, above a progress bar if there is one."""
    skipped[name] = reason
    with tqdm.external_write_mode(file=sys.stderr):
        print(f"warning: skipped {reason if name in reason else f'{name}: {reason}'}", file=sys.stderr)


def _store(content: bytes | None, stem: Path) -> str | None:
    """Write the image if it can be read to its end; else why not."""
    if content is None:
        return "it holds no image"
    try:
        with opened(io.BytesIO(content)) as image:
            suffix = SUFFIX_OF_FORMAT.get(image.format or "")
        pixels = read_rgb(io.BytesIO(content))
    except SDPGANError as error:
        return str(error)
    except Exception as error:  # whatever a broken file makes a decoder do
        return one_line(error)
    if suffix is not None:
        write_whole(stem.with_suffix(suffix), content)
    else:
        pictures.write(stem.with_suffix(".png"), pixels)
    return None


def _lines(path: Path) -> list[str]:
    """The lines of a text file in UTF-8, or, as Windows PowerShell writes it, in UTF-16 with its mark."""
    try:
        content = path.read_bytes()
        encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
        lines = [line.strip() for line in content.decode(encoding).replace("\0", "").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise SDPGANError(f"{path} cannot be read as a text file of paths: {one_line(error)}") from error
    return [line for line in lines if line and not line.startswith("#")]


def _only(names: list[str], source: Source, kind: str) -> str:
    if len(names) == 1:
        return names[0]
    choice = f"several ({', '.join(names)}); add one, as in org/name:split/column" if names else "none"
    raise SDPGANError(f"{source} needs one {kind} and has {choice}.")
