"""What the tests of a folder share."""

import pytest


@pytest.fixture(autouse=True)
def quickly(quick_models):
    """Most tests load a built-in model and encode one of a few images."""
