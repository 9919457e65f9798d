"""The widgets of the Segment tab: laid out, read as values, and shown with the state of the tab."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from napari import Viewer
from napari.layers import Image, Labels, Points, Shapes
from qtpy.QtCore import Signal
from qtpy.QtGui import QAction
from qtpy.QtWidgets import QCheckBox, QFormLayout, QSizePolicy, QWidget

from napari_simmat.annotation.inference_service import ComputeInUse
from napari_simmat.annotation.predictions import ChosenModel
from napari_simmat.annotation.prompt_state import Plane
from napari_simmat.widgets.channels_form import ChannelsForm
from napari_simmat.widgets.controls import (
    INDENT,
    CollapsibleSection,
    ComboBox,
    MenuButton,
    VerticalScroll,
    form_rows,
    hbox,
    vbox,
)
from napari_simmat.widgets.layer_choice import LayerChoice
from napari_simmat.widgets.model_picker import ModelPicker
from napari_simmat.widgets.placement import DEPTH_NAMES
from napari_simmat.widgets.segment.form.automatic_panel import AutomaticPanel, ReviewPanel
from napari_simmat.widgets.segment.form.candidate_strip import CandidateStrip
from napari_simmat.widgets.segment.form.channel_panel import ChannelPanel
from napari_simmat.widgets.segment.form.compute_choice import ComputeChoice
from napari_simmat.widgets.segment.form.folder_panel import FolderPanel
from napari_simmat.widgets.segment.form.form_choice import FormChoice
from napari_simmat.widgets.segment.form.learn_panel import LearnPanel
from napari_simmat.widgets.segment.form.level_choice import LevelChoice
from napari_simmat.widgets.segment.form.object_panel import ObjectPanel
from napari_simmat.widgets.segment.form.object_table import rows_of, size_title, voxel_of
from napari_simmat.widgets.segment.form.pixel_size import PixelSizeField
from napari_simmat.widgets.segment.form.prompt_buttons import PromptButtons
from napari_simmat.widgets.segment.form.settings import TabSettings
from napari_simmat.widgets.segment.form.stack_panel import EncodingPanel, StackAxis, StackPanel
from napari_simmat.widgets.segment.form.tracks_panel import TracksPanel
from napari_simmat.widgets.segment.form.welcome import TourPanel, WelcomePanel
from napari_simmat.widgets.segment.layers.open_images import LayerSession
from napari_simmat.widgets.segment.layers.outputs import CHOSEN, CLASSES, PREVIEW
from napari_simmat.widgets.segment.layers.patient_view import CONVENTIONS
from napari_simmat.widgets.shortcuts import shortcut_text
from napari_simmat.widgets.status_line import StatusLine
from napari_simmat.widgets.worker import later

MODEL = "Model and channels"
MENU = {
    "model": "Model and channels",
    "layers": "Layers of your own",
    "learn": "Learn from these objects",
    "tracks": "Link over time",
    "stack": "Planes to propagate to",
    "folder": "Folder of images",
    "settings": "Settings",
}
"""What the menu opens, by the names of sections."""
PROMPT_MENU = {
    "next": "Another object beside the open ones",
    "cycle": "Next mask of the model",
    "segment": "Segment again",
    "flip": "Positive or negative",
}
MENU_TIP = "Model and channels, learning, folders, settings, and all that is done with objects"
_UNFOLDED = 100
"""Milliseconds after which a section that was opened has its height."""
_LETTERS = 24
"""Letters of a model's name in the menu's button."""


class SegmentForm(QWidget):
    """The form; nothing in it is connected.

    Attributes
    ----------
    sections
        What is not needed for each object, by name; one of them is open at a time.
    menu, entries
        The menu that opens them, and its entries by the names of sections.
    earlier
        The menu of unsaved work on the image.
    """

    earlier_wanted, earlier_unwanted = Signal(object), Signal(object)
    """Of the files of `show_earlier`: to be restored, and thrown away."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self.viewer = viewer
        self.models, self.compute = ModelPicker(), ComputeChoice()
        self.channels = ChannelsForm(asks_axis=True)
        self.objects = LayerChoice(viewer, Labels, "new layer", _is_derived)
        self.points = LayerChoice(viewer, Points, "new layer")
        self.boxes = LayerChoice(viewer, Shapes, "new layer")
        self.masks = LayerChoice(viewer, Labels, "none", _is_derived)
        self.objects.setToolTip("The labels layer that objects are committed to")
        self.masks.setToolTip("Refine each object of another labels layer on the current plane")
        self.buttons, self.status = PromptButtons(), StatusLine()
        self.planes = ComboBox()
        self.planes.setToolTip("On which side of the canvas a patient's right is; pixels stay")
        for convention, title in CONVENTIONS.items():
            self.planes.addItem(title, convention)
        self.welcome, self.tour = WelcomePanel(), TourPanel()
        self.helpers = QCheckBox("List the layers of prompts and preview")
        self.helpers.setToolTip("In napari's list of layers, as to save points from its menu")
        self.pixel_size = PixelSizeField()
        self.channel_panel = ChannelPanel()
        self.candidates = CandidateStrip()
        self.object_panel, self.stack_panel = ObjectPanel(), StackPanel()
        self.review_panel, self.encoding_panel = ReviewPanel(), EncodingPanel()
        self.automatic_panel, self.learn_panel = AutomaticPanel(viewer), LearnPanel(viewer)
        self.folder_panel, self.tracks_panel = FolderPanel(), TracksPanel()
        self.sections = self._make_sections()
        self.menu = self._make_menu()
        self._lay_out()
        self._sought = self.sections["model"]
        self._seek_later = later(self, self._seek, _UNFOLDED)
        self._closed_by_hand: set[str] = set()
        self._has_planes = False
        self._shown_objects: tuple[object, ...] | None = None
        self._candidates_on: tuple[object, object] = (None, None)

    def _make_sections(self) -> dict[str, CollapsibleSection]:
        """What is not needed for each object; one of them is open at a time, or none."""
        model, layers, settings = QWidget(), QWidget(), QWidget()
        form_rows(
            ("Model", self.models),
            self.models.details,
            self.channels.section,
            ("Pixel size", self.pixel_size),
            self.channel_panel,
            parent=model,
            indent=INDENT,
        )
        form_rows(
            ("Objects", self.objects),
            ("Points", self.points),
            ("Boxes", self.boxes),
            ("Masks", self.masks),
            parent=layers,
            indent=INDENT,
        )
        form_rows(
            ("Device", self.compute),
            ("Overlap", self.object_panel.overlap),
            ("Draw", self.object_panel.look),
            ("Patients", self.planes),
            self.helpers,
            self.encoding_panel,
            parent=settings,
            indent=INDENT,
        )
        contents = {
            "everything": ("Everything", self.automatic_panel),
            "model": (MODEL, model),
            "layers": ("Layers of your own", layers),
            "learn": ("Learn", self.learn_panel),
            "tracks": ("Tracks", self.tracks_panel),
            "stack": ("Planes to propagate to", self.stack_panel.range),
            "folder": ("Folder", self.folder_panel),
            "settings": ("Settings", settings),
        }
        sections = {name: CollapsibleSection(*each) for name, each in contents.items()}
        for name, section in sections.items():
            section.setVisible(False)
            section.toggled.connect(partial(self._on_section, name))
        sections["everything"].toggleButton().hide()  # its button is among the tools
        self.buttons.everything.clicked.connect(
            lambda on: self._open_by_hand("everything", opened=on)
        )
        return sections

    def _make_menu(self) -> MenuButton:
        """The door to all that is not needed for each object; it names the model."""
        button = MenuButton("", MENU_TIP)
        button.setAccessibleName("Menu")
        button.setStyleSheet("MenuButton::menu-indicator { image: none; }")
        button.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        menu = button.menu()
        self.entries: dict[str, QAction] = {}
        for name, title in MENU.items():
            self.entries[name] = entry = menu.addAction(title)
            entry.setCheckable(True)
            entry.triggered.connect(lambda on, name=name: self._open_by_hand(name, opened=on))
        menu.addSeparator()
        objects = menu.addMenu("Objects")
        objects.addActions(list(self.object_panel.entries.values()))
        objects.addAction(self.object_panel.saved_table.action)
        prompts = menu.addMenu("Prompts")
        for action, title in PROMPT_MENU.items():
            entry = prompts.addAction(f"{title}\t{shortcut_text(action)}")
            entry.triggered.connect(lambda _=False, action=action: self.buttons.acted.emit(action))
        self.earlier = menu.addMenu("Earlier work on this image")
        self.earlier.menuAction().setVisible(False)
        return button

    def show_earlier(self, works: Sequence[tuple[Path, str]]) -> None:
        """List unsaved work on the image, by its files and what each is called."""
        self.earlier.clear()
        for path, title in works:
            one = self.earlier.addMenu(title)
            for action, signal in (
                ("Restore", self.earlier_wanted),
                ("Throw away", self.earlier_unwanted),
            ):
                one.addAction(action).triggered.connect(
                    lambda _=False, signal=signal, path=path: signal.emit(path)
                )
        self.earlier.menuAction().setVisible(bool(works))

    def _lay_out(self) -> None:
        """What is always in sight, around what scrolls."""
        header = hbox((self.channels, 1), (self.menu, 0))
        header.setSpacing(6)
        levels = QFormLayout()
        self.level = LevelChoice(levels)
        inside = QWidget()
        vbox(*self.sections.values(), parent=inside, spacing=4)
        self._scroll = VerticalScroll(inside)
        self._scroll.hide()
        rows = vbox(
            header,
            self.tour,
            (self.welcome, 1),
            self.channels.notes,
            levels,
            self.folder_panel.strip,
            self.buttons,
            self.review_panel,
            self.stack_panel,
            self._scroll,
            (self.object_panel, 1),
            self.status,
            self.candidates,
            parent=self,
            spacing=6,
        )
        rows.setContentsMargins(8, 8, 8, 8)

    def choice(self, images: list[Image], versions: Mapping[str, int]) -> FormChoice:
        """The model and the channels that are chosen, of all open images."""
        entry = self.models.value()
        spec, changed = (None, 0) if entry is None else (entry.spec, entry.changed)
        model = ChosenModel(self.models.reference(), changed, self.compute.value())
        pairs = zip(self.channels.value(), self.channels.names, strict=True)
        there = [(source, name) for source, name in pairs if source is not None]
        sources, names = (tuple(each) for each in zip(*there, strict=True)) if there else ((), ())
        return FormChoice(model, spec, sources, names, tuple(images), versions)

    # ----------------------------------------------------------------- settings

    def settings(self, classes: list[str]) -> TabSettings:
        """The choices that are remembered."""
        return TabSettings(
            model=str(self.models.reference()),
            compute=self.compute.value(),
            overlap=self.object_panel.overlap.currentText(),
            look=self.object_panel.look.currentData(),
            classes=tuple(classes),
            encode_ahead=self.encoding_panel.ahead.isChecked(),
            keep_on_disk=self.encoding_panel.disk.isChecked(),
            show_helpers=self.helpers.isChecked(),
            planes=self.planes.currentData(),
            channels=tuple(self.channels.remembered),
            table=self.object_panel.saved_table.value(),
        )

    def set_settings(self, settings: TabSettings) -> None:
        """Show the choices of the last session."""
        if settings.model:
            path = Path(settings.model)
            with suppress(ValueError, OSError):  # the model is gone: the default is chosen
                self.models.set_value(path if path.is_file() else settings.model)
        self.object_panel.category.set_names(settings.classes)
        self.channels.remembered = list(settings.channels)
        self.object_panel.saved_table.set_value(settings.table)
        self.set_preferences(settings)

    def set_preferences(self, settings: TabSettings) -> None:
        """Show those choices that the *Settings* hold."""
        self.compute.set_value(settings.compute)
        self.object_panel.overlap.setCurrentText(settings.overlap)
        look = self.object_panel.look
        look.setCurrentIndex(look.findData(settings.look))
        self.encoding_panel.ahead.setChecked(settings.encode_ahead)
        self.encoding_panel.disk.setChecked(settings.keep_on_disk)
        self.helpers.setChecked(settings.show_helpers)
        self.planes.setCurrentIndex(self.planes.findData(settings.planes))

    def _open_by_hand(self, name: str, *, opened: bool) -> None:
        """Open or close a section for the user: one that was closed does not open by itself."""
        self._closed_by_hand.discard(name) if opened else self._closed_by_hand.add(name)
        self.sections[name].set_open(opened)

    def _on_section(self, name: str, opened: bool) -> None:
        """Show a section alone, or none."""
        for other, section in self.sections.items():
            if opened and other != name:
                section.set_open(False)
        self.sections[name].setVisible(opened)
        self._scroll.setVisible(any(each.is_open for each in self.sections.values()))
        if name in self.entries:
            self.entries[name].setChecked(opened)
        if name == "everything":
            self.buttons.everything.setChecked(opened)

    def open_section(self, name: str) -> None:
        """Open a section where it matters, unless the user closed it or works in another."""
        if name not in self._closed_by_hand and not self._is_any_open:
            self.sections[name].set_open(True)

    @property
    def _is_any_open(self) -> bool:
        return any(each.is_open for each in self.sections.values())

    def close_settings(self) -> None:
        """Close what was opened to choose something, since the user marks objects now."""
        for name in ("model", "layers", "stack", "folder", "settings"):
            self.sections[name].set_open(False)

    def offer_section(self, name: str, *, offered: bool) -> None:
        """List a section in the menu, or close it, since it is of no use for the image."""
        self.entries[name].setVisible(offered)
        if not offered:
            self.sections[name].set_open(False)

    def show_section(self, name: str) -> None:
        """Open a section, and scroll to it."""
        self._sought = self.sections[name]
        self._sought.set_open(True)
        self._seek_later.start()

    def _seek(self) -> None:
        self._scroll.ensureWidgetVisible(self._sought)

    # -------------------------------------------------------------------- shown

    def show_welcome(self, *, empty: bool) -> None:
        """Show what to do without an image, or what is done with one."""
        self.welcome.setVisible(empty)
        for part in (self.channels, self.buttons, self.object_panel):
            part.setVisible(not empty)

    def show_buttons(self, session: LayerSession | None, *, commits: bool, reviews: bool) -> None:
        """Show what can be done with an image, or with none."""
        self.buttons.set_state(
            working=session is not None,
            prompted=session is not None and bool(session.prompt_state),
            commits=commits,
            reviews=reviews,
            undo=session is not None and session.history.can_undo,
            redo=session is not None and session.history.can_redo,
        )
        for choice in (self.objects, self.masks):
            choice.setEnabled(session is not None)

    def show_work(self, *, prompted: bool, drafts: bool, planes: bool) -> None:
        """Show what the work under way needs: open prompts, drafts, or what is propagated."""
        finding = drafts or self.sections["everything"].is_open
        self.channels.set_busy(finding)
        self.level.set_stated(prompted or finding)
        self.object_panel.set_busy(prompted or finding)
        self.stack_panel.setVisible(self._has_planes and (prompted or planes or not finding))

    def show_candidates(self, session: LayerSession | None, plane: Plane | None) -> None:
        """Show what Q goes through; until the next prediction is there, that of the last one."""
        if session is None or plane is None or not session.prompt_state.on(plane):
            self.candidates.show_candidates((), 0)
            self._candidates_on = None, None  # holds no session whose image is gone
            return
        prediction = session.prediction(plane)
        if prediction is not None and prediction.candidates:
            self.candidates.show_candidates(prediction.candidates, prediction.choices[-1])
        elif prediction is not None or self._candidates_on != (session, plane):
            self.candidates.show_candidates((), 0)
        self._candidates_on = session, plane

    def show_objects(self, session: LayerSession | None, classes: list[str]) -> None:
        """Show the committed objects if they have changed."""
        panel, editor = self.object_panel, None if session is None else session.editor
        geometry = None if session is None else session.geometry
        size, title = (
            (0.0, "px") if geometry is None else (voxel_of(geometry)[0], size_title(geometry))
        )
        # As text, in which an unknown size is itself.
        shown = None if editor is None else (editor, editor.version, f"{size} {title}")
        panel.category.set_names(classes)
        if shown == self._shown_objects:
            return
        self._shown_objects = shown
        rows = rows_of(editor, geometry)
        panel.set_rows(rows, title)

    def show_stack(self, session: LayerSession | None) -> None:
        """Offer the axes along which the image has planes; without any the sections are hidden."""
        geometry = None if session is None else session.geometry
        sizes = () if geometry is None else geometry.shape[:-2]
        axes = tuple(
            StackAxis(index, geometry.axis_names[index], size)
            for index, size in enumerate(sizes)
            if size > 1
        )
        linked = session is not None and session.time_axis is not None
        series = any(each.name.casefold() not in (*DEPTH_NAMES, "y", "x") for each in axes)
        self._has_planes = bool(axes)
        self.object_panel.entries["join planes"].setVisible(bool(axes))
        self.offer_section("stack", offered=bool(axes))
        self.offer_section("tracks", offered=series or linked)
        self.stack_panel.set_axes(axes)
        self.tracks_panel.set_axes(axes)
        self.automatic_panel.set_series(is_series=self.tracks_panel.value() is not None)

    def show_tracks(self, session: LayerSession | None, text: str, *, busy: bool) -> None:
        """Show what is linked over time, and whether objects are being linked."""
        shown = session is not None and session.time_axis is not None
        if shown:
            self.open_section("tracks")
        self.tracks_panel.set_state(
            working=session is not None and session.editor is not None,
            busy=busy,
            text=text if shown else "",
        )

    def show_model(self, used: ComputeInUse | None) -> None:
        """Name the model and its device in the title of their section."""
        entry = self.models.value()
        parts = ["" if entry is None else entry.name[:_LETTERS], "" if used is None else used.title]
        self.sections["model"].set_title(f"{MODEL}: {', '.join(filter(None, parts))}")
        self.menu.setText(f"{parts[0]}  ☰")
        if self.models.problem() is not None:
            self.open_section("model")


def _is_derived(layer: Labels) -> bool:
    """Whether a labels layer only shows what follows from others."""
    return layer.name.startswith((PREVIEW, CLASSES, CHOSEN))
