"""The Space as a person meets it: the real `python space/app.py`, a real Chromium, and Gradio's own API client."""

import io
import itertools
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from hub_server import LoopbackHub
from PIL import Image, ImageCms
from training_fixtures import ROOT, free_port

from sdpgan_hub import SDPGAN, color

pytest.importorskip("gradio")
gradio_client = pytest.importorskip("gradio_client")

SPACE = ROOT / "space"
COFFEE = SPACE / "examples" / "coffee.jpg"
MAX_SIDE = 320
PATIENCE = 30_000
"""Milliseconds to wait for a page that is busy."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def chromium() -> Iterator[object]:
    """A `playwright.sync_api.Browser`, headless: the first Chromium on the PATH, or the one of SDPGAN_CHROMIUM."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = os.environ.get("SDPGAN_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no Chromium on this machine ({', '.join(BROWSERS)})")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def styles_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one style, "strokes": a small untrained network."""
    folder = tmp_path_factory.mktemp("styles")
    torch.manual_seed(0)
    SDPGAN(base_channels=8, residual_blocks=1).save_pretrained(folder / "strokes")
    return folder


@pytest.fixture(scope="session")
def loopback_hub(styles_folder: Path) -> Iterator[LoopbackHub]:
    """A Hub with the style "strokes" in a public and in a private repository, and files of 2 MB that are none."""
    files = {path.name: path.read_bytes() for path in (styles_folder / "strokes").iterdir()}
    with closing(LoopbackHub()) as server:
        server.add("org/sdpgan-strokes", files)
        server.add("org/sdpgan-secret", files, private=True)
        server.add("org/sdpgan-huge", {**files, "model.safetensors": bytes(2_000_000)})
        server.add("org/sdpgan-wordy", {"config.json": bytes(2_000_000)})
        yield server


@pytest.fixture(scope="session")
def environment(
    loopback_hub: LoopbackHub, styles_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Of an operator whose token may read everything on the Hub."""
    inherited = loopback_hub.environment(tmp_path_factory.mktemp("hf"))
    others = ("GRADIO_", "SDPGAN_", "PYTHONPATH")
    return {name: value for name, value in inherited.items() if not name.startswith(others)} | {
        "SDPGAN_STYLES_DIR": str(styles_folder),
        "SDPGAN_MAX_SIDE": str(MAX_SIDE),
        "SDPGAN_MAX_WEIGHTS_MB": "1",
        "GRADIO_TEMP_DIR": str(tmp_path_factory.mktemp("gradio")),
        "PYTHONUNBUFFERED": "1",
    }


@pytest.fixture(scope="session")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server's standard output and error go."""
    return tmp_path_factory.mktemp("log") / "space.log"


@pytest.fixture(scope="session")
def url(environment: dict[str, str], log: Path) -> Iterator[str]:
    """The address that `python space/app.py` prints once it listens."""
    command = [sys.executable, "space/app.py", "--port", str(free_port())]
    with (
        log.open("w") as output,
        subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=output, text=True
        ) as server,
    ):
        printed = iter(server.stdout.readline, "")
        address = next((found[0] for line in printed if (found := re.search(r"http://127\.0\.0\.1:\d+", line))), None)
        assert address, log.read_text()
        yield address
        server.terminate()
        output.write(server.stdout.read())


@pytest.fixture(scope="session")
def client(url: str) -> object:
    return gradio_client.Client(url, verbose=False, analytics_enabled=False)


@pytest.fixture(scope="session")
def visit(chromium: object, url: str) -> Iterator[Callable[..., object]]:
    """Opens the page in a browser of its own and paints a photo there; `page.requested` lists what it asked for."""
    contexts = []

    def open_page(photo: Path | None = None, **options: object) -> object:
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.requested = []
        page.on("request", lambda request: page.requested.append(request.url))
        page.goto(url)
        page.locator("#photo input[type=file]").wait_for(state="attached", timeout=PATIENCE)
        if photo is not None:
            upload(page, photo)
            stylize(page)
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def stylized(visit: Callable[..., object]) -> object:
    """The page after a person uploaded a photo of a coffee cup and pressed Stylize."""
    return visit(COFFEE)


@pytest.fixture(scope="session")
def phone(visit: Callable[..., object]) -> object:
    """As `stylized`, on the screen of a phone."""
    return visit(COFFEE, viewport={"width": 390, "height": 844})


@pytest.fixture(scope="session")
def untouched(visit: Callable[..., object]) -> object:
    """The page as it opens, for what it refuses."""
    return visit()


def upload(page: object, path: Path) -> None:
    with page.expect_response(lambda response: "/upload" in response.url):
        page.locator("#photo input[type=file]").set_input_files(path)
    page.locator("#photo img").wait_for(timeout=PATIENCE)


def stylize(page: object) -> None:
    page.get_by_role("button", name="Stylize").click()
    page.get_by_text(re.compile(r"\d+ x \d+ pixels")).wait_for(timeout=PATIENCE)


def pixels(source: bytes | Path) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(source) if isinstance(source, bytes) else source).convert("RGB"), np.int16)


def shown(page: object, selector: str) -> list[np.ndarray]:
    """The pictures at `selector` as the browser got them."""
    images = page.locator(f"{selector} img")
    images.first.wait_for(timeout=PATIENCE)
    return [pixels(urllib.request.urlopen(image.get_attribute("src")).read()) for image in images.all()]


def downloaded(page: object, folder: Path) -> Path:
    """The file that the download button gives, in `folder` under its own name."""
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the painting").click()
    file = folder / download.value.suggested_filename
    download.value.save_as(file)
    return file


def toast(page: object) -> str:
    """The message that the page shows, one sentence, which is then closed."""
    message = page.get_by_test_id("toast-text")
    message.wait_for(timeout=PATIENCE)
    text = message.inner_text()
    page.get_by_test_id("toast-close").click()
    message.wait_for(state="detached", timeout=PATIENCE)
    assert text.endswith((".", "?")) and ". " not in text and "\n" not in text, text
    return text


def ask(client: object, photo: Path, style: str = "strokes", **options: object) -> tuple[Path, Path]:
    """The painting and the map that the endpoint gives."""
    files = client.predict(gradio_client.handle_file(photo), style, api_name="/stylize", **options)
    return Path(files[0]), Path(files[1])


def difference(one: np.ndarray, other: np.ndarray) -> float:
    assert one.shape == other.shape
    return float(np.abs(one - other).mean())


def test_a_photo_uploaded_in_the_browser_becomes_a_painting_and_a_saliency_map(stylized):
    photo = pixels(COFFEE)
    before, after = shown(stylized, "#comparison")
    assert difference(before, photo) < 4  # WebP
    assert difference(after, photo) > 10
    (heat_map,) = shown(stylized, "#saliency [role=tabpanel]:visible")
    assert difference(heat_map, photo) > 10
    assert heat_map.std() > 5


def test_no_request_of_the_page_leaves_this_machine(stylized, url):
    assert len(stylized.requested) > 10
    assert [address for address in stylized.requested if not address.startswith((f"{url}/", "data:", "blob:"))] == []


def test_a_photo_painted_below_its_size_is_said_to_be_so(stylized):
    note = stylized.locator("#note").inner_text()
    assert "600 x 400" in note and f"{MAX_SIDE} x 213" in note


def test_the_download_is_the_painting_of_the_shipped_style_at_the_size_of_the_photo(stylized, tmp_path):
    file = downloaded(stylized, tmp_path)
    assert file.name == "coffee-vangogh.png"
    painting = SDPGAN.from_pretrained("vangogh").stylize(COFFEE, max_size=MAX_SIDE)
    assert difference(pixels(file), np.asarray(painting, np.int16)) < 0.5


def test_the_page_shows_the_colours_of_the_download_and_says_what_it_left_out(visit, tmp_path):
    """Of an animation in Display P3, whose profile the download carries and browsers get no word of."""
    profile = (ROOT / "tests" / "profiles" / "display_p3.icc").read_bytes()
    wide = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    frames = [ImageCms.profileToProfile(Image.open(COFFEE), color.SRGB, wide)] * 2
    frames[1] = frames[0].transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    frames[0].save(tmp_path / "wide.webp", save_all=True, append_images=frames[1:], icc_profile=profile, quality=95)
    page = visit(tmp_path / "wide.webp")
    _, after = shown(page, "#comparison")
    file = downloaded(page, tmp_path)
    with Image.open(file) as download:
        assert download.info["icc_profile"] == profile
        in_srgb = np.asarray(color.to_srgb(download, ""), np.int16)
    assert difference(after, in_srgb) < 4  # WebP
    assert difference(pixels(file), in_srgb) > 4
    assert "wide.webp holds 2 pictures" in page.locator("#note").inner_text()


def test_the_slider_keep_detail_brings_back_what_the_photo_has_where_people_look(visit, styles_folder, tmp_path):
    """By as much as `keep_detail` of `SDPGAN.stylize` does; with the small style of the server."""
    page = visit()
    upload(page, COFFEE)
    page.get_by_role("combobox", name="Style").fill("strokes")
    page.get_by_role("combobox", name="Style").press("Enter")
    number = page.get_by_role("spinbutton", name="Keep detail")
    assert number.input_value() == "0.5"
    number.fill("1")
    number.press("Tab")
    stylize(page)
    painting = SDPGAN.from_pretrained(styles_folder / "strokes").stylize(COFFEE, max_size=MAX_SIDE, keep_detail=1)
    assert difference(pixels(downloaded(page, tmp_path)), np.asarray(painting, np.int16)) < 0.5


def test_overlay_and_outline_are_shown_without_asking_the_server_to_run_again(stylized):
    asked = len(stylized.requested)
    seen = []
    for name in ("Saliency map", "Overlay", "Outline"):
        stylized.get_by_role("tab", name=name).click()
        seen += shown(stylized, "#saliency [role=tabpanel]:visible")
    assert len(seen) == 3
    assert all(difference(one, other) > 5 for one, other in itertools.combinations(seen, 2))
    assert not [address for address in stylized.requested[asked:] if "/queue/" in address or "/run/" in address]


def test_an_example_is_picked_by_its_name_and_stylized(visit):
    page = visit()
    page.get_by_role("button", name="Example: bridge").click()
    assert page.locator("#examples img").count() == 12
    page.locator("#photo img").wait_for(timeout=PATIENCE)
    stylize(page)
    before, after = shown(page, "#comparison")
    assert difference(before, pixels(SPACE / "examples" / "bridge.jpg")) < 4
    assert difference(after, before) > 10


def test_the_page_fits_a_phone(phone):
    assert phone.evaluate("document.documentElement.scrollWidth") == 390
    for selector in ("#photo", "#stylize", "#comparison", "#saliency", "#download"):
        box = phone.locator(selector).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390, selector


def test_on_a_phone_the_result_comes_into_view(phone):
    top = "document.querySelector('#result').getBoundingClientRect().top"
    phone.wait_for_function(f"0 <= {top} && {top} < innerHeight / 2", timeout=PATIENCE)  # it scrolls smoothly


def test_no_photo_is_answered_in_the_browser_with_one_sentence(untouched):
    untouched.get_by_role("button", name="Stylize").click()
    assert "photo" in toast(untouched)


def test_an_unreadable_upload_is_answered_in_the_browser_with_one_sentence(untouched, tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"not a picture")
    upload(untouched, tmp_path / "holiday.jpg")
    untouched.get_by_role("button", name="Stylize").click()
    assert "holiday.jpg" in toast(untouched)


def test_an_unknown_style_is_answered_in_the_browser_with_one_sentence(untouched):
    untouched.get_by_role("button", name="Example: cat").click()
    untouched.get_by_role("combobox", name="Style").fill("rembrandt")
    untouched.get_by_role("combobox", name="Style").press("Enter")
    untouched.get_by_role("button", name="Stylize").click()
    assert '"rembrandt"' in toast(untouched)


def test_a_file_that_is_cut_short_is_answered_with_one_sentence(client, tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(COFFEE.read_bytes()[:20_000])
    with pytest.raises(Exception, match=r"holiday\.jpg"):
        ask(client, tmp_path / "holiday.jpg")


@pytest.mark.parametrize(
    ("mode", "size"),
    [("RGB", (61, 47)), ("RGBA", (500, 33)), ("L", (1, 1)), ("I;16", (40, 30)), ("P", (33, 20)), ("CMYK", (24, 50))],
)
def test_the_endpoint_gives_a_painting_and_a_map_of_exactly_the_size_of_the_photo(client, tmp_path, mode, size):
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    image = Image.fromarray(values)
    file = tmp_path / ("photo.tif" if mode == "CMYK" else "photo.png")
    if mode == "I;16":
        Image.fromarray(values.view(np.uint16)[..., 0]).save(file)
    else:
        (image if mode == "RGBA" else image.convert("RGB").convert(mode)).save(file)
    painting, saliency = map(Image.open, ask(client, file))
    assert painting.format == "PNG" and painting.size == size
    assert saliency.mode == "L" and saliency.size == size
    if mode == "RGBA":
        assert np.array_equal(np.asarray(painting)[..., 3], values[..., 3])


def test_a_photo_that_its_camera_stored_sideways_comes_out_upright(client, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to view
    Image.open(COFFEE).save(tmp_path / "sideways.jpg", exif=exif)
    painting, _ = ask(client, tmp_path / "sideways.jpg")
    assert Image.open(painting).size == (400, 600)


@pytest.mark.parametrize("style", ["FOLDER/strokes", "./sdpgan_hub/styles", "sdpgan_hub/saliency", "../strokes"])
def test_a_visitor_cannot_name_a_folder_of_the_server_as_a_style(client, styles_folder, style):
    style = style.replace("FOLDER", str(styles_folder))
    with pytest.raises(Exception, match=re.escape(f'"{style}"'[:80])):
        ask(client, COFFEE, style)


def test_a_style_on_the_hub_is_used_by_its_id(client):
    paintings = [pixels(ask(client, COFFEE, style)[0]) for style in ("strokes", "org/sdpgan-strokes")]
    assert difference(*paintings) == 0


def test_a_visitor_never_reads_a_repository_with_the_token_of_the_operator(client, loopback_hub):
    with pytest.raises(Exception, match="org/sdpgan-secret") as refused:
        ask(client, COFFEE, "org/sdpgan-secret")
    assert "\n" not in str(refused.value)
    assert {request.authorization for request in loopback_hub.requests} == {None}


@pytest.mark.parametrize("name", ["org/sdpgan-huge", "org/sdpgan-wordy"])
def test_files_that_are_too_large_are_refused_before_they_are_fetched(client, loopback_hub, name):
    with pytest.raises(Exception, match=rf"{name}.* 2 MB.* 1 "):
        ask(client, COFFEE, name)
    fetched = [request.path for request in loopback_hub.requests if request.method == "GET"]
    assert not [path for path in fetched if path.startswith(f"/{name}/resolve/")]


def test_a_broken_style_is_named_without_the_folders_of_the_server(client, styles_folder):
    broken = styles_folder / "broken"
    shutil.copytree(styles_folder / "strokes", broken)
    (broken / "model.safetensors").write_bytes((broken / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(Exception, match=r"broken/model\.safetensors") as refused:
        ask(client, COFFEE, "broken")
    assert str(styles_folder) not in str(refused.value)


def test_the_endpoint_keeps_as_much_detail_as_asked_and_refuses_what_is_no_share(client, styles_folder):
    model = SDPGAN.from_pretrained(styles_folder / "strokes")
    for share, options in ((0.5, {}), (0, {"keep_detail": 0})):
        expected = np.asarray(model.stylize(COFFEE, max_size=MAX_SIDE, keep_detail=share), np.int16)
        assert difference(pixels(ask(client, COFFEE, **options)[0]), expected) < 0.5
    assert difference(*(pixels(ask(client, COFFEE, keep_detail=share)[0]) for share in (0, 1))) > 1
    with pytest.raises(Exception, match=r"keep_detail.*\b5\b"):
        ask(client, COFFEE, keep_detail=5)


def test_the_endpoint_has_brush_strength_colour_and_mask_of_python(client, styles_folder, tmp_path):
    with Image.open(COFFEE) as photo:
        mask = Image.linear_gradient("L").resize(photo.size)
    mask.save(tmp_path / "mask.png")
    wishes = {"brush": 2, "strength": 0.7, "keep_color": True}
    model = SDPGAN.from_pretrained(styles_folder / "strokes")
    expected = model.stylize(COFFEE, max_size=MAX_SIDE, mask=mask, keep_detail=0.5, **wishes)
    file = gradio_client.handle_file(str(tmp_path / "mask.png"))
    assert difference(pixels(ask(client, COFFEE, **wishes, mask=file)[0]), np.asarray(expected, np.int16)) < 0.5
    expected = model.stylize(COFFEE, max_size=MAX_SIDE, mask=mask, keep_detail=0)
    assert difference(pixels(ask(client, COFFEE, keep_detail=0, mask=file)[0]), np.asarray(expected, np.int16)) < 0.5
    for name, value in {"brush": 0, "strength": -1}.items():
        with pytest.raises(Exception, match=rf"{name}.*{value}"):
            ask(client, COFFEE, **{name: value})


def test_the_endpoint_says_what_it_takes_and_gives(client):
    endpoint = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert list(endpoint) == ["/stylize"]
    parameters = endpoint["/stylize"]["parameters"]
    names = [value["parameter_name"] for value in parameters]
    assert names == ["photo", "style", "keep_detail", "brush", "strength", "keep_color", "mask"]
    assert parameters[2]["parameter_has_default"] and parameters[2]["parameter_default"] == 0.5
    assert [value["label"] for value in endpoint["/stylize"]["returns"]] == ["painting", "saliency map"]


def test_the_folder_with_the_package_beside_it_is_a_whole_space_and_names_a_port_that_is_taken(
    environment, url, tmp_path
):
    """What its README tells to upload starts without the rest of the repository, up to the port it cannot have."""
    folder = tmp_path / "space"
    for source, copy in ((SPACE, folder), (ROOT / "sdpgan_hub", folder / "sdpgan_hub")):
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
    port = url.rpartition(":")[2]
    code = f"import app, sdpgan_hub; print(app.__file__, sdpgan_hub.__file__); app.main(['--port', '{port}'])"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    imported = [Path(file).relative_to(folder).as_posix() for file in run.stdout.split()]
    assert imported == ["app.py", "sdpgan_hub/__init__.py"]
    assert run.returncode == 1
    assert port in run.stderr and len(run.stderr.strip().splitlines()) == 1, run.stderr


def test_the_front_matter_names_files_and_a_gradio_that_fit():
    front_matter = (SPACE / "README.md").read_text().split("---\n")[1]
    values = dict(line.split(": ", 1) for line in front_matter.splitlines() if re.match(r"\w+: ", line))
    requirements = (SPACE / "requirements.txt").read_text()
    assert values["sdk"] == "gradio"
    assert (SPACE / values["app_file"]).is_file()
    assert f"gradio=={values['sdk_version']}" in requirements.replace('"', "")
    assert len(values["short_description"]) <= 60


def test_the_requirements_hold_all_that_the_package_needs():
    tomllib = pytest.importorskip("tomllib")
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    listed = (SPACE / "requirements.txt").read_text().split()
    assert sorted(set(needed) - set(listed)) == []


def test_the_examples_are_small_photos_with_a_source():
    examples = [path for path in (SPACE / "examples").iterdir() if path.suffix == ".jpg"]
    sources = (SPACE / "examples" / "README.md").read_text()
    assert len(examples) == 12
    assert [path.name for path in examples if path.stat().st_size > 90_000] == []
    assert sorted(path.name for path in examples) == re.findall(r"^\| `(.+\.jpg)` \|", sources, re.MULTILINE)
    page = " ".join((SPACE / "app.py").read_text().split())
    rows = re.findall(r"^\| `.+?\|.+?\| (.+?) \|", sources, re.MULTILINE)  # by whom, and the terms
    for by in (re.sub(r" \(Flickr.*?\)|James S. Davis, ", "", row).split(",")[0] for row in rows):
        assert by in page, f"the page does not credit {by}"


def test_starting_the_space_leaves_its_folder_as_it_was(url):
    names = sorted(path.name for path in SPACE.iterdir() if path.name != "__pycache__")
    assert names == ["README.md", "app.py", "examples", "requirements.txt", "style.css"]


def test_no_refusal_leaves_a_traceback_in_the_log_of_the_server(url, client, log):
    with pytest.raises(Exception, match="photo"):
        client.predict(None, "strokes", api_name="/stylize")
    with pytest.raises(Exception, match='"2026"'):
        ask(client, COFFEE, 2026)
    assert "Traceback" not in log.read_text()


def test_what_runs_out_of_memory_is_told_in_the_words_of_the_page(monkeypatch):
    monkeypatch.syspath_prepend(SPACE)
    import app

    out_of_memory = RuntimeError("DefaultCPUAllocator: not enough memory")
    monkeypatch.setattr("sdpgan_hub.networks.Generator.forward", Mock(side_effect=out_of_memory))
    with pytest.raises(app.gr.Error) as refused:
        app.stylize(str(SPACE / "examples" / "cat.jpg"), "vangogh")
    assert "try a smaller photo" in refused.value.message and "=" not in refused.value.message
