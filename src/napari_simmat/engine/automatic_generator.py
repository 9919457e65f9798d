"""Automatic segmentation: prompt a model all over a plane and label its masks.

Seeds are points on a grid, local maxima of a channel, or one click for each label of a coarse label
image. `propose_masks_job` collects mask candidates, `automatic_postprocessing.masks_to_instances`
turns them into objects, again with other thresholds if wanted. `segment_tiles_job` does both tile
by tile, in bounded memory, for planes of any size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import binary_dilation

from napari_simmat._text import format_shape
from napari_simmat.engine.automatic_postprocessing import (
    Instances,
    MaskCandidate,
    MaskCandidates,
    PixelBox,
    Stitcher,
    is_accepted,
    masks_to_instances,
    tile_boxes,
)
from napari_simmat.engine.coordinates import InputTransform
from napari_simmat.engine.masks import bounding_box, interior_point, label_windows
from napari_simmat.engine.object_kind import MIN_OBJECTS, ObjectKind
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.settings import (
    DEFAULT_THRESHOLDS,
    KIND_THRESHOLDS,
    LOOKS_THRESHOLDS,
    MIN_PREDICTED_IOU,
    AutomaticSettings,
)
from napari_simmat.models.expected_size import ExpectedSize
from napari_simmat.progress import Job, Progress, finish, with_progress

if TYPE_CHECKING:
    from napari_simmat.engine.predictor import Predictor
    from napari_simmat.engine.result import LogitPatch, Result

MIN_FOREGROUND = -4.5
"""Seeds with a lower logit of an object being there are left out: it is 1 in 90."""
SUFFICIENT_VOTES = 6
"""Seeds on an object that so many others found are left out."""
SMALL_OBJECT = 2.0
"""An object's size in steps of the grid up to which a single seed may be all that lies on it."""


SEEDS_APART = 0.5
"""Distance of the seeds of a grid, in sides of the objects that a model has learned."""
UNEXPECTED_SIZE = 0.3
"""Quality that a mask loses for each factor of e by which its side lies out of the learned ones."""
MOST_SEEDS_PER_SIDE = 96
"""Of a grid for small objects, however small they are."""


def point_grid(size: tuple[int, int], per_longer_side: int) -> list[Prompt]:
    """Clicks on a square grid over `size` (height, width), row by row.

    The shorter side gets its share of `per_longer_side`, at least one. On a square image this is
    the grid of SAM's generator.
    """
    longest = max(size)
    rows, columns = (max(1, round(per_longer_side * side / longest)) for side in size)
    height, width = size
    # SAM counts positions from the edge of the first pixel; ours are from its center.
    ys = (np.arange(rows) + 0.5) / rows * height - 0.5
    xs = (np.arange(columns) + 0.5) / columns * width - 0.5
    return prompts_at([(y, x) for y in ys for x in xs])


class SeedRounds:
    """Which seeds of a grid are prompted, in two rounds like the squares of a chessboard.

    A network that estimates seeds cheaply is not prompted where it sees no object. In the second
    round only those seeds are prompted that lie beside one that found something, or on an object so
    small that no other seed need be on it; but not those on an object that many seeds found.

    Parameters
    ----------
    positions
        The seeds (N, 2) as y, x, row by row.
    foreground, size
        Estimates (N,): logit of an object being there, and the square root of its area in pixels.
    """

    def __init__(
        self,
        positions: NDArray[np.float64],
        foreground: NDArray[np.float32],
        size: NDArray[np.float32],
    ) -> None:
        rows, columns = (np.unique(positions[:, axis]) for axis in (0, 1))
        shape = len(rows), len(columns)
        step = max(float(np.diff(along).max(initial=0)) for along in (rows, columns))
        self._worth = (foreground >= MIN_FOREGROUND).reshape(shape)
        self._small = (size < SMALL_OBJECT * step).reshape(shape)
        self._dark = np.indices(shape).sum(0) % 2 == 0

    def first(self) -> list[int]:
        """Numbers of the seeds of the first round."""
        return np.flatnonzero(self._worth & self._dark).tolist()

    @property
    def total(self) -> int:
        """How many seeds both rounds may prompt."""
        return int(np.count_nonzero(self._worth))

    def second(self, found: Sequence[int], votes: NDArray[np.int_]) -> tuple[list[int], list[int]]:
        """Numbers of the seeds of the second round, and of those left out on known objects.

        Parameters
        ----------
        found
            Numbers of the seeds that found something.
        votes
            (N,) how many seeds found an object that a seed is on.
        """
        near = np.zeros(self._worth.shape, bool)
        near.flat[list(found)] = True
        near = binary_dilation(near) & ~self._small
        known = votes.reshape(near.shape) >= SUFFICIENT_VOTES
        left = self._worth & ~self._dark
        second = left & (self._small | (near & ~known))
        return np.flatnonzero(second).tolist(), np.flatnonzero(left & near & known).tolist()


def prompts_at(points: ArrayLike) -> list[Prompt]:
    """A click at each of `points` (N, 2) as y, x."""
    positions = np.asarray(points, np.float64).reshape(-1, 2)
    return [Prompt(points=((float(y), float(x)),)) for y, x in positions]


def local_maxima(
    channel: NDArray[Any], distance: int = 8, height: float = 0.2
) -> NDArray[np.float64]:
    """Maxima (N, 2) as y, x of a channel (Y, X), row by row: mostly one for each blob.

    The channel, normalized to 0..1, is first smoothed with a Gaussian of `distance` / 2, since
    noise has maxima too. Maxima are at least `distance` pixels apart and `height` high.
    """
    from scipy.ndimage import gaussian_filter
    from skimage.feature import peak_local_max

    if not channel.size or channel.max() < height:  # most of a large image is empty
        return np.empty((0, 2))
    smooth = gaussian_filter(np.asarray(channel, np.float32), distance / 2)
    maxima = peak_local_max(
        smooth, min_distance=max(int(distance), 1), threshold_abs=height, exclude_border=False
    )
    order = np.lexsort((maxima[:, 1], maxima[:, 0]))
    return np.asarray(maxima[order], np.float64)


def prompts_from_labels(labels: NDArray[Any]) -> list[Prompt]:
    """A box and a click for each label of a coarse label image (Y, X), in the order of the ids.

    The click is on the pixel deepest within the label. Raises ValueError if there is no label.
    """
    prompts = []
    for label, (rows, columns) in label_windows(labels):
        y, x = interior_point(labels[rows, columns] == label)
        point = rows.start + y, columns.start + x
        box = rows.start, columns.start, rows.stop, columns.stop
        prompts.append(Prompt(points=(point,), box=box, object=label))
    if not prompts:
        raise ValueError(
            "The label image for the seeds holds no label, only background; paint some objects "
            "roughly, or use a grid."
        )
    return prompts


def prompt_positions(prompts: Sequence[Prompt]) -> NDArray[np.float64]:
    """First point or center of the box of each prompt, (N, 2) as y, x; NaN for a mask alone."""
    positions = np.full((len(prompts), 2), np.nan)
    for at, prompt in enumerate(prompts):
        if prompt.points:
            positions[at] = prompt.points[0]
        elif prompt.box is not None:
            y0, x0, y1, x1 = prompt.box
            positions[at] = (y0 + y1 - 1) / 2, (x0 + x1 - 1) / 2
    return positions


BATCH_SIZES = {"cpu": 16}
"""Prompts decoded together, by kind of device; more would not stay in a CPU's caches."""
GPU_BATCH_SIZE = 64
ENCODING_WORK = {True: 64, False: 400}
"""How many seeds take as long as encoding, for `tiny` (embedded) and for SAM."""
FOUND_QUALITY = DEFAULT_THRESHOLDS[0]
"""Seeds beside one that found a mask of this quality are prompted as well."""
COUNTED = AutomaticSettings()
"""Masks that pass these filters count as known objects, whatever is wanted in the end."""
NEAR_CROP_EDGE = 20
"""A mask within so many pixels of a crop's edge counts as cut by it, as in SAM."""
ALTERNATIVE_WEIGHT = 0.85
"""Weight of the predicted IoU of the three candidates where the model also gives a single mask."""


def segment_everything(
    predictor: Predictor,
    settings: AutomaticSettings | None = None,
    plane: tuple[int, ...] = (),
    prompts: Sequence[Prompt] | None = None,
    kind: ObjectKind | None = None,
) -> Instances:
    """Find all objects of a plane.

    Parameters
    ----------
    predictor
        Holds the image.
    settings
        By default the model's.
    plane
        Index along the image's axes before Y and X.
    prompts
        Used instead of a grid, e.g. `prompts_from_labels`. Crop layers are then
        ignored.
    kind
        What the objects have in common; by default the size in the settings, or what the model
        has learned.

    Returns
    -------
    Instances
        Label image and scores. The same image, model and settings give the same labels.

    Examples
    --------
    >>> from napari_simmat import Predictor, load_model, segment_everything
    >>> from skimage.data import coins
    >>> predictor = Predictor(load_model("tiny"))
    >>> predictor.set_image(coins())
    >>> segment_everything(predictor).labels.shape
    (303, 384)
    """
    return finish(segment_everything_job(predictor, settings, plane, prompts, kind))


def segment_everything_job(
    predictor: Predictor,
    settings: AutomaticSettings | None = None,
    plane: tuple[int, ...] = (),
    prompts: Sequence[Prompt] | None = None,
    kind: ObjectKind | None = None,
) -> Job[Instances]:
    """`segment_everything` as a job that yields after every few prompts."""
    settings = settings or AutomaticSettings()
    kind = kind or known_kind(predictor, settings)
    settings = settings.for_model(predictor.model.spec, kind)
    size = (predictor.shape[-2], predictor.shape[-1])
    if prompts is None and max(size) > 2 * settings.tile_side:
        labels = np.zeros(size, np.uint32)
        scores = yield from segment_tiles_job(predictor, labels, settings, plane, kind)
        return Instances(labels, scores)
    candidates = yield from propose_masks_job(
        predictor, settings, plane, prompts, keep_all=False, kind=kind
    )
    if kind is not None:
        candidates = yield from weigh_masks_job(candidates, kind, predictor, plane)
    elif settings.second_look and prompts is None:
        candidates = yield from look_again_job(candidates, predictor, settings, plane)
    return masks_to_instances(candidates, settings)


def look_again_job(
    candidates: MaskCandidates,
    predictor: Predictor,
    settings: AutomaticSettings,
    plane: tuple[int, ...] = (),
    keep_all: bool = False,
) -> Job[MaskCandidates]:
    """Propose masks once more, by the size of the objects that the `candidates` hold.

    `settings` have thresholds, which the objects of both looks must reach. The candidates stay
    where they hold fewer than `object_kind.MIN_OBJECTS`, or the seeds are no grid.
    """
    labels = masks_to_instances(candidates, settings).labels
    if settings.seeds != "grid" or len(np.unique(labels)) <= MIN_OBJECTS:
        return candidates
    enlarged = _enlargement(predictor, PixelBox(0, 0, *labels.shape))
    kind = ObjectKind.of(labels, enlarged)
    return (yield from propose_masks_job(predictor, settings, plane, None, keep_all, kind))


def known_kind(predictor: Predictor, settings: AutomaticSettings) -> ObjectKind | None:
    """What the model was taught, with the size of the settings if they give one; None for none."""
    taught = ObjectKind.of_model(predictor.model)
    if not settings.object_side:
        return taught
    height, width = predictor.shape[-2:]
    area = settings.object_side**2 * _enlargement(predictor, PixelBox(0, 0, height, width))
    size = ExpectedSize.of([area])
    return ObjectKind(size) if taught is None else replace(taught, size=size)


def learn_kind(
    predictor: Predictor,
    labels: NDArray[Any],
    ground: NDArray[np.bool_] | None = None,
    plane: tuple[int, ...] = (),
    seed: int = 0,
) -> ObjectKind:
    """Learn what some objects of a plane have in common, for `segment_everything`.

    Parameters
    ----------
    predictor
        Holds the image.
    labels
        (Y, X) ids of at least three objects; 0 where nothing is known.
    ground
        (Y, X), where there is surely no object. Without it only their size is learned.
    plane
        Index along the image's axes before Y and X.
    seed
        Of what is drawn at random.

    Raises
    ------
    ValueError
        If there are too few objects, or the labels have another size than the image.

    Examples
    --------
    >>> kind = learn_kind(predictor, labels_of_five, ground=strokes)
    >>> segment_everything(predictor, kind=kind)
    """
    height, width = predictor.shape[-2:]
    for given in (labels, ground):
        if given is not None and given.shape != (height, width):
            size = f"{format_shape(given.shape)} instead of {height} x {width}"
            raise ValueError(f"Labels and ground must have the size of a plane; got {size}.")
    enlarged = _enlargement(predictor, PixelBox(0, 0, height, width))
    image = None if ground is None else unit_planes(predictor, plane)
    return ObjectKind.of(labels, enlarged, image, ground, seed)


def weigh_masks_job(
    candidates: MaskCandidates,
    kind: ObjectKind,
    predictor: Predictor,
    plane: tuple[int, ...] = (),
    image: NDArray[np.float32] | None = None,
    part: PixelBox | None = None,
) -> Job[MaskCandidates]:
    """The candidates, less likely ones with less quality, if the looks of their kind are known.

    Parameters
    ----------
    candidates
        Of a plane, or of a `part` of it.
    kind
        With the size of which they were proposed.
    predictor, plane
        As in `propose_masks_job`.
    image
        (C, Y, X) in 0..1: the plane or part in the channels by which the looks were learned; by
        default those that the model reads.
    """
    if kind.looks is None:
        return candidates
    if image is None:
        image = unit_planes(predictor, plane, part)
    likeness = yield from kind.likeness_job(image)
    assert likeness is not None
    return replace(candidates.weighed(likeness), thresholds=LOOKS_THRESHOLDS)


def unit_planes(
    predictor: Predictor, plane: tuple[int, ...], part: PixelBox | None = None
) -> NDArray[np.float32]:
    """A plane, or a part of it, as the model reads it: (C, Y, X) in 0..1."""
    stack, scale = predictor.stack, predictor.stack.inputs.normalization.scale
    values = (
        stack.normalized(plane) if part is None else stack.part(plane, *part.slices).normalized()
    )
    return np.asarray(values, np.float32) / np.float32(scale)


class CropRegion(NamedTuple):
    """A part of a plane that is encoded on its own; layer 0 is the whole plane."""

    box: PixelBox
    layer: int = 0


def propose_masks_job(
    predictor: Predictor,
    settings: AutomaticSettings,
    plane: tuple[int, ...] = (),
    prompts: Sequence[Prompt] | None = None,
    keep_all: bool = True,
    kind: ObjectKind | None = None,
) -> Job[MaskCandidates]:
    """Prompt the model all over a plane and collect its masks.

    Parameters
    ----------
    predictor
        Holds the image; its current plane is the same afterwards.
    settings
        Where to prompt; with `keep_all` the thresholds do not matter.
    plane, prompts
        As in `segment_everything`.
    keep_all
        Also keep masks that the filters of `settings` reject, so that they can be filtered again
        with other settings. Otherwise masks of too low predicted IoU are not even formed.
    kind
        The size of its objects counts, by default as in `segment_everything`; `weigh_masks_job`
        heeds their looks.

    Raises
    ------
    ValueError
        If a prompt lies outside the image.
    """
    height, width = predictor.shape[-2:]
    for prompt in prompts or ():
        prompt.check_inside((height, width))
    kind = kind or known_kind(predictor, settings)
    settings = settings if kind is None else settings.with_thresholds(KIND_THRESHOLDS)
    candidates = MaskCandidates((height, width), settings.thresholds)
    crops = [CropRegion(PixelBox(0, 0, height, width))]
    if prompts is None and settings.seeds == "grid":
        crops = crop_regions((height, width), settings)
    seeds_of_crops = [
        seed_prompts(predictor, settings, plane, crop.box, kind) if prompts is None else prompts
        for crop in crops
    ]
    is_grid = prompts is None and settings.seeds == "grid"
    work = ENCODING_WORK[predictor.model.spec.base.embedded]
    total = sum(work + len(seeds) for seeds in seeds_of_crops)
    done, first = 0, 0
    size = None if kind is None else kind.size
    with predictor.keeping_plane():
        for crop, seeds in zip(crops, seeds_of_crops, strict=True):
            for step in predictor.encode_tile_job(plane, *crop.box.slices):
                share = step.done / step.total if step.total else 0.0
                yield Progress(done + round(work * share), total, step.message or "encoding")
            done += work
            prompter = _CropPrompter(
                predictor, seeds, crop, settings, candidates, keep_all, size, first
            )
            for step in prompter.run_job(is_grid):
                share = step.done / max(step.total, 1)
                yield Progress(done + round(len(seeds) * share), total, step.message)
            done, first = done + len(seeds), first + len(seeds)
    return candidates


class _CropPrompter:
    """Prompts the model with the seeds of an encoded crop, and adds their masks to `candidates`.

    `first` is the number of the first seed, if there were crops before this one.
    """

    def __init__(
        self,
        predictor: Predictor,
        seeds: Sequence[Prompt],
        crop: CropRegion,
        settings: AutomaticSettings,
        candidates: MaskCandidates,
        keep_all: bool,
        expected: ExpectedSize | None,
        first: int = 0,
    ) -> None:
        self._predictor, self._seeds, self._crop = predictor, seeds, crop
        self._settings, self._candidates = settings, candidates
        self._keep_all, self._first = keep_all, first
        self._positions = prompt_positions(seeds)
        self._minimum = MIN_PREDICTED_IOU if keep_all else settings.thresholds[0]
        # SAM's own generator takes the three candidates and leaves out the single-mask token.
        stock = predictor.model.spec.mask_choice == "stock"
        weights = [0, 1, 1, 1] if stock else [1, *(ALTERNATIVE_WEIGHT,) * 3]
        self._weights = np.array(weights, np.float32)
        self._expected = expected
        self._enlarged = 1.0 if expected is None else _enlargement(predictor, crop.box)
        self._seeds_on: list[tuple[int, NDArray[np.intp]]] = []
        self._prompted = 0
        # For each seed of the crop, how many of those so far found an object that it is on.
        self._votes = np.zeros(len(seeds), int)

    def run_job(self, is_grid: bool) -> Job[None]:
        """Prompt with all seeds, or of a grid with those that are worth it (`SeedRounds`)."""
        seeds = self._seeds
        estimates = self._predictor.estimate_clicks(seeds) if is_grid else None
        if estimates is None:
            yield from self._prompt_job(range(len(seeds)), len(seeds))
            return
        foreground, size = (each.numpy() for each in estimates)
        rounds = SeedRounds(self._positions, foreground, size)
        found = yield from self._prompt_job(rounds.first(), rounds.total)
        second, known = rounds.second(found, self._votes)
        yield from self._prompt_job(second, self._prompted + len(second))
        # Seeds that were left out, as they lie on known objects, count as being on no mask.
        measured = self._candidates.known
        for at, inside in self._seeds_on:
            used = len(inside) - int(np.isin(inside, known).sum())
            measured[at] = measured[at]._replace(seeds_inside=used)

    def _prompt_job(self, numbers: Sequence[int], total: int) -> Job[list[int]]:
        """Prompt with some of `total` seeds; returns those that found a mask of `FOUND_QUALITY`."""
        at_once = BATCH_SIZES.get(self._predictor.device.type, GPU_BATCH_SIZE)
        found: list[int] = []
        for start in range(0, len(numbers), at_once):
            batch = numbers[start : start + at_once]
            seeds = [self._seeds[number] for number in batch]
            results = self._predictor.predict_low_res(seeds, self._minimum, self._expected)
            for number, result in zip(batch, results, strict=True):
                qualities = (result.predicted_iou * self._weights).tolist()
                if max(qualities) > FOUND_QUALITY:
                    found.append(number)
                self._add(number, result, qualities)
            self._prompted += len(batch)
            yield Progress(self._prompted, total, "segmenting everything")
        return found

    def _add(self, number: int, result: Result, qualities: list[float]) -> None:
        """Keep the masks of a seed that are good enough; its best object gets a vote."""
        offset, shape = self._settings.offset, self._candidates.shape
        best, voted = 0.0, np.empty(0, np.intp)
        for which, quality in enumerate(qualities):
            patch = result.patch(which, above=-offset) if quality > self._minimum else None
            if patch is None:
                continue
            found = _mask_candidate(patch, quality, offset, self._crop, shape)
            if found is None:
                continue
            candidate, mask = found
            candidate = candidate._replace(quality=quality - self._unexpected(candidate.area))
            if self._keep_all or is_accepted(candidate, self._settings, shape):
                inside = _seeds_inside(candidate, mask, self._positions, self._crop)
                known = candidate._replace(seed=self._first + number, seeds_inside=len(inside))
                self._seeds_on.append((len(self._candidates), inside))
                self._candidates.add(known, mask)
                score = candidate.quality * candidate.stability
                if score > best and is_accepted(candidate, COUNTED, shape):
                    best, voted = score, inside
        self._votes[voted] += 1

    def _unexpected(self, area: int) -> float:
        """Quality that a mask of so many pixels loses if another size is expected."""
        if self._expected is None:
            return 0.0
        return UNEXPECTED_SIZE * self._expected.misfit(area * self._enlarged)


def crop_regions(shape: tuple[int, int], settings: AutomaticSettings) -> list[CropRegion]:
    """The whole plane, then the crops of each layer, as SAM's generator lays them out."""
    from segment_anything.utils.amg import (
        generate_crop_boxes,
    )  # loads torch; the window does without

    boxes, layers = generate_crop_boxes(shape, settings.crop_layers, settings.crop_overlap)
    return [
        CropRegion(PixelBox(y0, x0, y1, x1), layer)
        for (x0, y0, x1, y1), layer in zip(boxes, layers, strict=True)
    ]


def seed_prompts(
    predictor: Predictor,
    settings: AutomaticSettings,
    plane: tuple[int, ...],
    box: PixelBox,
    kind: ObjectKind | None = None,
) -> list[Prompt]:
    """Clicks on a part of a plane, in its own pixels: a grid, or the local maxima of a channel.

    The grid is close enough for small objects of a known kind.

    Raises ValueError if the model has no such channel.
    """
    if settings.seeds == "grid":
        # SAM uses 32 for every image; small ones need fewer.
        usual = min(max(round(max(box.size) / 16), 16), 32)
        if kind is not None:
            side = kind.side / math.sqrt(_enlargement(predictor, box))
            close = math.ceil(max(box.size) / (SEEDS_APART * side))
            usual = max(usual, min(close, MOST_SEEDS_PER_SIDE))
        return point_grid(box.size, settings.points_per_side or usual)
    stack, number = predictor.stack, settings.maxima_channel
    if number >= stack.n_channels:
        raise ValueError(
            f"There is no channel {number} to look for maxima in; {stack.inputs.reader} reads "
            f"{stack.n_channels}, counted from 0 to {stack.n_channels - 1}."
        )
    values = stack.part(plane, *box.slices).normalized()[number]
    unit = values / stack.inputs.normalization.scale
    return prompts_at(local_maxima(unit, settings.maxima_distance, settings.maxima_height))


def _enlargement(predictor: Predictor, box: PixelBox) -> float:
    """Pixels of the network's input for each pixel of a part of a plane."""
    spec, pixel_size = predictor.model.spec, predictor.stack.pixel_size
    return math.prod(InputTransform.of(box.size, spec.input_size, pixel_size).scale)


def _mask_candidate(
    patch: LogitPatch, quality: float, offset: float, crop: CropRegion, shape: tuple[int, int]
) -> tuple[MaskCandidate, NDArray[np.bool_]] | None:
    """A mask in the plane's pixels, unless it is empty or cut by the crop's edge."""
    inside = patch.logits > 0
    region = bounding_box(inside)
    if region is None:
        return None
    mask = inside[region]
    top = crop.box.y0 + patch.top + region[0].start
    left = crop.box.x0 + patch.left + region[1].start
    box = PixelBox(top, left, top + mask.shape[0], left + mask.shape[1])
    if touches_crop_edge(box, crop.box, shape):
        return None
    # SAM's stability score: IoU of the masks at two cutoffs.
    inner, outer = (np.float32(np.count_nonzero(patch.logits > cut)) for cut in (offset, -offset))
    # The share of the crop's edge that the mask covers.
    height, width = crop.box.size
    covered = 0
    for row, edge in ((0, box.y0 == crop.box.y0), (-1, box.y1 == crop.box.y1)):
        covered += int(mask[row].sum()) if edge else 0
    for column, edge in ((0, box.x0 == crop.box.x0), (-1, box.x1 == crop.box.x1)):
        covered += int(mask[:, column].sum()) if edge else 0
    candidate = MaskCandidate(
        box=box,
        area=int(np.count_nonzero(mask)),
        quality=quality,
        stability=float(inner / outer),
        rim=covered / (2 * (height + width)),
        layer=crop.layer,
    )
    return candidate, mask


def touches_crop_edge(box: PixelBox, crop: PixelBox, shape: tuple[int, int]) -> bool:
    """Whether a box is near a crop's edge beyond which the plane continues, by SAM's rule.

    See `segment_anything.utils.amg.is_box_near_crop_edge`.
    """
    sides = (
        (box.y0, crop.y0, 0),
        (box.x0, crop.x0, 0),
        (box.y1 - 1, crop.y1, shape[0]),  # SAM's boxes end at their last pixel
        (box.x1 - 1, crop.x1, shape[1]),
    )
    return any(
        abs(at - edge) <= NEAR_CROP_EDGE < abs(at - plane_edge) for at, edge, plane_edge in sides
    )


def _seeds_inside(
    candidate: MaskCandidate,
    mask: NDArray[np.bool_],
    positions: NDArray[np.float64],
    crop: CropRegion,
) -> NDArray[np.intp]:
    box = candidate.box
    numbers = np.flatnonzero(np.isfinite(positions).all(axis=1))  # a mask prompt has none
    at = np.floor(positions[numbers] + 0.5).astype(int)  # the pixel whose center is nearest
    y, x = at[:, 0] + crop.box.y0 - box.y0, at[:, 1] + crop.box.x0 - box.x0
    within = (y >= 0) & (x >= 0) & (y < mask.shape[0]) & (x < mask.shape[1])
    within[within] = mask[y[within], x[within]]
    return np.asarray(numbers[within], np.intp)


def segment_tiles_job(
    predictor: Predictor,
    labels: Any,
    settings: AutomaticSettings | None = None,
    plane: tuple[int, ...] = (),
    kind: ObjectKind | None = None,
) -> Job[NDArray[np.float32]]:
    """Find all objects of a plane in overlapping tiles, stitched across their seams.

    All tiles are normalized as the whole image.

    Parameters
    ----------
    predictor
        Holds the image; `Predictor.open_image_job` opens one without encoding a whole plane.
    labels
        (Y, X) uint32, empty: numpy, or zarr if it does not fit into memory. It is filled tile by
        tile; the objects are 1..N.
    settings
        By default the model's; `tile` and `tile_overlap` define the tiles.
    plane
        Index along the image's axes before Y and X.
    kind
        What the objects have in common; by default the size in the settings, or what the model
        has learned.

    Returns
    -------
    (N,) predicted IoU of the objects.
    """
    settings = settings or AutomaticSettings()
    kind = kind or known_kind(predictor, settings)
    settings = settings.for_model(predictor.model.spec, kind)
    height, width = predictor.shape[-2:]
    stitcher = Stitcher(labels, settings.overlap)
    max_pixels = settings.max_area * height * width
    tiles = tile_boxes((height, width), settings.tile_side, settings.tile_shared)
    with predictor.keeping_plane():
        for done, tile in enumerate(tiles):
            here = Progress(done, len(tiles), f"tile {done + 1} of {len(tiles)}")
            yield here
            positions = prompt_positions(seed_prompts(predictor, settings, plane, tile, kind))
            if not len(positions):
                continue
            part = box_around(positions, tile, settings.tile_shared)
            seeds = prompts_at(positions + np.array([tile.y0 - part.y0, tile.x0 - part.x0]))
            yield from with_progress(
                predictor.encode_tile_job(plane, *part.slices, keep=False), here
            )
            candidates = MaskCandidates(part.size, settings.thresholds)
            own = CropRegion(PixelBox(0, 0, *part.size))
            # Border and area of a part are not the plane's; but a mask that nearly fills a part is
            # not an object either.
            largest = max(settings.max_area, AutomaticSettings.max_area)
            share = min(max_pixels / math.prod(part.size), largest)
            within = replace(settings, keep_border=True, max_area=share)
            size = None if kind is None else kind.size
            prompter = _CropPrompter(
                predictor, seeds, own, within, candidates, keep_all=False, expected=size
            )
            yield from with_progress(prompter.run_job(settings.seeds == "grid"), here)
            if kind is not None:
                weighing = weigh_masks_job(candidates, kind, predictor, plane, part=part)
                candidates = yield from with_progress(weighing, here)
            stitcher.add(masks_to_instances(candidates, within), part)
    yield Progress(len(tiles), len(tiles), "numbering")
    return stitcher.finish(settings.keep_border, max_pixels)


def box_around(positions: NDArray[np.float64], tile: PixelBox, margin: int) -> PixelBox:
    """The part of a tile, in the plane's pixels, within `margin` of its seeds.

    The rest of the tile need not be encoded. `positions` (N, 2) are y, x in the tile's pixels.
    """
    first = np.maximum(np.floor(positions.min(0)).astype(int) - margin, 0)
    last = np.minimum(np.ceil(positions.max(0)).astype(int) + 1 + margin, tile.size)
    corner = np.array([tile.y0, tile.x0])
    return PixelBox(*(corner + first).tolist(), *(corner + last).tolist())
