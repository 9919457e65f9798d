"""`simmat benchmark` through the real entry point."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from napari_simmat.cli import main
from napari_simmat.research.experiments import read_rows


def test_a_quick_form_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["benchmark", "strategies", "--quick", "--steps", "1", "--modalities", "thermal"]
    small = ["--side", "64", "--images", "2", "--validation", "1", "--test", "1"]
    where = ["--output", str(tmp_path), "--device", "cpu"]
    assert main([*words, *small, *where, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["files"] == [str(tmp_path / f"quick-strategies.{e}") for e in ("csv", "md", "png")]
    assert "Quick form" in said["table"]
    rows = read_rows(tmp_path / "quick-strategies.csv")
    names = ["frozen", "linear", "lora", "lora_conv", "adapter", "prompt", "prefix", "full"]
    assert [row.run.strategy for row in rows] == names
    assert main([*words, *small, *where]) == 0  # nothing is left to do
    assert "| strategy | trained parameters | thermal |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["transfer", "--modalities", "sonar"], "Sensor 'sonar' is unknown; use one of rgb"),
        (["transfer", "--base", "polarization"], "polarization is a modality checkpoint, not a"),
        (["transfer", "--data", "nowhere", "--base", "tiny-rgb"], "nowhere"),
    ],
)
def test_errors_are_sentences(
    words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--side", "64", "--images", "1", "--validation", "1", "--test", "1"]
    given = ["benchmark", *words, "--quick", "--output", str(tmp_path), "--device", "cpu", *small]
    assert main(given) == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert "unexpected" not in said
