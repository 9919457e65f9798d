"""Any way over folders, images and tabs: what was done to each is there, in files, table, layers.

After each step all is compared with a plain model of what a person would say is there.
``SIMMAT_ACTIONS=500`` asks for that many steps of each seed, as the nightly run does.
"""

from __future__ import annotations

import csv
import os
import random
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from qtpy.QtCore import Qt

from napari_simmat.annotation.prompt_state import PromptState
from napari_simmat.batch.inputs import find_inputs
from napari_simmat.batch.plan import Plan, SegmentConfig, plan
from napari_simmat.batch.run_plan import run_plan_job
from napari_simmat.engine.settings import AutomaticSettings
from napari_simmat.progress import finish
from napari_simmat.widgets.batch.tab import BatchTab
from napari_simmat.widgets.segment.folder import image_folder
from napari_simmat.widgets.segment.folder.image_folder import DRAFTS_FIRST
from napari_simmat.widgets.segment.layers import open_images
from tests.nightly import nightly_but
from tests.widgets.scenes import CENTERS, RADII, gray

STEPS = int(os.environ.get("SIMMAT_ACTIONS", "25"))
SHIFT = Qt.KeyboardModifier.ShiftModifier
COUNT = 3
"""Images of the folder."""
OTHER = "other"
"""An image that is in no folder."""
CLASSES = ("cell", "nucleus")
DRAFTS = AutomaticSettings(points_per_side=5)


@dataclass(frozen=True)
class Known:
    """One object: its class, and its score in two digits."""

    category: str
    score: str


@dataclass(frozen=True, eq=False)
class Objects:
    """What an image has: labels from 1 without gaps, what is known of each, and open drafts."""

    labels: np.ndarray
    known: dict[int, Known] = field(default_factory=dict)
    drafts: frozenset[bytes] | None = frozenset()
    """None where nobody can say: drafts were proposed anew since."""
    prompts: PromptState | None = None
    """What is open."""

    def number_at(self, y: int, x: int) -> int:
        return int(self.labels[y, x])


@dataclass
class Page:
    """An image as it is written on: what it has, what it had before, and what its files hold."""

    now: Objects
    before: list[Objects] = field(default_factory=list)
    after: list[Objects] = field(default_factory=list)
    saved: Objects | None = None

    @property
    def has_work(self) -> bool:
        now = self.now
        return bool(now.known or now.prompts or now.drafts or self.saved)

    def do(self, state: Objects) -> None:
        self.before.append(self.now)
        self.now = state
        self.after.clear()


def empty() -> Objects:
    return Objects(np.zeros(gray().shape, np.int32))


def written(before: Objects, masks: list[np.ndarray], known: list[Known]) -> Objects:
    """What is there when masks were written beside what was: others keep their pixels."""
    labels, table = before.labels.copy(), dict(before.known)
    for mask, each in zip(masks, known, strict=True):
        free = mask & (labels == 0)
        if free.any():
            number = max(table, default=0) + 1
            labels[free] = number
            table[number] = each
    return replace(before, labels=labels, known=table)


def same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two label images hold the same objects, however they are numbered."""
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1)
    is_one_to_one = all(len(set(row.tolist())) == pairs.shape[1] for row in pairs)
    return is_one_to_one and bool(((one == 0) == (other == 0)).all())


class Walk:
    """A person who goes anywhere, and a notebook in which every step is written down.

    Pages are found by where the results of an image are: a batch has its own.
    """

    def __init__(self, window: Any, folder: Path, made: Plan, seed: int) -> None:
        self.window, self.folder, self.made = window, folder, made
        self.random = random.Random(seed)
        self.pages: dict[str, Page] = {OTHER: Page(empty())}
        self.new_class = ""
        self.said: list[str] = []
        self._keys: dict[str, Any] = {}

    # ------------------------------------------------------------------ steps

    def begin(self) -> None:
        self.window.viewer.add_image(gray()[::-1].copy(), name=OTHER)
        self.window.start()
        self.check()

    def step(self) -> None:
        actions = {
            self.click: 8,
            self.outline: 4,
            self.commit: 9,
            self.delete: 2,
            self.classify: 3,
            self.undo: 4,
            self.redo: 2,
            self.propose: 2,
            self.accept: 4,
            self.reject: 3,
            self.discard: 3,
            self.next: 6,
            self.previous: 4,
            self.mark_empty: 2,
            self.go_to_other: 2,
            self.go_back: 4,
            self.open_folder: 2,
            self.open_batch: 2,
            self.remove_image: 1,
            self.reopen: 1,
            self.restart: 1,
        }
        [action] = self.random.choices(list(actions), list(actions.values()))
        self.said.append(f"{action.__name__} on {Path(self.at).name or OTHER}")
        self._page = self.page
        action()
        self.said[-1] += f" ({self.window.status.text[:60]})"
        self.check()

    def click(self) -> None:
        y, x = self._place()
        page, tab = self._page, self.window.tab
        label, chosen = self._label_at(y, x), tab.object_panel.table.value()
        was_open = bool(self.session.prompt_state)
        self.window.click(y, x)
        if label and not was_open and chosen != (label,):
            assert tab.object_panel.table.value() == (label,), "a click selects"
            assert not self.session.prompt_state
            return
        assert self.session.prompt_state, "a click begins an object, or opens one"
        self._note_prompts(page)

    def outline(self) -> None:
        number = self.random.randrange(len(CENTERS))
        (y, x), radius = CENTERS[number], RADII[number] + self.random.choice([-3, 0, 2])
        turn = np.linspace(0, 2 * np.pi, 14)
        path = np.stack([y + radius * np.sin(turn), x + radius * np.cos(turn)], axis=1)
        self.window.stroke(np.clip(path, 0, [199, 219]).tolist())
        assert self.session.prompt_state
        self._note_prompts(self._page)

    def commit(self) -> None:
        page, session = self._page, self.session
        state, drafts, steps = session.prompt_state, self._drafts(), len(session.history)
        edited = [self._known_as(each.label) for each in state.edited]
        shown, scores = self._shown()
        masks, known = shown, scores
        self.window.commit()
        if not state and not drafts:
            assert len(session.history) == steps, "there was nothing to commit"
            return
        before = page.now
        for label in filter(None, edited):
            free = before.labels * (before.labels != label)
            own = masks[0] & (free == 0)
            if own.any():
                labels = np.where(own, label, free)
                kept = replace(before.known[label], score=known[0].score)
                before = replace(before, labels=labels, known={**before.known, label: kept})
                masks, known = masks[1:], known[1:]
        after = written(before, masks, known)
        if len(session.history) == steps:  # refused: others have all its pixels
            assert same(after.labels, page.now.labels)
            return
        assert not session.prompt_state
        left = drafts if state else frozenset()
        gone = frozenset(d for d in left if d not in self._drafts())
        for each in gone:
            assert any(_covers(mask, self._keys[each]) for mask in shown)
        page.do(replace(after, drafts=left - gone, prompts=session.prompt_state))

    def delete(self) -> None:
        if labels := self._choose_row():
            now, own = self._page.now, self._known_as(labels[0])
            self.window.key(Qt.Key.Key_D, SHIFT)
            known = {number: each for number, each in now.known.items() if number != own}
            gone = np.where(now.labels == own, 0, now.labels)
            self._do(replace(now, labels=gone, known=known, prompts=self.session.prompt_state))

    def classify(self) -> None:
        name, window = self.random.choice(CLASSES), self.window
        if self.random.random() < 0.4:
            window.tab.object_panel.table.choose(())
            window.type_class(name)
            self.new_class = name
        elif labels := self._choose_row():
            now, own = self._page.now, self._known_as(labels[0])
            window.type_class(name)
            if now.known[own].category != name:
                known = {**now.known, own: replace(now.known[own], category=name)}
                self._do(replace(now, known=known))

    def undo(self) -> None:
        page = self._page
        had = self.session.history.can_undo
        self.window.undo()
        assert had == bool(page.before), "what was done can be undone"
        if had:
            page.after.append(page.now)
            page.now = self._with_drafts(page.before.pop())

    def redo(self) -> None:
        page = self._page
        had = self.session.history.can_redo
        self.window.redo()
        assert had == bool(page.after)
        if had:
            page.before.append(page.now)
            page.now = self._with_drafts(page.after.pop())

    def propose(self) -> None:
        window = self.window
        window.tab.automatic_panel.set_value(DRAFTS)
        window.tab.act("segment everything")
        window.idle()
        self._note_found(self._drafts(), before=None)

    def accept(self) -> None:
        if (draft := self._draft()) is None:
            return
        (y, x), session = self._inside(draft), self.session
        drafts, steps = self._drafts(), len(session.history)
        now = self._page.now
        self.window.key_over(y, x, Qt.Key.Key_W)
        if len(session.history) == steps:
            held = self._whole(draft) & (now.labels > 0)
            assert 2 * held.sum() >= draft.mask.size, "others hold most of it"
            return
        known = Known(self.new_class, f"{draft.score:.2f}")
        after = written(now, [self._whole(draft)], [known])
        self._do(replace(after, drafts=drafts - {draft.mask.digest}))

    def reject(self) -> None:
        if (draft := self._draft()) is not None:
            left = self._drafts() - {draft.mask.digest}
            self.window.key_over(*self._inside(draft), Qt.Key.Key_H)
            self._do(replace(self._page.now, drafts=left))

    def discard(self) -> None:
        session, state, drafts = self.session, self.session.prompt_state, self._drafts()
        self.window.key(Qt.Key.Key_C, SHIFT)
        assert not session.prompt_state
        if state:
            self._do(replace(self._page.now, prompts=session.prompt_state))
        elif drafts:
            self._note_found(frozenset(), before=frozenset())

    def next(self) -> None:
        self._go(Qt.Key.Key_N, 1)

    def previous(self) -> None:
        self._go(Qt.Key.Key_B, -1)

    def _go(self, key: Any, step: int) -> None:
        folder = self.window.tab.image_folder
        if folder.current is None:
            return
        at, held, number = self.open_one, self._is_held(), folder.number
        self.window.key(key, SHIFT)
        if held:
            assert self.window.status.text == DRAFTS_FIRST
            assert folder.number == number
            return
        inside = 0 <= number + step < len(folder.images)
        assert folder.number == (number + step if inside else number), self.window.status
        if at:
            self._note_saved(at)

    def mark_empty(self) -> None:
        folder = self.window.tab.image_folder
        if folder.current is None or self.chosen == OTHER or self._is_held():
            return
        at, now = self.current, self._page.now
        self.window.tab.act("no objects")
        self.window.idle()
        if not now.known and not now.prompts:
            self._note_saved(at)
            self.pages[at].saved = empty()

    def go_to_other(self) -> None:
        self._choose(OTHER)

    def go_back(self) -> None:
        folder = self.window.tab.image_folder
        if self._is_open(folder.in_hand.read):
            self._choose(folder.in_hand.read.layer.name)

    def open_folder(self) -> None:
        at, held = self.open_one, self._is_held()
        panel = self.window.tab.folder_panel
        panel.folder.set_value("")
        panel.folder.set_value(str(self.folder))
        self.window.idle()
        self._note_listed(at, held=held)

    def open_batch(self) -> None:
        at, held = self.open_one, self._is_held()
        self.window.tab.sections["folder"].set_open(True)
        self.window.push(self.window.tab.folder_panel.batch)
        self._note_listed(at, held=held)

    def remove_image(self) -> None:
        """Remove the folder's image from the viewer by hand."""
        opened = self.window.tab.image_folder.in_hand.read
        if self._is_open(opened):
            self.window.viewer.layers.remove(opened.layer)
            self.window.idle()

    def reopen(self) -> None:
        """Close the tab, and open it again."""
        self.window.close_widget()
        self.window.start()
        self._note_new_tab()

    def restart(self) -> None:
        """Close the window, and begin anew; the image that is in no folder is opened again."""
        window = self.window
        window.close_widget()
        open_images.left_by_closed_tabs.clear()
        image_folder.left_by_closed_tabs.clear()
        window.viewer.layers.clear()
        window.viewer.add_image(gray()[::-1].copy(), name=OTHER)
        window.start()
        self._note_new_tab()
        if window.status.offer == "Restore":
            window.push(window.tab.status.offer)
        for at, page in self.pages.items():
            if not page.has_work:
                self.pages[at] = Page(empty())  # of nothing, nothing is kept

    # ------------------------------------------------------------- the notebook

    @property
    def session(self) -> Any:
        return self.window.workspace.session

    @property
    def chosen(self) -> str:
        return self.window.tab.channels.image.currentText()

    @property
    def current(self) -> str:
        """Where the results of the folder's image go; empty without a folder."""
        image = self.window.tab.image_folder.current
        return "" if image is None else str(image.labels)

    @property
    def open_one(self) -> str:
        """As `current`, but empty where that was not worked on, or removed by hand."""
        return self.current if self.window.tab.image_folder._session() is not None else ""

    @property
    def at(self) -> str:
        """The page of the image that is segmented."""
        return OTHER if self.chosen == OTHER else self.current

    @property
    def page(self) -> Page:
        return self.pages[self.at]

    def _do(self, after: Objects) -> None:
        self._page.do(after)

    def _note_prompts(self, page: Page) -> None:
        """Prompts are taken from what is there: what they give is written down at the commit."""
        new = len(self.session.history) - len(page.before)
        assert new in (0, 1), "one step, or a line that is taken back"
        state = replace(page.now, prompts=self.session.prompt_state)
        if new:
            page.do(state)
        else:
            page.now = state

    def _note_found(self, drafts: frozenset[bytes], before: frozenset[bytes] | None) -> None:
        """Other drafts were found, or none any more, which no undo takes back."""
        page = self._page
        page.now = replace(page.now, drafts=drafts)
        for states in (page.before, page.after):
            states[:] = [replace(each, drafts=before) for each in states]

    def _note_saved(self, at: str) -> None:
        page = self.pages[at]
        if not page.has_work:
            self.pages[at] = Page(empty())  # of nothing, nothing is kept
        elif page.before or page.after or page.now.drafts:
            page.saved = page.now

    def _note_listed(self, at: str, *, held: bool) -> None:
        if held:
            assert self.window.status.text == DRAFTS_FIRST
            return
        if at:
            self._note_saved(at)
        for image in self.window.tab.image_folder.images:
            self._open_page(image)

    def _open_page(self, image: Any) -> None:
        key = str(image.labels)
        if key in self.pages:
            return
        self.pages[key] = Page(empty())
        if image.labels.exists():
            labels = tifffile.imread(image.labels).astype(np.int32)
            known = {label: Known(*row) for label, row in table_of(image.labels).items()}
            found = Objects(labels, known)
            self.pages[key] = Page(found, saved=found)

    def _note_new_tab(self) -> None:
        self.new_class = ""

    def _is_open(self, opened: Any) -> bool:
        return opened is not None and opened.layer in self.window.viewer.layers

    def _place(self) -> tuple[int, int]:
        places = [*CENTERS, (105, 20), (60, 170), (148, 75), (190, 110)]
        return self.random.choice(places)

    def _label_at(self, y: int, x: int) -> int:
        objects = self.window.workspace.objects
        return 0 if objects is None else int(objects.data[y, x])

    def _known_as(self, label: int) -> int:
        """The number in the notebook of an object of the layer."""
        where = np.argwhere(self.window.workspace.objects.data == label)
        return self.page.now.number_at(*where[0]) if len(where) else 0

    def _choose_row(self) -> tuple[int, ...]:
        table = self.window.tab.object_panel.table
        rows = table.model().rowCount()
        if not rows:
            return ()
        self.window._enter(False)
        table.choose([table._model.rows[self.random.randrange(rows)].label])
        return tuple(table.value())

    def _choose(self, name: str) -> None:
        self.window.choose(self.window.tab.channels.image, name)

    def _is_held(self) -> bool:
        folder = self.window.tab.image_folder
        return bool(self._drafts()) and folder._session() is self.session

    def _drafts(self) -> frozenset[bytes]:
        found = self.session.drafts.open
        self._keys.update({each.mask.digest: each for each in found})
        return frozenset(each.mask.digest for each in found)

    def _draft(self) -> Any:
        found = [] if self.session.prompt_state else list(self.session.drafts.open)
        return self.random.choice(found) if found else None

    def _inside(self, draft: Any) -> tuple[int, int]:
        y, x = np.argwhere(self._whole(draft))[0]
        return int(y), int(x)

    def _whole(self, draft: Any) -> np.ndarray:
        whole = np.zeros(gray().shape, bool)
        whole[draft.mask.region[-2:]] = draft.mask.mask.reshape(draft.mask.shape[-2:])
        return whole

    def _with_drafts(self, state: Objects) -> Objects:
        """A state of before, with the drafts that are there where it does not know them."""
        return state if state.drafts is not None else replace(state, drafts=self._drafts())

    def _shown(self) -> tuple[list[np.ndarray], list[Known]]:
        """The masks that a commit is to write, and what will be known of each."""
        session = self.session
        if session.prompt_state:
            prediction = session.prediction(())
            masks, scores = list(prediction.masks), prediction.scores
            assert self.window.mask[np.any(masks, axis=0)].all(), "what is written is shown"
        else:
            masks = [self._whole(draft) for draft in session.drafts.open]
            scores = [draft.score for draft in session.drafts.open]
        return masks, [Known(self.new_class, f"{score:.2f}") for score in scores]

    # ----------------------------------------------------------------- compared

    def check(self) -> None:
        self._check_layer()
        self._check_table()
        self._check_files()

    def _check_layer(self) -> None:
        objects, page = self.window.workspace.objects, self.page
        shown = np.zeros(gray().shape, int) if objects is None else objects.data
        assert same(shown, page.now.labels), "the layer holds what was done"
        for other in self.window.workspace.sessions.others(self.session):
            there = OTHER if other.geometry.name == OTHER else self.current
            if other.objects is not None:
                assert same(other.objects.data, self.pages[there].now.labels)
            assert other.prompt_state == (self.pages[there].now.prompts or PromptState())
        assert len(self.session.history) == len(page.before), "each step can be undone"
        assert (self.session.prompt_state or None) == (page.now.prompts or None)
        if page.now.drafts is not None:
            assert self._drafts() == page.now.drafts

    def _check_table(self) -> None:
        rows = self.window.tab.object_panel.table._model.rows
        there = {self._known_as(row.label): Known(row.category, f"{row.score:.2f}") for row in rows}
        assert there == self.page.now.known

    def _check_files(self) -> None:
        for key, page in self.pages.items():
            if key == OTHER:
                continue
            path = Path(key)
            saved = page.saved
            assert path.exists() or saved is None or not saved.known, f"{path} is written"
            if not path.exists():
                continue
            assert saved is not None, f"{path} is not written"
            labels = tifffile.imread(path)
            assert same(labels, saved.labels), f"{path.name} holds what was done"
            rows = table_of(path)
            there = {}
            for label, row in rows.items():
                where = np.argwhere(labels == label)
                there[saved.number_at(*where[0])] = Known(*row)
            assert there == saved.known, f"the table beside {path.name}"


def table_of(labels: Path) -> dict[int, tuple[str, str]]:
    """Class and score in two digits of each object in the table beside its labels."""
    table = labels.with_name(labels.name.replace("_labels.tif", "_objects.csv"))
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {
        int(row["label"]): (row.get("class") or "", f"{float(row.get('score') or 'nan'):.2f}")
        for row in rows
    }


def _covers(mask: np.ndarray, draft: Any) -> bool:
    shared = (mask[draft.mask.region[-2:]] & draft.mask.mask.reshape(draft.mask.shape[-2:])).sum()
    return 2 * shared > min(draft.mask.size, mask.sum())


def images_in(folder: Path) -> Path:
    folder.mkdir()
    for number in range(COUNT):
        image = np.roll(np.clip(gray(), 0, 240), 3 * number, axis=1) + np.uint8(number)
        tifffile.imwrite(folder / f"{number}.tif", image)
    return folder


@pytest.fixture
def walk(window: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: Any) -> Walk:
    """A walk over a folder, which was segmented by a batch as well, and another image."""
    folder = images_in(tmp_path / "images")
    config = SegmentConfig(model="tiny", automatic=DRAFTS)
    options = {"output": tmp_path / "out", "prompts": "auto"}
    finish(run_plan_job(plan(find_inputs([folder]), **options), config))
    made = plan(find_inputs([folder]), **options, existing="overwrite")
    monkeypatch.setattr(BatchTab, "plan", lambda _: made)
    return Walk(window, folder, made, request.param)


@pytest.mark.all_tabs
@pytest.mark.parametrize("walk", nightly_but(range(5), 0), indirect=True)
def test_tab_any_way_over_images_keeps_what_was_done(walk):
    walk.begin()
    try:
        for _ in range(STEPS):
            walk.step()
    except Exception as error:
        error.add_note("\n".join(walk.said))
        raise
