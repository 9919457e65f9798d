"""The Segment tab: builds the form, connects it with the controller, and shows the state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from napari import Viewer
from napari.layers import Image, Labels, Layer, Points, Shapes
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QFormLayout, QFrame, QVBoxLayout, QWidget
from superqt.utils import signals_blocked

from napari_simmat.batch.plan import Plan
from napari_simmat.widgets.channels import (
    ChannelsForm,
    LayerChannel,
    all_image_channels,
    channel_names,
)
from napari_simmat.widgets.controls import (
    INDENT,
    CollapsibleSection,
    LayerChoice,
    Status,
    StatusKind,
    StatusLine,
    VerticalScroll,
    form_rows,
)
from napari_simmat.widgets.layer_data import (
    ImageValue,
    ImageWatch,
    image_geometry,
    image_in_front,
    image_value,
    layer_info,
    layer_key,
    name_first_axis,
)
from napari_simmat.widgets.model_picker import ModelPicker
from napari_simmat.widgets.segment.autosave import Autosave, Recovery, Snapshot
from napari_simmat.widgets.segment.channel_axis import ChannelAxisOffer
from napari_simmat.widgets.segment.compute import ComputeChoice
from napari_simmat.widgets.segment.controller import SegmentController
from napari_simmat.widgets.segment.export import (
    ObjectExporter,
    ObjectLoader,
    show_object,
    show_plane,
)
from napari_simmat.widgets.segment.image_folder import FolderPanel, ImageFolder
from napari_simmat.widgets.segment.inference import ChosenModel
from napari_simmat.widgets.segment.learning import (
    AdaptPanelState,
    Learning,
    LearnPanel,
    adapt_request,
    new_objects,
    spec_of,
)
from napari_simmat.widgets.segment.object_panel import ObjectPanel, rows_of, voxel_of
from napari_simmat.widgets.segment.outputs import CLASSES, PREVIEW
from napari_simmat.widgets.segment.panels import (
    AutomaticPanel,
    LevelChoice,
    PromptButtons,
    StackAxis,
    StackPanel,
)
from napari_simmat.widgets.segment.preferences import TabSettings, load_settings, save_settings
from napari_simmat.widgets.segment.prompt_layers import unreadable
from napari_simmat.widgets.segment.prompt_state import Plane
from napari_simmat.widgets.segment.tracks import ObjectTracks, TracksPanel
from napari_simmat.widgets.segment.workspace import Change
from napari_simmat.widgets.shortcuts import KeyBindings, ListShortcuts
from napari_simmat.widgets.worker import WorkerTask

MODEL = "Model and layers"
CHOOSE_MODEL = "Choose a model."
USE_TINY = "Use tiny"
_LETTERS = 24
"""Of a model's name in the title of its section."""


class SegmentTab(QWidget):
    """Choose a model and its channels, click, commit.

    Attributes
    ----------
    controller, workspace
        What the form works on, and its state.
    actions
        The user's actions by name: those of the shortcuts, and those of the panels.
    """

    def __init__(self, viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.viewer = viewer
        self.controller = controller = SegmentController(viewer, self)
        self.workspace = workspace = controller.workspace
        self.models = ModelPicker()
        self.compute = ComputeChoice()
        self.channels = ChannelsForm(asks_axis=True)
        self.objects = LayerChoice(viewer, Labels, "new layer", _is_derived)
        self.points = LayerChoice(viewer, Points, "new layer")
        self.boxes = LayerChoice(viewer, Shapes, "new layer")
        self.masks = LayerChoice(viewer, Labels, "none", _is_derived)
        self.buttons = PromptButtons()
        self.candidates = self.buttons.candidates
        self.object_panel = ObjectPanel()
        self.stack_panel = StackPanel()
        self.automatic_panel = AutomaticPanel(viewer)
        self.learn_panel = LearnPanel(viewer)
        self.status = StatusLine()
        self.exporter = ObjectExporter(self)
        self.autosave = Autosave(workspace)
        self.loader = ObjectLoader(workspace, controller.objects, self.autosave.worker)
        self.channel_axis = ChannelAxisOffer(workspace, controller.inference)
        self.recovery = Recovery(workspace, controller.inference, self.autosave)
        self.image_folder = ImageFolder(
            workspace,
            controller.inference,
            self.exporter,
            self.autosave,
            self.recovery,
            is_held=lambda: controller.holds_image,
            encodes_ahead=lambda: controller.prefetcher.enabled,
        )
        self.folder_panel = FolderPanel()
        self.tracks = ObjectTracks(workspace)
        self.tracks_panel = TracksPanel()
        self.learning = Learning(workspace, controller.inference, self.autosave)
        self.actions = self._make_actions()
        self.keys = KeyBindings(viewer, self._shortcuts(), self._wants_key)
        self.list_keys = ListShortcuts(self)
        self.watch = ImageWatch(self)
        self._snapshots: WeakKeyDictionary[WorkerTask, Snapshot] = WeakKeyDictionary()
        self._shown_objects: tuple[object, int] | None = None
        self._candidates_on: tuple[object, object] = (None, None)
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.timeout.connect(self._read_layers)
        self._layer_events = [
            viewer.layers.events.inserted,
            viewer.layers.events.removed,
            viewer.layers.events.renamed,
            viewer.layers.events.reordered,
        ]
        self._front: Image | None = None
        self._inserted = False
        self._lay_out()
        self._restore_settings(load_settings())
        self._saved = self.settings()
        self._connect()
        entry = self.models.value()
        self.channels.set_inputs(None if entry is None or entry.spec is None else entry.spec.inputs)
        self._show_model()
        self._read_layers()
        self._on_changed(~Change(0))

    def release(self) -> None:
        """Stop the threads, and give back keys, events and the preview."""
        self._later.stop()
        for event in self._layer_events:
            event.disconnect(self._on_layers)
        self.viewer.mouse_double_click_callbacks.remove(self._on_double_click)
        self.viewer.dims.events.current_step.disconnect(self._show_plane)
        self.watch.follow([])
        self.keys.release()
        self.list_keys.release()
        for part in (self.objects, self.points, self.boxes, self.masks):
            part.release()
        for panel in (self.automatic_panel, self.learn_panel):
            panel.release()
        self.models.release()
        self.image_folder.release()
        self.tracks.release()
        self.loader.release()
        self.exporter.release()
        for task in [task for task in self._snapshots if task.done]:
            self._on_saved(task)  # its signal does not arrive any more
        self.recovery.release()
        self.learning.release()
        self.autosave.release()
        self.controller.release()

    @property
    def busy(self) -> bool:
        """Whether layers or prompts are still to be read, or anything is computed or logged."""
        loading = (self.recovery, self.image_folder, self.loader, self.tracks)
        parts = (self.controller, self.autosave, *loading)
        return self._later.isActive() or any(part.busy for part in parts)

    def act(self, name: str) -> None:
        """Carry out one of `actions` on the prompts as they are drawn now."""
        self.controller.perform(self.actions[name])

    def settings(self) -> TabSettings:
        """The choices that are remembered."""
        objects = self.controller.objects
        return TabSettings(
            model=str(self.models.reference()),
            compute=self.compute.value(),
            overlap=objects.overlap,
            classes=tuple(self.workspace.classes.names),
            open_parts=tuple(name for name, is_open in self._by_hand.items() if is_open),
            closed_parts=tuple(name for name, is_open in self._by_hand.items() if not is_open),
            encode_ahead=self.stack_panel.ahead.isChecked(),
            keep_on_disk=self.stack_panel.disk.isChecked(),
        )

    # ------------------------------------------------------------------ layout

    def _lay_out(self) -> None:
        choices = QFormLayout()
        choices.setVerticalSpacing(6)
        choices.setHorizontalSpacing(8)
        choices.addRow("Image", self.channels)
        choices.addRow(self.channels.details)
        self.level = LevelChoice(choices)
        model = QWidget()
        form_rows(
            ("Model", self.models),
            self.models.details,
            ("Device", self.compute),
            ("Objects", self.objects),
            ("Points", self.points),
            ("Boxes", self.boxes),
            ("Masks", self.masks),
            parent=model,
            indent=INDENT,
        )
        self.objects.setToolTip("The labels layer that objects are committed to")
        self.masks.setToolTip("Refine each object of another labels layer on the current plane")
        self.sections = {
            "model": CollapsibleSection(MODEL, model),
            "folder": CollapsibleSection("Folder", self.folder_panel),
            "tracks": CollapsibleSection("Tracks", self.tracks_panel),
            "objects": CollapsibleSection("Objects", self.object_panel),
            "learn": CollapsibleSection("Learn", self.learn_panel),
            "stack": CollapsibleSection("Stack", self.stack_panel),
            "everything": CollapsibleSection("Everything", self.automatic_panel),
        }
        for name in ("folder", "model"):
            choices.addRow(self.sections[name])
        rule = QFrame()
        rule.setFrameShape(QFrame.Shape.HLine)
        form = QWidget()
        rows = QVBoxLayout(form)
        rows.setContentsMargins(8, 8, 8, 8)
        rows.setSpacing(8)
        rows.addLayout(choices)
        rows.addWidget(rule)
        rows.addWidget(self.buttons)
        for name in ("everything", "stack", "tracks", "objects", "learn"):
            rows.addWidget(self.sections[name])
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(VerticalScroll(form))
        layout.addStretch(1)
        below = QVBoxLayout()  # not in what scrolls
        below.setContentsMargins(8, 0, 8, 8)
        below.addWidget(self.status)
        layout.addLayout(below)

    def _restore_settings(self, settings: TabSettings) -> None:
        """Show the choices of the last session."""
        objects, panel, stack = self.controller.objects, self.object_panel, self.stack_panel
        self._remembered = bool(settings.model)  # that it does not suit an image is no error
        if settings.model:
            path = Path(settings.model)
            with suppress(ValueError, OSError):  # the model is gone: the default is chosen
                self.models.set_value(path if path.is_file() else settings.model)
        self.compute.set_value(settings.compute)
        objects.overlap = settings.overlap
        panel.set_overlap(settings.overlap)
        self.workspace.classes.add(settings.classes)
        panel.category.set_names(settings.classes)
        stack.ahead.setChecked(settings.encode_ahead)
        stack.disk.setChecked(settings.keep_on_disk)
        self.controller.prefetcher.enabled = settings.encode_ahead
        self.controller.prefetcher.keep_on_disk(settings.keep_on_disk)
        self._by_hand = dict.fromkeys(settings.closed_parts, False)
        self._by_hand |= dict.fromkeys(settings.open_parts, True)
        for name, fold in self.sections.items():
            fold.set_open(self._by_hand.get(name, False))

    def _save_settings(self, *_: Any) -> None:
        if (now := self.settings()) != self._saved:
            self._saved = now
            save_settings(now)

    def _on_section(self, name: str, opened: bool) -> None:
        self._by_hand[name] = opened
        self._save_settings()

    def _open_section(self, name: str) -> None:
        """Open a section where it matters, unless the user once closed it."""
        if self._by_hand.get(name, True):
            self.sections[name].set_open(True)

    def _connect(self) -> None:
        for event in self._layer_events:
            event.connect(self._on_layers)
        self.viewer.mouse_double_click_callbacks.append(self._on_double_click)
        self.watch.changed.connect(self._on_layers)
        self._connect_choices()
        self._connect_buttons()
        self._connect_panels()
        workspace, status = self.workspace, self.status
        workspace.status.connect(status.set_value)
        workspace.image_wanted.connect(self._on_image_wanted)
        workspace.changed.connect(self._on_changed)
        self.exporter.status.connect(status.set_value)
        self.exporter.saved.connect(self._on_saved)
        folder, panel = self.image_folder, self.folder_panel
        folder.status.connect(status.set_value)
        folder.changed.connect(self._show_folder)
        panel.folder_chosen.connect(
            lambda path: self.controller.perform(lambda: folder.choose_folder(path))
        )
        tracks, links = self.tracks, self.tracks_panel
        tracks.changed.connect(self._show_tracks)
        for name in ("link over time", "link", "cut link"):
            links.buttons[name].clicked.connect(lambda _=False, name=name: self.act(name))
        panel.next.clicked.connect(lambda: self.act("next image"))
        panel.previous.clicked.connect(lambda: self.act("previous image"))
        self.autosave.warned.connect(status.set_warning)
        status.canceled.connect(self.controller.cancel)
        status.canceled.connect(self.recovery.cancel)
        status.accepted.connect(workspace.accept)
        self.controller.propagation.changed.connect(self._show_stack)
        self.controller.automatic.changed.connect(self._show_automatic)
        for work in (self.controller.propagation, self.controller.automatic):
            work.changed.connect(self._on_layers)  # it may have held the image
        self.controller.prefetcher.progressed.connect(self._show_encoded)
        self.viewer.dims.events.current_step.connect(self._show_plane)

    def _connect_choices(self) -> None:
        self.models.changed.connect(self._on_model)
        self.models.changed.connect(self._save_settings)
        self.compute.changed.connect(self._on_choice)
        self.compute.changed.connect(self._save_settings)
        self.controller.inference.predicted.connect(self._show_compute)
        self.channels.changed.connect(self._on_image)
        self.channels.first_axis_named.connect(self._on_first_axis)
        self.level.changed.connect(self._on_choice)
        self.objects.chosen.connect(self.workspace.use_objects)
        self.points.chosen.connect(self._on_points)
        self.boxes.chosen.connect(self._on_boxes)
        self.masks.chosen.connect(self._on_masks)
        for name, fold in self.sections.items():
            fold.pressed.connect(partial(self._on_section, name))
        self.sections["objects"].toggled.connect(self._on_objects_toggled)

    def _connect_buttons(self) -> None:
        buttons, layers = self.buttons, self.workspace.prompt_layers
        for name in ("commit", "clear", "undo", "redo", "cycle", "next"):
            getattr(buttons, name).clicked.connect(lambda _=False, name=name: self.act(name))
        buttons.point.clicked.connect(lambda: self._take(layers.draw_points))
        buttons.box.clicked.connect(lambda: self._take(layers.draw_boxes))
        buttons.scribble.clicked.connect(lambda: self._take(layers.scribble))
        buttons.sign.clicked.connect(layers.flip)
        self.candidates.chosen.connect(
            lambda number: self.controller.perform(
                lambda: self.controller.prompts.choose_mask(number)
            )
        )
        layers.sign_changed.connect(buttons.set_sign)
        layers.tool_changed.connect(self._show_tool)

    def _connect_panels(self) -> None:
        controller, panel = self.controller, self.object_panel
        panel.acted.connect(self.act)
        panel.overlap_chosen.connect(self._on_overlap)
        panel.class_chosen.connect(controller.objects.classify)
        panel.class_chosen.connect(self._save_settings)
        panel.save_requested.connect(self._on_save)
        panel.load_requested.connect(lambda: self.loader.ask(self))
        panel.table.chosen.connect(self._on_chosen)
        panel.table.visited.connect(self._on_visited)
        panel.table.opened.connect(
            lambda label: controller.perform(lambda: controller.objects.edit(label))
        )
        stack, prefetcher = self.stack_panel, controller.prefetcher
        stack.started.connect(lambda: self.act("propagate"))
        stack.stopped.connect(controller.propagation.cancel)
        stack.drop.clicked.connect(lambda: controller.propagation.drop())
        stack.bars.chosen.connect(self._on_bar)
        stack.commit.clicked.connect(lambda: self.act("commit propagation"))
        stack.ahead.toggled.connect(prefetcher.set_enabled)
        stack.disk.toggled.connect(prefetcher.keep_on_disk)
        for box in (stack.ahead, stack.disk):
            box.toggled.connect(self._save_settings)
        stack.whole_requested.connect(prefetcher.encode_whole)
        stack.whole_stopped.connect(prefetcher.cancel)
        stack.clear.clicked.connect(lambda: prefetcher.clear())
        automatic = self.automatic_panel
        automatic.start.clicked.connect(lambda: self.act("segment everything"))
        automatic.stop.clicked.connect(lambda: controller.automatic.cancel())
        automatic.sifted.connect(lambda: controller.automatic.filter(automatic.value()))
        automatic.like_mine.toggled.connect(controller.automatic.set_like_mine)
        automatic.commit.clicked.connect(lambda: controller.automatic.commit())
        automatic.drop.clicked.connect(lambda: controller.automatic.drop())
        learning, learn = self.learning, self.learn_panel
        learn.started.connect(self._learn)
        learn.stopped.connect(learning.cancel)
        learn.compared.connect(lambda after: controller.perform(lambda: learning.show(after)))
        learn.named.connect(learning.keep)
        learning.changed.connect(self._show_learning)
        learning.progressed.connect(learn.set_progress)
        self.workspace.model_changed.connect(self._on_choice)
        self.workspace.models_changed.connect(self.models.refresh)

    # ----------------------------------------------------------------- actions

    def _make_actions(self) -> dict[str, Callable[[], object]]:
        controller, workspace = self.controller, self.workspace
        objects, prompts = controller.objects, controller.prompts
        return {
            "flip": workspace.prompt_layers.flip,
            "segment": controller.segment,
            "propagate": self._propagate,
            "commit": controller.commit_all,
            "clear": prompts.clear,
            "undo": workspace.undo,
            "redo": workspace.redo,
            "cycle": prompts.next_mask,
            "next": prompts.new_object,
            "edit": objects.edit,
            "delete": objects.delete,
            "merge": objects.merge,
            "split": objects.split,
            "commit propagation": controller.commit_propagation,
            "segment everything": self._segment_everything,
            "link over time": lambda: self.tracks.link_all(self.tracks_panel.value()),
            "link": lambda: self.tracks.link(self.tracks_panel.value()),
            "cut link": lambda: self.tracks.cut(self.tracks_panel.value()),
            "next image": lambda: self.image_folder.go(1),
            "previous image": lambda: self.image_folder.go(-1),
        }

    def _shortcuts(self) -> dict[str, Callable[[], object]]:
        return {name: lambda name=name: self.act(name) for name in self.actions}  # type: ignore[misc]

    def _wants_key(self, action: str) -> bool:
        """Whether an action takes a key that napari uses on the image itself."""
        return action == "commit" and self.controller.can_commit

    def _propagate(self) -> None:
        session = self.workspace.session
        if session is not None and self._axes():
            planes = self.stack_panel.planes_value(session.prompt_state.planes())
            self.controller.propagation.start(self.stack_panel.along_value(), planes)

    def _segment_everything(self) -> None:
        panel = self.automatic_panel
        self.controller.automatic.start(panel.value(), panel.layer_value())

    # ------------------------------------------------------------------ choice

    def _images(self) -> list[Image]:
        return [layer for layer in self.viewer.layers if isinstance(layer, Image)]

    def _on_layers(self, event: Any = None) -> None:
        if getattr(event, "type", "") == "inserted":
            self._inserted = self._inserted or isinstance(event.value, Image)
        self._later.start(0)

    def _read_layers(self) -> None:
        images = self._images()
        self.watch.follow(images)
        active = self.viewer.layers.selection.active
        preferred = layer_key(active) if active in images else None
        with signals_blocked(self.channels):
            self.channels.set_layers([layer_info(layer) for layer in images], preferred)
        self._follow_sight()
        self._on_choice()
        if self._inserted:
            self._inserted = False
            self.workspace.raise_layers()

    def _follow_sight(self) -> None:
        """Choose the image that has come in front of the chosen one.

        An image that the user chooses although another hides it stays chosen until a third comes
        in front.
        """
        front = self._in_front()
        if front is self._front or self.controller.holds_image:
            return
        self._front = front
        if front is not None and self.channels.follow(layer_key(front)):
            self._front = self._in_front()

    def _sources(self) -> list[LayerChannel]:
        """The channels that are chosen."""
        return [source for source in self.channels.value() if source is not None]

    def _in_front(self) -> Image | None:
        """The image that is seen in place of the chosen one, if any."""
        chosen = {source.layer for source in self.channels.value() if source is not None}
        dims = self.viewer.dims
        axes = [axis - dims.ndim for axis in dims.displayed[-2:]]
        return image_in_front(self._images(), chosen, axes) if chosen else None

    def _on_image(self) -> None:
        """The user chose an image, which may be hidden by another."""
        self._front = self._in_front()
        self._on_choice()

    def _on_image_wanted(self, image: Image) -> None:
        if self.channels.follow(layer_key(image)):
            self._on_image()

    def _on_first_axis(self, key: str, channels: bool) -> None:
        """The user says whether an image's first axis is channels."""
        [image] = [image for image in self._images() if layer_key(image) == key]
        name_first_axis(image, channels)
        self._read_layers()
        self._on_image_wanted(image)

    def _on_model(self) -> None:
        self._remembered = False
        self._show_model()
        entry = self.models.value()
        with signals_blocked(self.channels):
            spec = None if entry is None else entry.spec
            self.channels.set_inputs(None if spec is None else spec.inputs)
        self._follow_sight()
        self._on_choice()

    def _on_choice(self) -> None:
        """Start on what is chosen, or say what is wrong with it."""
        controller, images = self.controller, self._images()
        entry = self.models.value()
        problem = self.models.problem() or self.channels.problem()
        sources, image = self._sources(), None
        if problem is None and entry is not None and entry.spec is not None:
            try:
                image = image_value(sources, images, entry.spec, self.watch.versions)
            except (ValueError, TypeError) as error:
                problem = str(error)
        model = self._chosen_model()
        if image is not None:
            model, image, sources = self._with_adapted(model, image, sources)
        used = {source.layer for source in sources}
        self.level.show_layers(layer for layer in images if layer_key(layer) in used)
        if image is None:
            controller.set_subject(model, None, None, frozenset())
            if self.image_folder.problem and not images:
                self.workspace.fail(self.image_folder.problem)
                return
            absent = entry is None or entry.kind == "downloadable" or not images
            kind: StatusKind = "nothing" if absent or self._remembered else "failed"
            offer = USE_TINY if images and not self.models.is_embedded else ""
            status = Status(kind, problem or CHOOSE_MODEL, offer=offer)
            self.workspace.offer(status, self.models.choose_embedded)
            return
        layers = frozenset(used)
        before = self.workspace.session, self.workspace.model
        front, hidden_by = self._in_front(), self.workspace.in_front
        self.workspace.in_front = "" if front is None else front.name
        controller.set_subject(model, image, image_geometry(sources, images), layers)
        is_new = (self.workspace.session, self.workspace.model) != before
        if is_new and self.workspace.plane_or_none() is not None:
            self.workspace.prompt_layers.restore_tool()
        if not is_new and self.workspace.in_front != hidden_by:
            controller.request()  # says what is in sight now
        self._show_tool()

    def _chosen_model(self) -> ChosenModel:
        entry = self.models.value()
        changed = 0 if entry is None else entry.changed
        return ChosenModel(self.models.reference(), changed, self.compute.value())

    # ---------------------------------------------------------------- learning

    def _with_adapted(
        self, model: ChosenModel, image: ImageValue, sources: list[LayerChannel]
    ) -> tuple[ChosenModel, ImageValue, list[LayerChannel]]:
        """The model adapted to the image in place of the chosen one, and what it reads."""
        images, layers = self._images(), frozenset(source.layer for source in sources)
        geometry, current = image_geometry(sources, images), self.workspace.session
        session = self.workspace.sessions.find(geometry, layers, current)
        adapted = self.learning.model_of(session, model)
        if session is None or adapted is None or not session.shows_adapted:
            return model, image, sources
        try:
            substitute, spec = self.learning.substitute(adapted, model)
            if adapted.all_channels:
                named = dict(self._all_channels(sources))
                sources = [named[name] for name in spec.channel_names]
            return substitute, image_value(sources, images, spec, self.watch.versions), sources
        except (ValueError, TypeError, OSError, KeyError):
            self.learning.forget(session)
            return model, image, sources

    def _all_channels(self, sources: Sequence[LayerChannel]) -> list[tuple[str, LayerChannel]]:
        """Name and place of each channel of the image."""
        layers = [layer_info(layer) for layer in self._images()]
        channels = all_image_channels(sources, layers)
        return list(zip(channel_names(channels, layers), channels, strict=True))

    def _learn(self) -> None:
        """Learn from the objects of the image, with the channels in use or all of them."""
        workspace, panel, entry = self.workspace, self.learn_panel, self.models.value()
        session, sources = workspace.session, self._sources()
        if session is None or session.editor is None or entry is None or entry.spec is None:
            return
        if not workspace.has_pixels():
            return
        spec, chosen = entry.spec, self._chosen_model()
        try:
            if panel.takes_all_channels:
                named = self._all_channels(sources)
                sources = [source for _, source in named]
                spec = spec_of(spec, [name for name, _ in named])
            image = image_value(sources, self._images(), spec, self.watch.versions)
            request = adapt_request(
                session,
                chosen,
                image,
                panel.labeled_within,
                self.viewer.dims.point,
                all_channels=panel.takes_all_channels,
            )
        except (ValueError, TypeError) as error:
            workspace.fail(str(error))
            return
        self.learning.start(request)

    def _show_learning(self) -> None:
        """Show whether there is something to learn from, how far it is, and what came of it."""
        session, learning, entry = self.workspace.session, self.learning, self.models.value()
        if session is None or entry is None or entry.spec is None:
            self.learn_panel.set_state(AdaptPanelState())
            self.sections["learn"].setVisible(False)
            return
        adapted = learning.model_of(session, self._chosen_model())
        sources = self._sources()
        channels = len(self._all_channels(sources))
        fewer = entry.spec.is_foundation and len(entry.spec.channels) < channels
        state = AdaptPanelState(
            working=True,
            new=new_objects(session.editor, adapted),
            channels=channels if fewer else 0,
            takes_all=fewer and sources[0].part is not None,
            progress=learning.progress,
            adapted=adapted,
            shows_adapted=session.shows_adapted,
            interrupted=learning.interrupted(session),
        )
        self.learn_panel.set_state(state)
        has_objects = session.editor is not None and bool(session.editor.labels)
        self.sections["learn"].setVisible(has_objects or adapted is not None)
        if state.ready:
            self._open_section("learn")

    # ----------------------------------------------------------------- prompts

    def _on_points(self, layer: Points | None) -> None:
        if self._is_readable(layer):
            self.workspace.prompt_layers.use_points(layer)
            self._ensure_prompts()

    def _on_boxes(self, layer: Shapes | None) -> None:
        if self._is_readable(layer):
            self.workspace.prompt_layers.use_boxes(layer)
            self._ensure_prompts()

    def _is_readable(self, layer: Points | Shapes | None) -> bool:
        """Whether prompts can be read from a layer; if not, the status line says why."""
        reason = None if layer is None else unreadable(layer)
        if reason is not None:
            self.workspace.fail(reason)
            self._show_layers()  # the one that was chosen before
        return reason is None

    def _on_masks(self, layer: Labels | None) -> None:
        self.masks.set_value(None)  # read once: later changes of that layer do not matter
        if layer is not None:
            self.controller.perform(lambda: self.controller.prompts.take_masks(layer))

    def _take(self, tool: Callable[[], object]) -> None:
        """Take a tool in hand."""
        if self._ensure_prompts():
            tool()
        self._show_tool()

    def _ensure_prompts(self) -> bool:
        session = self.workspace.session
        if session is not None:
            self.workspace.prompt_layers.ensure(session.geometry)
        return session is not None

    # ----------------------------------------------------------------- objects

    def _on_double_click(self, _: Viewer, event: Any) -> None:
        """Edit the object; only with a tool in hand, since otherwise napari zooms."""
        objects, prompts = self.controller.objects, self.controller.prompts
        label = objects.label_at(event.position)
        if label and self.workspace.prompt_layers.tool in ("point", "box"):

            def edit() -> None:
                prompts.take_back_click(event.position)
                objects.edit(label)

            self.controller.perform(edit)

    def _on_overlap(self, overlap: Any) -> None:
        self.controller.objects.overlap = overlap
        self._save_settings()

    def _on_objects_toggled(self, opened: bool) -> None:
        """Rows that are not seen are not chosen: no action may mean them."""
        if not opened:
            self.object_panel.table.choose(())

    def _on_chosen(self, labels: tuple[int, ...]) -> None:
        self.controller.objects.chosen = labels

    def _on_visited(self, label: int) -> None:
        session = self.workspace.session
        if session is not None and session.editor is not None and self.workspace.has_pixels():
            show_object(self.viewer, session.geometry, session.editor, label)

    def _on_save(self) -> None:
        session = self.workspace.session
        if session is None or session.editor is None or not self.workspace.has_pixels():
            return
        path = self.exporter.ask_path(session.geometry)
        if path is not None and session.editor is not None:
            names, snapshot = self.workspace.classes.names, self.autosave.snapshot(session)
            task = self.exporter.save(
                path, session.geometry, session.editor, names, snapshot.text, session.time_axis
            )
            self._snapshots[task] = snapshot

    def _on_saved(self, task: WorkerTask) -> None:
        if (snapshot := self._snapshots.pop(task, None)) is not None:
            self.autosave.mark_saved(snapshot)

    # ------------------------------------------------------------------- shown

    def _on_changed(self, what: Change) -> None:
        if what & (Change.SUBJECT | Change.PROMPTS | Change.OBJECTS):
            self._show_buttons()
            self._show_layers()
            self._show_objects()
            self._show_tracks()
            self._show_learning()
            self._save_settings()  # a typed name becomes a class when an object gets it
        if what & (Change.SUBJECT | Change.PROMPTS | Change.VIEW):
            self._show_stack()
        if what & Change.SUBJECT:
            self._show_automatic()
        self._show_candidates()
        self._bind_keys()  # also to a preview layer that was made again

    def _show_buttons(self) -> None:
        session = self.workspace.session
        self.buttons.set_state(
            working=session is not None,
            prompted=session is not None and bool(session.prompt_state),
            commits=self.controller.can_commit,
            undo=session is not None and session.history.can_undo,
            redo=session is not None and session.history.can_redo,
        )

    def _show_tracks(self) -> None:
        session, tracks = self.workspace.session, self.tracks
        shown = session is not None and session.time_axis is not None
        if shown:
            self._open_section("tracks")
        self.tracks_panel.set_state(
            working=session is not None and session.editor is not None,
            busy=tracks.linking,
            text=tracks.text if shown else "",
        )

    def _show_folder(self) -> None:
        folder = self.image_folder
        if folder.images:
            self._open_section("folder")
        can_go = folder.current is not None and not folder.busy
        self.folder_panel.set_state(can_go=can_go, place=folder.described())

    def offer_batch(self, plan: Callable[[], Plan | None]) -> None:
        """Let the user take the images of the Batch tab; `plan` says what they are."""
        button, folder = self.folder_panel.batch, self.image_folder
        button.show()
        button.clicked.connect(lambda: self.controller.perform(lambda: folder.choose_plan(plan())))

    def _show_candidates(self) -> None:
        """Show what Q goes through; until the next prediction is there, that of the last one."""
        session, plane = self.workspace.session, self.workspace.plane_or_none()
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

    def _show_layers(self) -> None:
        """Show the layers in use."""
        layers = self.workspace.prompt_layers
        self.points.set_value(layers.points)
        self.boxes.set_value(layers.boxes)
        self.objects.set_value(self.workspace.objects)
        for choice in (self.objects, self.masks):
            choice.setEnabled(self.workspace.session is not None)

    def _show_objects(self) -> None:
        """Show the committed objects if they have changed."""
        session, panel = self.workspace.session, self.object_panel
        editor = None if session is None else session.editor
        shown = None if editor is None else (editor, editor.version)
        panel.category.set_names(self.workspace.classes.names)
        if shown == self._shown_objects:
            return
        self._shown_objects = shown
        geometry = None if session is None else session.geometry
        rows = rows_of(editor, geometry)
        unit = "" if geometry is None else voxel_of(geometry)[1]
        panel.set_rows(rows, 2 if geometry is None else geometry.ndim, unit)
        self.sections["objects"].set_title(f"Objects ({len(rows)})" if rows else "Objects")
        if rows:
            self._open_section("objects")

    def _axes(self) -> list[StackAxis]:
        """The axes along which the image has planes."""
        session = self.workspace.session
        if session is None:
            return []
        names = session.geometry.axis_names
        sizes = enumerate(session.geometry.shape[:-2])
        return [StackAxis(index, names[index], size) for index, size in sizes if size > 1]

    def _show_stack(self) -> None:
        session, propagation, axes = (
            self.workspace.session,
            self.controller.propagation,
            self._axes(),
        )
        if axes and not self.sections["stack"].isVisibleTo(self):
            self._open_section("stack")
        self.sections["stack"].setVisible(bool(axes))
        self.stack_panel.set_axes(axes)
        self.sections["tracks"].setVisible(bool(axes))
        self.tracks_panel.set_axes(tuple(axes))
        self._show_tracks()
        self.stack_panel.set_state(
            working=session is not None and bool(session.prompt_state),
            busy=propagation.busy,
            found=propagation.result is not None,
        )
        result = propagation.result
        self.stack_panel.bars.set_bars(result.bars() if result and result.is_shown else ())
        self._show_plane()

    def _show_plane(self, *_: Any) -> None:
        self.stack_panel.bars.set_shown(self.workspace.plane_or_none())

    def _on_bar(self, plane: Plane) -> None:
        session = self.workspace.session
        if session is not None:
            show_plane(self.viewer, session.geometry, plane)

    def _show_encoded(self, text: str, fraction: float) -> None:
        self.stack_panel.show_encoded(text, fraction)
        self.stack_panel.set_encoding(self.controller.prefetcher.encoding_whole)

    def _show_automatic(self) -> None:
        automatic = self.controller.automatic
        self.automatic_panel.set_state(
            working=self.workspace.session is not None,
            busy=automatic.proposing,
            found=automatic.has_objects,
        )
        self._show_buttons()

    def _bind_keys(self) -> None:
        workspace = self.workspace
        session, layers = workspace.session, workspace.prompt_layers
        own: list[Layer | None] = [
            layers.points,
            layers.boxes,
            workspace.preview.layer,
            workspace.objects,
        ]
        used = frozenset() if session is None else session.layers
        self.keys.bind(
            [layer for layer in own if layer is not None and layer in self.viewer.layers],
            [layer for layer in self._images() if layer_key(layer) in used],
        )

    def _show_compute(self, *_: Any) -> None:
        """Show the device and precision in use, which change when memory runs out."""
        if (used := self.controller.inference.service.in_use) is not None:
            self.compute.show_in_use(used)
        self._show_model()

    def _show_model(self) -> None:
        """Name the model and its device in the title of their section."""
        entry, used = self.models.value(), self.controller.inference.service.in_use
        parts = ["" if entry is None else entry.name[:_LETTERS], "" if used is None else used.title]
        self.sections["model"].set_title(f"{MODEL}: {', '.join(filter(None, parts))}")
        if self.models.problem() is not None:
            self._open_section("model")

    def _show_tool(self) -> None:
        """Show what a press on the image does."""
        self.buttons.set_tool(self.workspace.prompt_layers.tool)
        self.controller.say_ready_again(self.status.value())


def _is_derived(layer: Labels) -> bool:
    """Whether a labels layer only shows what follows from others."""
    return layer.name.startswith((PREVIEW, CLASSES))
