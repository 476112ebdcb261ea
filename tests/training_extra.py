"""Imported before `training` by the tests that need the extra "training": without it they are skipped."""

import pytest

try:
    import training.train  # noqa: F401
except (ImportError, RuntimeError) as error:  # torchvision of another torch build raises RuntimeError
    pytest.skip(f"the extra 'training' is not installed ({error})", allow_module_level=True)
