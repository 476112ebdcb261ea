"""The SDP-GAN demo: a photo and a style in, the painting and the saliency map out.

`python space/app.py [--port N]` from a clone, `python app.py` on a Hugging Face Space. Environment:

    SDPGAN_STYLES_DIR  more styles: folders that hold <name>/config.json and <name>/model.safetensors, separated as in
                       PATH. Visitors choose by name; no path that a visitor types is ever opened.
    SDPGAN_MAX_SIDE    photos whose longer side is above it are painted at it and enlarged back, which the page says
                       (1280 px on a CPU, 3072 px on a GPU).
    SDPGAN_MAX_WEIGHTS_MB
                       the largest weights taken from a Hugging Face repository (256).
    GRADIO_SERVER_NAME, GRADIO_SERVER_PORT
                       where to listen, as for any Gradio app.
"""

from __future__ import annotations

import argparse
import functools
import html
import os
import re
import sys
import tempfile
import time
import warnings
from abc import ABCMeta
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

sys.path.append(str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

try:
    import spaces  # ZeroGPU patches torch, so it comes first; other machines do not have it
except ImportError:
    spaces = None

import gradio as gr
import numpy as np
import torch
from gradio.utils import get_upload_folder
from huggingface_hub import constants, hf_hub_download
from PIL import Image

from sdpgan_hub import SDPGAN, SDPGANError, files, imaging, styles, visualization
from sdpgan_hub.errors import SDPGANWarning, reworded
from sdpgan_hub.memory import keep_freed_memory

HERE = Path(__file__).resolve().parent
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
MAX_SIDE = int(os.environ.get("SDPGAN_MAX_SIDE", 3072 if DEVICE == "cuda" else 1280))
MAX_UPLOAD_MB = 32
MAX_UPLOAD_MEGAPIXELS = 40
MAX_WEIGHTS_MB = float(os.environ.get("SDPGAN_MAX_WEIGHTS_MB", 256))
MODELS_IN_MEMORY = 6
DISPLAY_SIDE = 1600
SECONDS_TO_KEEP = 3600
KEEP_DETAIL = 0.5
"""Where the slider starts: what the shipped styles keep by themselves."""
ONE_AT_A_TIME = {"concurrency_limit": 1, "concurrency_id": "network"}
EXAMPLES = sorted(str(path) for path in (HERE / "examples").glob("*.jpg"))

WORDS = {
    "give a smaller tile=, such as 256, or max_size=, such as 1024": "try a smaller photo",
    "shrink it, or raise PIL.Image.MAX_IMAGE_PIXELS": f"this page takes {MAX_UPLOAD_MEGAPIXELS} megapixels at most",
    f"which takes another library: {files.INSTALL_HEIF}": "which this page does not read; use a JPEG, PNG or WebP file",
}
"""What messages say to a programmer -> what they say to a visitor."""

INTRODUCTION = """
# A photo becomes a painting
SDP-GAN repaints your photo in a painter's hand and keeps the detail where people look first.
"""

CREDITS = """
The styles `peppercarrot` and `peppercarrot-lite` learnt from panels of Pepper&Carrot by David Revoy,
[www.peppercarrot.com](https://www.peppercarrot.com), CC BY 4.0. The other painters' works are in the public domain.
"""

SALIENCY_VIEWS = (
    ("Saliency map", "The saliency map: bright where people look first"),
    ("Overlay", "The saliency map laid over the photo"),
    ("Outline", "The photo with the outline of its salient part"),
)

MAP_SCALE = """
<div class="scale"><i aria-hidden="true"></i><span>background</span><span>what people look at</span></div>
"""

OUTLINE_LEGEND = """
<div class="scale"><span>The line is where the map crosses one half.</span></div>
"""

NAME_THE_EXAMPLES = r"""
() => {
  const name = () => document.querySelectorAll("#examples button img").forEach((image) => {
    image.alt = "Example: " + image.src.split("/").pop().replace(/\..*/, "");
  });
  name();
  new MutationObserver(name).observe(document.body, { childList: true, subtree: true });
}
"""

SCROLL_TO_THE_RESULT = """
() => {
  const result = document.querySelector("#result");
  const belowTheFold = result.getBoundingClientRect().top > window.innerHeight / 2;
  if (belowTheFold && document.querySelector("#photo img")) result.scrollIntoView({ behavior: "smooth" });
}
"""

PRUSSIAN_BLUE = gr.themes.Color(
    "#f1f6fb", "#e0ebf6", "#c3d8ec", "#98bcde", "#669ac9", "#437db2",
    "#2f6395", "#274f79", "#234365", "#203955", "#152538", name="prussian blue",
)  # fmt: skip

ABOUT_THE_MAP = """
### What the saliency map shows
Before it paints, the network guesses what a viewer looks at first. The map is that guess: bright stands out, dark is
background. In training, lost content costs more in a bright region than in a dark one, and the painter reads the same
features while it works. So a face or a cup stays recognisable while sky and grass become brushwork. *Keep detail* goes
further: where the map is bright, it puts fine structure of the photo, though no colour, back into the painting.

Method: R. Li et al., [SDP-GAN: Saliency Detail Preservation Generative Adversarial Networks for High Perceptual Quality
Style Transfer](https://doi.org/10.1109/TIP.2020.3036754), IEEE Transactions on Image Processing 30, 2021. This page
runs an independent implementation.
"""

ABOUT_THE_PAGE = f"""
### About this page
The painting is as large as your photo. Where the photo's longer side is above {MAX_SIDE} pixels, it is painted at
{MAX_SIDE} and enlarged, and the line under the painting says so. Photos and paintings are deleted after an hour or so.

Any Hugging Face repository that holds an SDP-GAN style can be used too: type its id, such as `org/sdpgan-name`, as the
style. Programs can call `/stylize`; *Use via API* below shows how.

Example photos: NASA, U.S. Navy, Alf van Beem, Derek Jensen, John Severns, Simon Steinberger and Seth Zeigler (public
domain), Rachel Michetti and Stefan van der Walt (CC0), danielbuechele and vultilion (CC BY 2.0), Aitzol Berasategi
(CC BY 4.0).
"""


class Painting(NamedTuple):
    photo: Image.Image
    """Upright, in sRGB, RGB, or RGBA where the photo is transparent."""
    result: Image.Image
    """Of the photo's size and mode, in sRGB."""
    saliency: np.ndarray
    """float32, H x W of the photo, in [0, 1]."""
    seconds: float
    belongings: files.Belongings
    notes: list[str]


class WithoutStubFile(type(gr.Image)):
    """Gradio writes a .pyi file beside every subclass of a component; this one leaves the folder alone."""

    def __new__(cls, name: str, bases: tuple, attributes: dict) -> type:
        return ABCMeta.__new__(cls, name, bases, attributes)


class PhotoInput(gr.Image, metaclass=WithoutStubFile):
    """An image input that answers a file which is no picture with one sentence."""

    is_template = True

    def preprocess(self, payload):
        try:
            return super().preprocess(payload)
        except Exception as error:  # a broken file makes Pillow raise anything
            name = payload.orig_name or "The upload"
            raise refusal(f"{name} cannot be read as a picture; use a whole JPEG, PNG or WebP file.") from error


class ShareInput(gr.Slider, metaclass=WithoutStubFile):
    """A slider that lets every value through: Gradio's answer to a bad one leaves a traceback in the log."""

    is_template = True

    def preprocess(self, payload):
        return payload


def refusal(sentence: str) -> gr.Error:
    """One sentence for the page and for clients of the API."""
    return gr.Error(html.escape(sentence, quote=False), print_exception=False)


@contextmanager
def one_sentence() -> Iterator[None]:
    try:
        yield
    except SDPGANError as error:
        raise refusal(reworded(error, WORDS)) from error
    except MemoryError as error:
        raise refusal("There is not enough memory for this photo at the moment; try a smaller one.") from error


def known_styles() -> dict[str, Path]:
    """Name -> folder of the shipped styles and of those in SDPGAN_STYLES_DIR."""
    found = dict(styles.available())
    for folder in filter(None, os.environ.get("SDPGAN_STYLES_DIR", "").split(os.pathsep)):
        found.update((config.parent.name, config.parent) for config in sorted(Path(folder).glob("*/config.json")))
    return found


def check_download_size(repo_id: str) -> None:
    """Refuses files that are too large for this machine's disk and memory before they are fetched."""
    size = 0
    with suppress(OSError, ValueError, RuntimeError):  # `from_pretrained` says what is wrong
        for name in (styles.CONFIG_FILE, styles.WEIGHTS_FILE):
            size += hf_hub_download(repo_id, name, token=False, dry_run=True).file_size or 0
    megabytes = size / 2**20
    if megabytes > MAX_WEIGHTS_MB:
        raise SDPGANError(f"The files of {repo_id} are {megabytes:.0f} MB; this page takes {MAX_WEIGHTS_MB:g} at most.")


@functools.lru_cache(maxsize=MODELS_IN_MEMORY)
def load(style: str) -> SDPGAN:
    """The model of a known style or of a public repository on the Hub; those used last stay in memory."""
    known = known_styles()
    if style in known:
        source = str(known[style])
    elif styles.is_hub_id(style) and not Path(style).exists():  # a folder of this machine is not for visitors
        check_download_size(style)
        source = style
    else:
        raise SDPGANError(
            f'There is no style "{style[:80]}"; choose one of the list ({", ".join(known)}) or type a '
            'Hugging Face id such as "org/sdpgan-name".'
        )
    try:
        return SDPGAN.from_pretrained(source, token=False, map_location=DEVICE)
    except SDPGANError as error:
        raise SDPGANError(without_folders(str(error), style, source)) from error


def without_folders(message: str, style: str, source: str) -> str:
    """The message with the style's name where it names a folder of this machine."""
    cached = rf"{re.escape(str(constants.HF_HUB_CACHE))}/models--[^/]+/snapshots/[^/]+"
    return re.sub(f"{re.escape(source)}|{cached}", lambda _: style, message)


def run_network(photo: Image.Image, style: str, wishes: dict) -> tuple[Image.Image, np.ndarray]:
    return load(style).stylize(photo, return_saliency=True, max_size=MAX_SIDE, **wishes)


if spaces:
    run_network = spaces.GPU(duration=60)(run_network)


def read_photo(path: str) -> tuple[Image.Image, files.Belongings, list[str]]:
    """A photo upright and in sRGB, what belongs to its file, and what a visitor should know of it, in sentences."""
    name = Path(path).name
    belongings = files.Belongings()
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", SDPGANWarning)
        with files.opened(path, name) as image:
            megapixels = image.width * image.height / 1e6
            if megapixels > MAX_UPLOAD_MEGAPIXELS:
                raise SDPGANError(
                    f"{name} has {megapixels:.0f} megapixels; this page takes {MAX_UPLOAD_MEGAPIXELS} at most."
                )
            count = files.frame_count(image)
            (frame,) = files.frames(image, name, 1, belongings)
        picture = imaging.read(frame)
        photo = picture.restore(picture.signed)
    notes = [str(warning.message) for warning in noted]
    if count > 1:
        notes.append(f"{name} holds {count} pictures, and this page paints the first.")
    return photo, belongings, notes


def paint(
    path: str | None,
    style: str | None,
    keep_detail: float,
    brush: float,
    strength: float,
    keep_color: bool,
    mask: str | None,
) -> Painting:
    style = str(style or "").strip()  # a program may send a number
    with one_sentence():
        if not path:
            raise SDPGANError("Choose a photo first: upload one or pick an example.")
        if not style:
            raise SDPGANError("Choose a style first.")
        photo, belongings, notes = read_photo(path)
        wishes = {"keep_detail": keep_detail, "brush": brush, "strength": strength, "keep_color": keep_color}
        if mask:
            wishes["mask"] = read_photo(mask)[0]
        start = time.perf_counter()
        result, saliency = run_network(photo, style, wishes)
    return Painting(photo, result, saliency, time.perf_counter() - start, belongings, notes)


def download_name(path: str, style: str) -> str:
    return f"{Path(path).stem}-{style.strip().rpartition('/')[2]}.png"


def save(image: Image.Image, name: str, belongings: files.Belongings) -> str:
    """The path of a lossless file in Gradio's cache, from where `delete_cache` removes it; as the command line's."""
    cache = Path(get_upload_folder())
    cache.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(dir=cache), name)
    path.write_bytes(files.encode([image], "PNG", belongings))
    return str(path)


def for_display(image: Image.Image) -> Image.Image:
    shown = image.copy()
    shown.thumbnail((DISPLAY_SIDE, DISPLAY_SIDE), Image.Resampling.LANCZOS)
    return shown


def grey(saliency: np.ndarray) -> Image.Image:
    """8-bit grey, 255 = salient."""
    return Image.fromarray(np.rint(saliency * 255).astype(np.uint8))


def views(painting: Painting) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Heat map, overlay and outline at the size they are shown at."""
    photo = for_display(painting.photo).convert("RGB")
    saliency = np.asarray(grey(painting.saliency).resize(photo.size, Image.Resampling.BILINEAR), np.float32) / 255
    pixels = np.asarray(photo)
    return (
        visualization.heat_map(saliency),
        visualization.overlay(pixels, saliency),
        visualization.contour(pixels, saliency),
    )


def account(painting: Painting) -> str:
    """What was done to this photo, in a line."""
    width, height = painting.photo.size
    worked_height, worked_width = imaging.limited_size(height, width, MAX_SIDE)
    enlarged = ""
    if (worked_height, worked_width) != (height, width):
        enlarged = f" Painted at {worked_width} x {worked_height} and enlarged: its longer side is above {MAX_SIDE}."
    notes = "".join(f" {html.escape(note, quote=False)}" for note in painting.notes)
    return f"{width} x {height} pixels, {painting.seconds:.1f} s.{enlarged}{notes}"


def stylize(
    photo: str,
    style: str,
    keep_detail: float = KEEP_DETAIL,
    brush: float = 1.0,
    strength: float = 1.0,
    keep_color: bool = False,
    mask: str | None = None,
) -> tuple[str, str]:
    """Repaint a photo in a painter's style and keep the detail where people look first.

    Args:
        photo: An image file (JPEG, PNG, WebP), at most 32 MB and 40 megapixels.
        style: The name of a style in the list, or a Hugging Face id such as org/sdpgan-name.
        keep_detail: The share, 0 to 1, of the photo's fine structure that is kept where people look.
        brush: How broad the strokes are beside the style's own; 2 doubles them.
        strength: 0 the photo, 1 the painting, beyond 1 more of it.
        keep_color: Whether the photo's colours stay and only light and dark are painted.
        mask: An image of the photo's size; the photo's structure stays where it is white, and not where people look.

    Returns:
        painting: A PNG of exactly the photo's size.
        saliency_map: An 8-bit grey PNG of the same size; 255 is what people look at first.
    """
    painting = paint(photo, style, keep_detail, brush, strength, keep_color, mask)
    return (
        save(painting.result, download_name(photo, style), painting.belongings),
        save(grey(painting.saliency), f"{Path(photo).stem}-saliency.png", painting.belongings),
    )


def show(photo: str | None, style: str | None, *wishes: float | bool | str | None) -> tuple:
    """What the button does: the outputs of the page, in its order."""
    painting = paint(photo, style, *wishes)
    before, after = for_display(painting.photo), for_display(painting.result)
    file = save(painting.result, download_name(photo, style), painting.belongings)
    return (before, after), after, account(painting), gr.DownloadButton(value=file, interactive=True), *views(painting)


def page() -> gr.Blocks:
    as_upload = {"type": "filepath", "image_mode": None, "buttons": []}
    as_result = {"interactive": False, "show_label": False, "buttons": ["fullscreen"], "format": "webp"}
    with gr.Blocks(
        title="SDP-GAN: a photo becomes a painting",
        analytics_enabled=False,
        delete_cache=(SECONDS_TO_KEEP // 6, SECONDS_TO_KEEP),
    ) as blocks:
        gr.Markdown(INTRODUCTION, elem_id="introduction")
        with gr.Row(elem_id="workbench"):
            with gr.Column(scale=4, min_width=280):
                photo = PhotoInput(
                    label="Photo",
                    sources=["upload", "clipboard"],
                    placeholder="Drop a photo here\nor click to choose one",
                    height=280,
                    elem_id="photo",
                    **as_upload,
                )
                gr.Examples(
                    EXAMPLES,
                    photo,
                    label="Or one of these",
                    elem_id="examples",
                    cache_examples=False,
                    examples_per_page=len(EXAMPLES),
                )
                style = gr.Dropdown(
                    list(known_styles()),
                    value=styles.DEFAULT,
                    label="Style",
                    info="From the list, or a Hugging Face id such as org/sdpgan-name",
                    allow_custom_value=True,
                    elem_id="style",
                )
                keep_detail = ShareInput(
                    0,
                    1,
                    value=KEEP_DETAIL,
                    step=0.05,
                    label="Keep detail",
                    info="How much of the photo's fine structure stays where people look",
                    elem_id="keep-detail",
                )
                with gr.Accordion("More", open=False, elem_id="more"):
                    brush = ShareInput(
                        0.25, 4, 1, step=0.25, label="Brush", info="How broad the strokes are", elem_id="brush"
                    )
                    strength = ShareInput(
                        0, 2, 1, step=0.05, label="Strength", info="0 is the photo, 1 the painting", elem_id="strength"
                    )
                    keep_color = gr.Checkbox(label="Keep the photo's colours", elem_id="keep-color")
                    mask = PhotoInput(
                        label="Mask",
                        sources=["upload"],
                        placeholder="An image of the photo's size,\nwhite where the photo's structure stays",
                        height=160,
                        elem_id="mask",
                        **as_upload,
                    )
                wishes = [keep_detail, brush, strength, keep_color, mask]
                button = gr.Button("Stylize", variant="primary", elem_id="stylize")
            with gr.Column(scale=6, min_width=300):
                with gr.Tabs(elem_id="result"):
                    with gr.Tab("Before and after"):
                        comparison = gr.ImageSlider(
                            label="Photo left, painting right", max_height=460, elem_id="comparison", **as_result
                        )
                    with gr.Tab("Painting"):
                        alone = gr.Image(label="Painting", alt_text="The painting", **as_result)
                note = gr.Markdown("The painting appears here, as large as your photo.", elem_id="note")
                download = gr.DownloadButton("Download the painting (PNG)", interactive=False, elem_id="download")
            with gr.Column(scale=5, min_width=300), gr.Tabs(elem_id="saliency"):
                maps = []
                for name, alt_text in SALIENCY_VIEWS:
                    with gr.Tab(name):
                        maps.append(gr.Image(label=name, alt_text=alt_text, **as_result))
                        gr.HTML(MAP_SCALE if name != "Outline" else OUTLINE_LEGEND)
        with gr.Row(elem_id="about"):
            for text in (ABOUT_THE_MAP, ABOUT_THE_PAGE + CREDITS):
                with gr.Column(min_width=300):
                    gr.Markdown(text)

        painted = button.click(
            show,
            [photo, style, *wishes],
            [comparison, alone, note, download, *maps],
            show_progress_on=[comparison],
            api_visibility="private",
            **ONE_AT_A_TIME,
        )
        button.click(js=SCROLL_TO_THE_RESULT)
        painted.success(js=SCROLL_TO_THE_RESULT)  # where the first was cut short, as by pictures that came meanwhile
        painting = gr.Image(label="painting", visible=False)
        saliency_map = gr.Image(label="saliency map", visible=False)
        gr.Button(visible=False).click(
            stylize, [photo, style, *wishes], [painting, saliency_map], api_name="stylize", **ONE_AT_A_TIME
        )
        blocks.load(js=NAME_THE_EXAMPLES)
    return blocks.queue(max_size=20)


def theme() -> gr.Theme:
    system_fonts = ("Segoe UI", "Helvetica Neue", "Roboto", "Noto Sans", "Liberation Sans", "Arial", "sans-serif")
    return gr.themes.Base(
        primary_hue=PRUSSIAN_BLUE,
        neutral_hue="stone",
        radius_size="sm",
        font=system_fonts,
        font_mono=("Menlo", "Consolas", "Liberation Mono", "monospace"),
    ).set(
        body_background_fill="*neutral_50",
        link_text_color="*primary_600",
        link_text_color_dark="*primary_300",
        link_text_color_hover="*primary_800",
        link_text_color_hover_dark="*primary_100",
        link_text_color_visited="*primary_600",
        link_text_color_visited_dark="*primary_300",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_500",
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Starts the SDP-GAN demo and prints its address.")
    parser.add_argument("--port", type=int, help="default: GRADIO_SERVER_PORT, or the first free one from 7860 up")
    port = parser.parse_args(arguments).port
    if DEVICE == "cpu":
        keep_freed_memory()
    with suppress(SDPGANError):  # whoever chooses it is told
        load(styles.DEFAULT)
    try:
        page().launch(
            server_port=port,
            max_file_size=f"{MAX_UPLOAD_MB}mb",
            share=False,
            ssr_mode=False,
            run_history=False,
            theme=theme(),
            css_paths=HERE / "style.css",
            footer_links=["api", "gradio", "settings"],
        )
    except OSError as error:
        sys.exit(f"app.py: {str(error).partition('.')[0]}; choose another with --port.")


if __name__ == "__main__":
    main()
