"""Lessons of the decoder for tests that do not ask what it finds afterwards."""

import pytest

from napari_simmat.engine.everything import decoder_tuning


def shorten(patch: pytest.MonkeyPatch) -> None:
    """Teach the decoder by a few updates."""
    patch.setattr(decoder_tuning, "CROPS", 8)
    patch.setattr(decoder_tuning, "STEPS", 6)
