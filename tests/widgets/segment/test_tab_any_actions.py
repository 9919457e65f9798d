"""Any order of clicks, keys, undo, slices and layers deleted: nothing raises, all is undone.

``SIMMAT_ACTIONS=500`` asks for that many actions, as the nightly run does.
"""

import os
import shutil
from typing import Any

import dask.array as da
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from qtpy.QtCore import Qt

from napari_simmat.annotation.prompt_state import PromptState
from napari_simmat.annotation.session_file import identity_of
from napari_simmat.engine.coordinates import transposed_view
from napari_simmat.engine.label_index import LabelIndex
from napari_simmat.engine.settings import AutomaticSettings
from napari_simmat.io.files import user_folder
from napari_simmat.widgets.segment.layers.open_images import left_by_closed_tabs
from tests.widgets.scenes import CENTERS, discs, gray
from tests.widgets.segment.noted import replayed

ACTIONS = int(os.environ.get("SIMMAT_ACTIONS", "30"))
NONE = Qt.KeyboardModifier.NoModifier
CTRL, SHIFT = Qt.KeyboardModifier.ControlModifier, Qt.KeyboardModifier.ShiftModifier
KEYS = {
    "flip": (Qt.Key.Key_T, NONE),
    "segment": (Qt.Key.Key_S, NONE),
    "clear": (Qt.Key.Key_C, SHIFT),
    "other mask": (Qt.Key.Key_Q, NONE),
    "one more": (Qt.Key.Key_N, NONE),
    "edit": (Qt.Key.Key_E, NONE),
    "delete": (Qt.Key.Key_D, SHIFT),
    "merge": (Qt.Key.Key_G, NONE),
    "split": (Qt.Key.Key_K, NONE),
    "follow": (Qt.Key.Key_S, SHIFT),
    "next doubtful": (Qt.Key.Key_J, NONE),
    "accept": (Qt.Key.Key_W, NONE),
    "reject": (Qt.Key.Key_H, NONE),
}
PLACES = st.sampled_from([*CENTERS, (105, 20), (60, 170), (148, 75)])
LAYERS = st.sampled_from(
    ["SimMAT points", "SimMAT boxes", "SimMAT preview", "SimMAT objects", "SimMAT classes"]
)


ORDERS = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1)]
IMAGES = {"stack": (0,), "slide": (0, 1)}
"""Their names and levels."""


class AnyActions(RuleBasedStateMachine):
    """A person who does anything at any time."""

    window: Any

    @initialize()
    def start(self) -> None:
        viewer = self.window.viewer
        shutil.rmtree(user_folder("sessions"), ignore_errors=True)  # of other examples
        half = gray().reshape(100, 2, 110, 2).mean((1, 3)).astype(np.uint8)
        pyramid = [da.from_array(level, chunks=64) for level in (gray(), half)]
        viewer.add_image(pyramid, multiscale=True, name="slide")
        viewer.add_image(np.stack([gray(), gray()[::-1], gray()]), name="stack")
        labels = np.broadcast_to(discs()[1], (3, 200, 220)).copy()
        viewer.add_labels(labels, name="known", visible=False)
        viewer.layers.selection.active = viewer.layers["stack"]
        self.window.open_widget()
        viewer.dims.order = (0, 1, 2)
        viewer.dims.set_current_step(0, 0)
        self.window.idle()
        self.seen = {("stack", 0)}

    def _at(self, y: float, x: float) -> tuple[float, ...]:
        """Where to point for a place (y, x), whichever axes are shown."""
        shown = self.window.viewer.dims.displayed
        z = 3 * (x / 220 if 1 in shown else y / 200)
        return tuple((z, y, x)[axis] for axis in shown)

    @rule(place=PLACES)
    def click(self, place: tuple[int, int]) -> None:
        self.window.click(*self._at(*place))

    @rule(place=PLACES)
    def box(self, place: tuple[int, int]) -> None:
        y, x = place
        first, last = self._at(max(1, y - 30), max(1, x - 19)), self._at(y + 30, x + 30)
        self.window.drag(*first, *last)

    @rule(place=PLACES)
    def double_click(self, place: tuple[int, int]) -> None:
        self.window.double_click(*self._at(*place))

    @rule(name=st.sampled_from(sorted(KEYS)), place=PLACES)
    def key(self, name: str, place: tuple[int, int]) -> None:
        self.window.hover(*self._at(*place))
        self.window.key(*KEYS[name])

    @rule()
    def commit(self) -> None:
        self.window.commit()

    @rule(steps=st.integers(1, 3))
    def undo(self, steps: int) -> None:
        for _ in range(steps):
            self.window.undo()

    @rule(steps=st.integers(1, 3))
    def redo(self, steps: int) -> None:
        for _ in range(steps):
            self.window.redo()

    @rule(plane=st.integers(0, 2))
    def slide(self, plane: int) -> None:
        self.window.show_plane(plane)

    @rule(order=st.sampled_from(ORDERS), behind=st.sampled_from([40, 60, 150]))
    def roll_axes(self, order: tuple[int, ...], behind: int) -> None:
        dims = self.window.viewer.dims
        dims.order = order
        if order[0]:
            dims.set_current_step(order[0], behind)
        self.window.idle()

    @rule(name=st.sampled_from([*sorted(KEYS), "undo"]))
    def key_in_3d(self, name: str) -> None:
        dims = self.window.viewer.dims
        dims.ndisplay = 3
        self.window.idle()
        self.window.key(*KEYS.get(name, (Qt.Key.Key_Z, CTRL)))
        self.window.idle()
        dims.ndisplay = 2
        self.window.idle()

    @rule(name=LAYERS)
    def delete_layer(self, name: str) -> None:
        layers = self.window.viewer.layers
        if found := [layer for layer in layers if layer.name.startswith(name)]:
            layers.remove(found[0])
            self.window.idle()

    @rule(name=LAYERS, position=st.integers(0, 5))
    def move_layer(self, name: str, position: int) -> None:
        layers = self.window.viewer.layers
        if name in layers:
            layers.move(layers.index(name), min(position, len(layers)))

    @rule(overlap=st.sampled_from(["keep", "overwrite"]))
    def choose_overlap(self, overlap: str) -> None:
        self.window.tab.object_panel.overlap_chosen.emit(overlap)

    @rule()
    def accept_the_offer(self) -> None:
        self.window.workspace.accept()
        self.window.idle()

    @rule(name=st.sampled_from(["", "cell", "nucleus"]))
    def classify(self, name: str) -> None:
        self.window.tab.object_panel.class_chosen.emit(name)

    @rule(row=st.integers(0, 3))
    def choose_row(self, row: int) -> None:
        labels = [each.label for each in self.window.tab.object_panel.table._model.rows]
        self.window.tab.object_panel.table.choose(labels[row : row + 2])

    @rule(place=PLACES, other=PLACES, plane=st.integers(0, 2), again=st.booleans())
    def follow_and_correct(
        self, place: tuple[int, int], other: tuple[int, int], plane: int, again: bool
    ) -> None:
        self.click(place)
        self.window.key(*KEYS["follow"])
        self.slide(plane)
        self.click(other)
        if again:
            self.window.key(*KEYS["follow"])
        self.commit()

    @rule()
    def drop_what_was_followed(self) -> None:
        self.window.tab.buttons.clear.clicked.emit()
        self.window.idle()

    @rule(doubt=st.sampled_from([0.0, 1.0]))
    def propose_drafts(self, doubt: float) -> None:
        window = self.window
        window.tab.automatic_panel.set_value(AutomaticSettings(points_per_side=6))
        window.tab.act("segment everything")
        window.idle()
        session = window.workspace.session
        window.workspace.propose(session, session.drafts.found._replace(doubt=doubt))

    @rule(area=st.sampled_from([20, 2500, 100_000]))
    def filter_drafts(self, area: int) -> None:
        self.window.tab.automatic_panel.options["min_area"].setValue(area)
        self.window.idle()

    @rule()
    def discard_drafts(self) -> None:
        self.window.tab.act("clear")
        self.window.idle()

    @rule()
    def ask_with_masks(self) -> None:
        self.window.controller.prompts.take_masks(self.window.viewer.layers["known"])
        self.window.idle()

    @rule(name=st.sampled_from(sorted(IMAGES)), level=st.integers(0, 1))
    def choose_image(self, name: str, level: int) -> None:
        self._choose(name, level if level in IMAGES[name] else 0)

    def _choose(self, name: str, level: int) -> None:
        tab = self.window.tab
        self.window.choose(tab.channels.image, name)
        if tab.level.count():
            self.window.choose(tab.level, tab.level.itemText(level))
        self.seen.add((name, level))

    @property
    def chosen(self) -> tuple[str, int]:
        tab = self.window.tab
        return tab.channels.image.currentText(), max(0, tab.level.currentIndex())

    @rule()
    def replace_the_stack_by_another(self) -> None:
        layer = self.window.viewer.layers["stack"]
        layer.data = layer.data[:, ::-1].copy()
        self.window.idle()

    @precondition(lambda self: self.window.workspace.objects is not None)
    @rule()
    def replace_the_array_of_objects(self) -> None:
        layer = self.window.workspace.objects
        layer.data = layer.data.copy()
        self.window.idle()

    @precondition(lambda self: self.window.workspace.objects is not None)
    @rule()
    def rename_objects(self) -> None:
        self.window.workspace.objects.name = "SimMAT objects of mine"
        self.window.idle()

    @rule()
    def open_the_tab_again_and_restore(self) -> None:
        window, chosen = self.window, self.chosen
        session, labels = window.workspace.session, self._labels()
        steps, undone = list(session.history), session.history.can_redo
        noted = window.tab.autosave.has_file(session) and self._is_known(session)
        window.close_widget()
        noted = noted and not replayed(session.log.path).saved  # nothing would be restored
        left_by_closed_tabs.clear()  # as if this were another process
        for layer in list(window.viewer.layers):
            if layer.name.startswith("SimMAT "):
                window.viewer.layers.remove(layer)
        self.seen.clear()
        window.start()
        self._choose(*chosen)
        if not noted:
            return
        if window.workspace.plane_or_none() is None:  # it is offered once the image is seen
            window.viewer.dims.order = (0, 1, 2)
            window.idle()
        assert window.status.offer == "Restore"
        window.workspace.accept()
        window.idle()
        again = window.workspace.session
        assert _open(again) == _open(session)
        assert [each.name for each in again.history] == [each.name for each in steps]
        assert again.history.can_redo == undone
        assert again.drafts.open == session.drafts.open
        assert again.rejected == session.rejected
        assert session.removed or self._labels().any() == labels.any()
        assert session.removed or not labels.any() or np.array_equal(self._labels(), labels)

    @rule()
    def open_the_tab_again(self) -> None:
        window, chosen = self.window, self.chosen
        session, objects = window.workspace.session, window.workspace.objects
        before, steps = _open(session), list(session.history)
        drafts = session.drafts.open
        window.close_widget()
        window.start()
        self._choose(*chosen)
        assert window.workspace.session is session
        assert window.workspace.objects is objects
        assert (_open(session), list(session.history)) == (before, steps)
        assert session.drafts.open == drafts

    def _is_known(self, session: Any) -> bool:
        """Whether the image is the one that it was when the first thing was noted of it."""
        image = self.window.workspace.request().image.usual
        return self.window.tab.autosave.image(session) == identity_of(image, session.geometry.name)

    @precondition(lambda self: self.window.workspace.objects is not None)
    @rule(label=st.integers(0, 3), place=PLACES)
    def paint(self, label: int, place: tuple[int, int]) -> None:
        layer = self.window.workspace.objects
        y, x = (round(value * layer.data.shape[-2] / 200) for value in place)
        rows, columns = np.mgrid[y - 4 : y + 5, x - 6 : x + 7]
        plane = [np.zeros(rows.size, int)] * (layer.ndim - 2)
        layer.data_setitem((*plane, rows.ravel(), columns.ravel()), label)
        self.window.idle()

    @invariant()
    def what_is_known_is_what_the_layers_hold(self) -> None:
        if self.window.widget is None:
            return
        session = self.window.workspace.session
        assert session is not None
        if session.editor is not None:
            assert session.editor.register.index == LabelIndex.of(session.objects.data)
            self._classes_fit(session.editor)
        plane = self.window.workspace.plane_or_none()
        shown = self.window.workspace.preview.layer
        found = self.window.controller.propagation.result
        # What was propagated is seen on its planes, and in another view where these cross it.
        propagated = found is not None and (not found.is_shown or plane in found.planes)
        there = shown in self.window.viewer.layers and plane is not None and not propagated
        if there and not session.prompt_state.on(plane):
            seen = transposed_view(shown.data, session.geometry.order)[plane] > 0
            drafts, order = session.drafts, session.geometry.order
            if drafts.open and drafts.place == (order, plane):
                assert np.array_equal(seen, drafts.open_labels(seen.shape) > 0)
            elif not drafts.open or drafts.place[0] == order:
                assert not seen.any()

    def _classes_fit(self, finished: Any) -> None:
        layer = self.window.workspace.classes.layer(finished)
        names = self.window.workspace.classes.names
        for label in finished.labels if layer is not None else ():
            category = finished.register.entry(label).category
            number = names.index(category) + 1 if category else 0
            assert (layer.data[finished.layer.data == label] == number).all()

    def teardown(self) -> None:
        window = self.window
        if window.widget is None:
            return
        for name, level in sorted(self.seen):
            self._choose(name, level)
            self._undo_all_and_redo()
        window.close_widget()
        window.viewer.layers.clear()

    def _undo_all_and_redo(self) -> None:
        window = self.window
        operations = window.workspace.session.history
        before, labels = _open(window.workspace.session), self._labels()
        count = len(operations)
        while operations.can_undo:
            window.tab.act("undo")
        window.idle()
        assert not _open(window.workspace.session)
        assert not self._labels().any()
        assert not window.workspace.session.drafts.settled
        for _ in range(count):
            window.tab.act("redo")
        window.idle()
        assert _open(window.workspace.session) == before
        assert np.array_equal(self._labels(), labels), "redone"

    def _labels(self) -> np.ndarray:
        objects = self.window.workspace.objects
        return np.zeros(1) if objects is None else objects.data.copy()


def _open(session: Any) -> dict[tuple[int, ...], PromptState]:
    """What is open in each view."""
    views = session.views.items()
    return {
        order: view.prompt_state
        for order, view in views
        if view.prompt_state != PromptState(order=order)
    }


@pytest.mark.slow
@pytest.mark.real_window
def test_tab_any_actions_in_a_window_are_undone(window):
    act_at_random(window)


@pytest.mark.slow
def test_tab_any_actions_without_a_window_are_undone(window):
    act_at_random(window)


def act_at_random(window: Any) -> None:
    machine = type("Machine", (AnyActions,), {"window": window})
    steps = min(ACTIONS, 50)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=max(1, round(ACTIONS / steps)),
            stateful_step_count=steps,
            deadline=None,
            database=None,
            phases=[Phase.generate],  # making a failure shorter takes longer than reading it
            suppress_health_check=list(HealthCheck),
        ),
    )
