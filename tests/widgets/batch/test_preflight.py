"""The files of a run before it starts."""

import pytest

from napari_simmat.annotation.channel_choice import LayerChannel
from napari_simmat.checkpoints.loading import load_model
from napari_simmat.engine.channels.matching import match_channels
from napari_simmat.engine.settings import parse_channels
from napari_simmat.widgets.batch.preflight import FirstFile


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("561", "488", "405", "BF"), "2,1,0"),
        (("1", "2", "3", "4"), "2,1,0"),
        (("Cy5, far red", "GFP", "DAPI", "BF"), "DAPI,GFP,0"),
        (("", "GFP", "gfp", "BF"), "2,1,0"),
    ],
)
def test_first_file_gives_an_ambiguous_channel_by_number(names, words):
    spec = load_model("tiny").spec
    first = FirstFile("a.tif", 4, names, (64, 64))
    wanted = tuple(LayerChannel(str(number)) for number in (2, 1, 0))
    assert first.chosen(wanted, spec) == words
    assert match_channels(4, spec.inputs, names=names, channels=parse_channels(words)) == (
        2,
        1,
        0,
    )
    assert first.sources(words, spec) == wanted
