"""All objects of a plane by micro-sam's decoder: three maps, and a seeded watershed on them.

The numbers are those of ``InstanceSegmentationWithDecoder.generate`` of micro-sam
(https://github.com/computational-cell-analytics/micro-sam, ``micro_sam/instance_segmentation.py``)
and of ``watershed_from_center_and_boundary_distances`` of torch_em, with their names and defaults.
The Gaussian blur is that of ``bioimage_cpp``, which both call: cut off at three sigma, and mirrored
at the edge without repeating it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from napari_simmat.engine.everything.candidates import MaskCandidate, MaskCandidates, PixelBox
from napari_simmat.engine.everything.object_finder import find_objects_job
from napari_simmat.engine.everything.outlined_objects import outline_objects_job
from napari_simmat.engine.settings import BY_TINY, AutomaticSettings
from napari_simmat.models.object_decoder import ObjectDecoder
from napari_simmat.progress import Job, Progress, as_part

if TYPE_CHECKING:
    from napari_simmat.engine.predictor import Predictor

_CUT_OFF = 3.0
"""Of the Gaussian kernel, in sigma."""


class InstanceMaps(NamedTuple):
    """What the decoder predicts of a plane, or of a part of it: each (Y, X) float32 in 0..1.

    Attributes
    ----------
    foreground
        How likely a pixel is part of an object.
    center_distances
        Its distance to the object's center, relative to the object's size.
    boundary_distances
        1 minus that to the object's boundary: 0 in its middle, 1 at the outline.
    """

    foreground: NDArray[np.float32]
    center_distances: NDArray[np.float32]
    boundary_distances: NDArray[np.float32]


def decode_objects_job(
    predictor: Predictor,
    settings: AutomaticSettings,
    plane: tuple[int, ...] = (),
    box: PixelBox | None = None,
    *,
    keep: bool = True,
    decoder: ObjectDecoder | None = None,
) -> Job[MaskCandidates]:
    """Find the objects of a plane, or of a part of it, by the model's decoder or by `tiny`'s.

    Parameters
    ----------
    predictor
        Holds the image, and a model with a decoder unless `tiny` finds the objects; its current
        plane is the same afterwards.
    settings
        Thresholds and blurs; the filters are left to `masks_to_instances`.
    plane, box
        Which plane, and which part of it; by default all. The masks are in the part's pixels.
    keep
        Whether the embedding is cached.
    decoder
        In place of the model's own, where that is `tiny`'s.

    Returns
    -------
    MaskCandidates
        Disjoint masks. Their quality is the mean foreground, or of `tiny`'s decoder the chance that
        they meet an object (`object_finder`, `outlined_objects`); their stability is 1.
    """
    if settings.by == BY_TINY:
        job = outline_objects_job(predictor, settings, plane, box, keep=keep, decoder=decoder)
        return (yield from job)
    if isinstance(predictor.model.decoder, ObjectDecoder):
        return (yield from find_objects_job(predictor, plane, box, decoder))
    height, width = predictor.shape[-2:]
    box = box or PixelBox(0, 0, height, width)
    with predictor.keeping_plane():
        encoding = predictor.encode_tile_job(plane, *box.slices, keep=keep)
        yield from as_part(encoding, 0, 0.6)
        maps = InstanceMaps(*(yield from as_part(predictor.instance_maps_job(), 0.6, 0.9)))
    yield Progress(9, 10, "separating objects")
    foreground = _blurred(maps.foreground, settings.foreground_smoothing)
    labels = watershed_objects(maps._replace(foreground=foreground), settings)
    found = MaskCandidates(box.size, (settings.foreground_threshold, 0.0), disjoint=True)
    for number, at in enumerate(ndi.find_objects(labels), start=1):
        mask = labels[at] == number
        rows, columns = at
        candidate = MaskCandidate(
            box=PixelBox(rows.start, columns.start, rows.stop, columns.stop),
            area=int(np.count_nonzero(mask)),
            quality=float(foreground[at][mask].mean(dtype=np.float64)),
            stability=1.0,
            seed=number - 1,
        )
        found.add(candidate, mask)
    yield Progress(10, 10, "separating objects")
    return found


def watershed_objects(maps: InstanceMaps, settings: AutomaticSettings) -> NDArray[np.int32]:
    """Label the objects of the maps (Y, X): 0 is ground, 1..N in the order of their seeds.

    The foreground is taken as it is, blurred or not; both distances are blurred. A seed is where
    foreground is more, and both distances are less, than their thresholds (8-connected); seeds grow
    by increasing boundary distance to all of the foreground that they reach (4-connected).
    """
    from skimage.measure import label
    from skimage.segmentation import watershed

    center, boundary = (_blurred(each, settings.distance_smoothing) for each in maps[1:])
    inside = maps.foreground > settings.foreground_threshold
    is_seed = (
        inside
        & (center < settings.center_distance_threshold)
        & (boundary < settings.boundary_distance_threshold)
    )
    seeds = label(is_seed, connectivity=2).astype(np.int32)
    labels: NDArray[np.int32] = watershed(boundary, markers=seeds, mask=inside)
    return labels


def _blurred(values: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    if sigma == 0:
        return values
    blurred: NDArray[np.float32] = ndi.gaussian_filter(
        values, sigma, mode="mirror", truncate=_CUT_OFF
    )
    return blurred
