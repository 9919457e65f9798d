import psutil
import pytest

from napari_simmat.io import memory
from napari_simmat.io.refusals import check_memory


def test_check_memory_keeps_to_the_limit_of_the_process(monkeypatch):
    used = psutil.Process().memory_info().vms
    monkeypatch.setattr(memory, "memory_limit", lambda: used + 50_000_000)
    check_memory(1_000_000, "a.tif")
    sentence = r"a\.tif needs 60 MB of memory unpacked, \d+(\.\d)? MB of the \S+ \wB that ulimit -v"
    with pytest.raises(ValueError, match=sentence):
        check_memory(60_000_000, "a.tif")


def test_check_memory_knows_this_machine():
    assert 2**20 < memory.available_memory() < 2**50
    check_memory(1, "a pixel")
    with pytest.raises(ValueError, match=r"a galaxy needs 1\.15 EB of memory"):
        check_memory(2**60, "a galaxy")
