"""`python -m sdpgan_hub` is `sdpgan`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
