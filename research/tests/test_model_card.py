"""The tables of the model card, on two small images."""

import csv
import sys

import pytest
import tifffile

from simmat_research import model_card
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


@pytest.fixture
def development(tmp_path):
    """A folder of two labeled images."""
    folder = tmp_path / "development"
    folder.mkdir()
    for number in range(2):
        image, labels = picture(number, channels=1, side=128)
        tifffile.imwrite(folder / f"im{number}.tif", image[0])
        tifffile.imwrite(folder / f"im{number}_labels.tif", labels)
    return folder


def test_scores_are_resumed_and_means_have_a_row_for_each_file(
    tmp_path, development, monkeypatch, capsys
):
    output = tmp_path / "nano.csv"
    words = ["scores", "--development", str(development), "--objects", "2", "--output", str(output)]
    _, *rows = printed(words, monkeypatch, capsys)
    assert rows == [["development", f"im{n}", f"im{n}", "2"] for n in range(2)]
    written = output.read_text()
    assert len(printed(words, monkeypatch, capsys)) == 1, "all images are scored already"
    assert output.read_text() == written
    head, title, row = printed(["means", "--table", str(output)], monkeypatch, capsys)
    assert (head[1:], title[0]) == ([*model_card.COLUMNS], "**development, 2 sources**")
    assert row[0] == "nano"
    with output.open() as file:
        boxes = [float(line["box"]) for line in csv.DictReader(file)]
    assert float(row[head.index("box")]) == pytest.approx(sum(boxes) / 4, abs=1e-3)
