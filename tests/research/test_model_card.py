"""The tables of the model card, on two small images."""

import sys

import pytest
import tifffile

from napari_simmat.research import model_card
from tests.training.squares import picture

pytestmark = pytest.mark.usefixtures("nano")


def printed(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> list[list[str]]:
    """The cells of the table that these arguments print, without its rule."""
    monkeypatch.setattr(sys, "argv", ["model_card", *words])
    model_card.main()
    rows = capsys.readouterr().out.splitlines()
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows if "--" not in row]


def test_resolution_has_a_row_for_each_image_and_the_spread(tmp_path, monkeypatch, capsys):
    for number in range(2):
        image, labels = picture(number, channels=1, side=128)
        tifffile.imwrite(tmp_path / f"im{number}.tif", image[0])
        tifffile.imwrite(tmp_path / f"im{number}_labels.tif", labels)
    words = ["resolution", "--development", str(tmp_path), "--objects", "2"]
    head, *rows, last = printed(words, monkeypatch, capsys)
    assert len(head) == 2 + 2 * len(model_card.FACTORS)
    assert [row[:2] for row in rows] == [["im0", "2"], ["im1", "2"]]
    assert all(0 <= float(cell) <= 1 for row in rows for cell in row[2:])
    assert last[0] == "largest difference"


def test_speed_has_a_row_for_each_size(monkeypatch, capsys):
    monkeypatch.setattr(model_card, "SIZES", (128,))
    _, row = printed(["speed"], monkeypatch, capsys)
    assert row[0] == "128 x 128"
    assert all(float(cell) >= 0 for cell in row[1:])
