"""Segment an image, or a folder of images, with one call: `segment` and `segment_folder`.

They do what `simmat segment` does, with the same masks, tables and records.
"""

from __future__ import annotations

import base64
import html
import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from io import BytesIO, StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_simmat._text import format_shape, pluralize
from napari_simmat.batch.given_image import (
    GivenPrompts,
    GivenSize,
    channels_of,
    content_digest,
    image_of,
    prompts_of,
    settings_of,
    sizes_of,
)
from napari_simmat.batch.inputs import AUTO, find_inputs
from napari_simmat.batch.loaded_image import (
    NOTHING_TO_PROPAGATE,
    LoadedImage,
    OpenedImage,
    linked_along,
    load_task,
    read_task_prompts,
)
from napari_simmat.batch.nested import inner_plan, refuse_nested, segment_nested_job
from napari_simmat.batch.outputs import MaskPixels, object_table, record_of, write_result
from napari_simmat.batch.overlays import overlay, overlay_plane
from napari_simmat.batch.plan import (
    TRACKS,
    ExistingPolicy,
    OutputFiles,
    Plan,
    SegmentConfig,
    SegmentTask,
    plan,
)
from napari_simmat.batch.record import Record
from napari_simmat.batch.run_plan import idle_options, run_plan_job
from napari_simmat.batch.segment_image import SegmentedImage, TaskOutcome, segment_loaded_job
from napari_simmat.batch.shown import ShowProgress, frame, pandas_module, shown, table_html
from napari_simmat.batch.summary import ALL_OBJECTS, SUMMARY_PAGE
from napari_simmat.checkpoints.loading import load_model
from napari_simmat.checkpoints.registry import find_model, model_reference
from napari_simmat.engine.everything.idle_settings import idle_sentence
from napari_simmat.engine.settings import (
    AutomaticSettings,
    ChannelSelection,
    Compute,
    LinkSettings,
    PropagationSettings,
)
from napari_simmat.engine.table_settings import TableSettings
from napari_simmat.io.files import as_text
from napari_simmat.io.part import WHOLE, ImagePart
from napari_simmat.progress import finish

if TYPE_CHECKING:
    import pandas as pd

    from napari_simmat.engine.predictor import Predictor

logger = logging.getLogger(__name__)

TOO_LARGE = (
    "The labels of {} do not fit into memory; let segment_folder write them, tile by tile, or give "
    "a part of the image."
)
EXISTS = "{} exists already; give overwrite=True to replace it, or another folder."
NOT_FOR_ARRAYS = "A part is of a file; cut it out of the array itself: image[..., 0:512, 0:512]."
NOT_FOR_PATHS = "{} is for arrays; the file {} says it itself."
SHOWN_SIDE = 512
"""Of the picture of a result in a notebook."""


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The objects of an image; made by `segment`.

    NumPy and napari take it for its labels: ``numpy.asarray(result)``.

    Attributes
    ----------
    labels
        (..., Y, X) of whole numbers, 0 for the background.
    objects
        A dict of measurements for each object: the rows of the table.
    columns
        Their names, in the order of the table.
    axes
        Letters of the axes of `labels`.
    note
        What is worth saying, as sentences, mostly empty: what to try where too little was found,
        settings without effect. It is logged as a warning, too.
    """

    labels: NDArray[Any]
    objects: list[dict[str, object]]
    columns: list[str]
    axes: str
    note: str
    _segmented: SegmentedImage = field(repr=False)
    _pixels: MaskPixels = field(repr=False)

    @property
    def name(self) -> str:
        """Of the image."""
        return self._segmented.loaded.task.name

    @property
    def table(self) -> pd.DataFrame:
        """The measurements as a DataFrame, one row for each object; ImportError without pandas."""
        return frame(self.objects, self.columns)

    @property
    def record(self) -> Record:
        """How it was made: everything that the result depends on, which replays it."""
        segmented = self._segmented
        return record_of(segmented, self._pixels, {}, time.monotonic() - segmented.seconds)

    @property
    def overlay(self) -> NDArray[np.uint8]:
        """The image with its objects (Y, X, 3); of a stack the plane most covered by them."""
        found = self._segmented
        return overlay(found.loaded, found.stack, self.labels, self.objects, in_parts=False)

    def save(
        self,
        folder: Path | str,
        stem: str = "",
        *,
        extras: Sequence[str] = (),
        overwrite: bool = False,
    ) -> dict[str, Path]:
        """Write what `simmat segment` writes: labels, table and record.

        Parameters
        ----------
        folder, stem
            Where, and how all names begin; by default with the image's name, of an array "image".
        extras
            More of them: ``"overlay"``, ``"coco"``, ``"geojson"``, ``"rois"``, ``"parquet"``, ...
        overwrite
            Replace files that exist.

        Returns
        -------
        The files by kind.

        Raises
        ------
        ValueError, OSError
            If a file exists, a format cannot hold the objects, or the disk is full.
        """
        segmented = self._segmented
        loaded = segmented.loaded
        extras = _with_tracks(extras, loaded.config.link)
        files = OutputFiles.of(loaded.task.image, Path(folder).expanduser(), extras, stem)
        for path in files:
            if path.exists() and not overwrite:
                raise ValueError(EXISTS.format(path))
        files.record.parent.mkdir(parents=True, exist_ok=True)
        task = replace(loaded.task, files=files)
        write_result(replace(segmented, loaded=replace(loaded, task=task)))
        return {**files.recorded, "record": files.record}

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """The labels."""
        return np.array(self.labels, dtype=dtype, copy=bool(copy))

    def __repr__(self) -> str:
        """``<Segmentation of coins: 24 objects, YX 303 x 384, tiny-6>``."""
        model = self._segmented.request.model.name
        count = pluralize(len(self.objects), "object")
        size = f"{self.axes} {format_shape(self.labels.shape)}"
        return f"<Segmentation of {self.name}: {count}, {size}, {model}>"

    def _repr_html_(self) -> str:
        """For notebooks: the picture and the first rows of the table."""
        plane = overlay_plane(self.axes, self.labels)
        title = f"{self!r}{plane and f', {plane}'}"
        return _as_html(title, self.overlay, self.objects, self.columns)


@dataclass(frozen=True, eq=False)
class FolderSegmentation:
    """What became of the images of a folder; made by `segment_folder`.

    Attributes
    ----------
    output
        The folder of the outputs.
    outcomes
        Of each image: whether it was written, kept or failed, how many objects, a remark.
    children
        The same of the smaller objects within, if they were asked for: its table says the parent of
        each, and the table here how many children each object has.
    """

    output: Path
    outcomes: tuple[TaskOutcome, ...]
    _plan: Plan = field(repr=False)
    children: FolderSegmentation | None = None
    _tables: tuple[tuple[str, str], ...] = field(repr=False, default=())
    """Image and text of each table as the run wrote it; one table of all images names them itself.
    A later run into the folder replaces the files."""

    @property
    def failed(self) -> dict[Path, str]:
        """Images that failed, and why."""
        return {each.task.image: each.note for each in self.outcomes if each.status == "failed"}

    @property
    def labels(self) -> dict[Path, Path]:
        """The label image of each image that has one."""
        return {
            each.task.image: each.task.files.labels
            for each in self.outcomes
            if each.status != "failed"
        }

    @property
    def report(self) -> Path | None:
        """The page with thumbnails; None for a single image."""
        return self.output / SUMMARY_PAGE if self._plan.several else None

    @property
    def table(self) -> pd.DataFrame:
        """The objects of all images, one row each; ImportError without pandas."""
        pandas = pandas_module()
        frames = []
        for image, text in self._tables:
            # As in `Segmentation.table`, a class such as NA or 007 is a text.
            found = pandas.read_csv(
                StringIO(text),
                dtype=dict.fromkeys(_TEXT_COLUMNS, str),
                keep_default_na=False,
                na_values=[""],
            )
            found = found.fillna(dict.fromkeys(_TEXT_COLUMNS, ""))
            for name in found.columns.intersection(_TEXT_COLUMNS):
                found[name] = found[name].map(as_text)
            if image:
                found.insert(0, "image", image)
            frames.append(found)
        return pandas.concat(frames, ignore_index=True) if frames else pandas.DataFrame()

    def __repr__(self) -> str:
        """``<FolderSegmentation results: 12 images, 1 failed, 340 objects>``."""
        count = sum(each.objects for each in self.outcomes)
        failed = f", {len(self.failed)} failed" if self.failed else ""
        images = pluralize(len(self.outcomes), "image")
        objects = pluralize(count, "object")
        return f"<FolderSegmentation {self.output.name}: {images}{failed}, {objects}>"


def segment(
    image: Any,
    prompts: GivenPrompts = AUTO,
    *,
    model: str | Path = "tiny",
    axes: str = "",
    plane: str = "",
    channel_axis: int | None = None,
    channel_names: Sequence[str] | None = None,
    channels: Sequence[int | str] | None = None,
    pixel_size: GivenSize = None,
    unit: str = "",
    part: ImagePart = WHOLE,
    propagate: bool | PropagationSettings = False,
    link: bool | LinkSettings = False,
    automatic: AutomaticSettings | None = None,
    table: TableSettings | None = None,
    compute: Compute | None = None,
    progress: ShowProgress = True,
) -> Segmentation:
    """Segment an image: everything in it, or what prompts show.

    Parameters
    ----------
    image
        A path; an array (..., Y, X) of numpy, dask or zarr, or a picture (Y, X, 3); an xarray
        DataArray; a napari layer.
    prompts
        ``"auto"`` for all objects; a list with one prompt for each object: a click ``(y, x)``, a
        box ``(y0, x0, y1, x1)`` (in a stack the plane's indices before it), a `Prompt` or a dict
        of its parts; labels of the image's shape, each a mask; a prompt file or a record.
    model
        A name that `simmat models list` shows, or a model's file.
    axes
        A letter for each axis: ``"CYX"`` of an array, ``"TYX"`` of a film that its file takes for
        a stack.
    plane
        One plane of a stack or a projection: ``"Z=12"``, ``"Z=max"``, ``"T=0,Z=max"``; all by
        default. Prompts then have no such axis.
    channel_axis, channel_names
        Of an array: the axis of its channels, and their names.
    channels
        Those that the model reads, in its order; by name or number.
    pixel_size, unit
        Size of a pixel: one number, one for each axis, or by letter; of a file one number, or those
        of its last two or three axes. What is given counts, whatever a file says.
    part
        Of a file: a level, a region, a size of pixels.
    propagate
        Carry the objects of prompts through a stack, with these settings.
    link
        Link objects over time, with these settings: an object has one id on all its frames. The
        axis of time is T of `axes` or of the file, else that of the settings.
    automatic, table, compute
        How everything is segmented, what is measured, and on which device.
    progress
        Show a bar, or call this with each step.

    Returns
    -------
    Segmentation
        Labels, a row of measurements for each object, the record.

    Raises
    ------
    ValueError, TypeError, OSError
        If image, prompts and model do not fit, in one sentence.

    Examples
    --------
    >>> from napari_simmat import segment
    >>> from skimage.data import coins
    >>> result = segment(coins(), [(50, 45), (119, 271)])
    >>> result.labels.max()
    np.uint32(2)
    """
    config = SegmentConfig(
        model=model_reference(model),
        selection=ChannelSelection(channels=channels_of(channels), plane=plane),
        part=settings_of(part, ImagePart),
        compute=settings_of(compute, Compute),
        automatic=settings_of(automatic, AutomaticSettings),
        link=_if_wanted(link, LinkSettings),
        table=settings_of(table, TableSettings),
    )
    about = {
        "axes": axes,
        "channel_axis": channel_axis,
        "channel_names": channel_names,
        "pixel_size": pixel_size,
        "unit": unit,
    }
    with TemporaryDirectory(prefix="simmat-") as folder:
        loaded = _load(image, prompts, config, Path(folder), about)
        if (propagation := _if_wanted(propagate, PropagationSettings)) is not None:
            if loaded.prompts is None:
                raise ValueError(NOTHING_TO_PROPAGATE.format(loaded.task.name))
            if len(loaded.shape) > 2:
                loaded = replace(loaded, config=replace(loaded.config, propagation=propagation))
        prompted = loaded.prompts is not None
        linked, opened = linked_along(loaded.config, loaded, loaded.task.name, has_prompts=prompted)
        loaded = replace(loaded, config=linked, axes=opened.axes)
        if loaded.task.files.are_in_zarr:
            raise ValueError(TOO_LARGE.format(loaded.task.name))
        with _predictor(config) as predictor:
            found = shown(segment_loaded_job(loaded, predictor), progress)
            assert isinstance(found, SegmentedImage)
            if loaded.prompts is None:
                idle = idle_sentence(config.automatic, predictor.model.spec)
                found = replace(found, note=" ".join(filter(None, (found.note, idle))))
    _tell(loaded.task.name, found.note)
    (columns, rows), pixels = object_table(found)
    labels = found.volume.labels
    return Segmentation(labels, rows, columns, loaded.axes, found.note, found, pixels)


def segment_folder(
    folder: Path | str | Sequence[Path | str],
    output: Path | str,
    prompts: str | Path = AUTO,
    *,
    model: str | Path = "tiny",
    pattern: str = "",
    extras: Sequence[str] = (),
    existing: ExistingPolicy = "refuse",
    channels: Sequence[int | str] | None = None,
    children: Sequence[int | str] | None = None,
    channel_axis: int | None = None,
    pixel_size: float | Sequence[float] | None = None,
    unit: str = "",
    axes: str = "",
    plane: str = "",
    part: ImagePart = WHOLE,
    propagate: bool | PropagationSettings = False,
    link: bool | LinkSettings = False,
    automatic: AutomaticSettings | None = None,
    table: TableSettings | None = None,
    compute: Compute | None = None,
    progress: ShowProgress = True,
) -> FolderSegmentation:
    """Segment all images of a folder into another one, as `simmat segment` does.

    Parameters
    ----------
    folder
        A folder, a pattern (``"data/**/*.tif"``), a manifest, an image, or several of them.
    output
        Folder of the label images, tables and records.
    prompts
        ``"auto"`` for all objects; ``"same-stem"`` for prompt files beside the images; or one
        prompt file for all.
    model
        A name that `simmat models list` shows, or a model's file.
    pattern
        Which files of a folder, e.g. ``"*.tif"``.
    extras
        More outputs: ``"overlay"``, ``"coco"``, ``"geojson"``, ``"parquet"``, ...
    existing
        What happens to outputs that exist: ``"refuse"``, ``"resume"`` to keep what was made the
        same way, or ``"overwrite"``.
    channels, channel_axis, pixel_size, unit, axes, plane
        As for `segment`, of all images.
    children
        Channels in which smaller objects are found that lie within the others, e.g. nuclei in
        cells.
    part, propagate, link, automatic, table, compute, progress
        As for `segment`.

    Returns
    -------
    FolderSegmentation
        What became of each image. An image that fails does not stop the others; see `failed`.

    Raises
    ------
    ValueError, OSError
        If there is no image, an output exists, or another run makes an image of this one
        differently at the moment; several of the same settings share the images.
    """
    linking = _if_wanted(link, LinkSettings)
    extras = _with_tracks(extras, linking)
    given = [folder] if isinstance(folder, (str, Path)) else list(folder)
    inputs = find_inputs([Path(each).expanduser() for each in given], pattern=pattern)
    planned = plan(
        inputs, output=Path(output), prompts=str(prompts), existing=existing, extras=extras
    )
    config = SegmentConfig(
        model=model_reference(model),
        selection=ChannelSelection(
            channels=channels_of(channels),
            channel_axis=channel_axis,
            pixel_size=sizes_of(pixel_size),
            unit=unit,
            axes=axes,
            plane=plane,
        ),
        part=settings_of(part, ImagePart),
        compute=settings_of(compute, Compute),
        automatic=settings_of(automatic, AutomaticSettings),
        propagation=_if_wanted(propagate, PropagationSettings),
        link=linking,
        table=settings_of(table, TableSettings),
    )
    if children is not None:
        return _segment_nested(planned, config, channels_of(children), str(prompts), progress)
    outcomes = shown(run_plan_job(planned, config), progress)
    _tell_all(planned, config, outcomes)
    return FolderSegmentation(
        planned.output, tuple(outcomes), planned, None, _tables_of(planned, outcomes)
    )


def _segment_nested(
    planned: Plan,
    config: SegmentConfig,
    children: tuple[int | str, ...] | None,
    prompts: str,
    progress: ShowProgress,
) -> FolderSegmentation:
    refuse_nested(prompts, config.part)
    inside = inner_plan(planned)
    selection = replace(config.selection, channels=children)
    outer, inner, files = shown(segment_nested_job(planned, inside, config, selection), progress)
    _tell_all(planned, config, [*outer, *inner])
    # A table of a single image does not name it.
    names = [each.task.name for each in outer] if len(outer) == 1 else [""]
    of_outer, of_inner = (
        (((names[0], file.read_text("utf-8")),) for file in files) if files else ((), ())
    )
    within = FolderSegmentation(inside.output, tuple(inner), inside, None, of_inner)
    return FolderSegmentation(planned.output, tuple(outer), planned, within, of_outer)


def _tell_all(planned: Plan, config: SegmentConfig, outcomes: Sequence[TaskOutcome]) -> None:
    """Say what is worth saying of a run, and of each image."""
    _tell(planned.output.name, idle_options(planned, config))
    for one in outcomes:
        _tell("" if one.status == "failed" else one.task.name, one.note)


def _tell(name: str, note: str) -> None:
    """Log what would else stand in an attribute that nobody reads; Python prints it by itself."""
    if note:
        logger.warning("%s", f"{name}: {note}" if name else note)


_TEXT_COLUMNS = ("image", "class")


def _tables_of(planned: Plan, outcomes: Sequence[TaskOutcome]) -> tuple[tuple[str, str], ...]:
    """Image and text of each table that a run wrote, for `FolderSegmentation`."""
    files = [("", planned.output / ALL_OBJECTS)]
    if not planned.several:
        written = [each.task for each in outcomes if each.status != "failed"]
        files = [(task.name, task.files.objects) for task in written]
    return tuple((image, file.read_text("utf-8")) for image, file in files if file.is_file())


def _load(
    image: Any,
    prompts: GivenPrompts,
    config: SegmentConfig,
    folder: Path,
    about: Mapping[str, Any],
) -> LoadedImage:
    """The image with its prompts; `folder` is where its outputs would be."""
    file = None
    if isinstance(prompts, (str, Path)) and str(prompts) != AUTO:
        file = Path(prompts).expanduser()
    if isinstance(image, (str, Path)):
        path = Path(image).expanduser()
        for_arrays = ("channel_axis", "channel_names")
        if given := [name for name in for_arrays if about[name] is not None]:
            raise ValueError(NOT_FOR_PATHS.format(given[0], path.name))
        stated = replace(
            config.selection,
            pixel_size=sizes_of(about["pixel_size"]),
            unit=about["unit"],
            axes=about["axes"],
        )
        config = replace(config, selection=stated)
        loaded = load_task(SegmentTask(path, file, OutputFiles.of(path, folder)), config)
    else:
        if config.part != WHOLE:
            raise ValueError(NOT_FOR_ARRAYS)
        name = str(getattr(image, "name", None) or "image")
        held = image_of(image, **about, name=name)
        task = SegmentTask(
            Path(f"{name}.tif"), None, OutputFiles.of(Path(f"{name}.tif"), folder), name=name
        )
        opened = OpenedImage.of(held, config.selection)
        loaded = LoadedImage(
            **vars(opened),
            task=task,
            config=config,
            prompts=None,
            sha256=content_digest(held),
            seconds=0.0,
        )
        if file is not None:
            found, classes = read_task_prompts(file, loaded.shape, held.reference)
            return replace(loaded, prompts=found, categories=classes)
    if isinstance(prompts, (str, Path)):
        return loaded
    return replace(loaded, prompts=prompts_of(prompts, loaded.shape, loaded.axes))


S = TypeVar("S")


def _if_wanted(given: bool | S | None, kind: type[S]) -> S | None:
    """Settings that were given; the usual ones for True, none for False."""
    if given is True:
        return kind()
    if given is None or given is False:
        return None
    return settings_of(given, kind)


def _with_tracks(extras: Sequence[str], link: LinkSettings | None) -> tuple[str, ...]:
    """The optional files, with the table of tracks if objects are linked over time."""
    tracks = (TRACKS,) if link is not None and link.along == "time" else ()
    return (*extras, *tracks)


_turn = threading.Lock()
_kept: dict[tuple[Any, ...], Predictor] = {}
"""The predictor of the last call: a loop over images loads its model once."""


@contextmanager
def _predictor(config: SegmentConfig) -> Iterator[Predictor]:
    """The predictor of a model's name or file as it is now, for one thread at a time."""
    from napari_simmat.engine.predictor import Predictor

    with _turn:
        entry = find_model(config.model)
        key = (entry.path, entry.changed, entry.size_bytes, config.compute)
        if key not in _kept:
            _kept.clear()
            _kept[key] = Predictor(load_model(config.model), **asdict(config.compute))
        predictor = _kept[key]
        try:
            finish(predictor.connect_job())
            yield predictor
        finally:
            predictor.cache.clear()


def _as_html(
    title: str,
    picture: NDArray[np.uint8],
    rows: Sequence[Mapping[str, object]],
    columns: Sequence[str],
) -> str:
    """A picture and the first rows of a table as HTML."""
    from PIL import Image

    small = Image.fromarray(picture)
    small.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    buffer = BytesIO()
    small.save(buffer, format="PNG")
    coded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return (
        f"<div><p>{html.escape(title)}</p>"
        f'<img alt="{html.escape(title)}" src="data:image/png;base64,{coded}">'
        f"{table_html(rows, columns)}</div>"
    )
