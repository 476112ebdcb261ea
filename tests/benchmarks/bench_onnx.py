"""Time of `SDPGAN.stylize` in torch against its ONNX file in ONNX Runtime, in the same run.

    python tests/benchmarks/bench_onnx.py [--style vangogh] [--size 512] [--threads 1 2] [--repeats 5]
        [--output FILE.json]

The two alternate, and the ratio is that of the medians: below 1, ONNX Runtime is faster.
CPU seconds are those of the whole process, which other programs on the machine change less. With two threads torch
waits busily for a thread that another program keeps from running, so those need a machine whose load before was low.
"""

import argparse
import os
import statistics
import tempfile
from pathlib import Path

import onnxruntime
import torch
import torch.nn.functional as F
from measuring import seconds, store

from sdpgan_hub import SDPGAN
from sdpgan_hub.export import export
from sdpgan_hub.memory import keep_freed_memory


def measure(model: SDPGAN, file: Path, size: int, threads: int, repeats: int) -> dict[str, float]:
    torch.set_num_threads(threads)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    photo = F.interpolate(torch.rand(1, 3, 9, 9, generator=torch.Generator().manual_seed(0)), (size, size))

    def in_torch() -> None:
        model.stylize(photo, return_saliency=True, tile=None)

    def in_onnx() -> None:
        session.run(None, {"photo": photo.numpy()})

    in_torch(), in_onnx()
    pairs = [(*seconds(in_torch), *seconds(in_onnx)) for _ in range(repeats)]
    wall, cpu, onnx_wall, onnx_cpu = (statistics.median(column) for column in zip(*pairs, strict=True))
    return {
        "threads": threads,
        "torch_seconds": round(wall, 3),
        "onnx_seconds": round(onnx_wall, 3),
        "ratio": round(onnx_wall / wall, 3),
        "torch_cpu_seconds": round(cpu, 3),
        "onnx_cpu_seconds": round(onnx_cpu, 3),
        "cpu_ratio": round(onnx_cpu / cpu, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--style", default="vangogh", help="a shipped name, a folder or a Hub id")
    parser.add_argument("--size", type=int, default=512, help="side of the square photo, in pixels")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, help="a JSON file; by default it is printed")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    keep_freed_memory()
    model = SDPGAN.from_pretrained(arguments.style)
    model.generator.bf16 = False  # the file is float32
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        difference = export(model, file, arguments.style)
        runs = [measure(model, file, arguments.size, threads, arguments.repeats) for threads in arguments.threads]
        megabytes = file.stat().st_size / 1e6
    result = {
        "load_before": round(load, 1),
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
        "style": arguments.style,
        "size": arguments.size,
        "megabytes": round(megabytes, 1),
        "largest_difference": difference,
        "runs": runs,
    }
    store(result, arguments.output)


if __name__ == "__main__":
    main()
