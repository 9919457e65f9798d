"""`simmat segment --auto.words`: all objects that words mean, with a model that reads them."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from napari_simmat.models.network import FoundMasks
from napari_simmat.models.sam3 import Sam3Network
from tests.sam3_models import CELLS

pytest.importorskip("transformers")


@pytest.fixture
def asked(sam3_model, sam3_hub_file, folder, monkeypatch):
    """The model's file finds a square of score 0.7; what it is asked for."""
    asked = []

    def find(network, encoded, concept, minimum):
        asked.append(concept.pieces.tolist())
        logits = torch.full((1, CELLS, CELLS), -9.0)
        logits[:, 8:16, 8:16] = 9.0
        return FoundMasks(logits, torch.tensor([0.7]))

    monkeypatch.setattr(Sam3Network, "find", find)
    return asked


def leaf(model, *more, words="leaf"):
    given = "segment", "a.tif", "--model", model, "--prompts", "auto", "--output", "out"
    return (*given, "--auto.words", words, "--device", "cpu", *more)


def test_words_find_objects_and_are_recorded(asked, sam3_hub_file, simmat):
    result = simmat(*leaf(sam3_hub_file))
    assert (result.status, result.err) == (0, "")
    assert asked == [[298, 54, 299]]
    labels = tifffile.imread("out/a_labels.tif")
    rows, columns = np.nonzero(labels)
    # A cell is 90 / 32 by 130 / 32 pixels.
    assert (rows.min(), rows.max()) == pytest.approx((22.5, 44.5), abs=1)
    assert (columns.min(), columns.max()) == pytest.approx((32.5, 64.5), abs=1)
    record = json.loads(Path("out/a.json").read_text())
    assert record["settings"]["automatic"]["words"] == "leaf"
    [kept] = simmat(*leaf(sam3_hub_file, "--resume", "--json")).json["files"]
    assert kept["status"] == "kept"
    assert simmat(*leaf(sam3_hub_file, "--resume", words="stem")).status == 1


def test_words_without_a_vocabulary_say_where_it_belongs(asked, sam3_hub_file, simmat):
    sam3_hub_file.with_name("tokenizer.json").unlink()
    result = simmat(*leaf(sam3_hub_file))
    assert result.status == 1
    assert "model cannot read words: its vocabulary is missing" in result.err
    assert str(sam3_hub_file.with_name("model.tokenizer.json")) in result.err


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_words_for_a_model_without_them_are_refused(folder, simmat, more):
    result = simmat(*leaf("tiny", *more))
    assert result.status == 1
    assert "reads no words, but was asked for 'leaf'" in result.err
    assert "a.tif: " not in result.err, "once, whatever the number of images"
    assert not Path("out/a_labels.tif").exists()
