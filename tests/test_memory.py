"""keep_freed_memory: the process reuses what it freed, where the C library is glibc."""

import platform
import subprocess
import sys

import pytest

import sdpgan_hub
from sdpgan_hub.memory import keep_freed_memory

PASSES = """
import resource, sys, threading
import numpy as np
from sdpgan_hub import SDPGAN
from sdpgan_hub.memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
model = SDPGAN(32, 0, feature_concatenation=False, saliency_network=False).eval()  # 32 MiB a layer and more
photo = np.zeros((512, 512, 3), np.uint8)
faults = []

def paint():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    model.stylize(photo)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

paint()
thread = threading.Thread(target=paint)  # the Space paints in one
thread.start()
thread.join()
print(faults[-1])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc is left as it is")
def test_a_second_photo_is_painted_in_the_memory_of_the_first() -> None:
    commands = ([sys.executable, "-c", PASSES, how] for how in ("keep", "leave"))
    keep, leave = (int(subprocess.check_output(command, timeout=120)) for command in commands)
    assert keep < leave / 4


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert keep_freed_memory() is False


def test_it_is_no_name_of_the_package_s_own_but_can_be_had_from_it() -> None:
    assert "keep_freed_memory" not in sdpgan_hub.__all__
    assert sdpgan_hub.keep_freed_memory is keep_freed_memory
