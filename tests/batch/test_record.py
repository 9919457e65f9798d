import json
from dataclasses import replace

import numpy as np
import pytest

from napari_simmat.batch.record import (
    Record,
    RecordedInput,
    RecordedSettings,
    Request,
    UsedModel,
    read_record,
)
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.settings import ChannelSelection, Compute


def a_request() -> Request:
    mask = np.zeros((4, 6), bool)
    mask[1:3, 2:5] = True
    return Request(
        input=RecordedInput(file="a.tif", sha256="aa", shape=(2, 4, 6), axes="CYX", dtype="uint16"),
        model=UsedModel(name="tiny-1", fingerprint="ff", base="tiny-1"),
        prompts=tuple(
            prompt.to_plain()
            for prompt in (
                Prompt(points=((1.5, 2), (0, 0)), labels=(1, 0), object=3),
                Prompt(box=(0, 1, 2, 3.5), plane=(1,)),
                Prompt(mask=mask, points=((1, 2),)),
            )
        ),
        settings=RecordedSettings(selection=ChannelSelection(channels=(0, "DAPI"), channel_axis=0)),
    )


def a_record() -> Record:
    return Record(
        request=a_request(),
        normalization={"low": [0.1], "high": [7.25]},
        objects=({"label": 3, "score": 0.5},),
        outputs={"labels": {"file": "a_labels.tif", "sha256": "bb"}},
        run={"host": "here"},
    )


def test_record_round_trips_through_json():
    record = a_record()
    again = Record.from_json(record.to_json())
    assert again == record
    assert again.to_json() == record.to_json()


def test_record_of_two_runs_differs_only_in_run():
    first, second = (json.loads(replace(a_record(), run={"host": h}).to_json()) for h in "ab")
    assert first.pop("run") != second.pop("run")
    assert first == second


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"input": replace(a_request().input, sha256="other")}, ["the input"]),
        ({"input": replace(a_request().input, file="renamed.tif")}, []),
        (
            {"model": replace(a_request().model, fingerprint="other")},
            ["the model (tiny-1, with other weights)"],
        ),
        ({"prompts": a_request().prompts[:2]}, ["the prompts"]),
        ({"prompts": a_request().prompts[::-1]}, ["the prompts"]),
        (
            {"settings": replace(a_request().settings, compute=Compute(device="cuda"))},
            ["device (auto then, cuda now)"],
        ),
    ],
)
def test_request_differences_are_named(change, words):
    assert a_request().differences(replace(a_request(), **change)) == words


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "not a record of napari-simmat"),
        ('{"format": "other"}', "not a record of napari-simmat"),
        ('{"format": "napari-simmat record", "format_version": 99}', "format 99.*Update"),
        ('{"format": "napari-simmat record", "format_version": 1}', "lacks 'input'"),
        ("\xff", "can't decode byte"),
    ],
)
def test_read_record_of_another_file_is_refused(tmp_path, text, sentence):
    path = tmp_path / "a.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=rf"a\.json cannot be read as a record.*{sentence}.*\.$"):
        read_record(path)
