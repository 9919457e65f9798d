"""`simmat info`, and why a GPU is not used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from napari_simmat import __version__
from napari_simmat.cli import main
from napari_simmat.cli.models import CPU_BUILD, NO_DRIVER, gpu_problem


def test_info_is_one_block_for_a_report(
    user_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    assert main(["info"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    lines = said.out.splitlines()
    assert lines[0].split() == ["napari-simmat", __version__]
    for word in (f"torch {torch.__version__}", "cpu: CPU", str(user_folder), "precision"):
        assert any(word in line for line in lines), word
    assert main(["info", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["devices"][0] == "cpu: CPU"
    assert values["models"] == [str(user_folder / "models"), str(user_folder / "bases")]


@pytest.mark.parametrize(
    ("cuda", "found", "has_driver", "sentence"),
    [
        ("12.8", True, True, ""),
        (None, False, False, ""),
        (None, False, True, CPU_BUILD),
        ("12.8", False, True, NO_DRIVER.format(cuda="12.8")),
    ],
)
def test_the_reason_why_a_gpu_is_not_used(
    cuda: str | None, found: bool, has_driver: bool, sentence: str
) -> None:
    assert gpu_problem(cuda, found, has_driver) == sentence


def test_every_gpu_is_listed_with_its_memory(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    class Properties:
        name, total_memory = "NVIDIA Quick", 24 * 10**9

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Properties)
    assert main(["info", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["devices"][1:] == [f"cuda:{index}: NVIDIA Quick, 24 GB" for index in range(2)]
    assert values["in use"].startswith("cuda, fast precision")
