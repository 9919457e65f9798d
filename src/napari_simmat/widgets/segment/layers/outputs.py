"""The output layers `SimMAT preview`, `SimMAT objects` and `SimMAT classes`."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
from napari import Viewer
from napari.layers import Image, Labels, Layer
from napari.utils.colormaps import CyclicLabelColormap, DirectLabelColormap
from qtpy.QtCore import QTimer

from napari_simmat import __version__
from napari_simmat.annotation.drafts import is_covered
from napari_simmat.annotation.history import LayerEdit, ObjectEntry
from napari_simmat.annotation.prompt_state import Plane
from napari_simmat.engine.coordinates import AxisOrder, transposed_view
from napari_simmat.engine.masks import ObjectMask, VoxelBox
from napari_simmat.widgets.layer_data import PROVENANCE
from napari_simmat.widgets.placement import ImageGeometry
from napari_simmat.widgets.segment.layers.layer_editor import LayerEditor, draw_part

PREVIEW, OBJECTS, CLASSES = "SimMAT preview", "SimMAT objects", "SimMAT classes"
CHOSEN = "SimMAT chosen"
DOUBTFUL_PLANES = "doubtful planes"
"""Metadata of an objects layer: of each object, those of its propagation."""
SEEN = "SimMAT seen"
"""An image layer that is no image to segment: what the model sees of one."""
Look = Literal["filled", "contours", "filled by class", "contours by class"]
"""How objects are drawn; each has a color of its own, or all of a class have one."""
CLASS_COLORS = (
    *("#0072b2", "#e69f00", "#00a060", "#d55e00"),
    *("#cc79a7", "#f0e442", "#56b4e9", "#802000"),
)
"""Okabe and Ito's, which the color-blind tell apart, on black, gray and white.

Their green is lighter here, for gray images, and brown stands for black.
"""
_ARM = 0.3
"""Share of the sides of a box that each of its corners takes."""
_DARK = 2
"""The number of the dark line beside the corners of a draft, which are seen on any ground so."""
NO_CLASS_COLOR, CHOSEN_COLOR = "#c8c8c8", "#c0ffc0"
_CONTOUR = 2.0
"""Width of contours in screen pixels."""

_PREVIEW_COLORS = ("#00000000", "#ffd60a", "#00e5ff", "#ff7ad9", "#8cff66", "#b79cff", "#ff9d5c")
_OPACITY = 0.5
"""Of areas in the preview."""
_WIDEST, _LARGE = 3, 1 << 21
"""Pixels of the widest outline of a draft, and of a plane where it is one pixel wide and drawn
here: napari takes a second for outlines on large planes.
"""
_SHOWN_AFTER = 10
"""Milliseconds until a new layer of objects is shown."""
_CLASSES_OF = "SimMAT classes of"
"""Metadata of a classes layer: the key of its objects layer."""
_TABLE = 1 << 24
"""Object numbers below this are looked up in a table."""


def _numbered(geometry: ImageGeometry, masks: Sequence[np.ndarray]) -> np.ndarray:
    """Masks as the numbers 1, 2, ... on one plane, the first on top."""
    labels = np.zeros(geometry.shape[-2:], dtype=np.uint8)
    for number, mask in reversed(list(enumerate(masks))):
        labels[mask] = 1 + number % 255
    return labels


class _ProposedPlane:
    """Objects 1, 2, ... (Y, X) that are proposed on a plane."""

    def __init__(self, labels: np.ndarray) -> None:
        self._labels = labels
        numbers = np.arange(int(labels.max(initial=0)) + 1)
        self._colors = np.where(numbers > 0, 1 + (numbers - 1) % 255, 0).astype(np.uint8)
        # (Y, X) bool, and the width it was made for; None until outlines are drawn here.
        self._rim: tuple[int, np.ndarray] | None = None

    @property
    def is_large(self) -> bool:
        """Whether napari would take too long to outline them."""
        return self._labels.size >= _LARGE

    @cached_property
    def values(self) -> np.ndarray:
        """What is shown of them while no mask is: consecutive numbers differ in color.

        Of a large plane the outlines alone.
        """
        if not self.is_large:
            return self._colors[self._labels]
        values = np.zeros(self._labels.shape, np.uint8)
        rim = self._rim_of(1)
        values[rim] = self._colors[self._labels[rim]]
        return values

    def around(self, masks: np.ndarray, width: int) -> np.ndarray:
        """Masks 1, 2, ... (Y, X), and around them the rims of the objects that they leave."""
        colors = self._colors.copy()
        colors[self._replaced_by(masks)] = 0
        rims = np.where(self._rim_of(width), colors[self._labels], 0)
        return np.where(masks > 0, masks, rims).astype(np.uint8)

    def _rim_of(self, width: int) -> np.ndarray:
        if self._rim is None or self._rim[0] != width:
            self._rim = width, _rim(self._labels, width)
        return self._rim[1]

    def _replaced_by(self, masks: np.ndarray) -> list[int]:
        """The objects that a commit of masks 1, 2, ... (Y, X) replaces, as `Drafts.covered_by`."""
        both = (masks > 0) & (self._labels > 0)
        pairs = np.stack([masks[both].astype(np.int64), self._labels[both]])
        (of_masks, numbers), shared = np.unique(pairs, axis=1, return_counts=True)
        areas, sizes = (np.bincount(each.ravel()) for each in (masks, self._labels))
        is_replaced = is_covered(shared, sizes[numbers], areas[of_masks])
        replaced: list[int] = numbers[is_replaced].tolist()
        return replaced


def _changed(
    layer: Labels, order: AxisOrder, plane: Plane, values: np.ndarray
) -> tuple[slice, ...] | None:
    """The region of a layer that differs from values (Y, X) of a plane; None for none."""
    differs = transposed_view(layer.data, order)[plane] != values
    sides = [np.flatnonzero(differs.any(axis=axis)) for axis in (1, 0)]
    if not sides[0].size:
        return None
    axes = order or tuple(range(layer.ndim))
    parts = [slice(at, at + 1) for at in plane]
    parts += [slice(int(side[0]), int(side[-1]) + 1) for side in sides]
    return tuple(
        part for _, part in sorted(zip(axes, parts, strict=True), key=lambda each: each[0])
    )


def _rim(labels: np.ndarray, width: int) -> np.ndarray:
    """The pixels of objects (Y, X) at most `width` from one that is not theirs; bool."""
    rim = np.zeros(labels.shape, bool)
    for step in range(1, width + 1):
        below = labels[step:] != labels[:-step]
        rim[step:] |= below
        rim[:-step] |= below
        right = labels[:, step:] != labels[:, :-step]
        rim[:, step:] |= right
        rim[:, :-step] |= right
    return rim & (labels > 0)


class Preview:
    """The masks that a commit would write, for each plane of each view.

    Planes of different views cross; the one shown last is seen where they do.
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self.layer: Labels | None = None
        self._opacity = _OPACITY
        self._outlined = False
        self._shown: set[tuple[AxisOrder, Plane]] = set()
        self._proposed: dict[tuple[AxisOrder, Plane], _ProposedPlane] = {}
        self._kept: dict[tuple[AxisOrder, Plane], np.ndarray] = {}

    def prepare(self, geometry: ImageGeometry) -> None:
        """Create the layer."""
        self._ensure(geometry)

    def show(self, geometry: ImageGeometry, plane: Plane, masks: Sequence[np.ndarray]) -> None:
        """Show `masks` (Y, X) on `plane`, the first on top."""
        self.show_all(geometry, {plane: masks})

    def show_all(
        self, geometry: ImageGeometry, masks: Mapping[Plane, Sequence[np.ndarray]]
    ) -> None:
        """Show masks (Y, X) on several planes, the first of each on top.

        Of what is proposed there, and is not replaced, the outlines stay.
        """
        layer = self._ensure(geometry)
        self.set_outlined(False)
        for plane, there in masks.items():
            shown = _numbered(geometry, there)
            proposed = self._proposed.get((geometry.order, plane))
            if proposed is not None:
                shown = proposed.around(shown, self._outline_width(layer))
            self._put(layer, geometry.order, plane, shown)
        layer.refresh()

    def keep(self, geometry: ImageGeometry, masks: Mapping[Plane, Sequence[np.ndarray]]) -> None:
        """Let masks (Y, X) be seen again whenever their plane is cleared, until `forget`."""
        for plane, there in masks.items():
            self._kept[geometry.order, plane] = _numbered(geometry, there)

    def forget(self) -> None:
        """Let nothing that was kept be seen again; clear its planes then."""
        self._kept.clear()

    def propose(
        self, geometry: ImageGeometry, plane: Plane, labels: np.ndarray, *, prompted: bool = False
    ) -> None:
        """Show objects 1, 2, ... (Y, X) on `plane`; consecutive numbers differ in color.

        Until they are withdrawn they are seen on the plane; with `prompted` a mask is shown now,
        and they are seen from the next one on.
        """
        layer = self._ensure(geometry)
        self._proposed[geometry.order, plane] = proposed = _ProposedPlane(labels)
        if not prompted:
            region = _changed(layer, geometry.order, plane, proposed.values)
            self._put(layer, geometry.order, plane, proposed.values)
            if not layer.contour or (region is not None and not draw_part(layer, region)):
                layer.refresh()
            self.set_outlined(True)

    def set_outlined(self, outlined: bool) -> None:
        """Draw outlines, as of what is proposed, or areas, as of the answers to prompts.

        Outlines let the user judge a draft by the image, and tell it from committed objects.
        """
        layer = self.layer
        outlined = outlined and self._viewer.dims.ndisplay == 2  # napari warns of contours in 3D
        if layer is not None and self._outlined is not outlined:
            self._outlined = outlined
            is_drawn = any(each.is_large for each in self._proposed.values())
            layer.contour = self._outline_width(layer) if outlined and not is_drawn else 0
            if outlined:
                self._opacity, layer.opacity = layer.opacity, 1.0
            else:
                layer.opacity = self._opacity

    def _outline_width(self, layer: Labels) -> int:
        """Of what is proposed, in pixels at the zoom of the moment."""
        widest = _WIDEST if math.prod(layer.data.shape[-2:]) < _LARGE else 1
        return min(widest, contour_of(self._viewer, layer))

    def withdraw(self, plane: Plane, order: AxisOrder = ()) -> None:
        """Take back what was proposed on a plane of a view."""
        proposed = self._proposed.pop((order, plane), None)
        layer = self.layer
        if proposed is None or layer is None or layer not in self._viewer.layers:
            return
        if np.array_equal(transposed_view(layer.data, order)[plane], proposed.values):
            self.clear([plane], order)

    def clear(self, planes: Iterable[Plane], order: AxisOrder = ()) -> None:
        """Show no mask on some planes of a view but what is kept or proposed there."""
        layer = self.layer
        if layer is None or layer not in self._viewer.layers:
            return
        if len(order) not in (0, layer.ndim):
            return
        seen = transposed_view(layer.data, order)
        changed = False
        for plane in planes:
            self._shown.discard((order, plane))
            if len(plane) != layer.ndim - 2:
                continue
            left: np.ndarray | int = 0
            if (order, plane) in self._kept:
                left = self._kept[order, plane]
            elif (order, plane) in self._proposed:
                left = self._proposed[order, plane].values
            if (seen[plane] != left).any():
                seen[plane] = left
                changed = True
            if (order, plane) in self._kept or (order, plane) in self._proposed:
                self._shown.add((order, plane))
        if changed:
            layer.refresh()

    def clear_all(self) -> None:
        """Show nothing, and forget what was proposed."""
        layer, shown = self.layer, self._shown
        self._shown, self._proposed = set(), {}
        if layer is not None and layer in self._viewer.layers and shown:
            for order, plane in shown:
                transposed_view(layer.data, order)[plane] = 0
            layer.refresh()

    def remove(self) -> None:
        """Remove the layer from the viewer."""
        if self.layer is not None and self.layer in self._viewer.layers:
            self._viewer.layers.remove(self.layer)
        self.layer = None

    def _put(self, layer: Labels, order: AxisOrder, plane: Plane, labels: np.ndarray) -> None:
        transposed_view(layer.data, order)[plane] = labels
        self._shown.add((order, plane))

    def _ensure(self, geometry: ImageGeometry) -> Labels:
        layer = self.layer
        if layer is not None and layer in self._viewer.layers:
            if geometry.misfit(layer) is None:
                return layer
            self.remove()
        self._shown = set()
        for other in self._viewer.layers:
            if other.name == PREVIEW and isinstance(other, Labels) and not geometry.misfit(other):
                other.data[...] = 0  # left by an earlier session
                self.layer = other
                self._outlined = bool(other.contour)
                return other
        self.layer = Labels(
            np.zeros(geometry.usual.shape, dtype=np.uint8),
            name=PREVIEW,
            opacity=_OPACITY,
            colormap=CyclicLabelColormap(colors=list(_PREVIEW_COLORS)),
            **geometry.layer_options(),
        )
        self._outlined = False
        note_provenance(self.layer, geometry.name)
        add_below_prompts(self._viewer, self.layer)
        return self.layer


class ClassLayers:
    """Names of classes, and a classes layer for each objects layer that has classes.

    A class's number in the layer is its position in `names`, from 1; 0 is no class.
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self.names: list[str] = []

    def add(self, names: Sequence[str]) -> None:
        """Append names that are not known yet."""
        self.names = extended_names(self.names, names)

    def layer(self, editor: LayerEditor) -> Labels | None:
        """The classes layer of these objects; None if no object has a class."""
        of_objects = (
            layer
            for layer in self._viewer.layers
            if isinstance(layer, Labels) and layer.metadata.get(_CLASSES_OF) == editor.key
        )
        return next(of_objects, None)

    def update(self, geometry: ImageGeometry, editor: LayerEditor, edit: LayerEdit) -> None:
        """Update the classes after an edit of the objects."""
        entries, index = editor.register.entries, editor.register.index
        self.add([entry.category for entry in entries.values()])
        layer = self.layer(editor)
        if layer is None:
            if not any(entry.category for entry in entries.values()):
                return
            layer = self._new(geometry, editor)
            regions = [_region(index.box(label)) for label in entries]
        else:
            regions = [patch.mask.region for patch in edit.patches]
            regions += [_region(index.box(label)) for label in edit.entries if label in index]
        for region in regions:
            values = np.asarray(editor.layer.data[region])
            # Only the entries that are needed: there may be thousands, and as many regions.
            here = {n: entries[n] for n in np.unique(values).tolist() if n in entries}
            layer.data[region] = class_numbers(values, here, self.names)
        self._set_names(layer)

    def show(
        self,
        geometry: ImageGeometry,
        editor: LayerEditor,
        names: Sequence[str],
        numbers: np.ndarray,
    ) -> None:
        """Show classes that were numbered beforehand.

        Parameters
        ----------
        geometry, editor
            Where, and of which objects.
        names
            The classes, starting with those that were known at the time.
        numbers
            (..., Y, X) uint8, by position in `names`.
        """
        if list(names[: len(self.names)]) != self.names:  # others were added in the meantime
            self.update(geometry, editor, LayerEdit(editor.key))
            return
        self.add(names)
        layer = self.layer(editor)
        if layer is None:
            layer = self._new(geometry, editor, numbers)
        else:
            layer.data[...] = numbers
        self._set_names(layer)

    def _set_names(self, layer: Labels) -> None:
        layer.features = {"index": range(1, len(self.names) + 1), "class": self.names}
        layer.refresh()

    def _new(
        self, geometry: ImageGeometry, editor: LayerEditor, numbers: np.ndarray | None = None
    ) -> Labels:
        layer = Labels(
            np.zeros(geometry.usual.shape, dtype=np.uint8) if numbers is None else numbers,
            name=CLASSES + _named_after(editor.layer),
            opacity=0.4,
            visible=False,
            metadata={_CLASSES_OF: editor.key},
            **geometry.layer_options(),
        )
        note_provenance(layer, geometry.name)
        add_below_prompts(self._viewer, layer)
        return layer


class ObjectDrawing:
    """How objects layers are drawn, and which of their objects are outlined.

    The outline is a layer of its own, as large as the chosen objects. It is hidden while none are:
    a removal would have napari collect garbage each time that another row is chosen.
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self.look: Look = "filled"
        self._layer: Labels | None = None
        self._usual: WeakKeyDictionary[Labels, Any] = WeakKeyDictionary()
        self._colors: dict[int | None, Any] = {}
        self._moving = False

    def draw(self, editor: LayerEditor, names: Sequence[str]) -> None:
        """Draw the objects in the look of the moment; `names` are the classes."""
        layer, by_class = editor.layer, self.look.endswith("by class")
        if layer.multiscale:
            return
        contour = contour_of(self._viewer, layer) if self.look.startswith("contours") else 0
        if bool(layer.contour) != bool(contour):
            layer.contour = contour
        if by_class:
            self._usual.setdefault(layer, layer.colormap)
            colors: dict[int | None, Any] = {None: NO_CLASS_COLOR, 0: "transparent"}
            for label, entry in editor.register.entries.items():
                if entry.category in names:
                    number = list(names).index(entry.category)
                    colors[label] = CLASS_COLORS[number % len(CLASS_COLORS)]
            if colors != self._colors or not isinstance(layer.colormap, DirectLabelColormap):
                self._colors = colors
                layer.colormap = DirectLabelColormap(color_dict=colors)
        elif (usual := self._usual.pop(layer, None)) is not None:
            layer.colormap = usual

    def outline(
        self,
        geometry: ImageGeometry,
        editor: LayerEditor | None,
        labels: Sequence[int],
        drafts: Sequence[ObjectMask] = (),
    ) -> None:
        """Outline these objects and drafts, whose masks are in the image's axes; none for none."""
        if self._moving:
            return  # what follows the layers is told of the outline, too
        self._moving = True
        try:
            self._outline(geometry, editor, labels, drafts)
        finally:
            self._moving = False

    def _outline(
        self,
        geometry: ImageGeometry,
        editor: LayerEditor | None,
        labels: Sequence[int],
        drafts: Sequence[ObjectMask],
    ) -> None:
        found, margin = list(drafts), self._margin(geometry, bool(drafts))
        if editor and not editor.layer.multiscale and editor.layer in self._viewer.layers:
            found += [mask for mask in map(editor.mask, labels) if mask is not None]
        if not found:
            self._hide()
            return
        low = np.min([mask.corner for mask in found], axis=0) - margin
        high = np.max([np.add(mask.corner, mask.shape) for mask in found], axis=0) + margin
        block = np.zeros(high - low, np.uint8)
        for mask in found:
            start = np.subtract(mask.corner, low)
            inner = tuple(slice(a, a + b) for a, b in zip(start, mask.shape, strict=True))
            block[inner][mask.mask] = 1
        for draft in drafts:
            _mark_corners(block, np.subtract(draft.corner, low), draft.shape, margin)
        shift = np.eye(geometry.ndim + 1)
        shift[:-1, -1] = low
        layer = self._ensure(geometry)
        affine = geometry.matrix @ shift
        if not np.array_equal(layer.affine.affine_matrix, affine):
            layer.affine = affine
        if not np.array_equal(layer.data, block):
            layer.data = block
        layer.contour = contour_of(self._viewer, layer)
        layer.editable = False
        layer.visible = True

    def _margin(self, geometry: ImageGeometry, is_draft: bool) -> np.ndarray:
        """How far the corners around a draft lie from it, in pixels along each axis; else 0."""
        margin = np.zeros(geometry.ndim, int)
        if is_draft:
            shown = list(geometry.order or range(geometry.ndim))[-2:]
            margin[shown] = 3 * _screen_width(self._viewer, geometry.matrix[:-1, shown[-1]])
        return margin

    def _ensure(self, geometry: ImageGeometry) -> Labels:
        """The layer of the outline, with the units and axes of the image."""
        options = geometry.layer_options()
        kept = {key: options[key] for key in ("units", "axis_labels") if key in options}
        layer = self._layer
        if layer is not None and layer in self._viewer.layers:
            if layer.ndim == geometry.ndim:
                for name, value in kept.items():
                    setattr(layer, name, value)
                return layer
            self.remove()
        self._layer = Labels(
            np.zeros((1,) * geometry.ndim, np.uint8),
            name=CHOSEN,
            opacity=1.0,
            colormap=DirectLabelColormap(
                color_dict={None: CHOSEN_COLOR, _DARK: "#101010", 0: "transparent"}
            ),
            visible=False,
            **kept,
        )
        add_below_prompts(self._viewer, self._layer)
        return self._layer

    def _hide(self) -> None:
        if self._layer is not None:
            self._layer.visible = False
            self._layer.contour = 0  # napari warns of contours in 3D, also of hidden ones

    def remove(self) -> None:
        """Take the outline away."""
        layer, self._layer = self._layer, None
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)

    def release(self) -> None:
        """Take the outline away, and give objects back the colors that they had."""
        self.remove()
        for layer, usual in self._usual.items():
            layer.colormap = usual
        self._usual.clear()


def contour_of(viewer: Viewer, layer: Labels) -> int:
    """The width of a contour in pixels of a layer, at the zoom of the moment."""
    return _screen_width(viewer, layer.affine.linear_matrix[:, -1] * abs(layer.scale[-1]))


def _screen_width(viewer: Viewer, step: np.ndarray) -> int:
    """The width of a contour in pixels, each as long and wide as a step in the world."""
    camera = getattr(viewer, "scene", viewer).camera  # scene: from napari 0.9
    return max(1, math.ceil(_CONTOUR / max(1e-9, camera.zoom * float(np.linalg.norm(step)))))


def _mark_corners(
    block: np.ndarray, corner: np.ndarray, shape: Sequence[int], margin: np.ndarray
) -> None:
    """Draw the four corners of a box around an object, light within dark, into a block.

    `margin` is how far outside they lie, along the two axes that are seen: three lines, of which
    the outer is dark, the next light, and the inner leaves a gap.
    """
    rows, columns = np.flatnonzero(margin)
    width = int(margin[rows]) // 3
    start, end = corner - margin, corner + np.array(shape) + margin
    where: list[Any] = corner.tolist()
    where[rows], where[columns] = slice(start[rows], end[rows]), slice(start[columns], end[columns])
    box = block[tuple(where)]
    down, across = (np.minimum(np.arange(n), np.arange(n)[::-1]) for n in box.shape)
    away = np.minimum(down[:, np.newaxis], across)
    height, breadth = (max(2 * width, round(_ARM * n)) for n in box.shape)
    corners = (down < height)[:, np.newaxis] & (across < breadth)
    box[corners & (away < width)] = _DARK
    box[corners & (away >= width) & (away < 2 * width)] = 1


def note_provenance(layer: Layer, image: str, model: str = "", prompts: int = 0) -> None:
    """Say in a layer's metadata what made it.

    Parameters
    ----------
    layer
        The layer.
    image
        The image's name.
    model
        A model that was in use; those before it stay in the list.
    prompts
        How many points, shapes and masks its objects were made from.
    """
    before = layer.metadata.get(PROVENANCE, {}).get("models", [])
    models = list(dict.fromkeys([*before, *([model] if model else [])]))
    layer.metadata[PROVENANCE] = {
        "program": f"napari-simmat {__version__}",
        "models": models,
        "image": image,
        "prompts": prompts,
    }


def note_doubtful(layer: Layer, entries: Mapping[int, ObjectEntry]) -> None:
    """List in a layer's metadata the doubtful planes of each object that has any."""
    known = {label: list(entry.doubtful) for label, entry in entries.items() if entry.doubtful}
    if known or DOUBTFUL_PLANES in layer.metadata:
        layer.metadata[DOUBTFUL_PLANES] = known


def extended_names(names: Sequence[str], more: Iterable[str]) -> list[str]:
    """`names` followed by those of `more` that are new."""
    return [name for name in dict.fromkeys((*names, *more)) if name]


def class_numbers(
    labels: np.ndarray, entries: Mapping[int, ObjectEntry], names: Sequence[str]
) -> np.ndarray:
    """The class of each voxel of a block of objects: its position in `names` from 1, uint8."""
    numbers = {name: number for number, name in enumerate(names, start=1)}
    classes = {label: numbers.get(entry.category, 0) for label, entry in entries.items()}
    largest = max(classes, default=0)
    if largest < _TABLE:
        table = np.zeros(largest + 1, np.uint8)
        table[list(classes)] = list(classes.values())
        return table[np.where((labels >= 0) & (labels <= largest), labels, 0)]
    found, where = np.unique(labels, return_inverse=True)
    values = [classes.get(label, 0) for label in found.tolist()]
    return np.array(values, dtype=np.uint8)[where].reshape(labels.shape)


def new_objects(
    viewer: Viewer, geometry: ImageGeometry, labels: np.ndarray | None = None
) -> Labels:
    """Add an int32 layer for the image's objects: `labels` (..., Y, X) itself, or an empty one."""
    data = np.zeros(geometry.usual.shape, dtype=np.int32) if labels is None else labels
    # napari colors a large plane in a second, each time that a layer is made, added and shown. So
    # it is shown once events had a turn, with what is written into it by then.
    options = geometry.layer_options()
    layer = Labels(data, name=OBJECTS, opacity=0.6, visible=False, **options)
    note_provenance(layer, geometry.name)
    add_below_prompts(viewer, layer)
    QTimer.singleShot(_SHOWN_AFTER, partial(setattr, layer, "visible", True))
    return layer


def same_objects(viewer: Viewer, geometry: ImageGeometry, labels: np.ndarray) -> Labels | None:
    """An open layer on the image that holds exactly these labels (..., Y, X)."""
    found = (
        layer
        for layer in viewer.layers
        if isinstance(layer, Labels)
        and not layer.name.startswith((PREVIEW, CLASSES))
        and geometry.misfit(layer) is None
        and np.array_equal(layer.data, labels)
    )
    return next(found, None)


def name_after_image(objects: Labels, classes: Labels | None, image: str) -> None:
    """Name the layers of one image so that they differ from those of others.

    A name that the user gave is kept.
    """
    if objects.name.split(" [")[0] == OBJECTS:
        objects.name = f"{OBJECTS} of {image}"
        if classes is not None:
            classes.name = CLASSES + _named_after(objects)


def follow_name(objects: Labels, classes: Labels | None, before: str, image: str) -> None:
    """Name the layers of an image after it once it was renamed, if they were named after it."""
    if objects.name == f"{OBJECTS} of {before}":
        objects.name = f"{OBJECTS} of {image}"
        if classes is not None:
            classes.name = CLASSES + _named_after(objects)


def _named_after(objects: Labels) -> str:
    """What the name of an objects layer says about its image, such as `` of coins``."""
    start = f"{OBJECTS} of "
    return objects.name[len(OBJECTS) :] if objects.name.startswith(start) else ""


def raise_above_images(viewer: Viewer, layers: Sequence[Layer | None]) -> None:
    """Bring layers, the lowest first, above all images; nothing moves if none lies below one."""
    own = [layer for layer in layers if layer is not None and layer in viewer.layers]
    images = [n for n, layer in enumerate(viewer.layers) if isinstance(layer, Image)]
    if any(viewer.layers.index(layer) < max(images, default=0) for layer in own):
        for layer in own:
            viewer.layers.move(viewer.layers.index(layer), len(viewer.layers))


def lower_onto_image(
    viewer: Viewer, layers: Sequence[Layer | None], image: Collection[str]
) -> None:
    """Put layers, the highest first, right above their image, or at the bottom if it is hidden.

    `image` holds the keys of its layers.
    """
    for layer in layers:
        if layer is None or layer not in viewer.layers:
            continue
        seen = [
            number
            for number, other in enumerate(viewer.layers)
            if str(other.unique_id) in image and other.visible
        ]
        at = viewer.layers.index(layer)
        onto = max(seen, default=-1) + 1
        if at > onto:
            viewer.layers.move(at, onto)


def add_below_prompts(viewer: Viewer, layer: Layer) -> None:
    """Add a layer below the prompts (objects below the preview); the active layer stays active."""
    active = viewer.layers.selection.active
    image = max((n for n, each in enumerate(viewer.layers) if isinstance(each, Image)), default=0)
    above = [
        index
        for index, other in enumerate(viewer.layers)
        if other.name.startswith("SimMAT ") and _rank(other) > _rank(layer)
    ]
    # Objects of another image lie on that one, below an image that hides it.
    above = [index for index in above if index > image] or above
    # Inserted in place: a layer that is added and then moved is drawn twice.
    viewer.layers.insert(min(above, default=len(viewer.layers)), layer)
    if active is not None and active in viewer.layers:
        viewer.layers.selection.active = active


def _rank(layer: Layer) -> int:
    """Order from below: classes, objects, preview, the outline of chosen objects, prompts."""
    below = (CLASSES, OBJECTS, PREVIEW, CHOSEN)
    return next((n for n, name in enumerate(below) if layer.name.startswith(name)), len(below))


def _region(box: VoxelBox) -> tuple[slice, ...]:
    return tuple(slice(*ends) for ends in zip(*box, strict=True))
