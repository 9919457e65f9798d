"""The dock widget and its help, and `simmat demo --gui`.

napari imports this file when the user opens the widget, so importing it loads little: what the
tabs need is imported in a thread.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import cached_property
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import napari
from packaging.version import Version
from qtpy import API_NAME, QT_VERSION
from qtpy.QtCore import QEvent, QSize, Qt, QTimer, QUrl, Signal
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import (
    QApplication,
    QDockWidget,
    QMenu,
    QMessageBox,
    QTabWidget,
    QToolButton,
    QWidget,
)
from superqt.utils import signals_blocked

from napari_simmat.io.files import log_file, logged
from napari_simmat.widgets.controls import OPEN_WIDGETS, name_controls, vbox
from napari_simmat.widgets.garbage import CLOSED, LeftOut
from napari_simmat.widgets.samples import coins
from napari_simmat.widgets.shortcuts import KEPT_BY_NAPARI, SHORTCUTS, shortcut_text
from napari_simmat.widgets.status_line import Status, StatusLine
from napari_simmat.widgets.tones import tone_sheet
from napari_simmat.widgets.torch_import import import_window_job
from napari_simmat.widgets.worker import BackgroundJob, Worker

if TYPE_CHECKING:
    from napari_simmat.widgets.batch.tab import BatchTab
    from napari_simmat.widgets.train.tab import TrainTab

_PACKAGES = ("napari-simmat", "napari", "torch", "numpy", "tifffile", "zarr", "dask")
_ADDRESSES = ("Documentation", "Homepage")
NO_DOCS = "The page of the documentation is called {page}; this version does not know its address."
COPIED = "Copied: paste it into your report, with what you did and what you expected."
_CLONE = Path(__file__).parents[3] / "docs"
FIRST_CLICK = (125.0, 206.0)
"""On a coin, y and x."""
NAME = "Segment, train, batch"
"""As in `napari.yaml`."""
DOCKS = f"{NAME} (SimMAT)", f"{NAME} (napari-simmat)"
"""Titles by which napari looks for the widget before it makes one: in its menu, and for scripts."""
PAGES = ("segment-tab", "train-tab", "batch")
"""Of the documentation, one for each tab."""
OLDEST_NAPARI = "0.7.1"
"""As in the extra `napari` of pyproject.toml."""
_TURN = 0.02
"""Seconds that a turn of the event loop may take while the tabs are made."""
_CUT = 1.4
"""By how much an image may be larger than fits while nobody has zoomed."""
WIDTH = 360
"""Pixels that the widget is wide at first."""
LOADING = "Loading ..."
NOT_LOADED = "The plugin cannot be loaded: {reason} Install it again, or report this."
TOO_OLD = (
    "napari-simmat needs napari {oldest} or newer, and this is {found}. Update it: "
    'pip install --upgrade "napari>={oldest}"'
)


class SimMATWidget(QWidget):
    """Three tabs: segment images of any modality, train a model for a new one, segment folders.

    It is painted at once. What the tabs need is imported in a thread meanwhile; then they are made
    part by part, in turns of the event loop.

    Parameters
    ----------
    napari_viewer
        The viewer whose layers are segmented.

    Attributes
    ----------
    viewer
        That viewer.
    segment, tabs, help
        The first tab, what shows the tabs, and the button beside them; they exist once it is
        `opened`.

    Raises
    ------
    ImportError
        If napari is older than `OLDEST_NAPARI`.
    """

    opened = Signal()
    """The tabs are shown."""

    def __init__(self, napari_viewer: napari.Viewer, parent: QWidget | None = None) -> None:
        if Version(napari.__version__) < Version(OLDEST_NAPARI):
            raise ImportError(TOO_OLD.format(oldest=OLDEST_NAPARI, found=napari.__version__))
        super().__init__(parent)
        # napari passes plugins a proxy whose layers are never identical to those of events.
        self.viewer: Any = getattr(napari_viewer, "__wrapped__", napari_viewer)
        self._docked = False
        self._released = False
        self._forget: Callable[[], object] = lambda: None  # what napari was told of the dock
        self._whole = whole_view(self.viewer)  # before the dock takes a part of the canvas
        self._log = ExitStack()
        self._log.enter_context(logged())
        OPEN_WIDGETS.add(self)
        self._loading = StatusLine()
        self._loading.set_value(Status("nothing", LOADING))
        self._rows = vbox(self._loading, parent=self)
        self._rows.setContentsMargins(8, 8, 8, 8)
        self._steps = self._open()
        self._turn = QTimer(self)
        self._turn.timeout.connect(lambda: next(self._steps, None))
        self._left_out: LeftOut | None = None
        self._imports = Worker("simmat-imports")
        self._importing = BackgroundJob(self._imports, 0, self)
        self._importing.returned.connect(self._on_imported)
        self._importing.failed.connect(
            lambda reason: self._loading.set_value(
                Status("failed", NOT_LOADED.format(reason=reason))
            )
        )
        self.destroyed.connect(self._imports.close)
        self._importing.start(LOADING, import_window_job)

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """The width that the tabs will need, before they are there."""
        return super().sizeHint().expandedTo(QSize(WIDTH, 0))

    def release(self) -> None:
        """End threads and processes, restore keys and events; the widget is unusable then."""
        if not self._released:
            self._released = True
            self._forget()
            OPEN_WIDGETS.discard(self)
            self._importing.cancel()
            self._imports.close()
            self._turn.stop()
            for name in ("segment", "train", "batch"):
                if name in vars(self):
                    vars(self)[name].release()
            if self._left_out is not None:
                self._left_out.release(2 * CLOSED)  # the preview is removed before
            self._log.close()

    def open_now(self) -> None:
        """Make the tabs without a pause, for who needs them at once."""
        self._importing.cancel()
        for _ in self._steps:
            pass

    def _on_imported(self, _: object) -> None:
        # Before the tabs are made: they go when the widget is closed, what is imported stays.
        self._left_out = LeftOut(self.viewer.layers, self)
        self._turn.start()

    def _open(self) -> Iterator[None]:
        """Make the Segment tab, with a pause after each part that takes a moment."""
        from napari_simmat.widgets.segment.tab import SegmentTab

        self.segment = segment = SegmentTab(self.viewer)
        yield
        segment.offer_batch(lambda: self.batch.plan())
        self._close_at_the_end(
            segment.controller.inference.worker,
            segment.models.transfers,
            segment.image_folder.worker,
            segment.tracks.worker,
        )
        for writing in (segment.exporter.worker, segment.autosave.worker):
            self.destroyed.connect(writing.finish)  # pending writes are completed
        self.tabs = tabs = QTabWidget(self)
        tabs.hide()
        tabs.setStyleSheet("QTabBar::tab { padding: 4px 12px; }")
        self.help = HelpButton(
            lambda: PAGES[tabs.currentIndex()], lambda: described(tabs.currentWidget()), self
        )
        tabs.setCornerWidget(self.help)
        segment.keys_wanted.connect(self.help.show_shortcuts)
        self.help.tour.connect(lambda: (tabs.setCurrentWidget(segment), segment.begin_tour()))
        yield
        tabs.addTab(segment, "Segment")
        for title in ("Train", "Batch"):
            tabs.addTab(QWidget(), title)
        since = time.perf_counter()
        # Qt applies napari's style sheet to each part; all in one turn would be felt.
        for part in segment.findChildren(QWidget):
            part.ensurePolished()
            if time.perf_counter() - since > _TURN:
                yield
                since = time.perf_counter()
        yield
        tabs.currentChanged.connect(self._on_tab)
        self._loading.hide()
        self._rows.setContentsMargins(0, 0, 0, 0)
        self._rows.addWidget(tabs, stretch=1)  # napari fills the rest below what it found at first
        self.setMinimumWidth(self.minimumSizeHint().width())
        name_controls(self)
        tabs.show()
        yield
        self._turn.stop()
        if self._whole is not None and view_of(self.viewer) == self._whole:
            self.viewer.reset_view()  # else the dock has cut it off at the sides
        segment.start()
        self.opened.emit()

    @cached_property
    def train(self) -> TrainTab:
        """The Train tab; made when it is first shown or asked for."""
        from napari_simmat.widgets.train.tab import TrainTab

        train = TrainTab(self.viewer)
        self._close_at_the_end(train.form.base.transfers, train.training)
        train.training.trained.connect(self.segment.models.refresh)
        train.use_requested.connect(self.use_model)
        self._put(1, train)
        return train

    @cached_property
    def batch(self) -> BatchTab:
        """The Batch tab; made when it is first shown or asked for."""
        from napari_simmat.widgets.batch.tab import BatchTab

        batch = BatchTab(self.viewer)
        batch.review_wanted.connect(self._review)
        self._close_at_the_end(batch.form.models.transfers, batch.batching)
        self._put(2, batch)
        return batch

    def _review(self) -> None:
        """Look over what a batch has found."""
        segment = self.segment
        self.tabs.setCurrentWidget(segment)
        folder = segment.image_folder
        segment.controller.perform(lambda: folder.choose_plan(self.batch.plan()))

    def _close_at_the_end(self, *running: Any) -> None:
        for each in running:
            self.destroyed.connect(each.close)  # also if Qt deletes the window

    def _put(self, index: int, tab: QWidget) -> None:
        """Show a tab in the place that was kept for it."""
        tabs = self.tabs
        with signals_blocked(tabs):
            chosen = tabs.currentIndex()
            kept = tabs.widget(index)
            title = tabs.tabText(index)
            tabs.removeTab(index)
            tabs.insertTab(index, tab, title)
            tabs.setCurrentIndex(chosen)
        kept.deleteLater()
        name_controls(tab)
        self.setMinimumWidth(self.minimumSizeHint().width())

    def _on_tab(self) -> None:
        index = self.tabs.currentIndex()
        self.segment.keys.set_active(index == 0)
        if index == 0:
            self.segment.models.refresh()  # another tab may have downloaded one
        else:
            (self.train if index == 1 else self.batch).refresh()

    def use_model(self, name: str | Path) -> None:
        """Show the Segment tab with a model, by name or file."""
        self.segment.models.refresh()
        self.segment.models.set_value(name)
        self.tabs.setCurrentWidget(self.segment)

    def event(self, event: QEvent) -> bool:
        """Follow the theme; release everything when napari removes the widget from its dock."""
        styled = event.type() in (QEvent.Type.Polish, QEvent.Type.StyleChange)
        taken_out = self._docked and self.parent() is None  # no theme to follow any more
        if styled and not taken_out and (sheet := tone_sheet(self)) != self.styleSheet():
            self.setStyleSheet(sheet)
        if event.type() == QEvent.Type.ParentChange:
            if self.parent() is not None:
                self._docked = True
                self._be_found()
            elif self._docked:
                self.release()
        return super().event(event)

    def _be_found(self) -> None:
        """Let napari bring this up where it would make another widget in the same viewer."""
        dock = self.parent()
        known = getattr(getattr(self.viewer, "window", None), "_wrapped_dock_widgets", None)
        if known is not None and isinstance(dock, QDockWidget):
            titles = [title for title in DOCKS if title not in (*known, dock.objectName())]
            known.update(dict.fromkeys(titles, dock))
            self._forget = lambda: [known.pop(title, None) for title in titles]


def view_of(viewer: Any) -> tuple[float, ...]:
    """Center and zoom of the camera."""
    camera = getattr(viewer, "scene", viewer).camera  # scene: from napari 0.9
    return *camera.center, camera.zoom


def whole_view(viewer: Any) -> tuple[float, ...] | None:
    """The view of a viewer, fitted anew if it shows what is open as a whole; None if it does not.

    napari's own docks and sliders cut off a little of an image that is opened first. Somebody who
    zooms in does it further, or to a place that is not the middle.
    """
    if not viewer.layers or viewer.dims.ndisplay != 2:
        return None
    *center, zoom = view_of(viewer)
    viewer.reset_view()
    *middle, fitted = view_of(viewer)
    if center == middle and 1 / _CUT < zoom / fitted < _CUT:
        return *middle, fitted
    camera = getattr(viewer, "scene", viewer).camera
    camera.zoom, camera.center = zoom, center
    return None


def described(tab: Any) -> list[str]:
    """What a tab shows, for a report; layers are not named."""
    from napari_simmat.widgets.segment.tab import SegmentTab

    status = tab.status.value()
    text = status.text
    for layer in [each for each in tab.viewer.layers if not each.name.startswith("SimMAT ")]:
        text = text.replace(layer.name, "IMAGE")
    lines = [f"{type(tab).__name__}: {status.kind}, {text}"]
    if isinstance(tab, SegmentTab):
        entry, session = tab.models.value(), tab.workspace.session
        used = tab.controller.inference.service.in_use
        lines.append(f"Model {'none' if entry is None else entry.name}")
        lines.append("" if used is None else f"Device {used.title}, {used.compute.precision}")
        if session is not None:
            image = tab.workspace.image
            kinds = [str(array.dtype) for array in image.all_arrays] if image is not None else []
            shape = " x ".join(map(str, session.geometry.usual.shape))
            lines.append(f"Image {shape}, {', '.join(dict.fromkeys(kinds))}")
            lines.append(f"{len(session.history)} steps that can be undone")
    return [line for line in lines if line]


class HelpButton(QToolButton):
    """Opens a menu with what helps.

    Parameters
    ----------
    page
        Returns the name of the documentation's page about what is shown.
    state
        Returns lines that say what is shown.
    """

    tour = Signal()
    """The user wants to be led."""

    def __init__(
        self, page: Callable[[], str], state: Callable[[], list[str]], parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._page, self._state = page, state
        self.setText("?")
        self.setAccessibleName("Help")
        self.setToolTip("Keys, a tour, documentation, and what to report")
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.setStyleSheet(
            "QToolButton { padding: 2px 8px; } QToolButton::menu-indicator { image: none; }"
        )
        menu = QMenu(self)
        menu.addAction(f"Keys\t{shortcut_text('keys')}", self.show_shortcuts)
        menu.addAction("Tour in five steps", self.tour)
        menu.addAction("Documentation of this tab", self.open_page)
        menu.addAction("Copy what to report", self.copy_report)
        self.setMenu(menu)

    def show_shortcuts(self) -> None:
        """List the keys that act on the canvas."""
        self._say("Keys", shortcuts_text())

    def open_page(self) -> None:
        """Open the documentation where it is about what is shown."""
        page = self._page()
        if address := docs_address(page):
            QDesktopServices.openUrl(QUrl(address))
        else:
            self._say("Documentation", NO_DOCS.format(page=page))

    def copy_report(self) -> None:
        """Copy versions and what is shown."""
        QApplication.clipboard().setText(report(self._state()))
        self._say("Report", COPIED)

    def _say(self, title: str, text: str) -> None:
        box = QMessageBox(QMessageBox.Icon.NoIcon, title, text, parent=self.window())
        box.setTextFormat(Qt.TextFormat.RichText if "<" in text else Qt.TextFormat.PlainText)
        box.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        box.open()


def shortcuts_text() -> str:
    """All shortcuts as a table in HTML."""
    rows = "".join(
        f"<tr><td><b>{each.text()}</b>&nbsp;&nbsp;</td><td>{each.meaning}"
        + (f" (on shapes: {each.text(shapes=True)})" if each.on_shapes is not None else "")
        + "</td></tr>"
        for each in SHORTCUTS
    )
    kept = "".join(f"<br>{each}" for each in KEPT_BY_NAPARI)
    return (
        f"<p>While the Segment tab is shown, but not while you type:</p><table>{rows}</table>"
        f"<p>napari keeps its own keys where it needs them:{kept}</p>"
    )


def docs_address(page: str) -> str:
    """Where a page is: on the site that the package names, or in the clone that it runs from."""
    urls: dict[str, str] = {}
    with suppress(PackageNotFoundError):
        for line in metadata("napari-simmat").get_all("Project-URL") or []:
            name, _, address = line.partition(", ")
            urls[name] = address
    if site := next((urls[name] for name in _ADDRESSES if name in urls), ""):
        return f"{site.rstrip('/')}/{page}/"
    file = _CLONE / f"{page}.md"
    return file.as_uri() if file.is_file() else ""


def report(state: list[str]) -> str:
    """Versions, and lines that say what is shown."""
    lines = [f"Python {platform.python_version()}, {platform.platform()}"]
    lines.append(f"{API_NAME}, Qt {QT_VERSION}")
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            lines.append(f"{name} {version(name)}")
    log = log_file()
    return "\n".join([*lines, *state, *([] if log is None else [f"Log {log}"])])


def open_demo(*, run: bool = True) -> napari.Viewer:
    """Open napari with the coins, the Segment tab and one point on a coin.

    Parameters
    ----------
    run
        Run the event loop until the window is closed; False if one is running already.
    """
    viewer = napari.Viewer(title="napari-simmat")
    for data, options, kind in coins():
        viewer.add_layer(napari.layers.Layer.create(data, options, kind))
    widget = SimMATWidget(viewer)
    viewer.window.add_dock_widget(widget, name=DOCKS[0], area="right")

    def click() -> None:
        workspace = widget.segment.workspace
        workspace.subject_changed.disconnect(click)
        workspace.prompt_layers.draw("point")
        workspace.prompt_layers.points.add(FIRST_CLICK)

    widget.opened.connect(lambda: widget.segment.workspace.subject_changed.connect(click))
    if run:
        napari.run()
    return viewer
