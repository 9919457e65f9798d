"""What may not be loaded beside Mesa's LLVM is kept out before torch is imported."""

from __future__ import annotations

import importlib.util
import os
import sys

import pytest

from napari_simmat.widgets import worker


@pytest.mark.parametrize("mapped", [True, False])
def test_triton_counts_as_not_installed_beside_mesas_llvm(
    mapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "triton", raising=False)
    monkeypatch.setattr(worker, "_is_mapped", lambda name: mapped and name == "libLLVM")
    worker._keep_triton_out()
    try:
        assert ("triton" in sys.modules) == mapped
        if mapped:
            assert importlib.util.find_spec("triton") is None
            with pytest.raises(ImportError):
                importlib.import_module("triton")
    finally:
        sys.modules.pop("triton", None)


def test_a_triton_that_is_there_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", os)
    monkeypatch.setattr(worker, "_is_mapped", lambda _: True)
    worker._keep_triton_out()
    assert sys.modules["triton"] is os


@pytest.mark.skipif(sys.platform != "linux", reason="nobody knows elsewhere")
def test_what_is_mapped_is_known() -> None:
    assert worker._is_mapped("libc.so")
    assert not worker._is_mapped("libnothing")
