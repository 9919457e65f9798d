"""The lines of a session file: what is written, and what is read from a foreign one."""

import base64
import json
import re
import tracemalloc
import zlib

import numpy as np
import pytest

from napari_simmat.annotation.history import Command, LayerEdit, ObjectEntry, Provenance
from napari_simmat.annotation.label_editor import LabelArray, LabelEditor
from napari_simmat.annotation.prompt_state import (
    EditedObject,
    Outline,
    Prompts,
    PromptState,
    PropagatedMask,
)
from napari_simmat.annotation.session_file import AutosaveFile, image_of, lock_of
from napari_simmat.annotation.session_lines import (
    BEYOND_IMAGE,
    AdaptedModelFile,
    SessionHeader,
    begin_lines_job,
    line_of,
)
from napari_simmat.annotation.session_replay import (
    NO_SESSION,
    OTHER_SHAPE,
    OTHER_VERSION,
    OTHER_VIEW,
    replay_job,
    replayed,
)
from napari_simmat.engine.label_edit import LabelEdit
from napari_simmat.engine.label_index import LabelIndex
from napari_simmat.engine.masks import ObjectMask, box_union
from napari_simmat.engine.prompts import Prompt
from napari_simmat.io.plain import to_plain
from napari_simmat.progress import finish

SHAPE = (5, 60, 80)
WHOLE = LabelEdit(ObjectMask.of(np.ones(SHAPE, bool)), 0, 1)
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
    assert np.array_equal(finish(replay_job(path, SHAPE)).labels["a"], labels)
    path.write_text(HEADER + "".join(lines + done + [line_of("undo")] * len(done)))
    assert np.array_equal(finish(replay_job(path, SHAPE)).labels["a"], before)


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


def test_what_was_known_before_the_first_edit_is_replayed(tmp_path):
    """As scores and classes of an earlier result."""
    labels = np.zeros(SHAPE, np.int32)
    for label, place in ((1, (20, 20)), (2, (40, 60))):
        LabelEdit.write(labels, disc(*place), label)
    editor = LabelEditor(LabelArray(labels))
    known = {1: ObjectEntry(0.5, "cell", certainty=0.8), 2: ObjectEntry(0.75, parent=1)}
    editor.take_over({**known, 9: ObjectEntry(0.1)})
    path = tmp_path / "some_session.jsonl"
    path.write_text(HEADER)
    file = AutosaveFile(path, lock_of(path))
    for edit in (editor.delete([1]), editor.classify([2], "nucleus")):
        for start in file.jobs_of("do", one(edit), editor):
            finish(start())
    (entries,) = replayed(path, SHAPE).entries.values()
    assert entries == {2: ObjectEntry(0.75, "nucleus", parent=1)}
    path.write_text(path.read_text() + line_of("undo") * 2)
    (entries,) = replayed(path, SHAPE).entries.values()
    assert entries == known


def test_objects_of_a_layer_are_logged_before_the_first_change(tmp_path):
    """Even if it is none of the layer's; a layer without objects is not logged before an edit."""
    labels = np.zeros(SHAPE, np.int32)
    file = AutosaveFile(tmp_path / "some_session.jsonl", lock_of(tmp_path / "some_session.jsonl"))
    assert len(file.jobs_of("drafts", None, None)) == 1
    assert len(file.jobs_of("drafts", None, LabelEditor(LabelArray(labels)))) == 1
    LabelEdit.write(labels, disc(20, 20), 1)
    editor = LabelEditor(LabelArray(labels))
    file.path.write_text(HEADER)
    for _ in range(2):  # once
        for start in file.jobs_of("drafts", None, editor):
            finish(start())
    assert file.path.read_text().count('"begin"') == 1
    (restored,) = replayed(file.path, SHAPE).labels.values()
    assert np.array_equal(restored, labels)


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
    assert np.array_equal(finish(replay_job(path, SHAPE)).labels["a"], labels)
    path.write_text(path.read_text() + line_of("undo") * 2)
    assert np.array_equal(finish(replay_job(path, SHAPE)).labels["a"], before)


@pytest.mark.parametrize("values", ["bits", "mask"])
def test_packed_values_beyond_the_image_are_not_unpacked(tmp_path, values):
    """A kilobyte can unpack to a million."""
    line, peak = line_of("begin", ("a", WHOLE)), 0
    if values == "bits":
        bomb = base64.b64encode(zlib.compress(bytes(1 << 28))).decode()
        line = re.sub(r'"bits": "[^"]*"', f'"bits": "{bomb}"', line)
    else:
        mask = {"shape": [40000, 40000], "bbox": [0, 0, 1, 1], "runs": [0, 1]}
        state = {**to_plain(PromptState()), "choices": [[{"mask": mask}, 1]]}
        command = Command("a", PromptState(), PromptState())
        line = json.dumps({"what": "do", "value": {**to_plain(command), "after": state}}) + "\n"
    path = tmp_path / "some_session.jsonl"
    path.write_text(HEADER + line)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"larger than|cannot have"):
            finish(replay_job(path, SHAPE))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 24


def test_a_line_keeps_all_values_of_a_command(tmp_path):
    y, x = np.indices((60, 80))
    pixels = ObjectMask.of(np.hypot(y - 12, x - 20) < 6)
    before = PromptState(
        Prompts(
            ((4.0, 1.0, 2.25),),
            (1,),
            (0,),
            (Outline("path", ((4.0, 0.0, 1.5), (4.0, 3.0, 4.0)), 0, 1),),
        ),
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
    state = finish(replay_job(path, SHAPE))
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
        (HEADER.replace("[5, 60, 80]", "[46340, 46340]") + line_of("anew", ("a", ())), OTHER_SHAPE),
        (HEADER.replace("[5, 60, 80]", "5"), "shape must be a list"),
        (
            HEADER + '{"what": "do", "value": {"is": "Popen"}}\n',
            "cannot be read: do has an",
        ),
        (HEADER + '{"what": "do", "value": 3}\n', "line 2, cannot be read: do must be a table"),
        (HEADER + '{"what": "run", "value": 3}\n', "line 2"),
        (HEADER + line_of("undo") + line_of("begin", (1,)), "line 3, cannot be read: begin must"),
        (
            HEADER + line_of("begin", ("a", WHOLE)).replace("5, 60, 80", "5, 60000, 80"),
            BEYOND_IMAGE,
        ),
        (HEADER + line_of("begin", ("a", WHOLE)).replace(": 1}", ": 1e400}"), "cannot be read"),
        (
            HEADER + line_of("do", one(LayerEdit("a", (WHOLE,)))).replace("0]", "9" * 99 + "]"),
            "line 2",
        ),
        (
            HEADER + line_of("do", Command("a", PromptState(order=(7, 9)), PromptState())),
            OTHER_VIEW,
        ),
        (HEADER + line_of("adapted", 3), "line 2, cannot be read: adapted must be a table"),
    ],
)
def test_a_foreign_file_is_refused_in_one_sentence(tmp_path, text, words):
    path = tmp_path / "some_session.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(words)):
        finish(replay_job(path, SHAPE))


@pytest.mark.parametrize("content", [None, "", "no session\n", "[]\n", "{}\n"])
def test_image_of_a_damaged_file_is_refused(content, tmp_path):
    path = tmp_path / "one.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=r"one\.jsonl is gone or damaged"):
        image_of(path)


def test_image_of_a_file_is_that_of_its_header(tmp_path):
    path = tmp_path / "one.jsonl"
    path.write_text(SessionHeader("abc", (4, 4), "tiny", ()).line())
    assert image_of(path) == "abc"
