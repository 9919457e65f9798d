"""Settings of automatic segmentation and propagation.

This file needs no numpy, since the command line shows the settings.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated, Literal

from napari_simmat.io.plain import OMIT_DEFAULT, check_fields
from napari_simmat.io.planes import parse_plane, with_plane
from napari_simmat.io.units import check_pixel_size

if TYPE_CHECKING:
    from napari_simmat.engine.object_kind import ObjectKind
    from napari_simmat.io.image_file import ImageFile
    from napari_simmat.models.spec import ModelSpec


Precision = Literal["auto", "exact", "fast"]
"""How a network computes; auto is exact on a CPU, fast on a GPU."""
Quality = Literal["fast", "best"]
"""Whether a network predicts once, or the mean over several views of the image."""
MIN_PREDICTED_IOU = 0.3
"""Masks of lower predicted IoU are not even formed."""
SAM_THRESHOLDS = (0.88, 0.95)
"""Quality and stability thresholds of SAM's own generator."""
LITE_THRESHOLDS = (0.75, 0.9)
"""Those of `tiny` since tiny-5 and of checkpoints on it: with 0.6 it takes ground for objects."""
DEFAULT_THRESHOLDS = (0.6, 0.9)
"""The same for other models."""
SAM2_THRESHOLDS = (0.8, 0.95)
"""Of ``SAM2AutomaticMaskGenerator``, https://github.com/facebookresearch/sam2."""
KIND_THRESHOLDS = (0.7, 0.5)
"""The same where the size of the objects is known: masks of other sizes count less."""
LOOKS_THRESHOLDS = (0.6, 0.5)
"""The same where their looks are known, too: masks that lie on ground count less."""
WORDS_THRESHOLDS = (0.5, 0.0)
"""The same where words say what to look for: SAM 3's own threshold, and no demand on edges."""
OBJECT_THRESHOLDS = (0.5, 0.0)
"""Of all objects by `tiny`'s decoder: the chance that each meets an object."""
BY_TINY = "tiny"
"""Way of finding objects: by `tiny`'s decoder, whatever the model, which then outlines them."""
WAYS_OF_FINDING = ("by", "words", "seeds", "points_per_side", "object_side", "crop_layers")
"""Settings that say how objects are found, and so which thresholds hold."""
MOST_LETTERS = 200
"""Of the words that say what to look for."""
BY_EXAMPLES = "visual"
"""The word by which SAM 3 was trained to look for what is like examples, whatever it is called."""
READS_NO_WORDS = (
    "{} reads no words, but was asked for {!r}. Leave the words out, or load a model that reads "
    "them (SAM 3)."
)
NEEDS_EXAMPLES = (
    f"{BY_EXAMPLES!r} means objects like examples, but there are none on this plane: outline some, "
    "or name what to look for."
)
NO_DECODER = (
    "{name} has no decoder that finds all objects at once, as micro-sam's models have; {advice}"
)
NO_PICTURE = (
    "{} makes no picture of its channels in which tiny could find objects; find them by clicks "
    "(--auto.by clicks), or train with another transfer layer, e.g. simmat."
)
PROMPT_IT = "find them by clicks (--auto.by clicks), or take such a model, e.g. vit_b_lm."
FETCH_DECODER = "it is a file of its own: run `simmat models fetch {name}` again."
CHANGED_ENCODER = (
    "that of {base} does not fit what was trained or taught on it. Find them by clicks "
    "(--auto.by clicks), or take {base} itself."
)
DEFAULT_TILE_SIDE = 1024
FILTER_FIELDS = (
    "quality",
    "stability",
    "agreement",
    "box_overlap",
    "overlap",
    "min_area",
    "max_area",
    "background",
    "keep_border",
)
"""Fields that filter mask candidates; changing them needs no new predictions."""
PLANE_AND_AXIS = (
    "An axis of channels is counted among all axes of the file, of which --plane takes some away; "
    "name all axes instead, C for the channels, e.g. --axes ZCYX."
)
OUT_OF_RANGE = "{words} of segmenting everything must be {range}, got {value}."
_SLIDER = {"widget_type": "FloatSlider", "step": 0.01}
_FRACTION = {"min": 0, "max": 1}


@dataclass(frozen=True, kw_only=True)
class ChannelSelection:
    """Which channels of an image are read, and the shape of its pixels.

    Parameters
    ----------
    channels
        Names or indices from 0 of the channels, in the order in which the model or data set reads
        them; None for all.
    channel_axis
        Axis of the channels; None to take it from the file.
    pixel_ratio
        Height of a pixel over its width, for files that do not state it.
    pixel_size, unit, axes
        What the user states, see `io.stated.as_stated`.
    plane
        The plane that is read along an axis, or the projection: ``"Z=12"``, ``"Z=max"``, see
        `io.planes`. It counts along the stated axes.
    """

    channels: tuple[int | str, ...] | None = None
    channel_axis: int | None = None
    pixel_ratio: float = 1.0
    pixel_size: Annotated[tuple[float, ...] | None, OMIT_DEFAULT] = None
    unit: Annotated[str, OMIT_DEFAULT] = ""
    axes: Annotated[str, OMIT_DEFAULT] = ""
    plane: Annotated[str, OMIT_DEFAULT] = ""

    def __post_init__(self) -> None:
        if parse_plane(self.plane) and self.channel_axis is not None:
            raise ValueError(PLANE_AND_AXIS)
        if not 0 < self.pixel_ratio < math.inf:
            raise ValueError(f"A pixel's height over its width is above 0, not {self.pixel_ratio}.")
        check_pixel_size(self.pixel_size, self.unit)

    def stated(self, image: ImageFile) -> ImageFile:
        """An image with what the user states of it."""
        from napari_simmat.io.stated import as_stated  # with numpy, for which no option waits

        told = as_stated(image, axes=self.axes, pixel_size=self.pixel_size, unit=self.unit)
        told = with_plane(told, self.plane)
        return replace(told, pixel_ratio=self.pixel_ratio)

    def over(self, other: ChannelSelection) -> ChannelSelection:
        """Fill in from `other` what this selection leaves open."""
        return ChannelSelection(
            channels=other.channels if self.channels is None else self.channels,
            channel_axis=other.channel_axis if self.channel_axis is None else self.channel_axis,
            pixel_ratio=other.pixel_ratio if self.pixel_ratio == 1 else self.pixel_ratio,
            pixel_size=other.pixel_size if self.pixel_size is None else self.pixel_size,
            unit=other.unit if self.pixel_size is None else self.unit,
            axes=self.axes or other.axes,
            plane=self.plane or other.plane,
        )


@dataclass(frozen=True, kw_only=True)
class Compute:
    """Device, precision and quality.

    Parameters
    ----------
    device
        auto (a GPU if there is one), cpu, cuda, cuda:1 or mps; or the address of a Dask scheduler,
        e.g. tcp://10.0.0.1:8786, whose workers encode.
    precision
        exact (float32), fast (half precision) or auto (exact on a CPU, fast on a GPU).
    quality
        best averages the masks of four views of the image: better masks with the embedded
        foundation, at four times the time.
    """

    device: str = "auto"
    precision: Precision = "auto"
    quality: Quality = "fast"


@dataclass(frozen=True, kw_only=True)
class AutomaticSettings:
    """Where the model is prompted, and which of its masks become objects.

    Parameters
    ----------
    by
        How objects are found: by the decoder that tiny and micro-sam's models have, in one pass; by
        tiny, after which a model outlines each where it is sure of the same object; by clicks all
        over the image; or auto, by the decoder where the model has one, unless you say how to click
        (seeds, points_per_side, object_side, crop_layers).
    center_distance_threshold
        By micro-sam's: an object grows from where the distance to its center is less, 0-1.
    boundary_distance_threshold
        By micro-sam's: it grows from where also the inverted distance to its boundary is less, 0-1.
    foreground_threshold
        By micro-sam's: it reaches as far as the foreground is more, 0.3-1.
    foreground_smoothing
        By micro-sam's: sigma in pixels of a Gaussian blur of the foreground; 0 for none.
    distance_smoothing
        By micro-sam's: sigma in pixels of a Gaussian blur of both distances; 0 for none.
    points_per_side
        Grid points along the longer side of what is encoded at once; 0 for one every 16 pixels,
        but 16 to 32.
    seeds
        Where the model is prompted: on a regular grid; at the maxima (bright spots) or minima (dark
        spots) of a channel; or where an RGB picture of stained tissue has most hematoxylin, in
        nuclei.
    object_side
        Side of a typical object in pixels, the square root of its area; 0 if unknown. The grid is
        then as close as such objects need, masks of other sizes count less, and thresholds that
        are not set are lower.
    maxima_channel
        Model channel (0-based) in which to detect maxima or minima.
    maxima_distance
        Minimum distance between two maxima, minima or stained nuclei in pixels.
    maxima_height
        Minimum value of a maximum, as a fraction of the channel's normalized range, 0-1; of a
        minimum it is the depth below the upper end.
    quality
        Minimum IoU that the model predicts for a mask, 0.3-1 (default: set by the model).
    stability
        Minimum IoU of the masks at cutoffs of plus and minus `offset`, 0-1 (default: set by the
        model).
    offset
        Shift of the logits' cutoff for `stability`.
    agreement
        Minimum fraction of seeds inside a mask that must reproduce it, 0-1.
    box_overlap
        Masks whose boxes have at least this IoU count as one, 0-1.
    overlap
        Maximum fraction of a mask that better ones may cover, 0-1.
    min_area
        Minimum area of an object in pixels; smaller holes are filled.
    max_area
        Maximum area of an object as a fraction of the plane, 0-1.
    background
        A mask that covers this fraction of the plane's outermost pixels is background, 0-1.
    keep_border
        Whether objects that touch the plane's border are kept.
    crop_layers
        Number of crop layers prompted besides the whole plane, each with half the side, for small
        crowded objects; 0-4. Ignored for a plane that is cut into tiles.
    crop_overlap
        Overlap of the first layer's crops as a fraction of the plane's shorter side, 0-0.9.
    tile
        Side in pixels of the tiles that a large plane is cut into, from 128; 0 for 1024.
    second_look
        Propose once more, by the size of the objects found at first: more small ones that touch, in
        two to four times the time. Ignored if a size is known, and for a plane that is cut into
        tiles.
    tile_overlap
        Pixels that neighboring tiles share, less than half a tile; 0 for a quarter of a tile.
        Objects up to this size lie wholly in a tile.
    words
        What to look for, in English, e.g. "yellow leaf", with a model that reads words (SAM 3):
        the model is not prompted then, and `quality` is a mask's score. "visual" for objects like
        those that are committed.
    """

    by: Annotated[
        Literal["auto", "decoder", "tiny", "clicks"],
        OMIT_DEFAULT,
        {
            "label": "Found by",
            "noun": "Way of finding objects",
            "choices": [
                ("the model's decoder, else clicks", "auto"),
                ("the model's decoder", "decoder"),
                ("tiny, outlined by the model", "tiny"),
                ("clicks", "clicks"),
            ],
        },
    ] = "auto"
    seeds: Annotated[
        Literal["grid", "maxima", "minima", "hematoxylin"],
        {
            "label": "Where to look",
            "noun": "Seeding",
            "choices": [
                ("on a grid", "grid"),
                ("at bright spots", "maxima"),
                ("at dark spots", "minima"),
                ("at stained nuclei", "hematoxylin"),
            ],
        },
    ] = "grid"
    points_per_side: Annotated[
        int, {"label": "Grid points per side", "special": "Auto", "min": 0, "max": 512}
    ] = 0
    object_side: Annotated[
        float, {"label": "Side of an object", "special": "Unknown", "min": 0, "max": 2**15}
    ] = 0.0
    maxima_channel: Annotated[int, {"min": 0, "max": 2**15}] = 0
    maxima_distance: Annotated[int, {"label": "Between spots", "min": 1, "max": 2**15}] = 8
    maxima_height: Annotated[float, _FRACTION] = 0.2
    quality: Annotated[
        float | None, {"label": "Certainty", "min": MIN_PREDICTED_IOU, "max": 1, **_SLIDER}
    ] = None
    stability: Annotated[float | None, {"label": "Clear edges", **_FRACTION, **_SLIDER}] = None
    offset: Annotated[float, {"min": 0, "max": 10}] = 1.0
    agreement: Annotated[float, {"label": "Points that agree", **_FRACTION, **_SLIDER}] = 0.2
    box_overlap: Annotated[float, _FRACTION] = 0.7
    overlap: Annotated[float, _FRACTION] = 0.5
    min_area: Annotated[int, {"label": "Smallest area", "min": 0, "max": 2**31}] = 20
    max_area: Annotated[float, _FRACTION] = 0.9
    background: Annotated[float, _FRACTION] = 0.5
    keep_border: Annotated[bool, {"label": "Keep objects at the border"}] = True
    crop_layers: Annotated[
        int, {"label": "Closer looks", "special": "none", "min": 0, "max": 4}
    ] = 0
    crop_overlap: Annotated[float, {"min": 0, "max": 0.9}] = 512 / 1500
    second_look: Annotated[
        bool, OMIT_DEFAULT, {"label": "Second look, by the size of what was found"}
    ] = False
    tile: Annotated[int, {"min": 0, "max": 2**15}] = 0
    tile_overlap: Annotated[int, {"min": 0}] = 0
    words: Annotated[str, OMIT_DEFAULT, {"label": "Words"}] = ""
    center_distance_threshold: Annotated[float, OMIT_DEFAULT, _FRACTION] = 0.5
    boundary_distance_threshold: Annotated[float, OMIT_DEFAULT, _FRACTION] = 0.5
    foreground_threshold: Annotated[float, OMIT_DEFAULT, {"min": MIN_PREDICTED_IOU, "max": 1}] = 0.5
    foreground_smoothing: Annotated[float, OMIT_DEFAULT, {"min": 0, "max": 100}] = 1.0
    distance_smoothing: Annotated[float, OMIT_DEFAULT, {"min": 0, "max": 100}] = 1.6

    def __post_init__(self) -> None:
        if len(self.words) > MOST_LETTERS or not self.words.isprintable():
            raise ValueError(
                f"Words to look for are one line of up to {MOST_LETTERS} letters, e.g. 'yellow "
                "leaf'; name one kind of objects."
            )
        if 0 < self.tile < 128:
            raise ValueError(f"A tile of {self.tile} pixels is too small; choose 128 or more.")
        check_fields(self, OUT_OF_RANGE)
        if self.tile_overlap >= self.tile_side // 2:
            raise ValueError(
                f"Tiles of {self.tile_side} pixels cannot share {self.tile_overlap}; choose less "
                "than half."
            )

    def for_model(self, spec: ModelSpec, kind: ObjectKind | None = None) -> AutomaticSettings:
        """Fill in the model's default thresholds; those for a known kind of objects are lower.

        It is known from some of its objects (`kind`), from `object_side`, or by the model.

        SAM's and SAM 2's own weights get the thresholds that they were published with. These are
        too strict for other networks, whose predicted IoU is lower. Of a model with a decoder `by`
        says whether it finds the objects; then all that it finds pass.

        Raises ValueError if they are to be found by a decoder, and there is none.
        """
        if self.uses_decoder(spec, kind):
            if self.by == BY_TINY:
                return self.with_thresholds(OBJECT_THRESHOLDS)
            decoding = replace(self, by="decoder")
            if spec.base.embedded:
                return decoding.with_thresholds(OBJECT_THRESHOLDS)
            return decoding.with_thresholds((self.foreground_threshold, 0.0))
        # Where clicks are the only way, it is not said: a record is the same with and without.
        clicking = replace(self, by="clicks" if spec.finds_instances else "auto")
        if self.words:
            return clicking.with_thresholds(WORDS_THRESHOLDS)
        known = spec.kind if kind is None else kind
        if known is not None and known.looks is not None:
            return clicking.with_thresholds(LOOKS_THRESHOLDS)
        if known is not None or self.object_side or spec.expects_kind:
            return clicking.with_thresholds(KIND_THRESHOLDS)
        if spec.mask_choice == "stock":
            is_sam2 = spec.base.is_sam2
            return clicking.with_thresholds(SAM2_THRESHOLDS if is_sam2 else SAM_THRESHOLDS)
        lite = spec.base.architecture == "tiny_lite"
        return clicking.with_thresholds(LITE_THRESHOLDS if lite else DEFAULT_THRESHOLDS)

    def uses_decoder(self, spec: ModelSpec, kind: ObjectKind | None = None) -> bool:
        """Whether the model's decoder or `tiny`'s finds the objects, rather than clicks.

        Raises ValueError if it is to, and there is none, or `tiny` sees nothing that it could read.
        """
        if self.by == "decoder" and not spec.finds_instances:
            raise ValueError(_no_decoder(spec))
        if self.by == BY_TINY and spec.transfer == "baseline_a":
            raise ValueError(NO_PICTURE.format(spec.name))
        says_how = (self.seeds != "grid", self.points_per_side, self.object_side, self.crop_layers)
        is_free = (kind is None or kind.decoder is not None) and not any(says_how)
        is_said = self.by in ("decoder", BY_TINY)
        return is_said or (self.by == "auto" and spec.finds_instances and is_free)

    def check_model(self, spec: ModelSpec) -> None:
        """Raise ValueError if a model cannot look for objects on images of a run as these say."""
        self.uses_decoder(spec)
        self.check_words(spec)

    def check_words(self, spec: ModelSpec, examples: int = 0) -> None:
        """Raise ValueError if a model cannot look for the words, with so many examples."""
        if self.words and not spec.base.reads_words:
            raise ValueError(READS_NO_WORDS.format(spec.name, self.words))
        if self.words == BY_EXAMPLES and not examples:
            raise ValueError(NEEDS_EXAMPLES)

    @property
    def proposing(self) -> tuple[object, ...]:
        """The settings by which masks are proposed, before they are filtered."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return tuple(value for name, value in values.items() if name not in FILTER_FIELDS)

    def with_thresholds(self, thresholds: tuple[float, float]) -> AutomaticSettings:
        """These settings with quality and stability thresholds where they set none."""
        quality, stability = thresholds
        return replace(
            self,
            quality=quality if self.quality is None else self.quality,
            stability=stability if self.stability is None else self.stability,
        )

    @property
    def thresholds(self) -> tuple[float, float]:
        """Quality and stability, by default those of a model other than SAM's own."""
        quality, stability = DEFAULT_THRESHOLDS
        return (
            quality if self.quality is None else self.quality,
            stability if self.stability is None else self.stability,
        )

    @property
    def tile_side(self) -> int:
        """Side of a tile in pixels."""
        return self.tile or DEFAULT_TILE_SIDE

    @property
    def tile_shared(self) -> int:
        """Pixels that neighboring tiles share."""
        return self.tile_overlap or self.tile_side // 4


def _no_decoder(spec: ModelSpec) -> str:
    """Why a model's objects cannot be found by a decoder, and what to do."""
    advice = PROMPT_IT
    if spec.instance_decoder == "elsewhere":
        advice = FETCH_DECODER.format(name=spec.name)
    elif spec.instance_decoder == "here":
        advice = CHANGED_ENCODER.format(base=spec.base.name)
    return NO_DECODER.format(name=spec.name, advice=advice)


@dataclass(frozen=True, kw_only=True)
class PropagationSettings:
    """When an object continues on the next plane, and when it has ended.

    Parameters
    ----------
    min_score
        A mask with a lower score (predicted IoU) ends the object.
    min_overlap
        So does a mask with a lower IoU with that of the plane before.
    max_change
        So does a mask that is more times larger or smaller than that of the plane before.
    min_contrast
        Pixels with a smaller fraction of the object's contrast on its annotated plane are cut
        off: out of focus an object fades before it ends. 0 keeps them. The test is skipped for
        objects that brightness does not distinguish from their surroundings.
    min_evidence
        Where that test is skipped, an outline with a smaller fraction of the edge that it has on
        the annotated plane ends the object. 0 keeps it.
    slope
        How far the outline may move sideways per distance between planes, both in the unit of the
        spacing; the mask is cut off beyond.
    reach
        How far it may move in any case, in radii of the object.
    min_likeness
        Between two annotated planes, a mask with a lower IoU with the interpolated shape is
        replaced by that shape.
    method
        How an object is looked for on the next plane: ``"memory"``, by what the network remembers
        of it (SAM 2 alone); ``"mask"``, by its mask on the plane before, as a prompt; ``"auto"``,
        by memory if the network has one.
    """

    min_score: Annotated[float, _FRACTION] = 0.5
    min_overlap: Annotated[float, _FRACTION] = 0.3
    max_change: Annotated[float, {"above": 1}] = 3.0
    min_contrast: Annotated[float, _FRACTION] = 0.3
    min_evidence: Annotated[float, _FRACTION] = 0.2
    slope: Annotated[float, {"min": 0, "below": math.inf}] = 1.0
    reach: Annotated[float, {"min": 0, "below": math.inf}] = 0.5
    min_likeness: Annotated[float, _FRACTION] = 0.6
    method: Annotated[
        Literal["auto", "memory", "mask"], {"noun": "Method of propagation"}, OMIT_DEFAULT
    ] = "auto"

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class LinkSettings:
    """How objects are linked over time.

    Parameters
    ----------
    axis
        The time axis, counted without channels; None to take it from the image's axes.
    distance
        How far an object may move from frame to frame, in pixels; 0 for the diameter of the median
        object.
    gap
        Over how many frames an object may be missing.
    divisions
        Whether an object may divide into two.
    along
        What the axis is: frames of a time series, or planes along depth.
    """

    axis: int | None = None
    distance: Annotated[float, {"min": 0, "below": math.inf}] = 0.0
    gap: Annotated[int, {"min": 0}] = 0
    divisions: bool = True
    along: Annotated[Literal["time", "depth"], OMIT_DEFAULT] = "time"

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Shard:
    """A part of a run's images, so that several jobs of a cluster divide them."""

    number: int
    """From 1 to `count`."""
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard that ``2/8`` means; ValueError if it means none."""
        number, _, count = text.partition("/")
        if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise ValueError(
                f"{text!r} is no part of a run; write K/N with K from 1 to N, e.g. --shard 2/8."
            )
        return cls(int(number), int(count))

    def __str__(self) -> str:
        return f"{self.number}-of-{self.count}"


def parse_channels(text: str, separators: str = ",;") -> tuple[int | str, ...]:
    """Parse ``0,2,DAPI`` into numbers and names; refuses empty entries."""
    parts = [part.strip() for part in re.split(f"[{separators}]", text)]
    if not all(parts):
        raise ValueError(
            f"{text!r} has an empty entry; write names or numbers with commas between, e.g. "
            "0,2,DAPI."
        )
    return tuple(int(part) if part.isdecimal() else part for part in parts)
