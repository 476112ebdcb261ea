"""sdpgan_hub/processes.py: the command in several processes, as `accelerate launch` starts them."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from assertions import one_line
from PIL import Image
from training_fixtures import ROOT, ranks

from sdpgan_hub import cli

pytest.importorskip("accelerate")


def add_photos(folder: str, *names: str) -> None:
    Path(folder).mkdir(exist_ok=True)
    random = np.random.default_rng(len(names))
    for name in names:
        Image.fromarray(random.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(Path(folder, name))


@pytest.fixture
def here(here: Path) -> Path:
    """A working directory with the folder photos/: five photos, a broken one in their middle, and a text."""
    add_photos("photos", *(f"{number}.png" for number in range(5)))
    Path("photos/2b.png").write_bytes(b"no image")
    Path("photos/notes.txt").write_text("no image")
    return here


def results(folder: str) -> dict[str, int]:
    """The files below a folder and when they were written."""
    found = (path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in found}


def work(rank: int, environment: dict[str, str], arguments: list[str]) -> None:
    """The whole of a forked process; out_RANK, err_RANK: what it says; written_RANK: the files that it writes."""
    for descriptor, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{name}_{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    sys.stdout, sys.stderr = os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)
    os.environ.update(environment)
    torch.set_num_threads(1)
    write = cli.files.write_whole

    def note_and_write(path, content: bytes) -> None:
        with open(f"written_{rank}", "a") as notes:
            notes.write(f"{path}\n")
        write(path, content)

    cli.files.write_whole = note_and_write
    sys.exit(cli.main(arguments))


def together(*arguments: object, count: int = 2) -> list[int]:
    """The exit codes of `sdpgan` with these arguments in `count` processes, started as torchrun starts them."""
    fork = multiprocessing.get_context("forkserver")
    processes = []
    for rank, environment in enumerate(ranks(count)):
        Path(f"written_{rank}").write_text("")
        environment |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        processes.append(fork.Process(target=work, args=(rank, environment, [str(part) for part in arguments])))
        processes[-1].start()
    deadline = time.monotonic() + 200
    for process in processes:
        process.join(max(0, deadline - time.monotonic()))
        process.kill()
        process.join()
    return [process.exitcode for process in processes]


def said(name: str) -> list[str]:
    return Path(name).read_text().replace("\r", "\n").splitlines()


def test_two_processes_paint_each_photo_once_and_the_main_one_says_what_became_of_all(here, tiny):
    add_photos("more", "0.png")
    assert together("stylize", "photos", "more", "-o", "out", "--style", tiny) == [1, 1]
    written = [said(f"written_{rank}") for rank in range(2)]
    assert sorted(results("out")) == ["more/0.png", *(f"photos/{number}.png" for number in range(5))]
    assert sorted(written[0] + written[1]) == sorted(f"out/{name}" for name in results("out"))
    assert len(written[0]) == len(written[1]) == 3
    assert said("out_0") == [f"out/photos/{number}.png" for number in range(5)] + ["out/more/0.png"]
    assert said("out_1") == said("err_1") == []
    *bars, failure, last = said("err_0")
    assert "7/7" in bars[-1] and "photos/2b.png" in failure and not any("2b.png" in bar for bar in bars)
    assert "6 done, 1 failed" in last and "1 .txt" in last


def test_a_run_taken_up_again_paints_what_is_missing_only_in_both_processes(here, tiny):
    Path("photos/2b.png").unlink()
    arguments = ["stylize", "photos", "-o", "out", "--style", tiny]
    assert cli.main([str(part) for part in arguments]) == 0
    before = results("out")
    for name in ("0.png", "4.png"):
        Path("out", name).unlink()
    assert together(*arguments, "--skip-existing") == [0, 0]
    assert [said("written_0"), said("written_1")] == [["out/0.png"], ["out/4.png"]]
    after = results("out")
    assert after.keys() == before.keys() and all(after[name] == before[name] for name in ("1.png", "2.png", "3.png"))
    assert "2 done, 0 failed, 3 there already" in said("err_0")[-1]
    assert together(*arguments, "--skip-existing", "--json") == [0, 0]
    assert json.loads(Path("out_0").read_text()) == [] and said("out_1") == []


def test_a_process_without_a_share_paints_nothing_and_waits_for_the_others(here, tiny):
    assert together("saliency", "photos/0.png", "--style", tiny, count=3) == [0, 0, 0]
    assert [said(f"written_{rank}") for rank in range(3)] == [["photos/0.saliency.png"], [], []]
    assert said("out_0") == ["photos/0.saliency.png"]


@pytest.mark.parametrize("arguments", [["photos", "-o", "photos"], ["photos", "--style", "no such style"]])
def test_what_cannot_be_done_is_said_by_the_main_process_alone(here, tiny, arguments):
    assert together("stylize", "--style", tiny, *arguments) == [2, 2]
    (line,) = said("err_0")
    assert arguments[-1] in line and said("err_1") == []


def test_a_number_of_processes_alone_is_one_sentence(here, tiny, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert cli.main(["stylize", "photos", "--style", str(tiny)]) == 2
    assert "WORLD_SIZE" in one_line(capsys)


def test_several_processes_without_accelerate_are_told_what_to_install(here, tiny, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    assert cli.main(["stylize", "photos", "--style", str(tiny)]) == 2
    assert "pip install accelerate" in capsys.readouterr().err and not Path("photos.tiny").exists()


@pytest.mark.slow
def test_a_launched_command_ends_with_ctrl_c_and_is_taken_up_again(here, tiny):
    add_photos("photos", *(f"{number:03}.png" for number in range(300)))
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command = [*launch, "-m", "sdpgan_hub", "stylize", "photos", "-o", "out", "--style", str(tiny), "--skip-existing"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    first = subprocess.Popen(command, env=environment, start_new_session=True, **pipes)
    while first.poll() is None and sum("unfinished" not in name for name in results("out")) < 20:
        time.sleep(0.01)
    os.killpg(first.pid, signal.SIGINT)
    out, errors = first.communicate(timeout=200)  # its workers hold the pipes as long as they live
    assert first.returncode == 1 and out == "" and errors.splitlines().count("stopped") == 1, errors
    before = results("out")
    assert 20 <= len(before) < 305 and not any("unfinished" in name for name in before)

    again = subprocess.run(command, env=environment, timeout=300, **pipes)
    assert again.returncode == 1 and again.stderr.count("2b.png") == 1, again.stderr
    after = results("out")
    assert len(after) == 305 and before.items() <= after.items()
    assert sorted(again.stdout.splitlines()) == sorted(f"out/{name}" for name in after.keys() - before.keys())
    assert f"{305 - len(before)} done, 1 failed, {len(before)} there already" in again.stderr
