"""Classic saliency references that train the saliency network (paper, Eq. 7).

Each function takes a photo, uint8 RGB H x W x 3, and gives a saliency map, float32 H x W in [0, 1], 1 being salient.
They need ``pip install "sdpgan_hub[saliency]"``; importing this package does not.

Each call runs on one thread but for OpenCV's and BLAS's own: a process pool should call ``cv2.setNumThreads(1)`` and
set OMP_NUM_THREADS and OPENBLAS_NUM_THREADS to 1 in its workers, as training/prepare.py does. The first call of all
compiles a few loops (seconds), later processes load them from numba's cache.
"""

import numpy as np

from .mbd import minimum_barrier
from .rbd import robust_background

__all__ = ["minimum_barrier", "reference", "robust_background"]


def reference(image: np.ndarray) -> np.ndarray:
    """The z of Eq. 7: mean of the RBD and MB+ maps of a uint8 RGB photo H x W x 3, float32 H x W in [0, 1].

    Raises :class:`~sdpgan_hub.errors.SDPGANError` for another dtype or shape, and without the extra ``saliency``.
    """
    return 0.5 * (robust_background(image) + minimum_barrier(image))
