"""sdpgan_hub/video.py: films go in and come out with their sound, times and turn, and go on where they were stopped."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import time
import weakref
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from assertions import one_line, refusal

from sdpgan_hub import SDPGAN, SDPGANError, files, video
from sdpgan_hub.cli import main

av = pytest.importorskip("av", reason='PyAV is not installed: pip install "sdpgan_hub[video]"')

TIMES = [1000, 1500, 2100, 2700, 4000, 4500, 5000, 5500, 6200, 7000]
TIME_BASE = Fraction(1, 12800)
WIDTH, HEIGHT = 64, 48


def photo(number: int) -> np.ndarray:
    """A frame of a ball that rolls over a slope of colours."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    frame = np.stack([60 + 2 * columns, 40 + 3 * rows, 200 - 2 * columns], -1).astype(np.uint8)
    cv2.circle(frame, (12 + 3 * number, 24), 8, (230, 220, 40), -1)
    return frame


def make(
    path: str | Path, *, count: int = len(TIMES), turn: float = 0, sound: bool = True, picture: bool = True
) -> Path:
    """A film of `count` frames at uneven times, that a player turns by `turn` degrees, with a second of sound."""
    with av.open(str(path), "w", options={"movie_timescale": "12800"} if str(path).endswith("mp4") else {}) as film:
        streams = []
        if picture:
            stream = film.add_stream("libx264", rate=24, options={"crf": "4"})
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            stream.time_base = stream.codec_context.time_base = TIME_BASE
            if turn:
                stream.set_display_rotation(turn)
            streams.append(stream)
        if sound:
            voice = film.add_stream("aac", rate=16000, layout="mono")
            streams.append(voice)
        for number in range(count if picture else 0):
            frame = av.VideoFrame.from_ndarray(photo(number), format="rgb24")
            frame.pts, frame.time_base = (TIMES * 100)[number] + 7000 * (number // len(TIMES)), TIME_BASE
            film.mux(stream.encode(frame))
        for number in range(16 if sound else 0):
            tone = np.sin(np.arange(number * 1024, (number + 1) * 1024) / 5, dtype=np.float32)[None]
            frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16000, number * 1024, Fraction(1, 16000)
            film.mux(voice.encode(frame))
        for stream in streams:
            film.mux(stream.encode(None))
    return Path(path)


def read(path: str | Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as film:
        return list(film.decode(video=0))


def pixels(frame: av.VideoFrame) -> np.ndarray:
    return frame.to_ndarray(format="rgb24").astype(int)


def sound(path: str | Path) -> list[bytes]:
    with av.open(str(path)) as film:
        return [bytes(packet) for packet in film.demux(audio=0) if packet.size]


def leave(photo: np.ndarray, scene: object) -> np.ndarray:
    return photo


@pytest.mark.parametrize(("suffix", "segment"), [("mp4", 24), ("mp4", 4), ("mov", 24), ("m4v", 24)])
def test_frames_times_sound_and_colours_stay_and_segments_leave_no_seam(here, monkeypatch, suffix, segment):
    monkeypatch.setattr(video, "SEGMENT", segment)
    make("in.mp4")
    video.stylize("in.mp4", f"out.{suffix}", leave, "")
    before, after = read("in.mp4"), read(f"out.{suffix}")
    assert len(after) == len(TIMES)
    assert [frame.time for frame in after] == [frame.time for frame in before]
    assert len(sound("in.mp4")) > 10 and sound(f"out.{suffix}") == sound("in.mp4")
    for old, new in zip(before, after, strict=True):
        assert np.abs(pixels(new) - pixels(old)).mean() < 3
    assert os.listdir(here) in (["in.mp4", f"out.{suffix}"], [f"out.{suffix}", "in.mp4"])


@pytest.mark.skipif(not hasattr(av.VideoStream, "set_display_matrix"), reason="this PyAV writes no display matrix")
@pytest.mark.parametrize("turn", [90, 180, -90])
def test_a_turned_film_is_painted_upright_and_stays_turned(here, turn):
    make("in.mp4", turn=turn)
    seen = []
    video.stylize("in.mp4", "out.mp4", lambda photo, scene: seen.append(photo) or photo, "")
    assert np.abs(seen[0].astype(int) - np.rot90(pixels(read("in.mp4")[0]), turn // 90)).max() == 0
    assert {frame.rotation % 360 for frame in read("out.mp4")} == {turn % 360}
    assert np.abs(pixels(read("out.mp4")[0]) - pixels(read("in.mp4")[0])).mean() < 3


@pytest.mark.skipif(not hasattr(av.VideoStream, "set_display_matrix"), reason="this PyAV writes no display matrix")
def test_a_container_without_turns_holds_the_frames_upright(here):
    make("in.mp4", turn=90, sound=False)
    video.stylize("in.mp4", "out.webm", leave, "")
    first = read("out.webm")[0]
    assert (first.width, first.height, first.rotation) == (HEIGHT, WIDTH, 0)
    assert np.abs(pixels(first) - np.rot90(pixels(read("in.mp4")[0]))).mean() < 4


@pytest.mark.parametrize(("codec", "format"), [("ffv1", "yuv444p"), ("libx264rgb", "rgb24"), ("ffv1", "bgr0")])
@pytest.mark.parametrize("target", ["out.mkv", "out.webm"])
def test_frames_of_odd_sides_and_of_rgb_keep_size_and_colours(here, codec, format, target):
    with av.open("in.mkv", "w") as film:
        stream = film.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 33, 47, format
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(photo(0)[:47, :33].copy(), format="rgb24")
            film.mux(stream.encode(frame))
        film.mux(stream.encode(None))
    video.stylize("in.mkv", target, leave, "")
    frames = read(target)
    assert [(frame.width, frame.height) for frame in frames] == [(33, 47)] * 3
    assert frames[0].format.name.startswith("yuv") and int(frames[0].colorspace) == (2 if format == "yuv444p" else 5)
    assert np.abs(pixels(frames[0]) - photo(0)[:47, :33]).mean() < 5


SLOW = """
import sys, time
from sdpgan_hub import SDPGAN, cli, networks
networks.has_amx = lambda: False
paint = SDPGAN.stylize
SDPGAN.stylize = lambda *photo, **settings: time.sleep(0.1) or paint(*photo, **settings)
sys.exit(cli.main(sys.argv[1:]))
"""


def test_a_film_that_was_killed_goes_on_after_its_last_segment_and_ends_as_it_would_have(here, tiny, monkeypatch):
    make("in.mp4", count=40)
    command = ["stylize", "in.mp4", "--style", str(tiny), "--quiet", "-o"]
    environment = {**os.environ, "PYTHONPATH": str(Path(files.__file__).parents[1])}
    process = subprocess.Popen([sys.executable, "-c", SLOW, *command, "out.mp4"], env=environment)
    state = Path(".out.mp4.unfinished/state.npz")
    while not state.exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not Path("out.mp4").exists()
    with np.load(state) as saved:
        assert len(saved["times"]) == video.SEGMENT

    painted = []
    stylize = SDPGAN.stylize
    monkeypatch.setattr(SDPGAN, "stylize", lambda *photo, **settings: painted.append(1) or stylize(*photo, **settings))
    assert main([*command, "out.mp4"]) == 0
    assert len(painted) == 40 - video.SEGMENT and not state.parent.exists()
    assert main([*command, "whole.mp4"]) == 0
    again, whole = read("out.mp4"), read("whole.mp4")
    assert len(again) == len(whole) == 40
    assert all(np.array_equal(pixels(a), pixels(b)) for a, b in zip(again, whole, strict=True))


def stopped_after(frames: int, error: type[BaseException] | BaseException = KeyboardInterrupt):
    def paint(photo: np.ndarray, scene: object) -> np.ndarray:
        paint.count += 1
        if paint.count > frames:
            raise error
        return photo

    paint.count = 0
    return paint


def test_a_stopped_film_goes_on_and_begins_anew_with_other_settings_or_a_state_cut_short(here, monkeypatch):
    monkeypatch.setattr(video, "SEGMENT", 4)
    make("in.mp4")
    state = Path(".out.mp4.unfinished/state.npz")
    for settings, kept, expected in (("one", None, 2), ("other", None, 10), ("one", 100, 10)):
        with pytest.raises(KeyboardInterrupt):
            video.stylize("in.mp4", "out.mp4", stopped_after(9), "one")
        state.write_bytes(state.read_bytes()[:kept])
        counting = stopped_after(99)
        video.stylize("in.mp4", "out.mp4", counting, settings)
        assert counting.count == expected
        assert [frame.time for frame in read("out.mp4")] == [frame.time for frame in read("in.mp4")]


def test_a_film_that_another_process_paints_is_refused_and_left_alone(here):
    make("in.mp4")
    refusals = []

    def paint(photo: np.ndarray, scene: object) -> np.ndarray:
        if not refusals:
            with pytest.raises(SDPGANError, match="another process") as refusal:
                video.stylize("in.mp4", Path("out.mp4").resolve(), leave, "one")
            refusals.append(refusal)
            video.stylize("in.mp4", "other.mp4", leave, "one")
        return photo

    video.stylize("in.mp4", "out.mp4", paint, "one")
    assert len(read("out.mp4")) == len(read("other.mp4")) == len(read("in.mp4"))
    video.stylize("in.mp4", "out.mp4", leave, "one")


def test_a_full_disk_is_said_of_the_result_and_not_of_the_film(here):
    make("in.mp4")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    try:
        said = refusal(lambda: video.stylize("in.mp4", "out.mp4", leave, ""), "out.mp4", os.strerror(errno.EFBIG))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert "in.mp4" not in said and not Path(".out.mp4.unfinished").exists()


@pytest.mark.parametrize("error", [RuntimeError("no luck"), SDPGANError("no luck.")])
def test_a_film_that_failed_keeps_what_the_same_call_goes_on_from_and_says_so(here, monkeypatch, error):
    monkeypatch.setattr(video, "SEGMENT", 4)
    make("in.mp4")
    folder = Path(".out.mp4.unfinished")
    refusal(lambda: video.stylize("in.mp4", "out.mp4", stopped_after(9, error), ""), "no luck;", folder)
    assert {path.name for path in folder.iterdir()} == {"000000.mp4", "000001.mp4", "state.npz"}
    counting = stopped_after(99)
    video.stylize("in.mp4", "out.mp4", counting, "")
    assert counting.count == 2 and not folder.exists()


@pytest.mark.parametrize("error", [RuntimeError("no luck"), SDPGANError("no luck."), KeyboardInterrupt()])
def test_a_film_that_failed_in_its_first_segment_leaves_nothing_behind(here, error):
    make("in.mp4")
    with pytest.raises(type(error)):
        video.stylize("in.mp4", "out.mp4", stopped_after(3, error), "")
    assert [path.name for path in here.iterdir()] == ["in.mp4"]


def test_a_film_that_cannot_be_decoded_to_its_end_leaves_nothing_behind(here, monkeypatch):
    monkeypatch.setattr(video, "SEGMENT", 4)
    make("in.mp4", sound=False)
    with av.open("in.mp4") as film:
        packets = [(packet.pos, packet.size) for packet in film.demux(video=0) if packet.size]
    content = bytearray(Path("in.mp4").read_bytes())
    for position, size in packets[7:]:
        content[position : position + size] = b"\xff" * size
    Path("in.mp4").write_bytes(content)
    refusal(lambda: video.stylize("in.mp4", "out.mp4", leave, ""), "in.mp4", "decoded")
    assert [path.name for path in here.iterdir()] == ["in.mp4"]


def test_a_stopped_film_begins_anew_with_another_mask_in_the_same_file(here, tiny, monkeypatch):
    monkeypatch.setattr(video, "SEGMENT", 4)
    make("in.mp4")
    painted = []
    stylize = SDPGAN.stylize

    def paint(*given, **settings):
        painted.append(1)
        if len(painted) == 6:
            raise KeyboardInterrupt
        return stylize(*given, **settings)

    monkeypatch.setattr(SDPGAN, "stylize", paint)
    command = ["stylize", "in.mp4", "-o", "out.mp4", "--style", str(tiny), "--mask", "mask.png", "--quiet"]
    for white, code in ((0, 130), (255, 0)):
        cv2.imwrite("mask.png", np.full((HEIGHT, WIDTH), white, np.uint8))
        assert main(command) == code
    assert len(painted) == 6 + len(TIMES)


def test_memory_does_not_grow_with_the_film(here):
    """Frames that are painted are not kept: no more than the one before is alive."""
    make("in.mp4", count=40)
    alive: list[weakref.ref] = []
    most = []

    def paint(photo: np.ndarray, scene: object) -> np.ndarray:
        alive.append(weakref.ref(photo))
        most.append(sum(one() is not None for one in alive))
        return photo.copy()

    video.stylize("in.mp4", "out.mp4", paint, "")
    assert max(most) <= 3


# the command line


def test_the_command_paints_a_film_with_a_bar(here, tiny, capsys):
    make("in.mp4")
    assert main(["stylize", "in.mp4", "--style", str(tiny)]) == 0
    captured = capsys.readouterr()
    assert captured.out == "in.tiny.mp4\n" and "10/10" in captured.err and "frame" in captured.err
    frames = zip(read("in.tiny.mp4"), read("in.mp4"), strict=True)
    changed = [np.abs(pixels(new) - pixels(old)).mean() for new, old in frames]
    assert len(changed) == 10 and min(changed) > 5


def test_films_of_a_folder_are_painted_beside_its_photos_and_get_no_map(here, tiny):
    Path("films").mkdir()
    make("films/a.mp4", count=2)
    cv2.imwrite("films/b.png", photo(0))
    assert main(["stylize", "films", "-o", "out", "--style", str(tiny)]) == 0
    assert sorted(os.listdir("out")) == ["a.mp4", "b.png"]
    assert main(["saliency", "films", "-o", "maps", "--style", str(tiny)]) == 0
    assert os.listdir("maps") == ["b.png"]


def refused(capsys, *arguments: str) -> str:
    assert main(list(arguments)) in (1, 2)
    return one_line(capsys)


@pytest.mark.parametrize("content", [b"", b"no film" * 99, "cut"])
def test_a_broken_film_is_one_sentence(here, tiny, capsys, content):
    whole = make("whole.mp4").read_bytes()
    Path("in.mp4").write_bytes(whole[: len(whole) // 2] if content == "cut" else content)
    said = refused(capsys, "stylize", "in.mp4", "-o", "out.mp4", "--style", str(tiny), "--quiet")
    assert "in.mp4" in said
    assert not Path("out.mp4").exists()


def test_a_film_without_a_picture_is_one_sentence(here, tiny, capsys):
    make("in.mp4", picture=False)
    said = refused(capsys, "stylize", "in.mp4", "-o", "out.mp4", "--style", str(tiny), "--quiet")
    assert "in.mp4" in said and "picture" in said


@pytest.mark.parametrize("output", ["out.png", "out.avi", "out"])
def test_an_output_that_holds_no_film_is_one_sentence(here, tiny, capsys, output):
    make("in.mp4", count=1)
    said = refused(capsys, "stylize", "in.mp4", "-o", output, "--style", str(tiny))
    assert said.startswith("sdpgan stylize: error: ")  # before a style is loaded
    assert output in said and ".mkv" in said
    refusal(lambda: video.stylize("in.mp4", output, leave, ""), output, ".mkv")


def test_sound_that_the_output_cannot_hold_is_one_sentence_before_painting(here, tiny, capsys):
    make("in.mp4", count=1)
    said = refused(capsys, "stylize", "in.mp4", "-o", "out.webm", "--style", str(tiny), "--quiet")
    assert all(part in said for part in ("out.webm", "in.mp4", "sound", "aac", ".mkv"))
    assert not Path("out.webm").exists()


def test_sound_that_ffmpeg_does_not_know_is_left_out_with_a_warning(here, tiny, capsys):
    """As the second one, APAC, of a phone that records in space."""
    whole = make("in.mp4", count=2).read_bytes()
    Path("in.mp4").write_bytes(whole.replace(b"mp4a", b"apac").replace(b"esds", b"dapa"))
    assert main(["stylize", "in.mp4", "-o", "out.mp4", "--style", str(tiny), "--quiet"]) == 0
    said = one_line(capsys)
    assert all(part in said for part in ("warning: ", "in.mp4", "sound", "out.mp4"))
    with av.open("out.mp4") as film:
        assert [stream.type for stream in film.streams] == ["video"]


def test_a_film_has_no_saliency_map_and_goes_to_no_pipe(here, tiny, capsys):
    make("in.mp4", count=1)
    assert "in.mp4" in refused(capsys, "saliency", "in.mp4", "-o", "m.png", "--style", str(tiny), "--quiet")
    assert "stdout" in refused(capsys, "stylize", "in.mp4", "-o", "-", "--style", str(tiny))


def test_without_pyav_the_extra_is_named(here, monkeypatch):
    monkeypatch.setattr(video, "can_read_video", lambda: False)
    refusal(lambda: video.stylize("in.mp4", "out.mp4", leave, ""), "in.mp4", '"sdpgan_hub[video]"')
