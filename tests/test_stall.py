"""The script that measures stalls of the window changes nothing in it."""

import importlib.util
import sys
import time
import weakref
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "stall.py"


def test_meter_keeps_no_local_alive_that_it_saw(qapp):
    """A painter that outlives its paint event crashes Qt."""
    spec = importlib.util.spec_from_file_location("stall", SCRIPT)
    stall = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = stall  # or its classes do not find their annotations
    spec.loader.exec_module(stall)
    meter = stall.Meter()

    class Painter:
        """Stands for Qt's."""

    def paint():
        painter = Painter()
        seen = len(meter._seen)
        while len(meter._seen) < seen + 3:
            time.sleep(stall.DUE)
        return weakref.ref(painter)

    meter.start()
    try:
        painter = paint()
        assert painter() is None
    finally:
        meter.stop()
        del sys.modules[spec.name]
    assert any(main.startswith("test_stall.py:paint") for main, _ in meter._seen)
