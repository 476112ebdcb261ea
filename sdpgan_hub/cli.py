"""The command line: `sdpgan stylize`, `sdpgan saliency`, `sdpgan export` and `sdpgan styles`.

Exit codes: 0 done; 1 some files failed, each named with its reason on stderr, such as a library that reads it; 2 usage:
bad arguments, no input, a style that cannot be loaded, a library that all want; 130 Ctrl-C; 141 the reader of
a pipe went away.
stdout holds results only: with --json one document, with `-o -` the image, else the paths written.
SDPGAN_DEBUG=1 in the environment prints the traceback of every failure on stderr too.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import math
import os
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__, files
from .errors import SDPGANError, SDPGANWarning, one_line, reworded
from .files import OUTPUT_FORMATS, VIDEO_FORMATS
from .memory import keep_freed_memory
from .processes import Processes
from .styles import DEFAULT, available

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image
    from torch import Tensor

    from .model import SDPGAN
    from .scene import Scene

METHODS = ("network", "reference", "rbd", "mbd")
VIEWS = ("map", "heat", "overlay", "contour")
STANDARD = "-"
MIN_SIZE = 16
WORDS = {
    "max_size=": "--max-size",
    "tile=": "--tile",
    "keep_detail": "--keep-detail",
    "token=, ": "",
    ", or raise PIL.Image.MAX_IMAGE_PIXELS": "",
}
"""What messages call a setting of the Python interface -> what it is called here."""
KEPT = (
    "A result has its photo's size, upright, with its transparency, resolution (dpi; WebP, AVIF and GIF hold none), "
    "and timing where it is an animation. Its colours are those of the photo's profile where that is wider than sRGB, "
    "else sRGB. All else that the camera wrote is left out: place, device, captions, thumbnails; so are date, author "
    "and copyright without --keep-metadata."
)

FILMS = (
    f"Videos ({', '.join(files.VIDEO_SUFFIXES)}) are painted steadily, with their sound, times and turn, into "
    f"{', '.join(VIDEO_FORMATS)}, those of folders too; this takes {files.INSTALL_VIDEO}. A video that was stopped, "
    "or failed for want of room, goes on when the same command is given again; until then its frames lie in a hidden "
    "folder beside the output."
)

SEVERAL = (
    "Under `accelerate launch --num_processes N -m sdpgan_hub ...` (pip install accelerate) N processes share the "
    "files, each on its own GPU, and the first says what became of all; --skip-existing takes a run up again."
)


class UsageError(SDPGANError):
    """What stops a command, in the words of the command line already."""


@dataclass
class Job:
    """One input, a path or "-", and where its result goes, likewise."""

    input: str
    output: str


@dataclass
class Outcome:
    """What became of a `Job`; the fields are those of --json."""

    input: str
    output: str | None
    seconds: float
    error: str | None


Process = Callable[["Image.Image", "Scene | None"], "Image.Image"]
"""One image, and where it is a frame of an animation what the frames share, to its result."""
Film = Callable[["Job"], None]
"""A video from its input to its output."""


def main(argv: list[str] | None = None) -> int:
    """Run `sdpgan` with these arguments (those of the process by default) and return its exit code."""
    options = build_parser().parse_args(argv)
    processes = Processes()
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may be in no encoding at all
    try:
        code = options.run(options, processes)
        sys.stdout.flush()
        processes.wait()
        return code
    except SDPGANError as error:
        if processes.is_main:
            _print_traceback()
            message = str(error) if isinstance(error, UsageError) else reworded(error, WORDS)
            print(f"sdpgan {options.command}: error: {message}", file=sys.stderr)
        processes.wait()
        return 2
    except KeyboardInterrupt:
        if processes.is_main:
            print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        with contextlib.suppress(OSError, ValueError):  # or the interpreter complains when it flushes at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sdpgan",
        description="Photos become paintings that keep what matters in them (SDP-GAN, Li et al., IEEE TIP 2021).",
        epilog="Exit codes: 0 done, 1 some files failed, 2 nothing could be done. Private Hub models: set HF_TOKEN. "
        "SDPGAN_DEBUG=1 prints tracebacks.",
    )
    parser.add_argument("--version", action="version", version=f"sdpgan {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="stylize|saliency|export|styles")

    stylize = commands.add_parser(
        "stylize",
        help="paint photos and videos",
        description=f"Paint photos in a style, animations and TIFFs of several pages frame by frame. {KEPT} {FILMS} "
        f"{SEVERAL}",
    )
    _add_files(stylize, "photo.jpg becomes photo.STYLE.jpg beside it, a folder FOLDER.STYLE")
    _add_style(stylize)
    _add_limits(stylize)
    stylize.add_argument(
        "--keep-detail",
        type=_number(float, lambda share: 0 <= share <= 1, "a number from 0 to 1"),
        metavar="0..1",
        help="the share of the photo's fine structure that is kept where people look (default: the style's own)",
    )
    stylize.add_argument(
        "--mask",
        metavar="PATH",
        help="an image of the photo's size, white where its structure stays; in place of the style's own map",
    )
    stylize.add_argument(
        "--brush",
        type=_number(float, lambda factor: 0 < factor < math.inf, "a number above 0"),
        default=1.0,
        metavar="FACTOR",
        help="how broad the strokes are beside the style's own: 2 doubles them (default: 1)",
    )
    stylize.add_argument(
        "--strength",
        type=_number(float, lambda factor: 0 <= factor < math.inf, "a number from 0 up"),
        default=1.0,
        metavar="FACTOR",
        help="0 the photo, 1 the painting (default), beyond 1 more of it",
    )
    stylize.add_argument("--keep-color", action="store_true", help="paint light and dark, and keep the photo's colours")
    stylize.set_defaults(run=run_stylize)

    saliency = commands.add_parser(
        "saliency",
        help="show what a photo is about",
        description="Write saliency maps: white is what people look at. A map has its photo's size and resolution. "
        f"{SEVERAL}",
    )
    _add_files(saliency, "photo.jpg becomes photo.saliency.png beside it, a folder FOLDER.saliency")
    saliency.add_argument(
        "--method",
        choices=METHODS,
        default="network",
        help="the style's saliency network (default), or the classic detectors that it learnt from: RBD, MB+ (mbd), "
        "and their mean (reference)",
    )
    saliency.add_argument("--view", choices=VIEWS, default="map", help="grey map (default), or colours, with the photo")
    _add_style(saliency)
    _add_limits(saliency)
    saliency.set_defaults(run=run_saliency, style=None)

    export = commands.add_parser(
        "export",
        help="write a style as one ONNX file",
        description="Write a style as one ONNX file that paints without torch: photo, N x 3 x H x W, float32 sRGB in "
        "[0, 1] of any height and width, gives painting, of the same shape and range, and saliency, N x 1 x H x W. It "
        "paints as stylize --tile off does with its other options left alone, so memory grows with the photo. The file "
        "is run in ONNX Runtime first and not written unless it paints what torch does. Needs the extra "
        "sdpgan_hub[onnx].",
    )
    export.add_argument("output", metavar="FILE.onnx", help="the file to write")
    _add_style(export)
    export.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    export.set_defaults(run=run_export)

    styles = commands.add_parser("styles", help="list the styles that came with this package")
    styles.add_argument("--json", action="store_true", help="one JSON document: [{name, path, bytes}]")
    styles.set_defaults(run=run_styles)
    return parser


def _add_files(parser: argparse.ArgumentParser, default_output: str) -> None:
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help='image files, folders (all images below, hidden ones passed over, links followed), or "-"; for stylize '
        "videos too",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="PATH",
        help=f'a file whose suffix is the format, a folder, or "-" for stdout (default: {default_output})',
    )
    parser.add_argument(
        "--format",
        choices=[suffix.lstrip(".") for suffix in OUTPUT_FORMATS],
        help="the format of images whose path you do not give (default: the photo's; png for maps and stdout)",
    )
    parser.add_argument(
        "--quality",
        type=_number(int, lambda quality: 1 <= quality <= 100, "a whole number from 1 to 100"),
        default=92,
        metavar="1..100",
        help="of JPEG, WebP and AVIF files (default: 92)",
    )
    parser.add_argument("--first-frame", action="store_true", help="of an animation or a TIFF, the first picture alone")
    parser.add_argument(
        "--keep-metadata",
        action="store_true",
        help="keep the date, author and copyright of the photo's EXIF data, the latter two else of XMP or IPTC; never "
        "the place (not in GIF and BMP)",
    )
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="replace results that exist; never an input")
    existing.add_argument("--skip-existing", action="store_true", help="go on where an earlier run stopped")
    parser.add_argument("--json", action="store_true", help="print [{input, output, seconds, error}] on stdout")
    parser.add_argument("--quiet", action="store_true", help="no progress bar, no paths")


def _add_style(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--style",
        default=DEFAULT,
        metavar="NAME",
        help=f"a name of `sdpgan styles`, a folder, or a Hub model org/name (default: {DEFAULT})",
    )
    parser.add_argument("--revision", metavar="REV", help="branch, tag or commit of a Hub model")
    parser.add_argument("--local-files-only", action="store_true", help="do not ask the Hub; use what is cached")


def _add_limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-size",
        type=_number(int, lambda side: side >= MIN_SIZE, f"a whole number from {MIN_SIZE} up"),
        metavar="PIXELS",
        help="work at no more than this along the longer side and enlarge the result: less memory, less detail",
    )
    parser.add_argument(
        "--tile",
        type=_tile,
        default="auto",
        metavar="PIXELS",
        help="paint in squares of this side, which bounds memory; off: the photo whole (default: auto, by its size and "
        "the free memory)",
    )
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1, mps (default: a GPU where there is one)")


def _number(kind: type, holds: Callable[[Any], bool], wanted: str) -> Callable[[str], Any]:
    """An argparse type: an int or a float for which `holds` is true; `wanted` says so to the user."""

    def read(text: str) -> Any:
        with contextlib.suppress(ValueError):
            if holds(value := kind(text)):
                return value
        raise argparse.ArgumentTypeError(f"{text} is not {wanted}")

    return read


def _tile(text: str) -> int | str | None:
    if text in ("auto", "off"):
        return "auto" if text == "auto" else None
    return _number(int, lambda side: side >= MIN_SIZE, f"auto, off, or a whole number from {MIN_SIZE} up")(text)


def run_styles(options: argparse.Namespace, _: Processes) -> int:
    """`sdpgan styles`: name, size and folder of each shipped style."""
    rows: list[dict[str, Any]] = [
        {"name": name, "path": str(folder), "bytes": sum(file.stat().st_size for file in folder.iterdir())}
        for name, folder in available().items()
    ]
    if options.json:
        print(json.dumps(rows, indent=1))
        return 0
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        print(f"{row['name']:{width}} {row['bytes'] / 1e6:6.1f} MB  {row['path']}")
    return 0


def run_stylize(options: argparse.Namespace, processes: Processes) -> int:
    """`sdpgan stylize`."""
    tag = Path(options.style).resolve().name or "style"
    options.device = processes.start(options.device)
    jobs = processes.agreed(lambda: plan(options, tag, lambda suffix: suffix if suffix in OUTPUT_FORMATS else ".png"))
    if not jobs:
        return _report(options, processes, jobs, [])
    mask = processes.agreed(lambda: _read_mask(options.mask)) if options.mask else None
    model = processes.together(lambda: _load(options))

    keys = ("max_size", "tile", "brush", "strength", "keep_color", "keep_detail")
    settings = {key: getattr(options, key) for key in keys} | {"mask": mask}

    def paint(image: Any, scene: Scene | None) -> Any:
        return model.stylize(image, scene=scene, **settings)

    masks = [] if mask is None else [mask]

    def film(job: Job) -> None:
        from . import video

        named = _digest([settings | {"mask": None}, model.config], [*model.state_dict().values(), *masks])
        keep, quiet = options.keep_metadata, options.quiet or processes.several
        video.stylize(job.input, job.output, paint, named, keep_metadata=keep, quiet=quiet)

    return run(jobs, options, processes, paint, film)


def _digest(settings: object, tensors: Iterable[Tensor]) -> str:
    """One for all that decides how a photo is painted: names in JSON, and weights and masks."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for tensor in tensors:
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


def _read_mask(path: str) -> Tensor:
    """The mask of all photos, 1 or 3 x H x W, read once."""
    from . import imaging

    with _saying_warnings():
        return imaging.read(path).mask[0]


@contextlib.contextmanager
def _saying_warnings() -> Iterator[None]:
    """Says on stderr what is warned of inside."""
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", SDPGANWarning)
        try:
            yield
        finally:
            for warning in noted:
                print(f"warning: {warning.message}", file=sys.stderr)


def run_export(options: argparse.Namespace, _: Processes) -> int:
    """`sdpgan export`: the style as one ONNX file."""
    output = Path(options.output)
    if output.suffix.lower() != ".onnx" or os.path.isdir(output):
        raise UsageError(f"{output} is no name of an ONNX file; give one that ends with .onnx.")
    if os.path.lexists(output) and not options.overwrite:
        raise UsageError(f"{output} exists; add --overwrite, or give another name.")
    options.device = "cpu"
    model = _load(options)
    from .export import export

    difference = export(model, output, options.style)
    print(output)
    print(f"as torch paints, to {difference:.0e} where white is 1", file=sys.stderr)
    return 0


def run_saliency(options: argparse.Namespace, processes: Processes) -> int:
    """`sdpgan saliency`."""
    view = options.view
    of_network = {"style": None, "revision": None, "local_files_only": False, "max_size": None, "tile": "auto"}
    if options.method == "network":
        options.style = options.style or DEFAULT
    elif given := [key for key, default in of_network.items() if getattr(options, key) != default]:
        flag = "--" + given[0].replace("_", "-")
        raise UsageError(f"{flag} is for the style's network and does nothing with --method {options.method}; drop it.")
    options.device = processes.start(options.device)
    jobs = processes.agreed(lambda: plan(options, "saliency", lambda _: ".png"))
    if not jobs:
        return _report(options, processes, jobs, [])
    if options.method == "network":
        model = processes.together(lambda: _load(options))
        limits = {"max_size": options.max_size, "tile": options.tile}
        return run(jobs, options, processes, lambda image, _: _view(image, model.saliency_map(image, **limits), view))
    from . import saliency

    detectors = {"reference": saliency.reference, "rbd": saliency.robust_background, "mbd": saliency.minimum_barrier}
    find = detectors[options.method]
    return run(jobs, options, processes, lambda image, _: _view(image, find(_rgb(image)), view))


def _load(options: argparse.Namespace) -> SDPGAN:
    """The style on its device; whatever is printed meanwhile goes to stderr."""
    keep_freed_memory()
    with contextlib.redirect_stdout(sys.stderr):
        from .model import SDPGAN

        try:
            return SDPGAN.from_pretrained(
                options.style,
                revision=options.revision,
                local_files_only=options.local_files_only,
                map_location=options.device or _best_device(),
            )
        except SDPGANError:
            raise
        except Exception as error:
            raise UsageError(f"The style {options.style} cannot be loaded: {one_line(error)}") from error


def _best_device() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _view(image: Image.Image, saliency: np.ndarray, view: str) -> Image.Image:
    import numpy as np
    from PIL import Image

    from . import visualization

    if view == "map":
        return Image.fromarray(np.rint(saliency * 255).astype(np.uint8))
    if view == "heat":
        return Image.fromarray(visualization.heat_map(saliency))
    draw = visualization.overlay if view == "overlay" else visualization.contour
    return Image.fromarray(draw(_rgb(image), saliency))


def _rgb(image: Image.Image) -> np.ndarray:
    """A PIL image of any mode as the networks see it, uint8 H x W x 3."""
    from . import imaging

    return imaging.channels_last(imaging.from_signed(imaging.read(image).signed)[0])


class Jobs(list[Job]):
    """What is to be done, how many results are there already, and what of folders is not painted, by suffix."""

    passed_over: Counter[str]
    skipped = 0


def plan(options: argparse.Namespace, tag: str, default_suffix: Callable[[str], str]) -> Jobs:
    """What is to be done, or UsageError: every input found, every output possible, none an input or there already."""
    output = options.output
    if output == "":
        raise UsageError("the output's name is empty; give -o a file or a folder.")
    roots = [_checked_input(name) for name in dict.fromkeys(options.inputs)]
    into_folder = (
        output is not None
        and output != STANDARD
        and (len(roots) > 1 or any(root != STANDARD and Path(root).is_dir() for root in roots) or _means_folder(output))
    )
    if into_folder:
        named = Path(output).suffix.lower() in (*OUTPUT_FORMATS, *VIDEO_FORMATS)
        if os.path.isfile(output) or (named and not _means_folder(output)):
            raise UsageError(f"{output} is a file or named like one; the results of these inputs need a folder.")
    paints = options.command == "stylize"
    of_images = (lambda _: f".{options.format}") if options.format else default_suffix

    def suffix_of(suffix: str) -> str:
        if not paints or suffix not in files.VIDEO_SUFFIXES:
            return of_images(suffix)
        return suffix if suffix in VIDEO_FORMATS else ".mp4"

    jobs = Jobs()
    jobs.passed_over = Counter()
    for root in roots:
        if root != STANDARD and Path(root).is_dir():
            if output == STANDARD:
                raise UsageError(f"stdout takes one image, and {root} is a folder.")
            folder = Path(root) if Path(root).name not in ("", "..") else Path(root).resolve()
            target = Path(output) if output else folder.with_name(f"{folder.name}.{tag}")
            films = paints and files.can_read_video()
            with _saying_warnings():
                jobs += _folder_jobs(Path(root), target, suffix_of, jobs.passed_over, films)
        else:
            path = Path("stdin" if root == STANDARD else root)
            suffix = suffix_of(path.suffix.lower())
            default = STANDARD if root == STANDARD else str(path.with_name(f"{path.stem}.{tag}{suffix}"))
            is_film = paints and files.is_video_name(path)
            jobs.append(Job(root, _single_output(output or default, path.stem + suffix, into_folder, is_film)))
    if into_folder:
        _keep_apart(jobs, Path(output))
    _check_outputs(jobs, getattr(options, "mask", None))
    if jobs[0].output == STANDARD and options.json:
        raise UsageError("the image and --json both want stdout; give -o a path.")
    if jobs[0].output == STANDARD and sys.stdout.isatty():
        raise UsageError("an image on a terminal cannot be read; redirect stdout or give -o a path.")
    return _without_existing(jobs, options)


def _checked_input(name: str) -> str:
    try:
        if name != STANDARD:
            os.stat(name)
    except PermissionError:
        raise UsageError(f"{name} may not be read: permission denied.") from None
    except OSError:
        raise UsageError(f"{name}: no such file or folder.") from None
    return name


def _means_folder(output: str) -> bool:
    return output.endswith(("/", os.sep)) or os.path.isdir(output)


def _single_output(output: str, name: str, into_folder: bool, is_film: bool = False) -> str:
    if output == STANDARD and is_film:
        raise UsageError("stdout takes no video; give -o a path.")
    if output == STANDARD:
        return STANDARD
    if into_folder:
        return str(Path(output) / name)
    kind, formats = ("videos", VIDEO_FORMATS) if is_film else ("images", OUTPUT_FORMATS)
    if Path(output).suffix.lower() not in formats:
        raise UsageError(
            f"{output} has no suffix of a format of {kind} ({', '.join(formats)}); for a folder, end it with /."
        )
    return output


def _folder_jobs(
    folder: Path, target: Path, suffix_of: Callable[[str], str], passed_over: Counter[str], films: bool
) -> list[Job]:
    """A job for each image below `folder`, in the same structure below `target`; what lies in `target` is no input.

    films: whether videos are painted too.
    """
    inside = None if folder.resolve().is_relative_to(target.resolve()) else target.resolve()
    found = [path for path in files.files_below(folder) if not (inside and path.resolve().is_relative_to(inside))]
    sources = [path for path in found if files.is_image_name(path) or (films and files.is_video_name(path))]
    passed_over.update(path.suffix.lower() for path in set(found).difference(sources))
    if not sources:
        others = f"; it holds {_counted(passed_over)}" if passed_over else ""
        raise UsageError(f"{folder} holds no image ({', '.join(files.INPUT_SUFFIXES)}){others}.")
    names = [path.relative_to(folder).with_suffix(suffix_of(path.suffix.lower())) for path in sources]
    uses = Counter(names)
    jobs = []
    for path, name in zip(sources, names, strict=True):
        if uses[name] > 1:  # photo.jpg and photo.png keep apart as photo.jpg.png and photo.png.png
            name = name.with_name(path.name + name.suffix)
        jobs.append(Job(str(path), str(target / name)))
    return jobs


def _counted(suffixes: Counter[str]) -> str:
    """2 .mp4, 1 .heic and how to have it painted."""
    how = {suffix: f" ({files.INSTALL_HEIF})" for suffix in files.HEIF_SUFFIXES}
    if not files.can_read_video():
        how |= {suffix: f" ({files.INSTALL_VIDEO})" for suffix in files.VIDEO_SUFFIXES}
    kinds = sorted(suffixes.items())
    return ", ".join(f"{count} {suffix or 'without a suffix'}{how.get(suffix, '')}" for suffix, count in kinds)


def _keep_apart(jobs: Jobs, target: Path) -> None:
    """Where two results would have one path, all get the folders of their photos, seen from where all photos lie."""
    photos = [job for job in jobs if job.input != STANDARD]
    if len({job.output for job in photos}) == len({job.input for job in photos}):
        return
    folders = [os.path.dirname(os.path.abspath(job.input)) for job in photos]
    with contextlib.suppress(ValueError):  # on two drives
        common = os.path.commonpath(folders)
        for job, folder in zip(photos, folders, strict=True):
            job.output = str(target / os.path.relpath(folder, common) / Path(job.output).name)


def _check_outputs(jobs: list[Job], mask: str | None) -> None:
    if len(jobs) > 1 and any(job.output == STANDARD for job in jobs):
        raise UsageError(f"stdout takes one image, not {len(jobs)}.")
    read = [job.input for job in jobs] + ([mask] if mask is not None else [])
    inputs = {_identity(name) for name in read if name != STANDARD}
    made_from: dict[str, str] = {}
    for job in jobs:
        if job.output == STANDARD:
            continue
        if _identity(job.output) in inputs:
            raise UsageError(f"{job.output} is an input and would be overwritten; choose another output.")
        other = made_from.setdefault(os.path.realpath(job.output), job.input)
        if other != job.input:
            raise UsageError(f"{other} and {job.input} would both be written to {job.output}; do them one by one.")


def _identity(path: str) -> object:
    """The same for two names of one file, as where upper and lower case do not differ."""
    try:
        found = os.stat(path)
        return found.st_dev, found.st_ino
    except OSError:
        return os.path.realpath(path)


def _without_existing(jobs: Jobs, options: argparse.Namespace) -> Jobs:
    existing = [job for job in jobs if job.output != STANDARD and os.path.lexists(job.output)]
    if options.skip_existing:
        there = {job.output for job in existing}
        jobs[:] = [job for job in jobs if job.output not in there]
        jobs.skipped = len(existing)
        return jobs
    if existing and not options.overwrite:
        more = f" (and {len(existing) - 1} more)" if len(existing) > 1 else ""
        raise UsageError(f"{existing[0].output} exists{more}; add --overwrite or --skip-existing, or change -o.")
    return jobs


def run(
    jobs: Jobs, options: argparse.Namespace, processes: Processes, process: Process, film: Film | None = None
) -> int:
    """Do all jobs, videos by `film`; a failed one is named on stderr and does not keep the others from being done.

    Of several processes each does its share, and the main one names in the end what failed in all of them.
    """
    from tqdm import tqdm

    outcomes: list[Outcome] = []
    messages: list[str] = []
    bar = tqdm(
        total=len(jobs),
        desc=options.command,
        unit="image",
        file=sys.stderr,
        disable=options.quiet or len(jobs) == 1 or not processes.is_main,
    )

    def say(job: Job, message: str, kind: str = "") -> None:
        line = kind + (message if job.input in message else f"{job.input}: {message}")
        if processes.several:
            messages.append(line)
        else:
            tqdm.write(line, file=sys.stderr)

    def do_share(share: list[Job]) -> None:
        try:
            for job in share:
                outcome = _do(job, process, film, options)
                outcomes.append(outcome)
                bar.update(processes.count(1) - bar.n)
                for message in dict.fromkeys(str(warning.message) for warning in noted):
                    say(job, message, "warning: ")
                noted.clear()
                if outcome.error:
                    say(job, outcome.error)
        finally:  # the others do not wait for what this one gives up
            processes.count(len(share) - len(outcomes))
        while (done := processes.count(0)) < len(jobs):
            bar.update(done - bar.n)
            time.sleep(0.2)
        bar.update(done - bar.n)

    try:
        with bar, warnings.catch_warnings(record=True) as noted:
            warnings.simplefilter("ignore")  # Pillow's, about files that it reads all the same
            warnings.simplefilter("always", SDPGANWarning)
            processes.together(lambda: do_share(processes.share(jobs)))
    except KeyboardInterrupt:
        if not processes.several:
            _report(options, processes, jobs, outcomes)
        raise
    for message in processes.gathered(messages):
        if processes.is_main:
            print(message, file=sys.stderr)
    return _report(options, processes, jobs, processes.gathered(outcomes))


def _do(job: Job, process: Process, film: Film | None, options: argparse.Namespace) -> Outcome:
    start = time.perf_counter()
    error = None
    try:
        if job.input != STANDARD and files.is_video_name(Path(job.input)):
            if film is None:
                raise SDPGANError(f"{job.input} is a video; saliency maps are made of images.")
            film(job)
        else:
            _paint(job, process, options)
    except BrokenPipeError:
        raise
    except SDPGANError as failure:
        if isinstance(failure.__context__, ImportError):  # an extra is missing, which is so for all files
            raise
        error = reworded(failure, WORDS)
        _print_traceback()
    except Exception as failure:  # no file may keep the others from being done
        error = one_line(failure)
        _print_traceback()
    return Outcome(job.input, None if error else job.output, round(time.perf_counter() - start, 3), error)


def _paint(job: Job, process: Process, options: argparse.Namespace) -> None:
    """One file from its input to its output, frame by frame; what the output cannot hold is said before painting."""
    from .scene import Scene

    source: str | BytesIO = job.input
    name = job.input
    if job.input == STANDARD:
        data = sys.stdin.buffer.read()
        if not data:
            raise SDPGANError("nothing came in on stdin.")
        source, name = BytesIO(data), "what came in on stdin"
    suffix = f".{options.format or 'png'}" if job.output == STANDARD else Path(job.output).suffix.lower()
    format = OUTPUT_FORMATS[suffix]
    belongings = files.Belongings()
    with files.opened(source, name) as image:
        count = 1 if options.first_frame else files.frame_count(image)
        _check_holds(format, image, count, name)
        scene = Scene() if count > 1 and image.format != "TIFF" else None
        results = [process(frame, scene) for frame in files.frames(image, name, count, belongings)]
    data = files.encode(results, format, belongings, quality=options.quality, keep_metadata=options.keep_metadata)
    if job.output == STANDARD:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        files.write_whole(job.output, data)


def _check_holds(format: str, image: Image.Image, count: int, name: str) -> None:
    limit = files.LARGEST_SIDE.get(format)
    if limit and max(image.size) > limit:
        raise SDPGANError(
            f"{name} is {image.width} x {image.height} pixels, and a {format} file has {limit} a side at most; "
            "write it as png."
        )
    is_tiff = image.format == "TIFF"
    parts, whole = ("pages", "pages") if is_tiff else ("frames", "animation")
    holding = ("TIFF",) if is_tiff else files.ANIMATED
    if count > 1 and format not in holding:
        raise SDPGANError(
            f"{name} has {count} {parts}, and a {format} file holds no {whole}; write it as "
            f"{', '.join(holding).lower()}, or take --first-frame."
        )


def _report(options: argparse.Namespace, processes: Processes, jobs: Jobs, outcomes: list[Outcome]) -> int:
    """The exit code; the main process prints what became of all jobs."""
    failed = sum(outcome.error is not None for outcome in outcomes)
    code = 1 if failed else 0
    if not processes.is_main:
        return code
    if options.json:
        print(json.dumps([asdict(outcome) for outcome in outcomes], indent=1))
    elif not options.quiet and options.output != STANDARD:
        for outcome in outcomes:
            if outcome.output not in (None, STANDARD):
                print(outcome.output)
    if (jobs.passed_over or jobs.skipped or processes.several) and not options.quiet:
        counts = [f"{len(outcomes) - failed} done", f"{failed} failed"]
        counts += [f"{jobs.skipped} there already"] if jobs.skipped else []
        counts += [f"passed over: {_counted(jobs.passed_over)}"] if jobs.passed_over else []
        print(", ".join(counts), file=sys.stderr)
    return code


def _print_traceback() -> None:
    """That of the exception being handled, with all that led to it, where SDPGAN_DEBUG asks for it."""
    if os.environ.get("SDPGAN_DEBUG", "0") not in ("", "0"):
        traceback.print_exc()
