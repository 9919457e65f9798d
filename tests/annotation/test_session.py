"""A session from Python, compared with masks, with what was drawn, and with the engine itself."""

import csv
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from napari_simmat import AutomaticSettings, Predictor, load_model
from napari_simmat.annotation.annotator import (
    NO_DRAFTS,
    NO_OBJECT,
    NO_OTHER_MASK,
    NOT_ON_PLANE,
    NOTHING_TO_COMMIT,
    OPEN_PROMPTS,
    TWO_TO_MERGE,
)
from napari_simmat.annotation.links import JOIN_PLANES
from napari_simmat.annotation.links import NO_OBJECTS as NO_LINKED_OBJECTS
from napari_simmat.annotation.propagated import NOTHING_OPEN
from napari_simmat.annotation.session import NO_GROUND, NO_OBJECTS, NO_PLANE, Session
from napari_simmat.annotation.session_file import LOST
from napari_simmat.annotation.session_image import SessionImage
from napari_simmat.annotation.session_lines import AdaptedModelFile
from napari_simmat.annotation.session_log import CLOSED, IN_USE
from napari_simmat.annotation.session_replay import OTHER_SHAPE
from napari_simmat.engine.settings import ChannelSelection, LinkSettings
from napari_simmat.io.files import OutputError
from napari_simmat.models.network import FoundMasks
from napari_simmat.models.sam3 import Sam3Network
from napari_simmat.training import evidence
from napari_simmat.training.adapting import FewShotConfig
from napari_simmat.training.few_shot import TRY
from tests.decoders import put_published
from tests.golden import session as golden
from tests.training.simulated_learning import OFFER_ANYTHING
from tests.widgets.scenes import CENTERS, discs, gray, iou, nucleus_in_cell
from tests.widgets.segment.work.test_naming import BY_HAND, shapes
from tests.widgets.segment.work.test_propagation import CENTER, ball
from tests.widgets.segment.work.test_tracks import PLACES, series

QUICK = AutomaticSettings(points_per_side=8)


def matches(sentence: str) -> str:
    """A pattern for a sentence with gaps."""
    return re.escape(sentence).replace(r"\{\}", ".*")


@pytest.fixture(autouse=True)
def quickly(quick_models):
    """The images are few, and most tests begin with one that is encoded."""


@pytest.fixture
def session():
    with Session(SessionImage.of(gray(), name="discs")) as session:
        yield session


def commit_discs(session, count=4):
    for y, x in CENTERS[:count]:
        session.click(y, x)
        session.commit()


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_remark_is_that_of_the_plane_that_was_clicked():
    planes = np.stack([gray(), np.full_like(gray(), 7), gray()])
    with Session(SessionImage.of(planes, name="discs")) as session:
        y, x = CENTERS[0]
        said = [session.click(y, x, plane=(plane,)).note for plane in (0, 1, 1, 2)]
    empty = "Every pixel here is 7, so there is nothing to segment."
    assert said == ["", empty, empty, ""]


def test_session_imports_neither_napari_nor_qt():
    code = "import sys, napari_simmat.annotation.session; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"napari", "qtpy", "magicgui", "torch"} & set(done.stdout.split())


def test_session_click_is_what_the_predictor_answers(session):
    predictor = Predictor(load_model("tiny"))
    predictor.set_image(gray())
    area = session.click(52, 60).objects[0].prompt.expected_area
    assert area is None
    [mask] = session.prediction().masks
    assert np.array_equal(mask, predictor.predict(points=[(52, 60)]).mask)


def test_session_commits_what_is_predicted(session):
    _, truth = discs()
    commit_discs(session)
    assert session.objects == [1, 2, 3, 4]
    for number in session.objects:
        assert iou(session.labels == number, truth == number) > 0.9


def test_session_commits_several_objects_at_once(session):
    session.click(*CENTERS[0])
    session.click(*CENTERS[1], next_object=True)
    assert session.commit("disc") == [1, 2]
    assert session.prediction() is None


def test_session_box_is_half_open(session):
    [prompt] = [each.prompt for each in session.box(26, 34, 79, 87).objects]
    assert prompt.box == (26, 34, 79, 87)
    [mask] = session.prediction().masks
    assert iou(mask, discs()[1] == 1) > 0.9


def test_session_scribble_and_negative_click_correct_an_object(session):
    session.draw("path", [(52, 40), (52, 80)])
    both = session.click(60, 160, positive=False)
    assert len(both.objects) == 1
    assert not both.masks[0][60, 160]


def test_session_marks_count_in_the_order_they_were_made_in(session):
    session.click(52, 60)
    around = [(40, 20), (40, 100), (20, 100), (20, 20), (39, 20)]
    cut = session.draw("path", around, positive=False)
    [each] = cut.objects
    assert [len(mark.points) > 1 for mark in each.prompt.marks] == [False, True]
    assert not cut.masks[0][:40].any()
    session.click(30, 60)
    after_line = session.prediction()
    assert after_line.masks[0][30, 60], "the last mark has the last word"


def test_session_other_mask_is_committed():
    with Session(SessionImage.of(nucleus_in_cell())) as session:
        first = session.click(100, 90).masks[0]
        other = session.other_mask().masks[0]
        assert not np.array_equal(first, other)
        session.commit()
        assert np.array_equal(session.labels == 1, other)
        session.undo()
        assert np.array_equal(session.prediction().masks[0], other)
        session.undo()
        assert np.array_equal(session.prediction().masks[0], first)


def test_session_edits_an_object_with_its_prompts(session):
    commit_discs(session, 1)
    before = session.labels.copy()
    opened = session.edit(1)
    assert np.array_equal(opened.masks[0], before == 1)
    corrected = session.click(60, 160).masks[0]
    assert session.commit() == [1]
    assert np.array_equal(session.labels == 1, corrected)
    assert not np.array_equal(session.labels, before)


def test_session_changes_objects_and_takes_it_back(session):
    commit_discs(session)
    before = session.labels.copy()
    steps = [
        lambda: session.delete(2),
        lambda: session.merge(1, 4),
        lambda: session.split(1),
        lambda: session.classify("disc", 3),
    ]
    after = []
    for step in steps:
        step()
        after.append(session.labels.copy())
    assert set(np.unique(after[1])) == {0, 1, 3}
    assert len(np.unique(after[2])) == 4
    for wanted in (*after[-2::-1], before):
        session.undo()
        assert np.array_equal(session.labels, wanted)
    for wanted in after:
        session.redo()
        assert np.array_equal(session.labels, wanted)
    assert session.redo() == ""


def test_session_undoes_all_it_did(session):
    commit_discs(session, 2)
    session.propose(QUICK)
    session.accept()
    session.delete(1)
    names = []
    while name := session.undo():
        names.append(name)
    assert names[0] == "deletion of 1"
    assert names[-1] == "prompts"
    assert not session.labels.any()
    assert session.prediction() is None


def test_session_proposes_what_is_not_committed(session):
    _, truth = discs()
    commit_discs(session, 1)
    drafts = session.propose(QUICK)
    found = [np.max(truth[each.mask.region][each.mask.mask]) for each in drafts]
    assert sorted(found) == [2, 3, 4]
    session.reject(drafts[0])
    assert session.accept(drafts[1], category="disc") == [2]
    assert session.drafts == (drafts[2],)
    assert session.rejected == (drafts[0],)
    assert len(session.propose(QUICK)) == 1, "what was rejected is not proposed again"
    with pytest.raises(ValueError, match=NO_DRAFTS):
        session.accept(drafts[1])


def test_session_proposes_by_the_decoder_whatever_is_committed(user_folder, monkeypatch):
    put_published(monkeypatch, user_folder / "bases")
    labels = np.zeros((60, 80), np.uint32)
    one = {"center_distance_threshold": 1.0, "boundary_distance_threshold": 1.0, "max_area": 1.0}
    with Session(SessionImage.of(gray()[:60, :80], name="a"), model="vit_t_lm") as session:
        [draft] = session.propose(AutomaticSettings(second_look=True, **one))
        assert draft.mask.on_plane((), labels.shape).all()  # all is foreground, and one seed
        for corner in ((0, 0), (0, 40), (30, 0)):  # three teach a kind, of use to clicks alone
            session.box(*corner, corner[0] + 9, corner[1] + 9)
            session.commit()
        lesson = session._lesson(())
        assert lesson.count == 3
        clicking = AutomaticSettings(by="clicks", points_per_side=2)
        for settings, by_decoder in ((AutomaticSettings(**one), True), (clicking, False)):
            job = session._service.propose_job(session._request(()), settings, None, lesson)
            proposed = session._run(job)
            assert proposed.candidates.disjoint == by_decoder
            assert (proposed.kind is None) == by_decoder
            assert not proposed.looks_again


@pytest.mark.usefixtures("brief_lessons")
def test_session_lesson_tunes_the_decoder_but_for_clicks(session):
    commit_discs(session, 3)
    lesson = session._lesson(())
    for by in ("auto", "decoder", "clicks"):
        settings = AutomaticSettings(by=by)
        job = session._service.propose_job(session._request(()), settings, None, lesson)
        proposed = session._run(job)
        assert proposed.candidates.disjoint == (by != "clicks")
        assert (proposed.kind.decoder is None) == (by == "clicks")


def test_session_looks_coarsely_first_at_a_large_plane(session, monkeypatch):
    settings = AutomaticSettings()
    request = session._request(())
    whole = session._run(session._service.propose_job(request, settings))
    assert not whole.looks_again
    session._service._proposed = None
    monkeypatch.setattr("napari_simmat.engine.everything.object_finder.LARGE", 1)
    first = session._run(session._service.propose_job(request, settings))
    assert first.looks_again
    job = session._service.look_again_job(request, settings, first.candidates)
    second = session._run(job)
    qualities = [[each.quality for each in one.candidates.known] for one in (whole, second)]
    assert qualities[0] == qualities[1]
    again = session._run(session._service.propose_job(request, settings))
    assert again.candidates is second.candidates


def test_session_corrects_a_draft(session):
    draft = max(session.propose(QUICK), key=lambda each: each.mask.size)
    opened = session.open_draft(draft)
    assert np.array_equal(opened.masks[0], draft.mask.on_plane((), (200, 220)))
    session.commit()
    assert draft not in session.drafts
    assert len(session.drafts) == 3


@pytest.mark.usefixtures("brief_lessons")
def test_session_ground_teaches_looks(session):
    with pytest.raises(ValueError, match=NO_GROUND):
        session.mark_ground([(10, 10), (10, 200)])
    commit_discs(session, 3)
    session.propose(QUICK)
    assert session._state.taught.kind.looks is None
    session.mark_ground([(10, 10), (10, 200)])
    session.mark_ground([(190, 10), (190, 200)])
    assert len(session.propose(QUICK)) == 1
    assert session._state.taught.kind.looks is not None


def test_session_learns_and_goes_on_with_it(session):
    with pytest.raises(ValueError, match=NO_OBJECTS):
        session.learn()
    commit_discs(session)
    before = session.click(*CENTERS[0]).masks[0]
    sentence = session.learn(FewShotConfig(steps=2, side=64))
    assert sentence.endswith(".")
    if session.learned is not None:
        assert load_model(session.learned).spec.training
        assert not np.array_equal(session.click(*CENTERS[0]).masks[0], before)


@pytest.mark.slow
def test_sessions_of_an_image_share_its_tries(monkeypatch):
    """Who begins a new session to learn with other settings has still tried before."""
    for name, value in OFFER_ANYTHING.items():
        monkeypatch.setattr(evidence, name, value)
    said = []
    for seed in (0, 1, 0):
        with Session(SessionImage.of(gray(), name="discs")) as session:
            commit_discs(session, 3)
            config = FewShotConfig(steps=2, crops=1, prompted=1, side=64, folds=2, seed=seed)
            said.append(session.learn(config))
    assert [TRY.format(2) in sentence for sentence in said] == [False, True, False]


def test_session_goes_on_with_its_log(tmp_path):
    log = tmp_path / "notes" / "discs.jsonl"
    image = SessionImage.of(gray(), name="discs")
    with Session(image, log=log) as session:
        commit_discs(session, 3)
        session.propose(QUICK)
        session.reject(session.drafts[0])
        session.undo()
        session.click(*CENTERS[3])
        labels, drafts = session.labels.copy(), session.drafts
        mask = session.prediction().masks[0]
        with pytest.raises(ValueError, match=matches(IN_USE)):
            Session(image, log=log)
    written = lines(log)
    assert written[0]["shape"] == [200, 220]
    with Session(image, log=log) as session:
        assert lines(log) == written, "nothing is written before something is done"
        assert np.array_equal(session.labels, labels)
        assert session.drafts == drafts
        assert np.array_equal(session.prediction().masks[0], mask)
        session.undo()
        session.undo()
        assert session.objects == [1, 2]
        session.redo()
    with Session(image, log=log) as session:
        assert session.objects == [1, 2, 3]


def test_session_of_an_array_is_refused():
    with pytest.raises(TypeError, match=r"SessionImage\.of\(array\).*, not of ndarray"):
        Session(np.zeros((64, 80), np.uint8))


def test_session_refuses_the_log_of_another_image(tmp_path):
    log = tmp_path / "log.jsonl"
    with Session(SessionImage.of(gray(), name="discs"), log=log) as session:
        session.click(*CENTERS[0])
    for _ in range(2):  # the refusal has released the file
        with pytest.raises(ValueError, match=OTHER_SHAPE):
            Session(SessionImage.of(gray((100, 100))), log=log)


def test_session_without_a_log_leaves_no_file():
    with Session(SessionImage.of(gray())) as session:
        own = session._log.path.parent
        assert own.is_dir()
    assert not own.exists()


def test_session_saves_labels_table_and_log(session, tmp_path):
    commit_discs(session, 2)
    session.classify("disc", 2)
    written = session.save(tmp_path)
    names = ["discs_labels.tif", "discs_objects.csv", "discs_classes.tif", "discs_session.jsonl"]
    assert [path.name for path in written] == names
    assert np.array_equal(tifffile.imread(written[0]), session.labels)
    assert np.array_equal(tifffile.imread(written[2]), (session.labels == 2).astype(np.uint16))
    with Session(SessionImage.of(gray(), name="discs"), log=written[3]) as again:
        assert np.array_equal(again.labels, session.labels)
        again.click(*CENTERS[3])
        again.save(tmp_path)  # onto its own log
        assert len(lines(written[3])) > 2


def test_session_of_a_stack_keeps_planes_apart():
    stack = np.stack([gray(), gray()[::-1], gray()])
    with Session(SessionImage.of(stack)) as session:
        session.click(*CENTERS[0], plane=(0,))
        session.click(199 - 52, 60, plane=(1,))
        assert session.commit(plane=(1,)) == [1]
        assert not session.labels[[0, 2]].any()
        assert session.prediction((0,)) is not None
        drafts = session.propose(QUICK, plane=[2])
        assert {draft.plane for draft in drafts} == {(2,)}, "a list names a plane, too"
        session.click(*CENTERS[3], plane=[2])
        assert session.commit(plane=[2]) == [2]
        with pytest.raises(ValueError, match=matches(NOT_ON_PLANE)):
            session.edit(1, plane=(2,))
        for plane in ((), (3,), (-1,), (0, 0)):
            with pytest.raises(ValueError, match=matches(NO_PLANE)):
                session.click(5, 5, plane=plane)


def test_session_propagates_as_the_window_does():
    image, mask = ball()
    with Session(SessionImage.of(image)) as session:
        with pytest.raises(ValueError, match=NOTHING_OPEN):
            session.propagate()
        session.click(*CENTER, plane=(3,))
        with pytest.raises(ValueError, match="the axes QYX"):
            session.propagate(axis=1)
        assert session.propagate(category="ball") == [1]
        assert iou(session.labels == 1, mask) > 0.85
        assert [plane.any() for plane in session.labels] == [plane.any() for plane in mask]
        assert session.undo() == "propagation of 1"
        assert not session.labels.any()
        assert session.prediction((3,)) is not None, "its prompts are open again"
        assert session.propagate(planes=(2, 3)) == [1]
        assert [plane.any() for plane in session.labels].index(True) == 2


def test_session_refines_other_labels(session):
    drawn = np.zeros((200, 220), np.uint8)
    for number, (y, x) in enumerate(CENTERS[:2], start=1):
        drawn[y - 10 : y + 10, x - 10 : x + 10] = number
    session.take_masks(drawn)
    assert session.commit() == [1, 2]
    for number in (1, 2):
        assert iou(session.labels == number, discs()[1] == number) > 0.85
    with pytest.raises(ValueError, match="hold no object"):
        session.take_masks(np.zeros_like(drawn))
    with pytest.raises(ValueError, match="shape"):
        session.take_masks(drawn[1:])


def test_session_links_and_cuts_over_time(tmp_path):
    frames, labels = series()
    with Session(SessionImage.of(frames), log=tmp_path / "log.jsonl") as session:
        with pytest.raises(ValueError, match=NO_LINKED_OBJECTS):
            session.link_over_time(LinkSettings(axis=0))
        for frame, plane in enumerate(labels):
            session.take_masks(plane, plane=(frame,))
            session.commit(plane=(frame,))
        with pytest.raises(ValueError, match="axis=0"):
            session.link_over_time()
        assert session.link_over_time(LinkSettings(axis=0)) == "4 tracks, 1 division."
        first, second = (int(session.labels[frame][PLACES[frame][0]]) for frame in (0, 1))
        assert first == second
        said = session.cut((0, first), (1, second), axis=0)
        assert said == "5 tracks, 1 division."
        later = int(session.labels[1][PLACES[1][0]])
        assert later != first
        assert session.link((0, first), (1, later), axis=0) == "4 tracks, 1 division."
        assert (tmp_path / "out" / "image_res_track.txt") in session.save(tmp_path / "out")
        linked = session.labels.copy()
    with Session(SessionImage.of(frames), log=tmp_path / "log.jsonl") as again:
        np.testing.assert_array_equal(again.labels, linked)
        assert again.undo() == f"link of {first} and {later}"


def test_session_joins_the_sections_of_a_stack():
    image, mask = ball()
    with Session(SessionImage.of(image)) as session:
        for plane in range(1, 6):
            session.take_masks(mask[plane].astype(np.uint8), plane=(plane,))
            session.commit(plane=(plane,))
        assert len(session.objects) == 5
        said = session.link_over_time(JOIN_PLANES)
        assert said == "1 object in 3D; each has one id on all its planes."
        assert session.objects == [1]


def test_session_names_the_others():
    image, labels, classes = shapes()
    with Session(SessionImage.of(image)) as session:
        session.take_masks(labels)
        session.commit()
        with pytest.raises(ValueError, match="Class three objects"):
            session.name_others()
        number = {session.labels[labels == n].max(): n for n in classes}
        for label, n in number.items():
            if n in BY_HAND:
                session.classify(classes[n], int(label))
        said = session.name_others()
        assert said.startswith("Named 10 objects by 3 bar, 3 disk;")
        entries = session._editor.register.entries
        assert {number[n]: each.category for n, each in entries.items()} == classes
        assert session.undo().startswith("naming of 10")


def test_session_table_of_a_picture_names_its_colors(tmp_path):
    Image.fromarray(np.stack([gray(), gray() // 2, gray() // 4], axis=-1)).save(tmp_path / "p.png")
    with Session.open(tmp_path / "p.png") as session:
        session.click(*CENTERS[0])
        session.commit()
        lines = session.save(tmp_path)[1].read_text(encoding="utf-8").splitlines()
    [cells] = csv.DictReader(lines)
    means = [name for name in cells if name.startswith("mean_")]
    assert means == ["mean_red", "mean_green", "mean_blue"]
    assert 2 * float(cells["mean_green"]) == pytest.approx(float(cells["mean_red"]), rel=0.02)


def test_session_reads_a_file_with_its_channels_and_pixel_size(tmp_path):
    path = tmp_path / "cells.ome.tif"
    channels = np.stack([gray(), 255 - gray(), gray()])
    size = {"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm"}
    size |= {"PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "µm"}
    metadata = {"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP", "BF"]}, **size}
    tifffile.imwrite(path, channels, metadata=metadata)
    with Session.open(path) as session:
        assert session.image.value.names == ("DAPI", "GFP", "BF")
        session.click(*CENTERS[0])
        session.commit()
        table = session.save(tmp_path)[1].read_text(encoding="utf-8").splitlines()
        assert {"mean_DAPI", "mean_GFP", "mean_BF"} <= set(table[0].split(","))
        chosen = {"statistics": ("max",), "indices": ("twice=GFP*2",)}
        again = session.save(tmp_path, **chosen)[1].read_text(encoding="utf-8").splitlines()
        with pytest.raises(ValueError, match="needs nir, red, which are not among the channels"):
            session.save(tmp_path, indices=("ndvi",))
    [cells] = csv.DictReader(again)
    assert float(cells["max_twice"]) == 2 * float(cells["max_GFP"])
    assert "mean_DAPI" not in cells
    selection = ChannelSelection(channels=("BF", 0, "BF"))
    with Session.open(path, selection=selection) as session:
        assert session.image.value.names == ("BF", "DAPI", "BF")
        session.click(*CENTERS[0])
        session.commit()
        table = session.save(tmp_path, indices=("half=GFP/2",))[1].read_text(encoding="utf-8")
        [cells] = csv.DictReader(table.splitlines())
        assert float(cells["mean_half"]) > 0, "of a channel that is not read"
        assert "mean_GFP" not in cells
    with pytest.raises(ValueError, match="has no channel CFP; it has DAPI, GFP, BF"):
        Session.open(path, selection=ChannelSelection(channels=("CFP",)))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda session: session.commit(), NOTHING_TO_COMMIT),
        (lambda session: session.other_mask(), NO_OTHER_MASK),
        (lambda session: session.delete(3), NO_OBJECT),
        (lambda session: session.merge(), NO_OBJECT),
        (lambda session: session.accept(), NO_DRAFTS),
        (lambda session: session.reject(), NO_DRAFTS),
        (lambda session: session.click(52, 60, positive=False), "only negative marks"),
        (lambda session: session.click(900, 60), "outside"),
        (lambda session: (session.click(52, 60), session.edit(1)), NO_OBJECT),
        (lambda session: session.draw("polygon", [(1, 1), (5, 5)]), "this is no polygon"),
        (lambda session: session.draw("circle", [(1, 1), (5, 5)]), "this is no circle"),
        (lambda session: session.draw("path", []), "this is no path"),
    ],
)
def test_session_refuses_in_a_sentence_and_logs_nothing(session, wrong, sentence):
    with pytest.raises(ValueError, match=matches(sentence)):
        wrong(session)
    assert not session.labels.any()


def test_session_refuses_to_edit_beside_open_prompts(session):
    commit_discs(session, 1)
    session.click(*CENTERS[1])
    with pytest.raises(ValueError, match=OPEN_PROMPTS):
        session.edit(1)
    session.discard()
    session.edit(1)


def test_session_overlap_keeps_or_overwrites(session):
    commit_discs(session, 1)
    session.click(*CENTERS[0])
    with pytest.raises(ValueError, match="Objects 1 keep all the pixels"):
        session.commit()
    session.overlap = "overwrite"
    assert session.commit() == [2]
    assert session.objects == [2]


def test_session_merges_two_objects_or_more(session):
    commit_discs(session, 2)
    with pytest.raises(ValueError, match=TWO_TO_MERGE):
        session.merge(1, 1)
    with pytest.raises(ValueError, match="Object 1 is one piece"):
        session.split(1)
    assert session.objects == [1, 2]


@pytest.mark.parametrize("place", ["", "file/log.jsonl"])
def test_session_says_where_it_cannot_log(tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        Session(SessionImage.of(gray()), log=tmp_path / place)


def test_session_that_is_closed_says_so(tmp_path):
    log = tmp_path / "log.jsonl"
    with Session(SessionImage.of(gray()), log=log) as session:
        session.click(*CENTERS[0])
    with pytest.raises(ValueError, match=CLOSED):
        session.commit()
    session.close()


def test_prediction_is_shown_without_its_pixels(session):
    assert re.fullmatch(r"Prediction\(1 object, score 0\.\d\d\)", repr(session.click(52, 60)))


def test_session_classes_are_words_also_in_the_log(tmp_path):
    log = tmp_path / "log.jsonl"
    image = SessionImage.of(gray())
    with Session(image, log=log) as session:
        commit_discs(session, 1)
        session.classify(3, 1)
    with Session(image, log=log) as session:
        assert session.save(tmp_path)[2].name == "image_classes.tif"


def test_session_that_learns_leaves_the_files_beside_its_log(tmp_path):
    """A log may lie beside its image, and be called as it is."""
    users = [tmp_path / name for name in ("a.tif", "a.12345678.csv", ".a.notes", "a.safetensors")]
    for path in users:
        path.write_bytes(b"a user's")
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "zarr.json").touch()
    older = tmp_path / "a.0123abcd.safetensors"
    older.touch()
    (tmp_path / "a.learning-0123abcd").mkdir()
    with Session(SessionImage.of(gray()), log=tmp_path / "a.jsonl") as session:
        commit_discs(session)
        session.learn(FewShotConfig(steps=2, side=64))
        session._log.remove_models("")  # as when something was learned
    assert all(path.read_bytes() == b"a user's" for path in users)
    assert (tmp_path / "a.zarr" / "zarr.json").exists()
    assert not older.exists()
    assert not (tmp_path / "a.learning-0123abcd").exists()


@pytest.mark.usefixtures("brief_lessons")
def test_session_goes_on_with_the_recorded_log_of_a_window(tmp_path):
    """Also with steps in side views, which only the window shows."""
    log = tmp_path / "recorded.jsonl"
    log.write_bytes((Path(golden.__file__).parent / "session.jsonl").read_bytes())
    shape = lines(log)[0]["shape"]
    stack = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    with Session(SessionImage.of(stack), log=log) as session:
        labels = session.labels.copy()
        steps = []
        while step := session.undo():
            steps.append(step)
        assert not session.labels.any()
        assert [session.redo() for _ in steps] == steps[::-1]
        assert np.array_equal(session.labels, labels)


@pytest.mark.parametrize("damage", ["removed", "changed"])
def test_session_says_that_what_was_learned_is_gone(tmp_path, caplog, damage):
    log = tmp_path / "log.jsonl"
    image = SessionImage.of(gray())
    file = tmp_path / "log.0123abcd.safetensors"
    with Session(image, log=log) as session:
        session._on_change("adapted", AdaptedModelFile(file.name, "0" * 64, "tiny", "", {}, False))
    if damage == "changed":
        file.write_bytes(b"other weights")
    with Session(image, log=log) as session:
        assert session.learned is None
        assert LOST in caplog.text
        session.click(*CENTERS[0])


def test_session_proposes_what_words_and_objects_mean(sam3_model, sam3_hub_file, monkeypatch):
    """The committed objects are examples where they are on the same plane."""
    asked = []

    def find(network, encoded, concept, minimum):
        asked.append(concept)
        logits = torch.full((3, 32, 32), -9.0)
        for number, corner in enumerate((2, 12, 22)):
            logits[number, corner : corner + 4, 2:6] = 9.0
        return FoundMasks(logits, torch.tensor([0.8, 0.7, 0.6]))

    monkeypatch.setattr(Sam3Network, "find", find)
    with Session(SessionImage.of(gray()), sam3_hub_file) as session:
        words = AutomaticSettings(words="leaf")
        assert len(session.propose(words)) == 3
        assert not len(asked[0].boxes)
        assert len(session.propose(replace(words, quality=0.75))) == 1
        assert len(asked) == 1, "other thresholds need no new search"
        session.propose(words)
        assert len(session.accept()) == 3
        assert not session.propose(AutomaticSettings(words="visual")), "they are there already"
        boxes = asked[1].boxes
        # Cells of 3.5 pixels: 2..5 are pixels 7..20.
        assert boxes.shape == (3, 4)
        assert (boxes[:, 0] - 6.5).abs().max() < 1
        assert (boxes[:, 2] - 20.5).abs().max() < 1
