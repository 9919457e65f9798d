"""The lines of a session file: what is written, and what is read from a foreign one."""

import json
import re

import numpy as np
import pytest

from napari_simmat.engine.masks import LabelEdit, LabelIndex, ObjectMask, box_union
from napari_simmat.engine.prompts import Prompt
from napari_simmat.progress import finish
from napari_simmat.widgets.segment.history import Command, LayerEdit, ObjectEntry, Provenance
from napari_simmat.widgets.segment.prompt_state import (
    EditedObject,
    Outline,
    Prompts,
    PromptState,
    PropagatedMask,
)
from napari_simmat.widgets.segment.session_file import (
    NO_SESSION,
    OTHER_VERSION,
    TOO_LARGE,
    AdaptedModelFile,
    SessionHeader,
    begin_lines_job,
    line_of,
    replayed,
)

SHAPE = (5, 60, 80)
HEADER = SessionHeader("", SHAPE, "tiny", ()).line()


def disc(y: int, x: int, plane: int = 2) -> ObjectMask:
    rows, columns = np.ogrid[:60, :80]
    return ObjectMask.of((rows - y) ** 2 + (columns - x) ** 2 < 50, (plane, 0, 0))


def one(edit: LayerEdit) -> Command:
    return Command("an edit", PromptState(), PromptState(), edit)


@pytest.mark.parametrize("read", range(4))
def test_begin_lines_of_an_edited_layer_replay_to_its_labels(tmp_path, read):
    """Each plane is read after another one of the edits; all are undone to what was there."""
    labels = np.zeros(SHAPE, np.int32)
    for plane in (1, 2, 4):
        LabelEdit.write(labels, disc(20, 20, plane), 1)
        LabelEdit.write(labels, disc(40, 60, plane), 2)
    before, lines, operations = labels.copy(), [], []
    region = box_union([LabelIndex.of(labels).box(label) for label in (1, 2)])
    reading = begin_lines_job("a", labels, region)
    for number, (value, y, x) in enumerate([(3, 24, 24), (0, 24, 24), (3, 22, 22)]):
        found = [LabelEdit.write(labels, disc(y, x, plane), value) for plane in (1, 2, 4)]
        operations.append(one(LayerEdit("a", tuple(each for each in found if each))))
        if number == read:
            lines = finish(reading)
        elif number < read:
            next(reading)
    lines = lines or finish(reading)
    path = tmp_path / "some_session.jsonl"
    done = [line_of("do", each) for each in operations]
    path.write_text(HEADER + "".join(lines + done))
    assert np.array_equal(replayed(path).labels["a"], labels)
    path.write_text(HEADER + "".join(lines + done + [line_of("undo")] * len(done)))
    assert np.array_equal(replayed(path).labels["a"], before)


def test_begin_lines_read_only_the_region_plane_by_plane():
    class Counting(np.ndarray):
        read = 0

        def __getitem__(self, index):
            part = super().__getitem__(index)
            Counting.read = max(Counting.read, np.size(part))
            return part

    labels = np.zeros(SHAPE, np.int32)
    LabelEdit.write(labels, disc(20, 20), 1)
    LabelEdit.write(labels, disc(20, 30, 3), 1)
    box = LabelIndex.of(labels).box(1)
    lines = finish(begin_lines_job("a", labels.view(Counting), box))
    assert Counting.read <= 15 * 25
    assert [json.loads(line)["what"] for line in lines] == ["begin", "begin"]


@pytest.mark.parametrize(
    ("dtype", "numbers"),
    [
        (np.uint32, (3_000_000_000, 4_294_967_295)),
        (np.int64, (2**40, 2**53 + 1)),
        (np.uint64, (2**53 + 1, 2**64 - 1)),
    ],
)
def test_numbers_above_32_bits_are_kept(tmp_path, dtype, numbers):
    """As those of segmented electron micrographs."""
    labels = np.zeros(SHAPE, dtype)
    LabelEdit.write(labels, disc(20, 20), numbers[0])
    LabelEdit.write(labels, disc(20, 24), numbers[1])
    before = labels.copy()
    lines = finish(begin_lines_job("a", labels, ((2, 0, 0), (3, 60, 80))))
    edits = [
        LabelEdit.write(labels, ObjectMask.of(np.ones((60, 80), bool), (2, 0, 0)), 5),
        LabelEdit.write(labels, disc(40, 40), numbers[1] - 1),
    ]
    lines += [line_of("do", one(LayerEdit("a", (each,)))) for each in edits if each is not None]
    path = tmp_path / "some_session.jsonl"
    path.write_text(HEADER + "".join(lines))
    assert np.array_equal(replayed(path).labels["a"], labels)
    path.write_text(path.read_text() + line_of("undo") * 2)
    assert np.array_equal(replayed(path).labels["a"], before)


def test_a_line_keeps_all_values_of_a_command(tmp_path):
    y, x = np.indices((60, 80))
    pixels = ObjectMask.of(np.hypot(y - 12, x - 20) < 6)
    before = PromptState(
        Prompts(((1.0, 2.25),), (1,), (0,), (Outline("path", ((0.0, 1.5), (3.0, 4.0)), 0, 1),)),
        ((Prompt(points=[(1.0, 2.25)], mask=pixels.on_plane((), (60, 80))), 2),),
        (EditedObject(3, (4,), pixels),),
        (PropagatedMask(1, (4,), pixels),),
    )
    entry = ObjectEntry(provenance=(Provenance((2,), Prompts(), "digest", kept=pixels),))
    edit = LayerEdit("a", (), {7: (None, entry)})
    adapted = AdaptedModelFile("a.1.safetensors", "0", "tiny", "It gained.", {7: 113}, False)
    path = tmp_path / "some_session.jsonl"
    command = Command("an edit", before, PromptState(), edit)
    path.write_text(HEADER + line_of("do", command) + line_of("adapted", adapted))
    state = replayed(path)
    (read,) = state.history
    assert read.before == before
    assert np.isnan(read.edit.entries[7][1].score)
    assert read.edit.entries[7][1].provenance == entry.provenance
    assert state.adapted == adapted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}\n", NO_SESSION),
        ("no json\n", "cannot be read as a session"),
        (HEADER.replace('sion": 1', 'sion": 9'), OTHER_VERSION),
        (HEADER.replace('sion": 1', 'sion": "1"'), OTHER_VERSION),
        (HEADER.replace("[5, 60, 80]", "[1000000, 1000000]"), TOO_LARGE),
        (HEADER.replace("[5, 60, 80]", "5"), "shape must be a list"),
        (
            HEADER + '{"what": "do", "value": {"is": "Popen"}}\n',
            "cannot be read: do has an",
        ),
        (HEADER + '{"what": "do", "value": 3}\n', "line 2, cannot be read: do must be a table"),
        (HEADER + '{"what": "run", "value": 3}\n', "line 2"),
        (HEADER + line_of("undo") + line_of("begin", (1,)), "line 3, cannot be read: begin must"),
        (HEADER + line_of("adapted", 3), "line 2, cannot be read: adapted must be a table"),
    ],
)
def test_a_foreign_file_is_refused_in_one_sentence(tmp_path, text, words):
    path = tmp_path / "some_session.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(words)):
        replayed(path)
