"""`simmat segment` with a model that has micro-sam's decoder: chosen, recorded, replayed."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_simmat.engine.settings import FETCH_DECODER
from tests.decoders import put_published

RUN = ("segment", "a.tif", "--model", "vit_t_lm", "--overwrite", "--output")
# All of an image is foreground; let it be one seed, too.
ONE = {
    "foreground-threshold": 0.3,
    "center-distance-threshold": 1,
    "boundary-distance-threshold": 1,
    "max-area": 1,
}
AUTO = ("--prompts", "auto", *(word for name in ONE for word in (f"--auto.{name}", ONE[name])))


@pytest.fixture
def with_decoder(folder, user_folder, monkeypatch):
    put_published(monkeypatch, user_folder / "bases")
    return user_folder / "bases" / "vit_t_lm_decoder.pt"


def settings(name: str) -> dict:
    return json.loads(Path(name, "a.json").read_text())["settings"]["automatic"]


@pytest.mark.slow
def test_decoder_is_taken_recorded_and_replayed(with_decoder, simmat):
    assert simmat(*RUN, "out", *AUTO).status == 0
    labels = tifffile.imread("out/a_labels.tif")
    assert labels.shape == (90, 130)
    assert (labels == 1).all()
    assert settings("out")["by"] == "decoder"
    assert settings("out")["foreground_threshold"] == 0.3
    assert simmat(*RUN, "again", "--prompts", "out/a.json").status == 0
    first, second = (Path(name, "a_labels.tif").read_bytes() for name in ("out", "again"))
    assert first == second
    assert settings("again") == settings("out")
    kept = simmat(*RUN[:4], "--output", "out", *AUTO, "--resume")
    assert "a.tif: 1 object, kept, made the same way" in kept.out

    with_decoder.unlink()
    for more in ((), ("--dry-run",)):
        lost = simmat(*RUN, "lost", "--prompts", "auto", "--auto.by", "decoder", *more)
        assert lost.status == 1
        assert FETCH_DECODER.format(name="vit_t_lm") in " ".join(lost.err.split())


@pytest.mark.slow
def test_clicks_are_taken_if_wanted_and_in_older_records(with_decoder, simmat):
    few = ("--auto.points-per-side", "2")
    assert simmat(*RUN, "clicks", *AUTO, "--auto.by", "clicks", *few).status == 0
    assert settings("clicks")["by"] == "clicks"
    record = json.loads(Path("clicks/a.json").read_text())
    del record["settings"]["automatic"]["by"]
    Path("clicks/a.json").write_text(json.dumps(record))
    assert simmat(*RUN, "again", "--prompts", "clicks/a.json").status == 0
    assert settings("again")["by"] == "clicks"


@pytest.mark.slow
def test_tiles_of_the_decoder_go_on_in_one_object(with_decoder, simmat):
    tifffile.imwrite("a.tif", np.arange(260 * 90, dtype=np.uint16).reshape(260, 90))
    tiles = ("--auto.tile", "128", "--auto.tile-overlap", "32")
    assert simmat(*RUN, "out", *AUTO, *tiles).status == 0
    assert (tifffile.imread("out/a_labels.tif") == 1).all()


@pytest.fixture
def discs(folder):
    """A picture of six discs, and three of them as labels."""
    y, x = np.indices((150, 220))
    labels = np.zeros((150, 220), np.uint16)
    for number, (row, column) in enumerate(np.ndindex(2, 3), start=1):
        labels[(y - 40 - 70 * row) ** 2 + (x - 35 - 70 * column) ** 2 <= 18**2] = number
    noise = np.random.default_rng(0).normal(0, 5, labels.shape)
    tifffile.imwrite("discs.tif", ((labels > 0) * 120 + 60 + noise).astype(np.uint8))
    tifffile.imwrite("three.tif", np.where(labels <= 3, labels, 0).astype(np.uint16))
    return labels


@pytest.mark.usefixtures("brief_lessons")
def test_decoder_of_tiny_is_recorded_and_replayed_as_it_was(discs, simmat):
    taught = simmat("models", "teach", "discs.tif", "--labels", "three.tif", "--name", "round")
    assert taught.status == 0, taught.err
    scores = []
    for model in ("tiny", "round"):
        run = ("segment", "discs.tif", "--model", model, "--output", model, "--prompts")
        assert simmat(*run, "auto").status == 0
        record = json.loads(Path(model, "discs.json").read_text())
        assert record["settings"]["automatic"]["by"] == "decoder"
        labels = tifffile.imread(f"{model}/discs_labels.tif")
        assert len(np.unique(labels[discs > 0])) == 6 + (labels[discs > 0] == 0).any()
        again = (*run[:-2], f"{model} again", "--prompts", f"{model}/discs.json")
        assert simmat(*again).status == 0
        first, second = (
            Path(name, "discs_labels.tif").read_bytes() for name in (model, f"{model} again")
        )
        assert first == second
        kept = simmat(*run, "auto", "--resume")
        assert "6 objects, kept, made the same way" in kept.out
        scores.append([each["score"] for each in record["objects"]])
    assert scores[0] != scores[1], "the second is tuned"
