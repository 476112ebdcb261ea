"""Video files painted frame by frame, steadily, with their sound and their times. Needs PyAV: the extra `video`.

A film is painted in segments of `SEGMENT` frames, each a small video in a hidden folder beside the result, together
with what the next one takes over. Where painting was stopped or failed, as on a full disk, the same call goes on after
the last whole segment; a folder from which it could not is removed. In the end the segments are joined without encoding
them again, and the sound and the subtitles are copied as they are.
A lock keeps a second process from the same result.
Memory holds a frame, the one before and the encoder, however long the film is.
"""

from __future__ import annotations

import hashlib
import heapq
import io
import json
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

try:
    import av
except ModuleNotFoundError:  # `stylize` says so
    pass

from . import __version__
from .errors import SDPGANError, SDPGANWarning, one_line
from .files import INSTALL_VIDEO, UNFINISHED, VIDEO_FORMATS, can_read_video, file_errors, write_whole
from .scene import Scene

if TYPE_CHECKING:
    from tqdm import tqdm

SEGMENT = 24
"""Frames that are painted before they are safe from a kill."""
UNFINISHED_SEGMENT, WHOLE = "unfinished", "whole"
"""What is being written in a film's folder: a segment, and the result."""
H264 = ("libx264", {"crf": "18", "preset": "medium"})
ENCODERS = {
    "mp4": H264,
    "mov": H264,
    "matroska": H264,
    "webm": ("libvpx-vp9", {"crf": "24", "b": "0", "row-mt": "1", "deadline": "good", "cpu-used": "4"}),
}
"""Of each container: its encoder and how fine it is."""
SWSCALE = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
"""Numbers of the coefficients between RGB and YCbCr: those of frames -> those of the conversion; else BT.601's, 5."""
KEPT_METADATA = ("title", "artist", "author", "copyright", "creation_time", "date")
COPIED = ("audio", "subtitle")

Paint = Callable[[np.ndarray, Scene], np.ndarray]


@dataclass
class Progress:
    """What is painted of a film: whole segments, and of each frame its time and duration in the film's time base."""

    segments: int = 0
    times: list[int] = field(default_factory=list)
    durations: list[int] = field(default_factory=list)


def stylize(
    source: str | os.PathLike,
    target: str | os.PathLike,
    paint: Paint,
    settings: str,
    *,
    keep_metadata: bool = False,
    quiet: bool = True,
) -> None:
    """Paints a film into another one of the same size, times, turn and sound.

    The picture is encoded as H.264, or VP9 in .webm. Of several pictures the first is painted.

    Args:
        source: a video file.
        target: the file to write, with a suffix of `files.VIDEO_FORMATS`; one that is there is replaced.
        paint: takes each frame, upright, H x W x 3, uint8, RGB, and the scene, and gives a painting of that kind.
        settings: names all that decides how `paint` paints; what was begun with others is begun anew.
        keep_metadata: keep title, date, author and copyright; the place is never kept.
        quiet: no progress bar on stderr.

    Raises:
        SDPGANError: if PyAV is missing, the source is no whole video, the target cannot hold it, or `paint` fails.
    """
    source, target = Path(source), Path(target)
    if not can_read_video():
        raise SDPGANError(f"{source} is a video, which takes another library: {INSTALL_VIDEO}.")
    format = VIDEO_FORMATS.get(target.suffix.lower())
    if format is None:
        raise SDPGANError(f"{target} cannot hold a video; give it one of the suffixes {', '.join(VIDEO_FORMATS)}.")
    with _errors(source):
        film = Film(source, format)
    with film.container:
        film.check_holds(target)
        with _alone(target), _Work(source, target, film, settings) as work:
            with _errors(source):
                work.paint(paint, quiet)
            with _writing(target):
                work.join(keep_metadata)


class Film:
    """An opened video file and what its result needs to know of it.

    Args:
        source: the file.
        format: of the result, a value of `files.VIDEO_FORMATS`.

    Attributes:
        time_base: seconds of a unit of the frames' times.
        rate: frames a second, on average.
        turn: how a player turns the frames, from the first of `frames` on.

    Raises:
        SDPGANError: if there is no picture in it.
    """

    def __init__(self, source: Path, format: str):
        self.source, self.format = source, format
        self.container = av.open(os.fspath(source))
        covers = av.stream.Disposition.attached_pic
        pictures = [stream for stream in self.container.streams.video if not stream.disposition & covers]
        if not pictures:
            self.container.close()
            raise SDPGANError(f"{source} holds no moving picture; give a video.")
        self.stream = pictures[0]
        self.stream.thread_type = "AUTO"
        self.time_base = self.stream.time_base or Fraction(1, 90000)
        self.rate = self.stream.average_rate or Fraction(25)
        self.turn = Turn(None)

    def frames(self) -> Iterator[av.VideoFrame]:
        """Each frame, decoded, with a time after that of the one before."""
        last = None
        step = max(1, round(1 / (self.rate * self.time_base)))
        for frame in self.container.decode(self.stream):
            if frame.pts is None:
                frame.pts = 0 if last is None else last + step
            elif last is not None and frame.pts <= last:
                frame.pts = last + 1
            if last is None:
                matrix: Any = frame.side_data.get("DISPLAYMATRIX")
                self.turn = Turn(None if matrix is None else np.frombuffer(bytes(matrix), np.int32).tolist())
            last = frame.pts
            yield frame

    def expected(self) -> int | None:
        """How many frames there are, as far as the file says."""
        if self.stream.frames:
            return self.stream.frames
        if self.stream.duration:
            return round(self.stream.duration * self.time_base * self.rate)
        return round(Fraction(self.container.duration, 1000000) * self.rate) if self.container.duration else None

    def copied(self) -> list[av.stream.Stream]:
        """The streams that are copied as they are: sound that FFmpeg knows, and subtitles that the result can hold."""
        known = [s for s in self.container.streams if s.type in COPIED and s.codec_context is not None]
        return [s for s in known if s.type == "audio" or self._holds([s])]

    def check_holds(self, target: Path) -> None:
        """SDPGANError where the result cannot hold the sound; an SDPGANWarning of what else is left out."""
        copied = self.copied()
        sound = [stream for stream in copied if stream.type == "audio"]
        if not self._holds(sound):
            kinds = ", ".join(dict.fromkeys(stream.codec_context.name for stream in sound))
            raise SDPGANError(f"{target} cannot hold the sound of {self.source} ({kinds}); write it as .mkv.")
        for kind, name in (("audio", "sound"), ("subtitle", "subtitles")):
            if sum(s.type == kind for s in self.container.streams) > sum(s.type == kind for s in copied):
                message = f"{target} cannot hold all {name} of {self.source}; what it cannot is left out."
                warnings.warn(message, SDPGANWarning, stacklevel=2)

    def _holds(self, streams: list[av.stream.Stream]) -> bool:
        try:
            with av.open(io.BytesIO(), "w", format=self.format) as trial:
                for stream in streams:
                    trial.add_stream_from_template(stream)
                if streams:
                    trial.start_encoding()
        except (av.FFmpegError, ValueError):
            return False
        return True


class _Work:
    """The segments of a film that are painted, in a hidden folder beside the result."""

    def __init__(self, source: Path, target: Path, film: Film, settings: str):
        self.film, self.target = film, target
        self.folder = target.with_name(f".{target.name}{UNFINISHED}")
        self.state = self.folder / "state.npz"
        self.scene, self.progress = Scene(), Progress()
        file, versions = source.stat(), [__version__, av.__version__]
        of_film = [str(source.resolve()), str(file.st_size), str(file.st_mtime_ns)]
        self.identity = json.dumps([*of_film, *versions, settings, target.suffix.lower()])
        self._take_up()

    def __enter__(self) -> _Work:
        return self

    def __exit__(self, kind: object, error: BaseException | None, *_: object) -> None:
        """After a failure, keeps what the same call goes on from, and says so; else removes the folder."""
        again = isinstance(error and error.__cause__, av.error.InvalidDataError)  # the same call would fail again
        if error is None or again or not self.state.exists():
            shutil.rmtree(self.folder, ignore_errors=True)
        elif isinstance(error, Exception):
            for name in (UNFINISHED_SEGMENT, WHOLE):  # what is written may have filled the disk
                self._path(name).unlink(missing_ok=True)
            said = str(error) if isinstance(error, SDPGANError) else one_line(error)
            kept = f"what is painted of {self.target} stays in {self.folder}, and the same command goes on from there"
            raise SDPGANError(f"{said.rstrip('.')}; {kept}.") from error

    def _take_up(self) -> None:
        """Goes on with what lies there, if it was begun with the same film and settings; else begins."""
        try:
            with np.load(self.state, allow_pickle=False) as state:
                if str(state["identity"]) == self.identity:
                    self.scene.resume(state)
                    times, durations = state["times"].tolist(), state["durations"].tolist()
                    self.progress = Progress(int(state["segments"]), times, durations)
        except Exception:  # nothing there, or half of a file: begin
            self.progress = Progress()
        if not self.progress.segments:
            self.scene = Scene()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}{self.target.suffix.lower()}"

    def _segment(self, number: int) -> Path:
        return self._path(f"{number:06}")

    def _save(self) -> None:
        """Counts the last segment among those that are safe: one file, replaced at once."""
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {**vars(self.progress), **self.scene.state()}
        np.savez(buffer, identity=self.identity, **arrays)
        write_whole(self.state, buffer.getvalue())

    def paint(self, paint: Paint, quiet: bool) -> None:
        """Paints what is not painted yet."""
        from tqdm import tqdm

        done = len(self.progress.times)
        expected = self.film.expected()
        frames = self.film.frames()
        bar = tqdm(total=expected, initial=done, desc=self.target.name, unit="frame", file=sys.stderr, disable=quiet)
        with bar:
            for _ in islice(frames, done):
                pass
            for first in frames:
                self._paint_segment(first, frames, paint, bar)
        count = len(self.progress.times)
        if not count:
            raise SDPGANError(f"{self.film.source} holds no frame that can be decoded; is it whole?")
        if self.film.stream.frames and count < self.film.stream.frames * 0.98 - 2:
            message = f"{self.film.source} is not whole: {count} of its {self.film.stream.frames} frames could be read."
            warnings.warn(message, SDPGANWarning, stacklevel=2)

    def _paint_segment(self, first: av.VideoFrame, others: Iterator[av.VideoFrame], paint: Paint, bar: tqdm) -> None:
        path, unfinished = self._segment(self.progress.segments), self._path(UNFINISHED_SEGMENT)
        with _writing(self.target):
            self.folder.mkdir(parents=True, exist_ok=True)
        turn = self.film.turn
        with Encoder(unfinished, self.target, self.film) as encoder:
            for frame in chain([first], islice(others, SEGMENT - 1)):
                photo = turn.upright(frame.to_ndarray(format="rgb24", **_conversion(frame, "src")))
                painting = paint(np.ascontiguousarray(photo), self.scene)
                encoder.add(painting, frame)
                self.progress.times.append(frame.pts or 0)
                self.progress.durations.append(frame.duration or 0)
                bar.update()
        with _writing(self.target):
            os.replace(unfinished, path)
        self.progress.segments += 1
        self._save()

    def join(self, keep_metadata: bool) -> None:
        """Puts the segments and the sound into the result."""
        film = self.film
        unfinished = self._path(WHOLE)
        options = {}
        if film.format in ("mp4", "mov"):
            options = {"movflags": "faststart", "movie_timescale": str(film.time_base.denominator)}
        with (
            av.open(os.fspath(film.source)) as source,
            av.open(os.fspath(self._segment(0))) as first,
            av.open(os.fspath(unfinished), "w", format=film.format, options=options) as result,
        ):
            picture = result.add_stream_from_template(first.streams.video[0])
            picture.time_base = film.time_base
            if film.turn.kept(film.format):
                picture.set_display_matrix(film.turn.matrix)
            copies = {stream.index: result.add_stream_from_template(stream) for stream in film.copied()}
            for index, copy in copies.items():
                if language := source.streams[index].metadata.get("language"):
                    copy.metadata["language"] = language
            if keep_metadata:
                result.metadata.update({k: v for k, v in source.metadata.items() if k.lower() in KEPT_METADATA})
            packets = self._pictures(picture), _copies(source, copies)
            for packet in heapq.merge(*packets, key=lambda packet: (packet.dts or 0) * packet.time_base):
                result.mux(packet)
        os.replace(unfinished, self.target)

    def _pictures(self, stream: av.VideoStream) -> Iterator[av.Packet]:
        """The packets of all segments, one of each frame, with the times of the film."""
        times = zip(self.progress.times, self.progress.durations, strict=True)
        for number in range(self.progress.segments):
            with av.open(os.fspath(self._segment(number))) as segment:
                for packet in segment.demux(video=0):
                    if packet.size:
                        packet.stream = stream
                        packet.time_base = self.film.time_base
                        packet.pts, packet.duration = next(times)
                        packet.dts = packet.pts
                        yield packet


class Encoder:
    """Writes paintings into a segment of `target`, each a packet in its order: without frames that wait for later ones.

    Raises:
        SDPGANError: naming the target where the segment cannot be written.
    """

    def __init__(self, path: Path, target: Path, film: Film):
        self.target, self.film, self.turn = target, film, film.turn
        self.codec, self.options = ENCODERS[film.format]
        with _writing(target):
            self.container = av.open(os.fspath(path), "w", format=film.format)
        self.stream: Any = None
        self.start = 0

    def __enter__(self) -> Encoder:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with _writing(self.target), self.container:
            if kind is None and self.stream is not None:
                self.container.mux(self.stream.encode(None))

    def add(self, painting: np.ndarray, frame: av.VideoFrame) -> None:
        """The painting of a frame, H x W x 3, uint8, upright."""
        stored = self.turn.stored(painting) if self.turn.kept(self.film.format) else painting
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(stored), format="rgb24")
        with _writing(self.target):
            if self.stream is None:
                self._begin(frame, picture.width, picture.height)
            picture = picture.reformat(format=self.stream.pix_fmt, **_conversion(frame, "dst"))
            picture.pts, picture.time_base = (frame.pts or 0) - self.start, self.film.time_base
            self.container.mux(self.stream.encode(picture))

    def _begin(self, frame: av.VideoFrame, width: int, height: int) -> None:
        film = self.film
        self.start = frame.pts or 0
        self.stream = self.container.add_stream(self.codec, rate=film.rate, options=dict(self.options))
        stream = self.stream
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv444p" if width % 2 or height % 2 else "yuv420p"
        stream.time_base = stream.codec_context.time_base = film.time_base
        stream.codec_context.max_b_frames = 0
        stream.codec_context.gop_size = SEGMENT
        for name in ("colorspace", "color_range", "color_primaries", "color_trc"):
            setattr(stream.codec_context, name, int(getattr(frame, name)))
        if frame.format.is_rgb:  # which has no coefficients of YCbCr, and the result has those of `_conversion`
            stream.codec_context.colorspace = 5
        shape = film.stream.sample_aspect_ratio
        if shape and shape != 1:
            turned = self.turn.swaps and not self.turn.kept(film.format)
            stream.codec_context.sample_aspect_ratio = 1 / shape if turned else shape


class Turn:
    """How a film's frames are turned to be looked at, by quarters and mirrored.

    Args:
        matrix: the nine numbers of its display matrix; None, or one of another turn: frames stay as they are.
    """

    def __init__(self, matrix: list[int] | None):
        a, b, _, c, d = (np.sign(matrix) if matrix else np.array([1, 0, 0, 0, 1, 0, 0, 0, 1]))[:5]
        self.matrix = matrix
        self.swaps = bool(a == 0 and d == 0 and b and c)
        straight = bool(b == 0 and c == 0 and a and d)
        across, down = (c, b) if self.swaps else (a, d)
        self._flips = [axis for axis, sign in ((0, down), (1, across)) if sign < 0] if straight or self.swaps else []

    def upright(self, stored: np.ndarray) -> np.ndarray:
        """H x W x 3 as it is stored to H x W x 3 as it is seen."""
        return np.flip(stored.swapaxes(0, 1) if self.swaps else stored, self._flips)

    def stored(self, upright: np.ndarray) -> np.ndarray:
        """The inverse of `upright`."""
        flipped = np.flip(upright, self._flips)
        return flipped.swapaxes(0, 1) if self.swaps else flipped

    def kept(self, format: str) -> bool:
        """Whether the result is stored as the film was, with its matrix; else it is stored upright."""
        return self.matrix is not None and format != "webm" and hasattr(av.VideoStream, "set_display_matrix")


def _conversion(frame: av.VideoFrame, side: str) -> dict[str, Any]:
    """The coefficients and the range of a frame's YCbCr, as the source ("src") or the result ("dst") of RGB."""
    full = int(frame.color_range) == 2 or frame.format.name.startswith("yuvj")
    return {f"{side}_colorspace": SWSCALE.get(int(frame.colorspace), 5), f"{side}_color_range": 2 if full else 1}


def _copies(source: av.container.InputContainer, copies: dict[int, Any]) -> Iterator[av.Packet]:
    """The packets of the streams that are copied."""
    if not copies:
        return
    for packet in source.demux(*[source.streams[index] for index in copies]):
        if packet.size and packet.dts is not None:
            packet.stream = copies[packet.stream_index]
            yield packet


@contextmanager
def _errors(source: Path) -> Iterator[None]:
    """Whatever PyAV raises about a film, as an SDPGANError that names it."""
    try:
        with file_errors(str(source)):
            yield
    except av.FFmpegError as error:
        raise SDPGANError(f"{source} cannot be decoded as a video; is it whole? ({one_line(error)})") from error


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """SDPGANError while another process paints the same target; a lock that the system frees after a kill."""
    name = hashlib.sha256(os.fsencode(target.resolve())).hexdigest()
    lock = FileLock(Path(tempfile.gettempdir()) / f"sdpgan_{name}.lock", timeout=0)
    with _writing(target):
        try:
            lock.acquire()
        except Timeout:
            message = f"{target} is being painted by another process; wait for it, or name another output."
            raise SDPGANError(message) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except SDPGANError:
        raise
    except (OSError, av.FFmpegError) as error:
        raise SDPGANError(f"{target} cannot be written: {error.strerror or error}.") from error
