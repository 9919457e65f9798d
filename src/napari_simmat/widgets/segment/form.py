"""The widgets of the Segment tab: laid out, read as values, and shown with the state of the tab."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from napari import Viewer
from napari.layers import Image, Labels, Points, Shapes
from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QFormLayout, QFrame, QSizePolicy, QSpacerItem, QWidget

from napari_simmat.annotation.inference_service import ComputeInUse
from napari_simmat.annotation.predictions import ChosenModel
from napari_simmat.annotation.prompt_state import Plane
from napari_simmat.widgets.channels_form import ChannelsForm
from napari_simmat.widgets.controls import (
    INDENT,
    CollapsibleSection,
    LayerChoice,
    StatusLine,
    VerticalScroll,
    form_rows,
    vbox,
)
from napari_simmat.widgets.model_picker import ModelPicker
from napari_simmat.widgets.placement import DEPTH_NAMES
from napari_simmat.widgets.segment.channel_tools import ChannelPanel
from napari_simmat.widgets.segment.form_choice import FormChoice
from napari_simmat.widgets.segment.image_folder import FolderPanel
from napari_simmat.widgets.segment.object_panel import LearnPanel, ObjectPanel, rows_of, voxel_of
from napari_simmat.widgets.segment.open_images import LayerSession
from napari_simmat.widgets.segment.outputs import CHOSEN, CLASSES, PREVIEW
from napari_simmat.widgets.segment.panels import (
    AutomaticPanel,
    CandidateStrip,
    ComputeChoice,
    LevelChoice,
    PromptButtons,
    StackAxis,
    StackPanel,
)
from napari_simmat.widgets.segment.settings import TabSettings
from napari_simmat.widgets.segment.tracks import TracksPanel
from napari_simmat.widgets.worker import later

MODEL = "Model and layers"
_UNFOLDED = 100
"""Milliseconds after which a section that was opened has its height."""
_LETTERS = 24
"""Letters of a model's name in the title of its section."""


class SegmentForm(QWidget):
    """The form; nothing in it is connected.

    Attributes
    ----------
    sections
        Its collapsible sections by name.
    """

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
        self.channel_panel = ChannelPanel()
        self.candidates = CandidateStrip()
        self.object_panel, self.stack_panel = ObjectPanel(), StackPanel()
        self.automatic_panel, self.learn_panel = AutomaticPanel(viewer), LearnPanel(viewer)
        self.folder_panel, self.tracks_panel = FolderPanel(), TracksPanel()
        choices, model, rule, form = QFormLayout(), QWidget(), QFrame(), QWidget()
        choices.setVerticalSpacing(6)
        choices.setHorizontalSpacing(8)
        choices.addRow("Image", self.channels)
        choices.addRow(self.channels.details)
        self.level = LevelChoice(choices)
        form_rows(
            ("Model", self.models),
            self.models.details,
            ("Device", self.compute),
            ("Objects", self.objects),
            ("Points", self.points),
            ("Boxes", self.boxes),
            ("Masks", self.masks),
            self.channel_panel,
            parent=model,
            indent=INDENT,
        )
        contents = {
            "folder": ("Folder", self.folder_panel),
            "model": (MODEL, model),
            "everything": ("Everything", self.automatic_panel),
            "stack": ("Stack", self.stack_panel),
            "tracks": ("Tracks", self.tracks_panel),
            "objects": ("Objects", self.object_panel),
            "learn": ("Learn", self.learn_panel),
        }
        self.sections = {name: CollapsibleSection(*each) for name, each in contents.items()}
        above = list(self.sections.values())[:2]
        below = list(self.sections.values())[2:]
        for section in above:
            choices.addRow(section)
        rule.setFrameShape(QFrame.Shape.HLine)
        rows = vbox(choices, rule, self.buttons, *below, parent=form, spacing=8)
        rows.setContentsMargins(8, 8, 8, 8)
        footer = vbox(self.status, self.candidates)  # not in what scrolls
        footer.setContentsMargins(8, 0, 8, 8)
        self._scroll = VerticalScroll(form)
        # PySide6 takes no names here.
        self._spare = QSpacerItem(0, 0, QSizePolicy.Policy.Minimum, QSizePolicy.Policy.Expanding)
        layout = vbox(self._scroll, parent=self)
        layout.addItem(self._spare)
        layout.addLayout(footer)
        self._fit_later = later(self, self._fit_table)
        self._sought = self.sections["objects"]
        self._seek_later = later(self, self._seek, _UNFOLDED)
        self._by_hand: dict[str, bool] = {}
        self._shown_objects: tuple[object, int] | None = None
        self._candidates_on: tuple[object, object] = (None, None)

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
            open_parts=tuple(name for name, is_open in self._by_hand.items() if is_open),
            closed_parts=tuple(name for name, is_open in self._by_hand.items() if not is_open),
            encode_ahead=self.stack_panel.ahead.isChecked(),
            keep_on_disk=self.stack_panel.disk.isChecked(),
            channels=tuple(self.channels.remembered),
            table=self.object_panel.saved_table.value(),
        )

    def set_settings(self, settings: TabSettings) -> None:
        """Show the choices of the last session."""
        if settings.model:
            path = Path(settings.model)
            with suppress(ValueError, OSError):  # the model is gone: the default is chosen
                self.models.set_value(path if path.is_file() else settings.model)
        self.compute.set_value(settings.compute)
        self.object_panel.overlap.setCurrentText(settings.overlap)
        look = self.object_panel.look
        look.setCurrentIndex(look.findData(settings.look))
        self.object_panel.category.set_names(settings.classes)
        self.stack_panel.ahead.setChecked(settings.encode_ahead)
        self.stack_panel.disk.setChecked(settings.keep_on_disk)
        self.channels.remembered = list(settings.channels)
        self.object_panel.saved_table.set_value(settings.table)
        self._by_hand = dict.fromkeys(settings.closed_parts, False)
        self._by_hand |= dict.fromkeys(settings.open_parts, True)
        for name, section in self.sections.items():
            section.set_open(self._by_hand.get(name, False))

    def note_section(self, name: str, opened: bool) -> None:
        """Remember that the user opened or closed a section."""
        self._by_hand[name] = opened

    def open_section(self, name: str) -> None:
        """Open a section where it matters, unless the user once closed it."""
        if self._by_hand.get(name, True):
            self.sections[name].set_open(True)

    def show_section(self, name: str) -> None:
        """Open a section, and scroll to it."""
        self._sought = self.sections[name]
        self._sought.set_open(True)
        self._seek_later.start()

    def _seek(self) -> None:
        self._scroll.ensureWidgetVisible(self._sought)

    # -------------------------------------------------------------------- shown

    def event(self, event: QEvent) -> bool:
        """Give the table of objects the height that is free."""
        done = super().event(event)
        if event.type() in (QEvent.Type.LayoutRequest, QEvent.Type.Resize):
            self._fit_later.start()  # behind the events that pass a new height on
        return done

    def _fit_table(self) -> None:
        table, scroll = self.object_panel.table, self._scroll
        if table.isVisible():
            room = scroll.viewport().height() + self._spare.geometry().height()
            table.set_height(table.height() + room - scroll.content_height)

    def show_buttons(self, session: LayerSession | None, *, commits: bool) -> None:
        """Show what can be done with an image, or with none."""
        self.buttons.set_state(
            working=session is not None,
            prompted=session is not None and bool(session.prompt_state),
            commits=commits,
            undo=session is not None and session.history.can_undo,
            redo=session is not None and session.history.can_redo,
        )
        for choice in (self.objects, self.masks):
            choice.setEnabled(session is not None)

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
        shown = None if editor is None else (editor, editor.version)
        panel.category.set_names(classes)
        if shown == self._shown_objects:
            return
        self._shown_objects = shown
        geometry = None if session is None else session.geometry
        rows = rows_of(editor, geometry)
        unit, ndim = ("", 2) if geometry is None else (voxel_of(geometry)[1], geometry.ndim)
        panel.set_rows(rows, ndim, unit)
        self._fit_later.start()
        self.sections["objects"].set_title(f"Objects ({len(rows)})" if rows else "Objects")
        if rows:
            self.open_section("objects")

    def show_stack(self, session: LayerSession | None) -> None:
        """Offer the axes along which the image has planes; without any the sections are hidden."""
        geometry = None if session is None else session.geometry
        sizes = () if geometry is None else geometry.shape[:-2]
        axes = tuple(
            StackAxis(index, geometry.axis_names[index], size)
            for index, size in enumerate(sizes)
            if size > 1
        )
        if axes and not self.sections["stack"].isVisibleTo(self):
            self.open_section("stack")
        linked = session is not None and session.time_axis is not None
        series = any(each.name.casefold() not in DEPTH_NAMES for each in axes)
        self.sections["stack"].setVisible(bool(axes))
        self.sections["tracks"].setVisible(series or linked)
        self.stack_panel.set_axes(axes)
        self.tracks_panel.set_axes(axes)

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
        if self.models.problem() is not None:
            self.open_section("model")


def _is_derived(layer: Labels) -> bool:
    """Whether a labels layer only shows what follows from others."""
    return layer.name.startswith((PREVIEW, CLASSES, CHOSEN))
