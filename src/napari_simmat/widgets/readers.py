"""What opens when a file is dropped on napari: `napari.yaml` names this reader.

Slides, pyramids, NIfTI and DICOM become image layers; the captures of a folder, whose bands are
files, are gone through one by one; objects, records and prompts become layers on the image that is
open; a checkpoint becomes the chosen model; a session file is restored.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import dask.array as da
import napari
import numpy as np
from napari.layers import Image

from napari_simmat.batch.record import is_record, read_record
from napari_simmat.checkpoints.registry import find_model
from napari_simmat.engine.coordinates import corners_of_box
from napari_simmat.engine.files.objects import OUTLINE_ENDINGS, read_objects
from napari_simmat.engine.normalization import PercentileAccumulator, sample_blocks
from napari_simmat.engine.prompts import Prompt
from napari_simmat.io.captures import propose_in
from napari_simmat.io.dicom import holds_dicom, images_in, one_per_series
from napari_simmat.io.image_file import ImageFile
from napari_simmat.io.nifti import is_nifti
from napari_simmat.io.openslide import OPENSLIDE_ENDINGS
from napari_simmat.io.readers import label_ending, open_image, read_labels, stem_of
from napari_simmat.io.refusals import RefusedFileError
from napari_simmat.io.slides import SLIDE_ENDINGS
from napari_simmat.io.tiff import has_levels
from napari_simmat.io.zarr import is_zarr
from napari_simmat.widgets.controls import OPEN_WIDGETS
from napari_simmat.widgets.layer_data import CHANNEL, PROVENANCE, layer_info
from napari_simmat.widgets.placement import REFERENCE, ImageGeometry

logger = logging.getLogger(__name__)
LayerData = tuple[Any, dict[str, Any], str]
FILES = "SimMAT files"
"""Key of a layer's metadata: the files of the series that it shows, as strings."""
PATH = "simmat path"
"""Key of a layer's metadata: the file or folder of its image, as a string."""
_NO_LAYER: list[Any] = [(None,)]
"""What tells napari that there is nothing more to do."""
_NO_UNIT = "pixel"
SQUARE = 1024
"""Side in pixels of what is read at once of a slide."""
_LABELS, SESSION = "_labels", "_session.jsonl"
_USUAL_LABELS = (_LABELS, "_label", "_seg", "_segmentation", "_mask", "_masks")
"""Endings of label images of ITK-SNAP, 3D Slicer and others, which no tag in the file names."""
SESSION_BESIDE = "To go on with these objects, open their image and drop {} on it."
OPEN_IMAGE_FIRST = "Open the image first, then drop its objects on it."
WIDGET = "Segment, train, batch"
"""Name of the plugin's widget in `napari.yaml`."""
OPEN_WIDGET_FIRST = f"Open Plugins > {WIDGET} (SimMAT) first, then drop the file again."
COMPLEX_VALUES = "{} holds complex numbers, which no image layer shows; save their magnitude."
ALREADY_OPEN = "{} is a slice of {}, which is open already; remove that layer to reread it."
NOTHING_BESIDE = "{} has no points and boxes, and its labels {} are not beside it; copy them there."
_SHOWN_PERCENTS = (0.1, 99.9)
"""Percentiles that are shown black and white: metal and single hot voxels are brighter."""
_VOXELS_MEASURED = 2**20


def get_reader(path: str | list[str]) -> Callable[[str | list[str]], list[Any]] | None:
    """The reader of files and folders; None for what it does not read.

    npe2 asks only for files whose names match the patterns in `napari.yaml`, but for all folders:
    those without DICOM files are left to other plugins. napari knows files by their names alone, so
    that it asks the user who reads an OME-TIFF, and refusing one that was given here is an error.
    """
    paths = _paths(path)
    for ending, read in _OTHERS.items():
        if all(given.name.lower().endswith(ending) and given.is_file() for given in paths):
            return lambda path: [layer for each in _paths(path) for layer in read(each)]
    if len(paths) == 1 and paths[0].is_dir() and propose_in(paths[0]):
        return lambda path: open_captures(_paths(path)[0])
    for given in paths:
        own = given.is_dir() and given.name.lower().endswith(f"{_LABELS}.ome.zarr")
        if not (given.is_file() or own or (given.is_dir() and holds_dicom(given))):
            return None
    return read_layers


def read_layers(path: str | list[str]) -> list[Any]:
    """Read images as layers, a DICOM series as one.

    Parameters
    ----------
    path
        A file, a folder with one or more DICOM series, or several of these, of which slices of one
        series give one layer. A slice of a series that the viewer shows already gives no layer:
        napari calls this for each of many files that are dropped together.

    Raises
    ------
    FileNotFoundError, ValueError
        As `read_image`.
    """
    images: list[Path] = []
    for given in _paths(path):
        in_folder = given.is_dir() and not is_zarr(given)
        images += (images_in(given) or [given]) if in_folder else [given]
    new = [image for image in one_per_series(images) if not _go_to(image)]
    layers = []
    for image in new:
        is_slide = image.name.lower().endswith((*SLIDE_ENDINGS, *OPENSLIDE_ENDINGS))
        file = open_image(image, in_parts=is_slide or has_levels(image))
        for note in file.notes:
            logger.warning("%s: %s", image.name, note)
        is_own = file.are_labels and stem_of(image).endswith(_LABELS)
        if is_own:
            layers.append(labels_layer_data(image, file))
        else:
            layers.append(_their_labels(image) or image_layer_data(file))
    return layers or _NO_LAYER


def _their_labels(path: Path) -> LayerData | None:
    """A patient's label image of another program, known by its name; None if it is none."""
    is_volume = is_nifti(path) or label_ending(path) in (".nrrd", ".mha")
    if not (is_volume and stem_of(path).endswith(_USUAL_LABELS)):
        return None
    try:
        file = read_labels(path)
    except (ValueError, TypeError):  # values that are no labels
        return None
    options = {**_placed_options(file, file.axes), "name": stem_of(path)}
    return np.asarray(file.data), options | {"metadata": {REFERENCE: file.reference}}, "labels"


def labels_layer_data(path: Path, file: ImageFile) -> LayerData:
    """A label image of this program as a labels layer, with the classes and scores beside it."""
    found = read_objects(path)
    named = {one.label: one.category for one in found.merged()}
    session = path.with_name(f"{stem_of(path).removesuffix(_LABELS)}{SESSION}")
    if session.is_file() and (viewer := napari.current_viewer()) is not None:
        viewer.status = SESSION_BESIDE.format(session.name)
    options = _placed_options(file, file.axes)
    options["features"] = {"index": [0, *named], "class": ["", *named.values()]}
    made = {"image": found.image, "file": path.name}
    metadata = {REFERENCE: file.reference}
    described = _named(stem_of(path), made)
    return (
        found.labels(),
        options | described | {"metadata": described["metadata"] | metadata},
        ("labels"),
    )


def _placed_options(file: ImageFile, axes: str) -> dict[str, Any]:
    return {
        "scale": [file.scale.get(letter, 1.0) for letter in axes],
        "units": [file.units.get(letter) or _NO_UNIT for letter in axes],
        "axis_labels": [CHANNEL if letter == "C" else letter.lower() for letter in axes],
    }


def image_layer_data(file: ImageFile) -> LayerData:
    """An image as napari's layer data, with voxel size, units and axis names.

    Channels that are not colors become the first axis. A pyramid is shown in levels.

    Raises
    ------
    ValueError
        If the values are complex.
    """
    data, axes = file.data, file.axes
    if data.dtype.kind == "c":
        raise RefusedFileError(COMPLEX_VALUES.format(file.path.name))
    channels = file.channel_axis
    if file.levels:
        return _pyramid_layer_data(file)
    if channels is not None and not file.rgb:
        data = np.moveaxis(data, channels, 0)
        axes = "C" + file.plane_axes
    elif file.rgb:
        axes = file.plane_axes
    options: dict[str, Any] = {
        "name": stem_of(file.path),
        "rgb": file.rgb,
        **_placed_options(file, axes),
    }
    options["metadata"] = {REFERENCE: file.reference, PATH: str(file.path.absolute())}
    if len(file.files) > 1:
        options["metadata"][FILES] = frozenset(str(each.absolute()) for each in file.files)
    limits = None if file.rgb else file.shown or _contrast_limits(data)
    if file.shown and (viewer := napari.current_viewer()) is not None:
        _let_widen(viewer, file.path, _contrast_limits(data) or file.shown)
    return data, options | ({"contrast_limits": limits} if limits else {}), "image"


def _let_widen(viewer: Any, path: Path, ends: tuple[float, float]) -> None:
    """Let the contrast of a layer that is about to be added be set to these ends at least.

    napari takes the values that a layer is shown with as the ends of its slider.
    """

    def on_inserted(event: Any) -> None:
        layer = event.value
        if layer.metadata.get(PATH) == str(path.absolute()):
            viewer.layers.events.inserted.disconnect(on_inserted)
            both = (*ends, *layer.contrast_limits)
            layer.contrast_limits_range = min(both), max(both)

    viewer.layers.events.inserted.connect(on_inserted)


def _pyramid_layer_data(file: ImageFile) -> LayerData:
    """A slide as a layer whose levels are shown by zoom; the status line says what it is."""
    levels, axes = [_in_squares(each, file.axes) for each in (file.data, *file.levels)], file.axes
    if not file.rgb and file.channel_axis is not None:
        levels = [da.moveaxis(each, file.channel_axis, 0) for each in levels]
        axes = "C" + file.plane_axes
    viewer = napari.current_viewer()
    if viewer is not None and file.notes:
        viewer.status = f"{file.path.name}: {file.notes[0]}"
    options = {
        "name": stem_of(file.path),
        "rgb": file.rgb,
        "multiscale": True,
        **_placed_options(file, file.plane_axes if file.rgb else axes),
        "metadata": {REFERENCE: file.reference, PATH: str(file.path.absolute())},
    }
    limits = None if file.rgb else _contrast_limits(levels[-1])
    return levels, options | ({"contrast_limits": limits} if limits else {}), "image"


def _in_squares(array: Any, axes: str) -> Any:
    """A level in squares of `SQUARE` pixels, as each is a task of dask's; colors stay together."""
    sides = {"Y": SQUARE, "X": SQUARE, "S": array.shape[-1]}
    chunks = [min(sides.get(axis, 1), n) for axis, n in zip(axes, array.shape, strict=True)]
    return da.from_array(array, chunks=tuple(chunks), name=False)


def _paths(path: str | list[str]) -> list[Path]:
    return [Path(each) for each in ([path] if isinstance(path, str) else path)]


def _go_to(image: Path) -> bool:
    """Select the layer of the current viewer that shows the series of a file, if there is one."""
    viewer = napari.current_viewer()
    for layer in [] if viewer is None else viewer.layers:
        if str(image.absolute()) in layer.metadata.get(FILES, ()):
            viewer.layers.selection.active = layer
            viewer.status = ALREADY_OPEN.format(image.name, layer.name)
            return True
    return False


def _contrast_limits(data: Any) -> tuple[float, float] | None:
    """Percentiles of a sample of the finite values; None, for napari's own, if these are equal."""
    pool = PercentileAccumulator(data.dtype)
    for index, rows, columns in sample_blocks(data.shape, _VOXELS_MEASURED):
        pool.add(np.asarray(data[(*index, rows, columns)]))
    if not len(pool):
        return None
    low, high = pool.percentiles(_SHOWN_PERCENTS)
    if low >= high:  # a few bright voxels on an even background
        low, high = pool.range()
    return (low, high) if low < high else None


# ------------------------------------------------------------- models, sessions, objects


def use_checkpoint(path: Path) -> list[Any]:
    """Choose a checkpoint as the model of the Segment tab.

    Raises
    ------
    ValueError
        If it is no checkpoint of SimMAT; one sentence says why.
    """
    entry = find_model(path)
    if entry.problem:
        raise ValueError(entry.problem)
    _widget().use_model(path)
    return _NO_LAYER


def open_captures(folder: Path) -> list[Any]:
    """List a folder whose files look like bands of captures; the tab asks how they are read."""
    widget = _widget()
    widget.tabs.setCurrentWidget(widget.segment)
    widget.segment.folder_panel.folder.set_value(str(folder))
    return _NO_LAYER


def restore_session(path: Path) -> list[Any]:
    """Restore the objects, prompts and history of a saved session on the chosen image."""
    widget = _widget()
    widget.tabs.setCurrentWidget(widget.segment)
    widget.segment.recovery.open(path)
    return _NO_LAYER


def object_layers(path: Path) -> list[LayerData]:
    """Objects as a labels layer on the image that is open; a record with its prompts.

    Raises
    ------
    ValueError
        If the file holds none, or is of another image.
    """
    if path.suffix.lower() == ".json" and is_record(path):
        return record_layers(path)
    image = _open_image()
    geometry = None
    if image is not None:
        geometry = ImageGeometry(image, channels_first=layer_info(image).channels_first)
    try:
        shape = None if geometry is None else tuple(geometry.shape)
        reference = None if geometry is None else geometry.reference
        found = read_objects(path, shape, reference=reference)
    except ValueError:
        if image is None and path.suffix.lower() != ".json":
            raise ValueError(OPEN_IMAGE_FIRST) from None
        raise
    image_name = found.image or (geometry.name if geometry else "")
    made_by = {"image": image_name, "file": path.name}
    options = {} if geometry is None else geometry.layer_options()
    return [(found.labels(), {**options, **_named(path.stem, made_by)}, "labels")]


def record_layers(path: Path) -> list[LayerData]:
    """The labels that a record ``STEM.json`` describes, and its points and boxes."""
    record = read_record(path)
    prompts = [
        Prompt.from_plain({**values, "mask": None})  # as large as the image, and not shown
        for values in record.request.prompts
        if "points" in values or "box" in values
    ]
    made_by = record.provenance()
    layers: list[LayerData] = []
    options: dict[str, Any] = {}
    name = record.outputs.get("labels", {}).get("file", "")
    is_beside = bool(name) and Path(name).name == name
    if is_beside and path.with_name(name).exists():
        file = read_labels(path.with_name(name))
        options = {"scale": [file.scale.get(letter, 1.0) for letter in file.axes]}
        layers.append((file.data, {**options, **_named(path.stem, made_by)}, "labels"))
    if any(prompt.points for prompt in prompts):
        placed = {**options, **_named(f"{path.stem} points", made_by)}
        layers.append(_points_layer(prompts, placed))
    boxed = [prompt for prompt in prompts if prompt.box is not None]
    if boxed:
        placed = {**options, **_named(f"{path.stem} boxes", made_by)}
        layers.append(_boxes_layer(boxed, placed))
    if not layers:
        raise ValueError(NOTHING_BESIDE.format(path.name, name))
    return layers


def _points_layer(prompts: Sequence[Prompt], options: dict[str, Any]) -> LayerData:
    """All clicks, with their labels and their objects as features."""
    positions: list[tuple[float, ...]] = []
    labels: list[int] = []
    objects: list[int] = []
    for prompt in prompts:
        positions += [(*prompt.plane, *point) for point in prompt.points]
        labels += prompt.labels
        objects += [prompt.object or 0] * len(prompt.points)
    features = {"label": tuple(labels), "object": tuple(objects)}
    return np.array(positions), {"features": features, **options}, "points"


def _boxes_layer(boxed: Sequence[Prompt], options: dict[str, Any]) -> LayerData:
    """The boxes of prompts that have one, with their objects as features."""
    corners = [
        [(*prompt.plane, *corner) for corner in corners_of_box(prompt.box)] for prompt in boxed
    ]
    features = {"object": [prompt.object or 0 for prompt in boxed]}
    shown = {"shape_type": "rectangle", "features": features, **options}
    return np.array(corners), shown, "shapes"


def _named(name: str, made_by: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "metadata": {PROVENANCE: made_by}}


def _widget() -> Any:
    """The plugin's widget in the current viewer, opened if that has a window."""
    viewer = napari.current_viewer()
    widget = next((each for each in OPEN_WIDGETS if each.viewer is viewer), None)
    if widget is None:
        if viewer is None or getattr(viewer, "window", None) is None:
            raise ValueError(OPEN_WIDGET_FIRST)
        _, widget = viewer.window.add_plugin_dock_widget("napari-simmat", WIDGET)
    widget.open_now()
    return widget


def _open_image() -> Image | None:
    """The image that dropped objects belong to: the selected one, else the topmost."""
    viewer = napari.current_viewer()
    images = [] if viewer is None else [each for each in viewer.layers if isinstance(each, Image)]
    active = None if viewer is None else viewer.layers.selection.active
    return active if active in images else images[-1] if images else None


_OTHERS: dict[str, Callable[[Path], list[Any]]] = {
    ".safetensors": use_checkpoint,
    SESSION: restore_session,
    **dict.fromkeys(OUTLINE_ENDINGS, object_layers),
}
"""Readers of files that are no images, by their endings."""
