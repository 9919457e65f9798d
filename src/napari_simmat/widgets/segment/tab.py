"""The Segment tab: builds the form, connects it with its parts, and shows their state."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary, ref

from napari import Viewer
from napari.layers import Labels, Layer
from qtpy.QtCore import Signal
from superqt.utils import signals_blocked

from napari_simmat._text import pluralize
from napari_simmat.annotation.links import JOIN_PLANES
from napari_simmat.annotation.prompt_state import Plane
from napari_simmat.batch.plan import Plan
from napari_simmat.widgets.layer_data import layer_key
from napari_simmat.widgets.samples import OFFERED
from napari_simmat.widgets.segment.folder.image_folder import DRAFTS_FIRST, ImageFolder
from napari_simmat.widgets.segment.form.form import SegmentForm
from napari_simmat.widgets.segment.form.form_choice import FormChoice
from napari_simmat.widgets.segment.form.object_panel import NAME_OTHERS
from napari_simmat.widgets.segment.form.pixel_size import state_pixel_size
from napari_simmat.widgets.segment.form.settings import (
    Preferences,
    TabSettings,
    load_settings,
    save_settings,
)
from napari_simmat.widgets.segment.form.welcome import TourState
from napari_simmat.widgets.segment.layers.layer_rows import LayerRows
from napari_simmat.widgets.segment.layers.open_images import LayerSession
from napari_simmat.widgets.segment.layers.outputs import ObjectDrawing
from napari_simmat.widgets.segment.layers.prompt_adapters import BOXES, POINTS
from napari_simmat.widgets.segment.work.all_frames import FoundFrames
from napari_simmat.widgets.segment.work.autosave import Autosave, Recovery, Snapshot
from napari_simmat.widgets.segment.work.channel_tools import ChannelTools
from napari_simmat.widgets.segment.work.controller import SegmentController
from napari_simmat.widgets.segment.work.export import (
    ObjectExporter,
    ObjectLoader,
    show_object,
    show_plane,
)
from napari_simmat.widgets.segment.work.image_choice import ImageChoice
from napari_simmat.widgets.segment.work.learning import Learning
from napari_simmat.widgets.segment.work.tracks import ObjectTracks
from napari_simmat.widgets.segment.work.workspace import needs_image
from napari_simmat.widgets.shortcuts import KeyBindings, ListShortcuts
from napari_simmat.widgets.status_line import Status, StatusKind
from napari_simmat.widgets.worker import WorkerTask, later

KEPT = "{objects} of {image} can be restored when it is opened again."
CHOOSE_MODEL = "Choose a model."
USE_TINY = "Use tiny"
_DRAWN = 40
"""Milliseconds in which napari draws a layer of a kind that is new to it."""
_TYPED = 400
"""Milliseconds after the last letter in napari's preferences until it is followed."""


class SegmentTab(SegmentForm):
    """Choose a model and its channels, click, commit.

    Attributes
    ----------
    controller, workspace
        What the form works on, and its state.
    actions
        The user's actions by name: those of the shortcuts, and those of the panels.
    """

    actions: dict[str, Callable[[], object]]
    keys_wanted = Signal()
    """The user asks for the page of keys."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer)
        self.controller = controller = SegmentController(viewer, self)
        self.workspace = self._workspace = workspace = controller.workspace
        inference = controller.inference
        self.exporter = ObjectExporter(self)
        self.autosave = Autosave(workspace)
        self.loader = ObjectLoader(workspace, controller.objects, self.autosave.worker)
        self.recovery = Recovery(workspace, inference, self.autosave)
        self.image_folder = ImageFolder(
            workspace,
            inference,
            self.exporter,
            self.autosave,
            self.recovery,
            is_held=lambda: controller.holds_image,
            encodes_ahead=lambda: controller.prefetcher.enabled,
        )
        self.tracks = ObjectTracks(workspace)
        self.learning = Learning(workspace, inference, self.autosave)
        self.actions = self._make_actions()
        shortcuts = {name: partial(self.act, name) for name in self.actions}
        # C is napari's on the image itself: ours only while something can be committed. So is E
        # on boxes: only where an object is.
        wanted = {
            "commit": lambda: controller.can_commit,
            "edit": lambda: bool(controller.objects.target_labels()),
        }
        self.keys = KeyBindings(viewer, shortcuts, lambda name: name in wanted and wanted[name]())
        self.list_keys = ListShortcuts(self, self.keys)
        self.drawing = ObjectDrawing(viewer)
        self.rows = LayerRows(viewer, self)
        self.image_choice = ImageChoice(
            workspace,
            self.channels,
            inference.worker,
            self._choice,
            lambda: controller.holds_image,
        )
        self.channel_tools = ChannelTools(
            workspace, controller.inference, self.image_choice, parent=self
        )
        self._snapshots: WeakKeyDictionary[WorkerTask, Snapshot] = WeakKeyDictionary()
        # Not in the event of a removal: what clears the list would find the outline made again.
        self._draw_later = later(self, self._show_drawing)
        self._preferences = Preferences()
        self._follow_later = later(self, self._follow_preferences, _TYPED)
        self._preferences.connect(self._on_preferences)
        self._saved = self._restore_settings()
        self._has_drafts = self._has_folder = self._was_prompted = False
        self._left: Callable[[], LayerSession | None] = lambda: None
        self._kept = ""
        self._connect_parts()
        self._connect_form()
        entry = self.models.value()
        spec = None if entry is None else entry.spec
        self.channels.set_inputs(None if spec is None else spec.inputs)
        self.automatic_panel.form.show_model(spec)
        self.show_model(None)
        self.image_choice.list_images()
        self._bind_keys()

    def start(self) -> None:
        """Choose an image, and begin to follow what is open."""
        self.rows.update()
        with signals_blocked(self.folder_panel.by_score):
            self.folder_panel.by_score.setChecked(self.image_folder.by_score)
        self._show_folder()
        self.image_choice.read_later()

    def release(self) -> None:
        """Stop the threads, and give back keys, events and the preview."""
        self._draw_later.stop()
        self._follow_later.stop()
        self._preferences.disconnect()
        self.viewer.mouse_double_click_callbacks.remove(self._on_double_click)
        self.viewer.dims.events.current_step.disconnect(self._show_plane)
        for part in (
            *(self.keys, self.list_keys, self.objects, self.points, self.boxes, self.masks),
            *(self.automatic_panel.layer, self.learn_panel, self.models, self.image_folder),
            *(self.tracks, self.loader, self.exporter, self.image_choice, self.drawing, self.rows),
        ):
            part.release()
        for task in [task for task in self._snapshots if task.done]:
            self._on_saved(task)  # its signal does not arrive any more
        for part in (self.recovery, self.learning, self.autosave, self.controller):
            part.release()

    @property
    def busy(self) -> bool:
        """Whether layers or prompts are still to be read, or anything is computed or logged."""
        loading = (self.recovery, self.image_folder, self.loader, self.tracks, self.image_choice)
        parts = (self.controller, self.autosave, self.channel_tools, *loading)
        return any(part.busy for part in parts)

    def act(self, name: str) -> None:
        """Carry out one of `actions` on the prompts as they are drawn now."""
        self.controller.perform(self.actions[name])

    def _make_actions(self) -> dict[str, Callable[[], object]]:
        everything = self.controller.automatic
        tracks = self.tracks
        panel = self.automatic_panel
        axis = self.tracks_panel.value
        return {
            **self.controller.actions,
            "save": self._save_objects,
            "load": lambda: self.loader.ask(self),
            "propagate": self._propagate,
            NAME_OTHERS: lambda: self.controller.naming.start(self._choice()),
            "segment everything": lambda: everything.start(panel.value(), panel.layer.value()),
            "segment all frames": lambda: self.controller.frames.start(
                panel.value(), axis(), panel.layer.value()
            ),
            "link over time": lambda: tracks.link_all(axis()),
            "join planes": lambda: tracks.link_all(self.stack_panel.along_value()[0], JOIN_PLANES),
            "link": lambda: tracks.link(axis()),
            "cut link": lambda: tracks.cut(axis()),
            **{name: partial(self._review, name) for name in ("accept", "reject", "next doubtful")},
            "next image": lambda: self.image_folder.go(1),
            "previous image": lambda: self.image_folder.go(-1),
            "no objects": self.image_folder.mark_empty,
            "see": lambda: self.channel_tools.see(),
            "keys": self.keys_wanted.emit,
        }

    def _connect_parts(self) -> None:
        controller = self.controller
        workspace = self.workspace
        status = self.status
        self.viewer.mouse_double_click_callbacks.append(self._on_double_click)
        self.viewer.dims.events.current_step.connect(self._show_plane)
        workspace.status.connect(status.set_value)
        for part in (self.exporter, self.image_folder):
            part.status.connect(workspace.status)  # whoever asks what is shown asks the workspace
        for signal, *slots in (
            (self.image_choice.changed, self._on_choice),
            (workspace.session_closed, self._on_closed),
            (workspace.subject_changed, self._on_prompts, self._on_objects, self._show_automatic),
            (workspace.view_changed, self._show_stack, self._on_prediction),
            (workspace.prompts_changed, self._on_prompts),
            (workspace.objects_changed, self._on_objects),
            (workspace.prediction_changed, self._on_prediction),
            (workspace.model_changed, self._on_choice),
            (workspace.models_changed, self.models.refresh),
            (workspace.prompt_layers.sign_changed, self.buttons.set_sign),
            (workspace.prompt_layers.tool_changed, self._show_tool),
            (controller.inference.predicted, self._show_compute),
            (controller.model_unwanted, self.models.choose_embedded),
            # Work that has ended may have held the image.
            (
                controller.propagation.changed,
                self._show_stack,
                self._show_buttons,
                self.image_choice.read_later,
            ),
            (controller.automatic.changed, self._show_automatic, self._show_learning),
            (controller.automatic.changed, self.image_choice.read_later),
            (
                controller.review.changed,
                self._show_automatic,
                self._show_drawing,
                self.image_choice.read_later,
            ),
            (controller.review.visited, lambda: self.object_panel.table.choose(())),
            (controller.prefetcher.progressed, self._show_encoded),
            (self.exporter.saved, self._on_saved),
            (self.image_folder.changed, self._show_folder),
            (self.image_folder.encoded_ahead, controller.automatic.expect_image),
            (controller.frames.changed, self._show_automatic, self.image_choice.read_later),
            (controller.frames.found, self._link_found),
            (self.tracks.changed, self._show_tracks),
            (self.learning.changed, self._show_learning),
            (self.learning.progressed, self.learn_panel.set_progress),
            (self.learning.wanted, self._on_learn),
            (self.autosave.warned, status.set_warning),
            (status.canceled, self.learning.cancel_shown, controller.cancel, self.recovery.cancel),
            (status.canceled, self.channel_tools.cancel),
            (self.channel_tools.influences, self.channel_panel.show_influences),
            (self.channel_panel.derived, self.channel_tools.derive),
            (self.channel_panel.registered, self.channel_tools.register),
            (status.accepted, workspace.accept),
            (status.other_accepted, workspace.accept_other),
            (self.channels.registration_wanted, lambda: self.channel_tools.register()),
        ):
            for slot in slots:
                signal.connect(slot)

    def _connect_form(self) -> None:
        controller = self.controller
        workspace = self.workspace
        folder = self.image_folder
        perform = controller.perform
        objects = controller.objects
        everything = controller.automatic
        ahead = controller.prefetcher
        learn = self.learn_panel
        stack = self.stack_panel
        encoding = self.encoding_panel
        automatic = self.automatic_panel
        everything.labeled_within = lambda: learn.labeled_within
        panel = self.object_panel
        objects.choose = panel.table.choose
        self.menu.menu().aboutToShow.connect(lambda: self.show_earlier(self.recovery.earlier()))
        self.exporter.table = lambda: panel.saved_table.value().settings
        self.exporter.channels = lambda: self._choice().measurable
        parts = (self.buttons, self.channel_panel, panel, stack, automatic)
        for part in (*parts, self.review_panel, encoding):
            part.acted.connect(self.act)
        for name, pressed in (
            *((name, button.clicked) for name, button in self.tracks_panel.buttons.items()),
            ("next image", self.folder_panel.next.clicked),
            ("previous image", self.folder_panel.previous.triggered),
            ("no objects", self.folder_panel.empty.clicked),
        ):
            pressed.connect(lambda _=False, name=name: self.act(name))
        for name, section in self.sections.items():
            section.pressed.connect(lambda on, name=name: self._open_by_hand(name, opened=on))
        for signal, *slots in (
            (self.sections["everything"].toggled, self._show_buttons),
            (self.models.changed, self._on_model, self._save_settings),
            (self.earlier_wanted, lambda path: perform(lambda: self._take_up(path))),
            (self.earlier_unwanted, self.recovery.throw_away),
            (self.channels.changed, self._save_settings),
            (self.compute.changed, self._on_choice, self._save_settings),
            (self.level.changed, self._on_choice),
            (self.pixel_size.stated, self._state_pixel_size),
            (self.objects.chosen, workspace.use_objects),
            (self.points.chosen, partial(workspace.use_prompt_layer, POINTS)),
            (self.boxes.chosen, partial(workspace.use_prompt_layer, BOXES)),
            (self.masks.chosen, self._on_masks),
            (self.buttons.tool_chosen, workspace.draw, self._show_tool),
            (self.candidates.chosen, lambda n: perform(lambda: controller.prompts.choose_mask(n))),
            (panel.overlap_chosen, partial(setattr, objects, "overlap"), self._save_settings),
            (panel.look_chosen, partial(setattr, self.drawing, "look"), self._on_objects),
            (panel.look_chosen, self._save_settings),
            (panel.class_chosen, objects.classify, self._save_settings),
            (panel.saved_table.changed, self._save_settings),
            (panel.table.chosen, partial(setattr, objects, "chosen"), self._show_drawing),
            (panel.table.visited, self._on_visited),
            (panel.table.opened, lambda n: perform(lambda: objects.edit(n))),
            (stack.bars.chosen, self._on_bar),
            (encoding.ahead.toggled, ahead.set_enabled, self._save_settings),
            (self.planes.activated, self._on_planes, self._save_settings),
            (self.helpers.toggled, self.rows.show_helpers, self._save_settings),
            (encoding.disk.toggled, ahead.keep_on_disk, self._save_settings),
            (
                self.tracks_panel.axis.currentIndexChanged,
                lambda _: automatic.set_series(is_series=self.tracks_panel.value() is not None),
            ),
            (automatic.sifted, lambda: everything.filter(automatic.value())),
            (automatic.like_mine.toggled, everything.set_like_mine),
            (automatic.expect_mine.toggled, everything.set_expects_mine),
            (automatic.draft_next.toggled, everything.set_drafts_next),
            (
                self.folder_panel.folder_chosen,
                lambda path: perform(lambda: folder.choose_folder(path)),
            ),
            (folder.pattern_wanted, self.folder_panel.folder.set_value),
            (self.folder_panel.order_chosen, lambda on: perform(lambda: folder.order(on))),
            (self.welcome.sample_chosen, self.open_sample),
            (self.welcome.tour_wanted, self.begin_tour),
            (learn.started, self._on_learn),
            (learn.compared, lambda after: perform(lambda: self.learning.show(after))),
            (learn.named, self.learning.keep),
        ):
            for slot in slots:
                signal.connect(slot)

    def offer_batch(self, plan: Callable[[], Plan | None]) -> None:
        """Let the user take the images of the Batch tab; `plan` says what they are."""
        button = self.folder_panel.batch
        folder = self.image_folder
        button.show()
        button.clicked.connect(lambda: self.controller.perform(lambda: folder.choose_plan(plan())))

    def open_sample(self, number: int = 0) -> None:
        """Open a real image that is offered while there is none."""
        for each in OFFERED[number].make():
            self.viewer.add_layer(Layer.create(*each))
        self.viewer.reset_view()

    def begin_tour(self) -> None:
        """Lead from a click to a saved table, on the coins if no image is open."""
        if not self.workspace.images:
            self.open_sample()
        self.tour.begin()

    def _show_tour(self, *_: Any) -> None:
        editor = self.workspace.editor
        objects = 0 if editor is None else len(editor.labels)
        drafts, _ = self.controller.review.counts
        self.tour.follow(TourState(self.workspace.prompted, objects, drafts, saved=False))

    # ----------------------------------------------------------------- settings

    def _restore_settings(self) -> TabSettings:
        settings = load_settings()
        prefetcher = self.controller.prefetcher
        self._remembered = bool(settings.model)  # that it does not suit an image is no error
        self.set_settings(settings)
        self.controller.objects.overlap = settings.overlap
        self.drawing.look = settings.look
        self.workspace.classes.add(settings.classes)
        self.rows.show_helpers(settings.show_helpers)
        self.controller.patient_view.convention = settings.planes
        prefetcher.enabled = settings.encode_ahead
        prefetcher.keep_on_disk(settings.keep_on_disk)
        return self.settings(self.workspace.classes.names)

    def _save_settings(self, *_: Any) -> None:
        now = self.settings(self.workspace.classes.names)
        if now != self._saved:
            before, self._saved = self._saved, now
            save_settings(now, before)

    def _on_preferences(self, *_: Any) -> None:
        self._follow_later.start()  # again at each letter that is typed

    def _follow_preferences(self) -> None:
        """Show and do what napari's dialog says now, or the tab of another window."""
        before = self.settings(self.workspace.classes.names)
        now = self._preferences.over(before)
        if now == before:
            return
        self.set_preferences(now)
        self.controller.objects.overlap = now.overlap
        self.drawing.look = now.look
        self._on_objects()
        if now.planes != before.planes:
            self.controller.see_planes(now.planes)
        if now.compute != before.compute:
            self._on_choice()
        self._save_settings()

    # ------------------------------------------------------------------- choice

    def _choice(self) -> FormChoice:
        return self.choice(self.workspace.images, self.image_choice.watch.versions)

    def _on_model(self) -> None:
        self._remembered = False
        self.show_model(self.controller.inference.service.in_use)
        spec = self._choice().spec
        with signals_blocked(self.channels):
            self.channels.set_inputs(None if spec is None else spec.inputs)
        self.automatic_panel.form.show_model(spec)
        self.image_choice.follow_sight()

    def _on_choice(self) -> None:
        """Start on what is chosen, or say what is wrong with it."""
        choice = self._choice()
        missing = self.models.problem() if self.models.is_missing else None
        problem = (None if missing else self.models.problem()) or self.channels.problem()
        if problem is None and choice.spec is None:
            problem = CHOOSE_MODEL
        if problem is None:
            try:
                assert choice.image is not None  # or it raises
                choice = self.learning.applied(choice)
            except (ValueError, TypeError) as error:
                problem = str(error)
        self.show_welcome(empty=not choice.images)
        used = choice.layers
        self.pixel_size.show_image(choice.geometry if problem is None else None)
        self.level.show_layers(layer for layer in choice.images if layer_key(layer) in used)
        if problem is not None and choice.images and self.image_choice.is_behind:
            return  # an image was opened just now: it is read in the next turn
        if problem is not None:
            self._refuse(choice, problem)
        elif self.workspace.session is None and self.workspace.make_layer(choice.geometry):
            self.image_choice.read_later(pause=_DRAWN)
        else:
            # Objects are restored, mended and saved without the model as well.
            self.controller.way_out = self._offer_tiny(choice, missing) if missing else None
            self.controller.choose(choice)
            self._show_tool()

    def _state_pixel_size(self, text: str, unit: str) -> None:
        """Give the layers of the chosen image a size of pixels, and look at it anew."""
        choice = self._choice()
        chosen = [layer for layer in choice.images if layer_key(layer) in choice.layers]
        try:
            state_pixel_size(chosen, text, unit)
        except ValueError as error:
            self.workspace.fail(str(error))
            return
        self._on_choice()  # before napari draws layers of unlike units, and warns
        self.viewer.reset_view()

    def _refuse(self, choice: FormChoice, problem: str) -> None:
        """Have nothing chosen, and say why, with a way out."""
        images = choice.images
        if self.workspace.session is not None:
            self._left = ref(self.workspace.session)
        self.controller.set_subject(choice.model, None, None, frozenset())
        if (self.image_folder.busy or self.image_folder.asks) and not images:
            return  # it says which image it opens, or asks
        unreadable = self.image_folder.in_hand.problem
        if unreadable and not images:
            self.workspace.fail(unreadable)
            return
        if not images:
            problem = " ".join(filter(None, [problem, self._kept]))
        kind: StatusKind = "nothing" if not images or self._remembered else "failed"
        proposed = self.controller.arrangement.proposed(images)
        if proposed is not None:
            status = Status(kind, f"{problem} {proposed.text}", offer=proposed.offer)
            self.workspace.offer(status, proposed.act)
            return
        self.workspace.offer(self._offer_tiny(choice, problem, kind), self.models.choose_embedded)

    def _on_closed(self, session: LayerSession) -> None:
        """Remember to say that what was not saved of a closed image is not lost."""
        editors = [session.editor, *(each.editor for each in session.removed.values())]
        count = max(0 if editor is None else len(editor.labels) for editor in editors)
        file = session.log
        is_kept = count and file is not None and not file.redundant
        objects, image = pluralize(count, "object"), session.geometry.name
        self._kept = KEPT.format(objects=objects, image=image) if is_kept else ""

    def _offer_tiny(self, choice: FormChoice, problem: str, kind: StatusKind = "nothing") -> Status:
        offers_tiny = choice.images and not self.models.is_embedded
        return Status(kind, problem, offer=USE_TINY if offers_tiny else "")

    # ------------------------------------------------------------------ actions

    def _take_up(self, path: Path) -> None:
        """Restore earlier work, unless something was found that this would discard."""
        if self.controller.holds_image:
            self.workspace.fail(DRAFTS_FIRST)
        else:
            self.recovery.take_up(path)

    def _review(self, name: str) -> None:
        """Go over drafts; where there are none, over the images of a folder by the same keys."""
        drafts, folder = self.controller.review, self.image_folder
        reviews_images = folder.current is not None and not drafts.has_drafts
        {
            "accept": folder.accept if reviews_images else drafts.accept,
            "reject": folder.reject if reviews_images else drafts.reject,
            "next doubtful": folder.go_on if reviews_images else drafts.go_on,
        }[name]()

    @needs_image
    def _propagate(self, session: LayerSession) -> None:
        stack = self.stack_panel
        along = stack.along_value()
        if along:
            planes = stack.planes_value(session.prompt_state.planes())
            self.controller.propagation.start(along, planes)

    @needs_image
    def _save_objects(self, session: LayerSession) -> None:
        if session.editor is None or not self.workspace.has_pixels():
            return
        path = self.exporter.ask_path(session.geometry)
        if path is None or session.editor is None:
            return
        snapshot = self.autosave.snapshot(session)
        task = self.exporter.save(
            path,
            session.geometry,
            session.editor,
            self.workspace.classes.names,
            snapshot.text,
            session.time_axis,
            self.workspace.viewed_image(),
        )
        self._snapshots[task] = snapshot

    def _on_saved(self, task: WorkerTask) -> None:
        snapshot = self._snapshots.pop(task, None)
        if snapshot is not None:
            self.autosave.mark_saved(snapshot)
            self.tour.follow(TourState(prompted=False, objects=0, drafts=0, saved=True))

    def _on_learn(self) -> None:
        panel = self.learn_panel
        self.show_section("learn")
        self.learning.learn(
            self._choice(), panel.labeled_within, all_channels=panel.takes_all_channels
        )

    def _on_masks(self, layer: Labels | None) -> None:
        self.masks.set_value(None)  # read once: later changes of that layer do not matter
        if layer is not None:
            self.controller.perform(lambda: self.controller.prompts.take_masks(layer))

    def _on_double_click(self, _: Viewer, event: Any) -> None:
        if self.workspace.prompt_layers.tool in ("point", "box", "pen"):  # otherwise napari zooms
            self.controller.edit_at(event.position)

    def _on_planes(self, _: int) -> None:
        self.controller.see_planes(self.planes.currentData())

    @needs_image
    def _on_visited(self, session: LayerSession, label: int) -> None:
        if session.editor is not None and self.workspace.has_pixels():
            show_object(self.viewer, session.geometry, session.editor, label)

    @needs_image
    def _on_bar(self, session: LayerSession, plane: Plane) -> None:
        show_plane(self.viewer, session.geometry, plane)

    # -------------------------------------------------------------------- shown

    def _on_prompts(self) -> None:
        prompted = self.workspace.prompted
        if prompted and not self._was_prompted:
            self.close_settings()
        self._was_prompted = prompted
        self._show_stack()
        self._on_prediction()
        self._show_layers()
        self._show_buttons()

    def _shown_session(self) -> LayerSession | None:
        """The session of the image; while the model cannot be used, that before it was chosen.

        Objects that are committed are not to look lost.
        """
        session, left = self.workspace.session, self._left()
        if session is None and left is not None:
            open_layers = {layer_key(layer) for layer in self.workspace.images}
            return left if open_layers & set(left.layers) else None
        return session

    def _on_objects(self) -> None:
        session = self._shown_session()
        self.object_panel.setEnabled(self.workspace.session is not None)
        classes = self.workspace.classes
        self._show_layers()
        self.show_objects(session, classes.names)
        self._show_tracks()
        self._show_learning()
        self._draw_later.start()
        self._bind_keys()
        self._save_settings()  # a typed name becomes a class when an object gets it

    def _on_prediction(self) -> None:
        self.show_candidates(self.workspace.session, self.workspace.plane_or_none())
        self._bind_keys()  # also to a preview layer that was made again

    def _show_buttons(self, *_: Any) -> None:
        self._show_tour()
        controller = self.controller
        propagation = controller.propagation
        self.show_work(
            prompted=self.workspace.prompted,
            drafts=controller.review.has_drafts,
            planes=propagation.busy or propagation.result is not None,
        )
        self._show_folder()
        self.show_buttons(
            self.workspace.session,
            commits=controller.can_commit,
            reviews=controller.review.has_drafts,
        )
        self._show_review()

    def _show_review(self) -> None:
        review = self.controller.review
        session, plane = self.workspace.session, self.workspace.plane_or_none()
        prompted = session is not None and plane is not None and session.prompt_state.on(plane)
        open_, settled = review.counts
        self.review_panel.set_state(
            drafts=open_,
            doubtful=review.doubtful,
            settled=settled,
            prompted=bool(prompted),
            left=review.left,
        )

    def _show_layers(self) -> None:
        layers = self.workspace.prompt_layers
        self.points.set_value(layers.points)
        self.boxes.set_value(layers.boxes)
        self.objects.set_value(self.workspace.objects)

    def _show_drawing(self, *_: Any) -> None:
        workspace = self.workspace
        editor = self.workspace.editor
        review = self.controller.review
        if editor is not None:
            self.drawing.draw(editor, workspace.classes.names)
        if editor is None and not review.has_drafts:
            self.drawing.remove()
        else:
            geometry = workspace.session.geometry
            chosen = self.object_panel.table.value()
            self.drawing.outline(geometry, editor, chosen, review.outlined)

    def _link_found(self, found: FoundFrames) -> None:
        self.tracks.link_all(found.axis, found=found.command, said=found.said)

    def _show_tracks(self) -> None:
        self.show_tracks(self.workspace.session, self.tracks.text, busy=self.tracks.linking)

    def _show_stack(self) -> None:
        propagation = self.controller.propagation
        self.show_stack(self.workspace.session)
        self.stack_panel.set_state(working=self.workspace.prompted, busy=propagation.busy)
        self._show_buttons()
        self.stack_panel.bars.set_bars(propagation.bars)
        self._show_plane()

    def _show_plane(self, *_: Any) -> None:
        self.stack_panel.bars.set_shown(self.workspace.plane_or_none())

    def _show_encoded(self, text: str, fraction: float) -> None:
        whole = self.controller.prefetcher.encoding_whole
        self.encoding_panel.show_encoded(text, fraction, whole=whole)

    def _show_automatic(self) -> None:
        review = self.controller.review
        self.automatic_panel.set_state(
            working=self.workspace.session is not None,
            busy=self.controller.proposing,
        )
        open_, _ = review.counts
        if open_ and not self._has_drafts:
            self.sections["everything"].set_open(False)  # what is done with them is shown instead
            self.object_panel.table.choose(())
        self._has_drafts = open_ > 0
        self._show_buttons()

    def _show_folder(self) -> None:
        folder = self.image_folder
        if folder.images and not self._has_folder:
            self.sections["folder"].set_open(False)  # what leads on is shown instead
        self._has_folder = bool(folder.images)
        can_go = folder.current is not None and not folder.busy
        editor = self.workspace.editor
        is_empty = not self.workspace.prompted and (editor is None or not editor.labels)
        held = self.controller.can_commit
        self.folder_panel.set_state(
            can_go=can_go,
            place=folder.described(),
            is_empty=is_empty,
            held=held,
            older=folder.older,
        )

    def _show_learning(self) -> None:
        editor = self.workspace.editor
        state = self.learning.state(self._choice())
        self.learn_panel.set_state(state)
        has_objects = editor is not None and editor.labels
        is_seen = state.working and (bool(has_objects) or state.adapted is not None)
        self.offer_section("learn", offered=is_seen)
        if state.progress is not None or state.adapted is not None:
            self.open_section("learn")

    def _bind_keys(self) -> None:
        workspace = self.workspace
        layers = self.workspace.prompt_layers
        own = (layers.points, layers.boxes, workspace.preview.layer, workspace.objects)
        self.keys.bind(
            [layer for layer in own if layer is not None and layer in self.viewer.layers],
            [layer for layer in workspace.images if workspace.is_used(layer)],
        )

    def _show_compute(self, *_: Any) -> None:
        """Show the device and precision in use, which change when memory runs out."""
        if (used := self.controller.inference.service.in_use) is not None:
            self.compute.show_in_use(used)
        self.show_model(used)

    def _show_tool(self, *_: Any) -> None:
        self.buttons.set_tool(self.workspace.prompt_layers.tool)
        self.controller.plane_status.say_ready_again()
