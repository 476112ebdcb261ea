"""SDP-GAN (Li et al., IEEE TIP 2021): photos become paintings that keep what matters in them.

>>> from sdpgan_hub import SDPGAN
>>> painting = SDPGAN.from_pretrained("vangogh").stylize("photo.jpg")  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import SDPGANError
from .memory import keep_freed_memory as keep_freed_memory

if TYPE_CHECKING:
    from .model import SDPGAN

__version__ = "0.2.0.dev0"
__all__ = ["SDPGAN", "SDPGANError", "__version__"]


def __getattr__(name: str) -> object:
    """Imports torch only once the model is asked for, so that `sdpgan --help` answers at once."""
    if name == "SDPGAN":
        from .model import SDPGAN

        return SDPGAN
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), "SDPGAN"])
