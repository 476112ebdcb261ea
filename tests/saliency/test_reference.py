"""What holds for all three references: sizes, ranges, odd inputs, refusals, and what importing them costs."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from skimage import data

from sdpgan_hub.errors import SDPGANError
from sdpgan_hub.saliency import minimum_barrier, reference, robust_background
from sdpgan_hub.saliency.common import inside_frame, min_max, shrink
from sdpgan_hub.saliency.kernels import compiled

METHODS = [robust_background, minimum_barrier, reference]
ROOT = Path(__file__).resolve().parents[2]


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return shrink(data.astronaut(), 300)


def test_the_reference_is_the_mean_of_the_two_maps(photo):
    expected = 0.5 * (robust_background(photo) + minimum_barrier(photo))
    np.testing.assert_allclose(reference(photo), expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 40, 3), (40, 1, 3), (2, 2, 3), (5, 300, 3), (30, 4000, 3)])
def test_any_size_gives_a_float32_map_of_that_size_in_0_1(shape):
    for method in METHODS:
        saliency = method(noise(*shape))
        assert saliency.shape == shape[:2] and saliency.dtype == np.float32
        assert 0 <= saliency.min() and saliency.max() <= 1 and np.isfinite(saliency).all()


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (31, 200, 90)])
def test_a_constant_image_has_no_saliency(colour):
    image = np.full((60, 80, 3), colour, np.uint8)
    for method in METHODS:
        assert not method(image).any(), method.__name__


def test_grey_is_taken_as_equal_channels_and_alpha_is_dropped(photo):
    grey = photo[..., 1]
    alpha = np.dstack([photo, noise(*photo.shape[:2])])
    assert np.array_equal(reference(grey), reference(np.dstack([grey] * 3)))
    assert np.array_equal(reference(grey[..., None]), reference(grey))
    assert np.array_equal(reference(alpha), reference(photo))


def test_a_strided_view_gives_what_its_copy_gives(photo):
    view = photo[::-1, ::-1]
    assert np.array_equal(reference(view), reference(view.copy()))


def test_the_same_photo_gives_the_same_map_and_is_left_alone(photo):
    before = photo.copy()
    assert np.array_equal(reference(photo), reference(photo))
    assert np.array_equal(photo, before)


@pytest.mark.parametrize("value", [0, 255])
def test_an_artificial_frame_is_found_is_not_salient_and_hardly_changes_the_map(value):
    photo = shrink(data.chelsea())
    framed = photo.copy()
    framed[:12], framed[-12:], framed[:, :12], framed[:, -12:] = value, value, value, value
    content = photo[12:-12, 12:-12]
    rows, columns = inside_frame(framed)
    assert [rows.start, columns.start] == pytest.approx([12, 12], abs=3)
    assert [rows.stop, columns.stop] == pytest.approx([s - 12 for s in photo.shape[:2]], abs=3)
    for method in METHODS:
        saliency = method(framed)
        assert not saliency[:10].any() and not saliency[:, -10:].any()
        assert np.abs(saliency[12:-12, 12:-12] - method(content)).mean() < 0.1, method.__name__


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee", "rocket"])
def test_a_photo_without_a_frame_keeps_all_of_it(name):
    working = shrink(getattr(data, name)())
    assert inside_frame(working) == (slice(0, working.shape[0]), slice(0, working.shape[1]))


@pytest.mark.parametrize("bad", [noise(8, 8, 3).astype(np.float32), noise(8, 8, 2), noise(2, 8, 8, 3), noise(0, 8, 3)])
def test_what_is_no_uint8_picture_is_refused_with_its_type_and_size(bad):
    for method in METHODS:
        with pytest.raises(SDPGANError, match=f"{bad.dtype} {' x '.join(map(str, bad.shape))}"):
            method(bad)


def test_min_max_reaches_both_ends_and_maps_equal_values_to_zero():
    assert min_max(np.array([3.0, 5.0, 4.0])).tolist() == [0.0, 1.0, 0.5]
    assert not min_max(np.full(4, 7.0)).any()


def test_a_function_without_a_file_to_cache_beside_is_compiled_all_the_same():
    namespace: dict = {}
    exec("def double(x):\n    return 2 * x", namespace)
    assert compiled(namespace["double"])(21) == 42


@pytest.mark.slow
def test_the_mean_separates_objects_better_than_either_map_and_all_err_little(shared):
    """On photos with human masks; the full figures are tests/benchmarks/bench_saliency.py's."""
    pytest.importorskip("py_sod_metrics")
    from training.metrics import saliency

    folder = shared / "data" / "saliency_benchmark" / "ECSSD"
    figures = saliency.accuracy(saliency.pairs(folder / "images", folder / "masks")[::5])["figures"]
    areas = {name: one["AUC"] for name, one in figures.items()}
    assert areas["mean"] > max(areas["RBD"], areas["MB+"]) and areas["RBD"] > 0.87 and areas["MB+"] > 0.89
    assert all(one["MAE"] < 0.19 for one in figures.values())


def run(code: str) -> str:
    return subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).strip()


def test_importing_the_references_imports_none_of_the_extra():
    code = "import sys, sdpgan_hub.saliency; print([m for m in ('numba', 'scipy', 'skimage') if m in sys.modules])"
    assert run(code) == "[]"


@pytest.mark.parametrize("library, method", [("numba", "minimum_barrier"), ("skimage", "robust_background")])
def test_without_the_extra_the_error_says_what_to_install(library, method):
    code = (
        "import sys, numpy as np\n"
        f"sys.modules[{library!r}] = None\n"
        "from sdpgan_hub import saliency\n"
        "from sdpgan_hub.errors import SDPGANError\n"
        f"try: saliency.{method}(np.eye(20, dtype=np.uint8))\n"
        "except SDPGANError as error: print(error)"
    )
    assert run(code).endswith('pip install "sdpgan_hub[saliency]".')
