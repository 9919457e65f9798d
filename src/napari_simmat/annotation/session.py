"""A session from Python: one image annotated as in the window, without one.

The same prompts, drafts, undo history and log as in the Segment tab.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_simmat.annotation.all_planes import find_on_planes_job
from napari_simmat.annotation.annotator import AnnotationHost, Annotator
from napari_simmat.annotation.drafts import Draft
from napari_simmat.annotation.history import UndoStack
from napari_simmat.annotation.image_session import ImageSession, KindTaught
from napari_simmat.annotation.inference_service import InferenceService
from napari_simmat.annotation.label_editor import LabelArray, LabelEditor, Overlap
from napari_simmat.annotation.learning_request import adapt_job, adapt_request
from napari_simmat.annotation.lesson import Lesson, ground_marked, lesson_of
from napari_simmat.annotation.links import LINK_OVER_TIME, LinkRequest, find_links_job
from napari_simmat.annotation.naming import ALL_BY_HAND, NamingRequest, name_others_job
from napari_simmat.annotation.object_changes import MIN_VISIBLE, objects_of_drafts
from napari_simmat.annotation.pen import drawn_state
from napari_simmat.annotation.predictions import ChosenModel, Prediction, PredictionRequest
from napari_simmat.annotation.prompt_grouping import objects_on
from napari_simmat.annotation.prompt_state import Outline, Plane, Prompts, PromptState, ShapeKind
from napari_simmat.annotation.propagated import (
    NOTHING_FOUND,
    NOTHING_OPEN,
    PromptedObjects,
    Propagated,
)
from napari_simmat.annotation.proposals import KnownObjects, Proposals, choose_drafts_job, expected
from napari_simmat.annotation.saved_objects import labeled_objects
from napari_simmat.annotation.session_file import LOST
from napari_simmat.annotation.session_image import SessionImage
from napari_simmat.annotation.session_log import SessionLog
from napari_simmat.annotation.session_replay import Replayed
from napari_simmat.batch.outputs import save_objects_job
from napari_simmat.checkpoints.registry import model_reference
from napari_simmat.engine.masks import ObjectMask
from napari_simmat.engine.pen_line import drawn_line
from napari_simmat.engine.settings import (
    AutomaticSettings,
    ChannelSelection,
    Compute,
    LinkSettings,
    PropagationSettings,
)
from napari_simmat.engine.table_settings import DEFAULT_STATISTICS, TableSettings
from napari_simmat.engine.tracking.linking import Node, require_laptrack
from napari_simmat.engine.tracking.propagation import axis_spacing, propagation_axis
from napari_simmat.progress import Job, Progress, finish

logger = logging.getLogger(__name__)
T = TypeVar("T")
ON_OBJECT, ON_GROUND = 1, 0
FEWEST_VERTICES = {"path": 1, "polygon": 3, "rectangle": 4, "ellipse": 4}

NO_SHAPE = (
    "A shape is a path of one point or more, a polygon of three or more, or the four corners of a "
    "rectangle or of the box around an ellipse; this is no {}."
)
NO_IMAGE = (
    "A session is of an image from Session.open(path), SessionImage.read(path) or "
    "SessionImage.of(array), not of {}."
)
NO_OBJECTS = "Commit objects first; a model learns from at least three."
OTHER_SIZE = "The labels have the shape {}, and the planes of the image {}."
NO_MASKS = "The labels hold no object."
NO_AXIS = (
    "Objects are propagated along an axis before those of the plane; the image has the axes {}."
)
NO_TIME_AXIS = "The image has the axes {}, none of them time: say which is, e.g. axis=0."
NO_GROUND = "Commit three objects first: ground tells what is unlike them."
FINDING = "finding"
NO_PLANE = "The image has the shape {}, so a plane has {} indices, not {}."


class Session:
    """One image, annotated step by step; each step can be undone, and is logged.

    Coordinates are (y, x) in image pixels; an integer is a pixel's center. A plane is given by the
    indices of the axes before Y and X, and is ``()`` for a single image. A session is for one
    thread.

    Parameters
    ----------
    image
        What is annotated.
    model
        Name of a model, or path of its file.
    log
        File that each step is appended to. One that exists is replayed first: the session goes on
        where it ended, in the window or in Python. Without it a file is kept until the session is
        closed, for `save`.
    compute
        How the model computes.
    on_progress
        Called with each `Progress` of long work.

    Raises
    ------
    ValueError
        If the log belongs to another image, is damaged, or is in use.
    """

    def __init__(
        self,
        image: SessionImage,
        model: str | Path = "tiny",
        *,
        log: Path | str | None = None,
        compute: Compute | None = None,
        on_progress: Callable[[Progress], object] | None = None,
    ) -> None:
        if not isinstance(image, SessionImage):
            raise TypeError(NO_IMAGE.format(type(image).__name__))
        model_reference(model)  # refuses one that is loaded
        self.image = image
        self.overlap: Overlap = "keep"
        self._model = ChosenModel(model, compute=compute or Compute())
        self._service = InferenceService()
        self._on_progress = on_progress
        self._state = ImageSession(image, history=UndoStack(self._on_change))
        host = AnnotationHost(lambda: self._editor, lambda layer: self._editors[layer], self._show)
        self._annotator = Annotator(self._state, host)
        self._editors: dict[str, LabelEditor] = {}
        self._log = SessionLog(log)
        try:
            self._begin()
        except BaseException:
            self._log.close()
            raise

    @classmethod
    def open(
        cls,
        path: Path | str,
        model: str | Path = "tiny",
        *,
        selection: ChannelSelection | None = None,
        log: Path | str | None = None,
        compute: Compute | None = None,
        on_progress: Callable[[Progress], object] | None = None,
    ) -> Self:
        """A session of an image file; see the class, and `SessionImage.read`."""
        image = SessionImage.read(path, selection)
        return cls(image, model, log=log, compute=compute, on_progress=on_progress)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the log; its file stays, unless it is the session's own."""
        self._log.close()

    # --------------------------------------------------------------------- state

    @property
    def labels(self) -> NDArray[np.integer[Any]]:
        """The committed objects (..., Y, X); 0 where none is. A view of the session's own array."""
        labels: NDArray[np.integer[Any]] = self._editor.layer.data
        return labels

    @property
    def objects(self) -> list[int]:
        """The numbers of the committed objects, ascending."""
        return self._editor.labels

    @property
    def drafts(self) -> tuple[Draft, ...]:
        """The open drafts."""
        return self._state.drafts.open

    @property
    def rejected(self) -> tuple[Draft, ...]:
        """The drafts that were rejected."""
        return self._state.rejected

    def prediction(self, plane: Plane = ()) -> Prediction | None:
        """What a commit would write on a plane; None without prompts."""
        return self._state.prediction(self._plane(plane))

    # ------------------------------------------------------------------- prompts

    def click(
        self,
        y: float,
        x: float,
        *,
        positive: bool = True,
        next_object: bool = False,
        plane: Plane = (),
    ) -> Prediction:
        """Click on an object, or with `positive` false on what does not belong to it.

        With `next_object` the click begins another object beside those that are open.
        """
        plane = self._plane(plane)
        before = self._state.prompts
        here = before.on(plane)
        last = here.last_group
        point = Prompts(
            points=((*map(float, plane), float(y), float(x)),),
            labels=(ON_OBJECT if positive else ON_GROUND,),
            groups=(last + 1 if next_object and here.points else last,),
        )
        return self._prompt(before + point, plane)

    def box(self, y0: float, x0: float, y1: float, x1: float, *, plane: Plane = ()) -> Prediction:
        """Draw a box around an object; half-open, as ``bbox`` of scikit-image."""
        corners = [(y0, x0), (y0, x1), (y1, x1), (y1, x0)]
        edges = [(y - 0.5, x - 0.5) for y, x in corners]  # a pixel begins half before its center
        return self.draw("rectangle", edges, plane=plane)

    def draw(
        self,
        kind: ShapeKind,
        vertices: Sequence[Sequence[float]],
        *,
        positive: bool = True,
        plane: Plane = (),
    ) -> Prediction:
        """Draw a shape around an object, or a path over it.

        Parameters
        ----------
        kind
            ``"path"`` is a line of the pen. One that comes back within 12 pixels of its start
            closes: it outlines an object, adds what it encloses to the mask, or, negative, takes
            it away; one around the whole mask outlines its object anew. Another is a scribble,
            which mends the mask along the line. Where nothing is open, a line over a committed
            object opens that. If a line may mean two things, `other_mask` takes the other one.
            ``"rectangle"``, ``"ellipse"`` and ``"polygon"`` enclose.
        vertices
            (N, 2); the corners of a rectangle, or of the box around an ellipse. Pixel k reaches
            from k - 0.5 to k + 0.5.
        positive
            Of a path, whether it lies on the object.
        plane
            Which plane.
        """
        if len(vertices) < FEWEST_VERTICES.get(kind, 0) or kind not in FEWEST_VERTICES:
            raise ValueError(NO_SHAPE.format(kind))
        plane = self._plane(plane)
        if kind == "path":
            line = drawn_line([(float(y), float(x)) for y, x in vertices])
            _, drawn = drawn_state(self._state, plane, line, positive)
            return self._prompt(drawn.prompts, plane, drawn)
        before = self._state.prompts
        at = tuple((*map(float, plane), float(y), float(x)) for y, x in vertices)
        outline = Outline(kind, at)
        return self._prompt(replace(before, outlines=(*before.outlines, outline)), plane)

    def other_mask(self, *, plane: Plane = ()) -> Prediction:
        """Choose the next of the model's candidates for the last object."""
        plane = self._plane(plane)
        self._annotator.choose_mask(plane)
        return self._predict(plane)

    def take_masks(self, labels: NDArray[np.integer[Any]], *, plane: Plane = ()) -> Prediction:
        """Refine each object of other labels (Y, X) on a plane: it becomes an open object.

        Raises
        ------
        ValueError
            If they have another size, or hold no object.
        """
        plane = self._plane(plane)
        values = np.asarray(labels)
        if values.shape != self._shape_yx:
            raise ValueError(OTHER_SIZE.format(values.shape, self._shape_yx))
        numbers = [number for number in np.unique(values).tolist() if number]
        if not numbers:
            raise ValueError(NO_MASKS)
        masks = [ObjectMask.of(values == number, (*plane, 0, 0)) for number in numbers]
        self._annotator.take_masks("labels", masks)
        return self._predict(plane)

    def discard(self, *, plane: Plane = ()) -> None:
        """Remove the open prompts of a plane."""
        self._annotator.clear(self._plane(plane))

    def _prompt(
        self, prompts: Prompts, plane: Plane, drawn: PromptState | None = None
    ) -> Prediction:
        before = self._state.prompt_state
        self._state.set_prompts(prompts, drawn=drawn)
        try:
            return self._predict(plane)
        except Exception:
            self._state.history.drop_last()  # what cannot be predicted from was never drawn
            self._state.prompt_state = before
            raise

    def _predict(self, plane: Plane) -> Prediction:
        state = self._state.prompt_state.on(plane)
        objects = objects_on(state, plane, self._shape_yx)
        request = self._request(plane)
        request = replace(request, objects=objects, choices=state.choices, state=state)
        prediction = self._run(self._service.predict_job(replace(request, whole=True)))
        assert prediction is not None, "no newer request replaces it"
        self._state.predictions[plane] = (state, prediction)
        return prediction

    # ------------------------------------------------------------------- objects

    def commit(self, category: str = "", *, plane: Plane = ()) -> list[int]:
        """Write what is predicted on a plane as objects; returns their numbers."""
        plane = self._plane(plane)
        prediction = self.prediction(plane)
        return self._annotator.commit(plane, prediction, str(category), self.overlap).labels

    def edit(self, label: int, *, plane: Plane = ()) -> Prediction:
        """Open a committed object with its prompts, so that clicks correct it."""
        plane = self._plane(plane)
        self._annotator.edit(plane, label)
        return self._predict(plane)

    def delete(self, *labels: int) -> None:
        """Remove committed objects."""
        self._annotator.delete(labels)

    def merge(self, *labels: int) -> int:
        """Merge objects into the one with the smallest number, which is returned."""
        return self._annotator.merge(labels)

    def split(self, label: int, points: Sequence[Sequence[int]] = ()) -> list[int]:
        """Split an object, around points (N, axes) or into its separate pieces."""
        return self._annotator.split(label, points)

    def classify(self, category: str, *labels: int) -> None:
        """Set the class of objects; an empty name removes it."""
        self._annotator.classify(labels, str(category))

    def name_others(self) -> str:
        """Class all objects that were not classed by hand, by those that were.

        Returns
        -------
        str
            How many were named, and how many of the known ones the others name right.

        Raises
        ------
        ValueError
            If fewer than three objects of each of two classes were classed by hand.
        """
        naming = NamingRequest.of(self._editor)
        if naming.names_none:
            raise ValueError(ALL_BY_HAND)
        request = self._request((0,) * (len(self.image.shape) - 2))
        channels = list(self.image.channels.values())
        found = self._run(name_others_job(self._service, request, naming, channels))
        return self._annotator.name_others(found)

    # --------------------------------------------------------- stacks and series

    def propagate(
        self,
        settings: PropagationSettings | None = None,
        *,
        axis: int | None = None,
        planes: tuple[int, int] | None = None,
        category: str = "",
    ) -> list[int]:
        """Carry the open objects of all planes through the stack, and write what is found.

        Parameters
        ----------
        settings
            When an object continues on the next plane, and when it has ended.
        axis
            Along which; by default depth, or the last axis before Y and X that has planes.
        planes
            The first and the last index along it; all by default.
        category
            Class of new objects.

        Returns
        -------
        list of int
            The objects' numbers.

        Raises
        ------
        ValueError
            If there are no planes, or nothing is open, or nothing was found.
        """
        axis = propagation_axis(self.image.axes, self.image.shape) if axis is None else axis
        if axis is None or not 0 <= axis < len(self.image.shape) - 2:
            raise ValueError(NO_AXIS.format(self.image.axes))
        prompted = PromptedObjects.of(self._state.prompt_state, self.image.shape)
        if not prompted.objects:
            raise ValueError(NOTHING_OPEN)
        planes = planes or (0, self.image.shape[axis] - 1)
        stack = prompted.request((axis,), planes, self._spacing, settings)
        request = self._request(prompted.planes[0])
        tracks = self._run(self._service.propagate_job(request, stack))
        found = Propagated(prompted, tuple(tracks))
        if not found.planes:
            raise ValueError(NOTHING_FOUND)
        objects = found.new_objects(str(category))
        return self._annotator.write(
            "propagation", objects, overlap=self.overlap, closing=prompted.planes
        ).labels

    def link_over_time(self, settings: LinkSettings | None = None) -> str:
        """Link all objects over time: an object has one id on all its frames.

        Parameters
        ----------
        settings
            How, and along which axis; by default T. Those of `along="depth"` join the sections of
            objects on the planes of a stack, by default along its first axis.

        Returns
        -------
        str
            How many tracks and divisions, or objects, there are.
        """
        settings = settings or LINK_OVER_TIME
        usual = 0 if settings.along == "depth" else None
        axis = self._time_axis(usual if settings.axis is None else settings.axis)
        request = LinkRequest.of_all(self._editor, axis, settings, self._spacing)
        return self._link(request)

    def link(
        self, first: tuple[int, int], second: tuple[int, int], *, axis: int | None = None
    ) -> str:
        """Link two objects on two frames, each given by its frame and its number there.

        The time axis is by default T. A third object that follows one makes a division.
        """
        nodes = Node(*first), Node(*second)
        return self._link(LinkRequest.of_two(self._editor, self._time_axis(axis), nodes))

    def cut(
        self, first: tuple[int, int], second: tuple[int, int], *, axis: int | None = None
    ) -> str:
        """Cut the link of two objects, given as for `link`; the later one gets an id of its own."""
        nodes = Node(*first), Node(*second)
        return self._link(LinkRequest.of_two(self._editor, self._time_axis(axis), nodes, cut=True))

    def _link(self, request: LinkRequest) -> str:
        found = self._run(find_links_job(request))
        self._annotator.link(found)
        return found.described()

    def _time_axis(self, given: int | None) -> int:
        axis = self.image.axes.find("T") if given is None else given
        if not 0 <= axis < len(self.image.shape) - 2:
            raise ValueError(NO_TIME_AXIS.format(self.image.axes))
        return axis

    # -------------------------------------------------------------------- drafts

    def propose(
        self, settings: AutomaticSettings | None = None, *, plane: Plane = ()
    ) -> tuple[Draft, ...]:
        """Propose all objects of a plane as drafts, in place of those before.

        From three committed objects on they tell the size of what is looked for, and with ground
        (`mark_ground`) also its looks. Returns the open drafts.
        """
        settings = settings or AutomaticSettings(second_look=True)
        plane = self._plane(plane)
        request = self._request(plane)
        lesson = self._lesson(plane)
        proposed = self._run(self._service.propose_job(request, settings, None, lesson))
        if proposed.looks_again:
            job = self._service.look_again_job(request, settings, proposed.candidates)
            proposed = self._run(job)
        if lesson is not None and proposed.kind is not None:
            text = expected(lesson, kind=proposed.kind)
            self._state.taught = KindTaught(request.model, proposed.kind, text)
        proposals = Proposals(
            self._state, request, None, (), plane, lesson=lesson, candidates=proposed.candidates
        )
        known = KnownObjects(np.array(self.labels[plane]), self._state.drafts.settled)
        chosen = self._run(choose_drafts_job(proposals, settings, known))
        self._state.drafts.propose(chosen.drafts)
        self._on_change("drafts", chosen.drafts)
        return self.drafts

    def find_on_frames(
        self,
        settings: AutomaticSettings | None = None,
        *,
        link: LinkSettings | None = None,
        category: str = "",
    ) -> list[int]:
        """Find all objects on all frames of a time series, and give each one id over time.

        They are written as objects in one step, in place of open drafts. What is committed or
        rejected is not found again; committed objects are linked with the others, and may get
        another id.

        Parameters
        ----------
        settings
            How objects are found, as of `propose`.
        link
            How they are linked. Its axis is that of time; by default the image's axis T.
        category
            Class of the new objects.

        Returns
        -------
        list of int
            The numbers of the objects that were found, as they are after linking.

        Raises
        ------
        ValueError
            If no axis is time, or laptrack is missing.
        """
        require_laptrack()  # before minutes are spent
        link = link or LinkSettings()
        axis = self._time_axis(link.axis)
        planes = list(np.ndindex(*self.image.shape[:-2]))
        lesson, request = self._lesson(planes[0]), self._request(planes[0])
        found = self._run(
            find_on_planes_job(
                self._service,
                Proposals(self._state, request, None, (), planes[0], lesson=lesson),
                planes,
                settings or AutomaticSettings(second_look=True),
                None,
                lambda plane: np.array(self.labels[plane]),
                self._state.drafts.settled,
            )
        )
        self._state.drafts.propose(None)
        self._on_change("drafts", None)
        if not found:
            return []
        objects = objects_of_drafts(found, str(category))
        self._annotator.write(FINDING, objects, overlap=self.overlap, min_visible=MIN_VISIBLE)
        command = self._state.history.last
        linking = LinkRequest.of_all(self._editor, axis, link, self._spacing)
        links = self._run(find_links_job(linking))
        self._annotator.link(links, part_of=command)
        pixels = [self.labels[each.mask.region][each.mask.mask] for each in found]
        numbers = [int(np.bincount(values).argmax()) for values in pixels]
        return sorted(set(numbers) - {0})

    def accept(self, *drafts: Draft, category: str = "") -> list[int]:
        """Write drafts as objects, by default all that are open; returns the objects' numbers."""
        wanted = drafts or self.drafts
        return self._annotator.accept(wanted, str(category), self.overlap).labels

    def reject(self, *drafts: Draft) -> None:
        """Take drafts away; what is like them is not proposed again."""
        self._annotator.reject(drafts)

    def open_draft(self, draft: Draft) -> Prediction:
        """Open a draft, so that clicks correct it before it is committed."""
        self._annotator.open_draft(draft)
        return self._predict(draft.plane)

    def mark_ground(self, vertices: Sequence[Sequence[float]], *, plane: Plane = ()) -> None:
        """Draw a line over ground, where no object is: the next `propose` learns from it.

        Raises
        ------
        ValueError
            If fewer than three objects are committed: their size decides how wide the line is.
        """
        plane = self._plane(plane)
        lesson = self._lesson(plane)
        if lesson is None:
            raise ValueError(NO_GROUND)
        line = drawn_line([(float(y), float(x)) for y, x in vertices])
        at = tuple((*map(float, plane), float(y), float(x)) for y, x in line)
        drawn = Prompts(outlines=(Outline("path", at, ON_GROUND),))
        ground = ground_marked(drawn, plane, (), self._shape_yx, lesson.side)
        assert ground is not None, "it is a negative path alone"
        self._annotator.mark_ground(ground)

    def _lesson(self, plane: Plane) -> Lesson | None:
        return lesson_of(self._editor, self._state.drafts.ground, (), plane)

    # ------------------------------------------------------------------ learning

    def learn(self, config: Any = None, *, complete: bool = False) -> str:
        """Adapt the model to the committed objects, and go on with what was learned.

        Parameters
        ----------
        config
            A `FewShotConfig`; None for the defaults.
        complete
            Whether all objects are labeled on each plane with objects.

        Returns
        -------
        str
            What it gained; the model stays as it was if that is nothing.
        """
        if len(self.objects) < 3:
            raise ValueError(NO_OBJECTS)
        request = adapt_request(
            self._state,
            self._model,
            self.image.value,
            lambda planes: [complete] * len(planes),
            name=self.image.name,
        )
        outcome = self._run(adapt_job(request, self._log.path, config))
        if outcome.adapted is not None:
            self._state.adapted = outcome.adapted
            self._state.clear_predictions()
            self._on_change("adapted", outcome.adapted)
            self._log.remove_models(outcome.adapted.file)
        return outcome.result.sentence

    @property
    def learned(self) -> Path | None:
        """The checkpoint that was learned from the image, which `load_model` reads; or None."""
        adapted = self._state.adapted
        return None if adapted is None else self._log.beside(adapted.file)

    # ------------------------------------------------------------------- history

    def undo(self) -> str:
        """Undo the last step; returns its name, empty if there is none."""
        command = self._annotator.undo()
        return "" if command is None else command.name

    def redo(self) -> str:
        """Redo the step that was undone last; returns its name, empty if there is none."""
        command = self._annotator.redo()
        return "" if command is None else command.name

    def _show(self, state: PromptState) -> None:
        """Take over prompts, and predict again where there are some and the prediction is gone.

        Those of a side view, which the window has and this does not, are kept for the window.
        """
        self._state.prompt_state = state
        if state.order:
            return
        for plane in state.planes():
            if state.on(plane).has_prompts and self._state.prediction(plane) is None:
                self._predict(plane)

    # --------------------------------------------------------------------- files

    def save(
        self,
        folder: Path | str,
        stem: str = "",
        *,
        statistics: Sequence[str] = DEFAULT_STATISTICS,
        indices: Sequence[str] = (),
    ) -> list[Path]:
        """Write ``STEM_labels.tif``, ``STEM_objects.csv`` and ``STEM_session.jsonl``.

        As the window's *Save* does, with classes and tracks where there are some. Returns the
        files.

        Parameters
        ----------
        folder, stem
            Where, and how all names begin; by default with the image's name.
        statistics
            Of each object in each channel: some of mean, median, std, sum, min, max, and
            percentiles such as ``"p95"``.
        indices
            Spectral indices, as `engine.channels.indices.parse_index` reads them.

        Raises
        ------
        ValueError
            If a file cannot be written, or there is no such statistic, index or band.
        """
        folder = Path(folder)
        stem = stem or self.image.name
        classes = dict.fromkeys(
            entry.category for entry in self._editor.register.entries.values() if entry.category
        )
        objects = labeled_objects(
            self._editor,
            axes=self.image.axes,
            reference=self.image.reference,
            name=self.image.name,
            classes=tuple(classes),
            time_axis=self._linked_along,
            image=self.image.value,
            channels=self.image.channels,
            table=TableSettings(statistics=tuple(statistics), indices=tuple(indices)),
        )
        written = self._run(save_objects_job(folder, stem, objects))
        session = folder / f"{stem}_session.jsonl"
        self._log.copy_to(session)
        return [*written, session]

    @property
    def _linked_along(self) -> int | None:
        """The time axis of tracks; None if there are none."""
        if self._state.time_axis is None and self._editor.parents:
            return max(self.image.axes.find("T"), 0)  # linked before the session was opened
        return self._state.time_axis

    def _begin(self) -> None:
        """Begin a log, or go on where one ended."""
        state = self._log.replayed(self.image.shape)
        if state is None:
            self._log.begin(self.image, Path(self._model.reference).name)
        else:
            self._restore(state)
        if self._state.editor is None:
            self._add_labels(np.zeros(self.image.shape, np.int32))

    def _restore(self, state: Replayed) -> None:
        """Take over what the log holds."""
        keys = {}
        for key, labels in state.labels.items():
            editor = self._add_labels(labels)
            editor.register.entries = dict(state.entries.get(key, {}))
            self._log.go_on(editor, key)
            keys[key] = editor.key
        self._state.history.restore(state.history, keys)
        self._state.drafts = state.drafts
        self._state.adapted = state.adapted
        if self.learned is not None and not self._log.holds(state.adapted):
            logger.warning("%s: %s", self._log.path.name, LOST)
            self._state.adapted = None
        self._show(state.views.get((), PromptState()))

    def _add_labels(self, labels: NDArray[np.integer[Any]]) -> LabelEditor:
        editor = LabelEditor(LabelArray(labels))
        self._editors[editor.key] = editor
        self._state.editor = editor
        return editor

    def _on_change(self, what: str, value: Any) -> None:
        self._log.add(what, value, self._state.editor)

    # ------------------------------------------------------------------- helpers

    @property
    def _editor(self) -> LabelEditor:
        assert self._state.editor is not None, "it is made with the session"
        return self._state.editor

    def _request(self, plane: Plane) -> PredictionRequest:
        model = self._model
        if self.learned is not None:
            model = model._replace(reference=self.learned)
        return PredictionRequest(model, self.image.value, plane)

    def _run(self, job: Job[T]) -> T:
        return finish(job, self._on_progress)

    @property
    def _spacing(self) -> tuple[float, ...]:
        return axis_spacing(self.image.axes, self.image.reference.scale)

    @property
    def _shape_yx(self) -> tuple[int, int]:
        height, width = self.image.shape[-2:]
        return height, width

    def _plane(self, plane: Plane) -> Plane:
        """The plane, if the image has it, as the tuple that prompts are filed under."""
        stacked = self.image.shape[:-2]
        inside = len(plane) == len(stacked) and all(
            0 <= index < size for index, size in zip(plane, stacked, strict=True)
        )
        if not inside:
            raise ValueError(NO_PLANE.format(self.image.shape, len(stacked), tuple(plane)))
        return tuple(plane)
