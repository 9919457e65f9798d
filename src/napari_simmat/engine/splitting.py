"""One object into several: its separate pieces, or the parts around given points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.footprints import Footprint


def pieces(mask: NDArray[np.bool_], corner: tuple[int, ...] = ()) -> list[Footprint]:
    """The connected pieces of an object, the largest first.

    Parameters
    ----------
    mask
        Bool, of any number of axes. Voxels that touch at a corner are connected.
    corner
        Where in a larger array the mask begins.
    """
    from scipy.ndimage import find_objects
    from skimage.measure import label

    found = []
    numbered = label(mask, connectivity=mask.ndim)
    for number, box in enumerate(find_objects(numbered), start=1):  # there may be thousands
        start = tuple(part.start for part in box)
        first = tuple(map(sum, zip(start, corner or (0,) * mask.ndim, strict=True)))
        found.append(Footprint.of(numbered[box] == number, first))
    return sorted(found, key=lambda piece: -piece.size)


def parts_around(
    mask: NDArray[np.bool_],
    points: Sequence[Sequence[int]],
    spacing: Sequence[float] | None = None,
) -> list[NDArray[np.bool_]]:
    """Cut an object at its narrow places, so that each point gets a part of its own.

    A watershed on the distance to the object's border. A piece of the object without a point goes
    to the part of the first one.

    Parameters
    ----------
    mask
        Bool, of any number of axes.
    points
        Indices of voxels of the object, one for each part.
    spacing
        Size of a voxel along each axis; by default all are equal.

    Returns
    -------
    list of bool arrays
        One part for each point, in order; together they are the object.

    Raises
    ------
    ValueError
        If a point lies beside the object, or two are the same voxel.
    """
    from scipy.ndimage import distance_transform_edt
    from skimage.segmentation import watershed

    markers = np.zeros(mask.shape, dtype=np.int32)
    for number, point in enumerate(points, start=1):
        at = tuple(int(index) for index in point)
        if not mask[at]:
            raise ValueError(f"The point {at} lies beside the object; place it on the object.")
        if markers[at]:
            raise ValueError(f"Two points lie on the same voxel {at}; place them apart.")
        markers[at] = number
    distance = distance_transform_edt(np.pad(mask, 1), sampling=spacing)
    inner = distance[(slice(1, -1),) * mask.ndim]
    parts = watershed(-inner, markers, mask.ndim, mask=mask)  # through corners, as `pieces` are
    parts[mask & (parts == 0)] = 1
    return [parts == number for number in range(1, len(points) + 1)]
