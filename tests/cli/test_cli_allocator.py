"""Memory that a training frees stays with its process, so that no step has to get it anew."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

ALLOCATE = """
import psutil
from napari_simmat.cli.train import keep_freed_memory

if {keep}:
    keep_freed_memory()
size, process = {size}, psutil.Process()
before = process.memory_info().rss
b"1" * size
print(process.memory_info().rss - before)
"""
ARRAY = 64 << 20
"""Bytes; twice as many as glibc ever takes for a block to be kept."""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone has the setting")
@pytest.mark.parametrize("keep", [True, False])
def test_freed_memory_is_kept(keep: bool) -> None:
    code = ALLOCATE.format(keep=keep, size=ARRAY)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    kept = int(run.stdout)
    assert kept > 0.9 * ARRAY if keep else kept < 0.1 * ARRAY
