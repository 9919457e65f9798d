"""The verbs of an annotation: each is one step, or refused, and undone to the last pixel."""

import ast
import inspect
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from napari_simmat.annotation import annotator as module
from napari_simmat.annotation.annotator import AnnotationHost, Annotator, RefusedError, counted
from napari_simmat.annotation.drafts import Draft, DraftSet
from napari_simmat.annotation.history import NewObject
from napari_simmat.annotation.image_session import ImageSession
from napari_simmat.annotation.label_editor import LabelArray, LabelEditor
from napari_simmat.annotation.links import FoundLinks, LinkRequest
from napari_simmat.annotation.naming import FoundNames, NamingRequest
from napari_simmat.annotation.prompt_state import Prompts, PromptState
from napari_simmat.engine.label_edit import LabelEdit
from napari_simmat.engine.masks import ObjectMask
from napari_simmat.engine.naming import NamedObjects
from napari_simmat.engine.tracking.linking import Lineage, Node
from napari_simmat.models import spec

PACKAGE = Path(spec.__file__).parents[1]
SHAPE = 20, 30
CLICK = PromptState(Prompts(points=((5.0, 5.0),), labels=(1,), groups=(0,)))


def block(y: int, x: int, height: int = 6, width: int = 6) -> ObjectMask:
    return ObjectMask.of(np.ones((height, width), bool), (y, x))


A, B = Draft(block(2, 2), 0.9), Draft(block(2, 20), 0.7)


class Board:
    """An image with objects 1 (left) and 2 (right, above), drafts, and what was shown."""

    def __init__(self) -> None:
        geometry = SimpleNamespace(name="image", order=(), shape=SHAPE)
        self.session = ImageSession(geometry)
        self.editor = LabelEditor(LabelArray(np.zeros(SHAPE, np.int32)))
        self.session.editor = self.editor
        self.shown = []
        host = AnnotationHost(lambda: self.editor, self.editor_of, self.show, self.shown.append)
        self.verbs = Annotator(self.session, host)
        self.gone = False
        for y, x in ((10, 2), (10, 12)):
            self.verbs.write("commit", [NewObject(block(y, x), 0.8)])
        self.session.drafts.propose(DraftSet((A, B)))

    def editor_of(self, layer: str) -> LabelEditor:
        if self.gone:
            raise ValueError("The layer is gone")
        assert layer == self.editor.key
        return self.editor

    def show(self, state: PromptState) -> None:
        self.session.prompt_state = state

    @property
    def state(self) -> tuple:
        """All that a verb can change."""
        session = self.session
        classes = {
            label: self.editor.register.entry(label).category for label in self.editor.labels
        }
        drafts = session.drafts
        known = drafts.open, drafts.rejected, tuple(drafts.ground)
        return self.editor.layer.data.tolist(), classes, known, session.prompt_state


@pytest.fixture
def board():
    return Board()


def split_in_two(board: Board) -> None:
    board.editor.layer.data[12, 2:8] = 0  # not a step: as a file might have it
    board.verbs.split(1)


def outdated(board: Board, found: FoundLinks) -> FoundLinks:
    """Links of the objects before they were classed."""
    version = board.editor.version - 1
    return replace(found, request=replace(found.request, version=version))


def elsewhere(board: Board, found: FoundNames) -> FoundNames:
    """Names of the objects of other labels."""
    other = LabelEditor(LabelArray(board.editor.layer.data.copy()))
    return replace(found, request=replace(found.request, editor=other))


def names(board: Board) -> FoundNames:
    """That object 2 is most likely a cell, and object 1 doubtful."""
    editor = board.editor
    entries = {label: editor.register.entry(label) for label in editor.labels}
    found = NamedObjects({1: "cell", 2: "cell"}, {1: 0.5, 2: 0.9}, {"cell": 3, "dirt": 3}, 5, 6)
    return FoundNames(
        NamingRequest(editor, editor.version, entries), found, dict.fromkeys(entries, "")
    )


def links(board: Board) -> FoundLinks:
    """That object 2 is object 1 on another frame, taking columns for frames."""
    nodes = Node(4, 1), Node(14, 2)
    request = LinkRequest(board.editor, board.editor.version, 1, lambda *_: None, "link of 1 and 2")
    lineage = Lineage(dict.fromkeys(nodes, ((10.0,), 6)), {nodes[1]: nodes[0]})
    edits = [LabelEdit(block(10, 12), 2, 1)]
    return FoundLinks(request, lineage, edits)


STEPS = {
    "write": (lambda b: b.verbs.write("commit", [NewObject(block(2, 12), 0.5)]), "commit of 3"),
    "delete": (lambda b: b.verbs.delete([1]), "deletion of 1"),
    "merge": (lambda b: b.verbs.merge([2, 1]), "merging of 2, 1"),
    "split": (split_in_two, "splitting of 1"),
    "classify": (lambda b: b.verbs.classify([1, 2], "cell"), "class cell of 1, 2"),
    "edit": (lambda b: b.verbs.edit((), 2), "edit of 2"),
    "accept": (lambda b: b.verbs.accept([A, B], "cell"), "acceptance of 3, 4"),
    "reject one": (lambda b: b.verbs.reject([A]), "rejection of a draft"),
    "reject": (lambda b: b.verbs.reject([A, B]), "rejection of 2 drafts"),
    "open_draft": (lambda b: b.verbs.open_draft(A), "edit of a draft"),
    "mark_ground": (lambda b: b.verbs.mark_ground(Draft(block(0, 0), 0)), "marking of ground"),
    "take_masks": (lambda b: b.verbs.take_masks("cells", [block(2, 2)]), "masks of cells"),
    "name_others": (lambda b: b.verbs.name_others(names(b)), "naming of 2"),
    "link": (lambda b: b.verbs.link(links(b)), "link of 1 and 2"),
    "clear": (lambda b: (b.show(CLICK), b.verbs.clear(())), "clearing"),
}


@pytest.mark.parametrize("verb", STEPS)
def test_verb_is_one_step_that_undo_takes_back(verb, board):
    act, name = STEPS[verb]
    steps = len(board.session.history)
    if verb == "clear":
        board.show(CLICK)
    if verb == "split":
        board.editor.layer.data[12, 2:8] = 0
    before = board.state
    act(board)
    after = board.state
    assert after != before
    assert len(board.session.history) == steps + 1
    assert board.shown[-1] is board.session.history.last
    assert board.verbs.undo().name == name
    assert board.state == before
    assert board.verbs.redo().name == name
    assert board.state == after


def test_merging_and_splitting_say_what_came_of_it(board):
    assert board.verbs.merge([1, 2]) == 1
    assert sorted(board.verbs.split(1)) == sorted(board.editor.labels)
    assert len(board.editor.labels) == 2


def test_prompts_that_said_which_are_used_up(board):
    board.verbs.edit((), 2)
    board.verbs.merge([1, 2], closing=[()])
    assert not board.session.prompt_state
    board.verbs.undo()
    board.verbs.delete([2])
    assert not board.session.prompt_state.edited


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (lambda b: b.verbs.commit((), None), "nothing to commit"),
        (lambda b: b.verbs.write("commit", [NewObject(block(10, 2), 0.5)]), "hidden"),
        (lambda b: b.verbs.delete([7]), "no object"),
        (lambda b: b.verbs.delete([]), "no object"),
        (lambda b: b.verbs.classify([1, 9], "cell"), "no object"),
        (lambda b: b.verbs.merge([1, 1]), "too few to merge"),
        (lambda b: b.verbs.edit((), 9), "no object"),
        (lambda b: (b.show(CLICK), b.verbs.edit((), 1)), "open prompts"),
        (lambda b: (b.show(CLICK), b.verbs.open_draft(A)), "open prompts"),
        (lambda b: b.verbs.accept([]), "no draft"),
        (lambda b: b.verbs.reject([Draft(block(0, 0), 0.5)]), "no draft"),
        (lambda b: b.verbs.choose_mask(()), "no other mask"),
        (lambda b: b.verbs.link(outdated(b, links(b))), "changed meanwhile"),
        (lambda b: b.verbs.name_others(elsewhere(b, names(b))), "changed meanwhile"),
    ],
)
def test_refused_verb_changes_nothing_and_says_why(act, reason, board):
    labels, steps = board.editor.layer.data.copy(), len(board.session.history)
    with pytest.raises(RefusedError) as refused:
        act(board)
    assert refused.value.reason == reason
    np.testing.assert_array_equal(board.editor.layer.data, labels)
    assert len(board.session.history) == steps


def test_hidden_objects_name_those_in_the_way(board):
    with pytest.raises(RefusedError) as refused:
        board.verbs.write("commit", [NewObject(block(10, 2), 0.5)])
    assert refused.value.labels == [1]


def test_step_whose_labels_are_gone_stays_to_be_undone(board):
    board.verbs.delete([1])
    after = board.state
    board.gone = True
    with pytest.raises(ValueError, match="The layer is gone"):
        board.verbs.undo()
    assert board.state == after
    board.gone = False
    assert board.verbs.undo().name == "deletion of 1"


def test_nothing_to_undo_or_redo_is_none(board):
    assert board.verbs.redo() is None
    for _ in range(2):
        board.verbs.undo()
    assert board.verbs.undo() is None


def test_named_objects_that_changed_meanwhile_are_left_alone(board):
    found = names(board)
    found = replace(found, digests={2: "of another mask"})
    board.verbs.classify([1], "dirt")
    text = board.verbs.name_others(found)
    assert text.endswith("2 objects changed meanwhile and are left alone.")
    assert board.editor.register.entry(2).category == ""
    assert board.session.history.last.name == "class dirt of 1", "nothing to undo"


def test_many_objects_are_counted():
    assert [counted(range(1, n + 1)) for n in (1, 3, 4)] == ["1", "1, 2, 3", "4 objects"]


def called(folder: str) -> set[str]:
    """Names of the verbs that a file of the package calls, or the files of a folder."""
    path = PACKAGE / folder
    files = [path] if path.is_file() else path.rglob("*.py")
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text("utf-8")))]
    owned = [node for node in nodes if isinstance(node, ast.Attribute)]
    return {each.attr for each in owned if ast.unparse(each.value).endswith(("annotator", "verbs"))}


def test_each_verb_is_called_by_script_and_window_alike():
    verbs = {
        name
        for name, each in inspect.getmembers(Annotator, inspect.isfunction)
        if not name.startswith("_") and each.__module__ == module.__name__
    }
    # What is written was chosen by the window, or proposed, or propagated there.
    by_window = {"commit": "write", "accept": "write"}
    wanted = verbs - {"write"}
    assert wanted <= called("annotation/session.py")
    assert {by_window.get(name, name) for name in wanted} <= called("widgets/segment")
