"""RBD's parts against hand-computed values, SciPy's shortest paths and the energy they minimise."""

import numpy as np
import pytest
from scipy import sparse
from skimage import data

from sdpgan_hub.saliency import rbd, robust_background
from sdpgan_hub.saliency.common import shrink


def grid_of_nine(centre: float) -> rbd.Superpixels:
    """3 x 3 superpixels of 20 x 20 px, lightness 50, the middle one ``centre``."""
    labels = np.kron(np.arange(9).reshape(3, 3), np.ones((20, 20), int))
    lab = np.zeros((60, 60, 3), np.float32)
    lab[..., 0] = np.where(labels == 4, centre, 50.0)
    return rbd.describe(labels, lab)


def test_a_grid_of_nine_has_eight_boundary_superpixels_and_touches_diagonally():
    parts = grid_of_nine(80)
    assert np.array_equal(np.flatnonzero(~parts.boundary), [4])
    assert parts.neighbours[4].sum() == 8 and parts.neighbours[0].sum() == 3 and parts.neighbours[1].sum() == 5
    np.testing.assert_allclose(parts.colours[:, 0], [50, 50, 50, 50, 80, 50, 50, 50, 50])
    np.testing.assert_allclose(parts.positions[[0, 4, 8]], [[9.5 / 59] * 2, [0.5] * 2, [49.5 / 59] * 2], rtol=1e-6)


def test_boundary_connectivity_of_a_grid_of_nine_is_the_hand_computed_one():
    parts = grid_of_nine(58)
    edges = parts.neighbours | (parts.boundary[:, None] & parts.boundary)
    geodesic = rbd.geodesic_distance(rbd.pairwise(parts.colours), edges, clip=0.0)
    connectivity = rbd.boundary_connectivity(geodesic, parts.boundary, sigma=8.0)
    similar = np.exp(-0.5)  # 8 Lab units apart, sigma 8
    expected = np.full(9, 8 / np.sqrt(8 + similar))
    expected[4] = 8 * similar / np.sqrt(1 + 8 * similar)
    np.testing.assert_allclose(connectivity, expected, rtol=1e-6)


def test_a_centre_beyond_three_sigma_is_not_connected_to_the_boundary():
    parts = grid_of_nine(90)
    geodesic = rbd.geodesic_distance(rbd.pairwise(parts.colours), parts.neighbours, clip=0.0)
    connectivity = rbd.boundary_connectivity(geodesic, parts.boundary, sigma=8.0)
    np.testing.assert_allclose(connectivity, np.where(parts.boundary, np.sqrt(8), 0.0), rtol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_geodesic_distances_are_scipys_shortest_paths_zero_edges_included(seed):
    random = np.random.default_rng(seed)
    colours = rbd.pairwise(random.uniform(0, 60, (40, 3)))
    edges = random.random((40, 40)) < 0.1
    edges |= edges.T
    rows, columns = np.nonzero(edges)
    lengths = np.maximum(0.0, colours[rows, columns] - 25)
    assert (lengths == 0).any()
    expected = sparse.csgraph.shortest_path(sparse.csr_array((lengths, (rows, columns)), shape=(40, 40)))
    np.testing.assert_allclose(rbd.geodesic_distance(colours, edges, clip=25), expected, rtol=1e-5)
    limited = rbd.geodesic_distance(colours, edges, clip=25, limit=15.0)
    near = expected <= 15
    np.testing.assert_allclose(limited[near], expected[near], rtol=1e-5)
    assert (limited[~near] > 15).all()


def energy(s: np.ndarray, background: np.ndarray, foreground: np.ndarray, smoothness: np.ndarray) -> float:
    """Eq. 9; each pair of neighbours counts once."""
    pairs = 0.5 * (smoothness * (s[:, None] - s) ** 2).sum()
    return float((rbd.BACKGROUND_WEIGHT * background * s**2).sum() + (foreground * (s - 1) ** 2).sum() + pairs)


def test_the_optimum_lies_in_0_1_and_no_change_lowers_its_energy():
    random = np.random.default_rng(0)
    background, foreground = random.random(30), random.random(30) * (random.random(30) > 0.5)
    smoothness = random.random((30, 30))
    terms = background, foreground, np.triu(smoothness, 1) + np.triu(smoothness, 1).T
    optimum = rbd.optimise(*terms)
    assert optimum.min() >= 0 and optimum.max() <= 1
    for _ in range(50):
        assert energy(optimum + random.normal(0, 1e-4, 30), *terms) > energy(optimum, *terms)


def test_a_mirrored_photo_has_the_mirrored_map():
    differences = []
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        image = shrink(getattr(data, name)(), 400)
        differences.append(np.abs(robust_background(image[:, ::-1])[:, ::-1] - robust_background(image)).mean())
    assert np.mean(differences) < 0.02


def test_the_photos_own_scales_are_bounded_as_published():
    parts = rbd.superpixels(shrink(data.coffee()))
    distance = rbd.pairwise(parts.colours)
    reach = parts.neighbours.astype(int)
    ring2 = (reach @ reach > 0) & ~np.eye(len(reach), dtype=bool) | parts.neighbours
    scales = rbd.colour_scales(distance, parts.neighbours, ring2)
    assert 5 <= scales.geodesic <= 10 and 0 < scales.neighbour <= 20 and scales.clip > 0
