"""Classic saliency references that train the saliency network (paper, Eq. 7).

Each function takes a photo, uint8 RGB H x W x 3, and gives a saliency map, float32 H x W in [0, 1], 1 being salient.
They need ``pip install "sdpgan_hub[saliency]"``; importing this package does not.

Each call runs on one thread but for OpenCV's and BLAS's own: a process pool should call ``cv2.setNumThreads(1)`` and
set OMP_NUM_THREADS and OPENBLAS_NUM_THREADS to 1 in its workers, as training/prepare.py does. The first call of all
compiles a few loops (seconds), later processes load them from numba's cache.
"""

from .mbd import minimum_barrier
from .rbd import robust_background
from .reference import reference

__all__ = ["minimum_barrier", "reference", "robust_background"]
