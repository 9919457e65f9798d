"""Samples of the demo: images with known objects, and a click and a box for each object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.normalization import stretch_percentiles
from napari_simmat.engine.prompts import Prompt
from napari_simmat.io.files import SAMPLES
from napari_simmat.io.image_file import ImageFile
from napari_simmat.io.readers import read_image


@dataclass(frozen=True, eq=False)
class DemoSample:
    """An image with known objects.

    Parameters
    ----------
    name
        The stem of its files.
    title
        What it shows.
    model
        The model to use.
    image
        (Y, X) or (C, Y, X).
    truth
        (Y, X) labels, 0 is background.
    channels
        Names of the channels; empty for one channel.
    """

    name: str
    title: str
    model: str
    image: NDArray[Any]
    truth: NDArray[np.int32]
    channels: tuple[str, ...] = ()

    def clicks(self) -> list[Prompt]:
        """A click in the middle of each object."""
        from napari_simmat.engine.masks import interior_point

        return [
            Prompt(
                points=(interior_point(self.truth == label, ties="median"),),
                labels=(1,),
                object=label,
            )
            for label in self._labels()
        ]

    def boxes(self) -> list[Prompt]:
        """The bounding box of each object."""
        from skimage.measure import regionprops

        boxes = {region.label: region.bbox for region in regionprops(self.truth)}
        return [Prompt(box=boxes[label], object=label) for label in self._labels()]

    def picture(self) -> NDArray[np.uint8]:
        """The image as RGB (Y, X, 3), 0..255."""
        if self.image.ndim == 2:
            return np.repeat(_to_8bit(self.image)[..., None], 3, axis=-1)
        return polarization_colors(self.image)

    def _labels(self) -> list[int]:
        return [int(label) for label in np.unique(self.truth) if label]


def demo_samples() -> list[DemoSample]:
    """The samples of the demo; every call returns equal ones."""
    return [coins(), fluorescence(), polarization()]


def coins() -> DemoSample:
    """Photograph of Greek coins from scikit-image; the truth is a watershed.

    The watershed starts from pixels that are certainly coin or table. It is tuned to this image,
    and its outlines were checked by eye.
    """
    from scipy import ndimage
    from skimage import data, filters, measure, morphology, segmentation

    image: NDArray[np.uint8] = data.coins()
    smooth = filters.gaussian(image, 1, preserve_range=True)
    surely = np.where(smooth < 75, 1, np.where(smooth > 150, 2, 0))
    coin = segmentation.watershed(filters.sobel(smooth), surely) == 2
    coin = morphology.opening(ndimage.binary_fill_holes(coin), morphology.disk(5))
    truth = np.zeros(image.shape, dtype=np.int32)
    for region in measure.regionprops(measure.label(coin)):
        y0, x0, y1, x1 = region.bbox
        truth[y0:y1, x0:x1][region.image_convex] = region.label
    return DemoSample("coins", "Photograph of coins", "tiny", image, truth)


def fluorescence() -> DemoSample:
    """Drawn cell nuclei under a fluorescence microscope, 16 bit."""
    image, truth = _stored("fluorescence")
    return DemoSample("fluorescence", "Drawn cell nuclei", "tiny", image.data[0], truth)


def polarization() -> DemoSample:
    """Drawn beads, some of clear glass, behind polarizers at four angles; 12 of 16 bits."""
    image, truth = _stored("polarization")
    channels = image.channel_names or ()
    title = "Drawn beads, four polarization angles"
    return DemoSample("polarization", title, "polarization", image.data, truth, channels)


def _stored(name: str) -> tuple[ImageFile, NDArray[np.int32]]:
    truth = read_image(SAMPLES / f"{name}_labels.tif").data
    return read_image(SAMPLES / f"{name}.tif"), truth.astype(np.int32)


def polarization_colors(angles: NDArray[Any]) -> NDArray[np.uint8]:
    """Intensity as brightness, angle of polarization as hue, its degree as saturation.

    Parameters
    ----------
    angles
        (4, Y, X) behind polarizers at 0, 45, 90 and 135 degrees.
    """
    from skimage.color import hsv2rgb

    i0, i45, i90, i135 = angles.astype(np.float64)
    total = np.maximum((i0 + i45 + i90 + i135) / 2, 1e-9)
    along, across = (i0 - i90) / total, (i45 - i135) / total
    hue = (np.arctan2(across, along) / (2 * np.pi)) % 1
    degree = np.hypot(along, across)
    degree = np.clip(degree / max(float(np.percentile(degree, 99)), 1e-9), 0, 1)
    # Dark but polarizing pixels are bright too: clear glass is visible only by polarization.
    brightness = np.maximum((_to_8bit(total) / 255) ** 0.7, degree)
    colors = hsv2rgb(np.stack([hue, degree, brightness], axis=-1))
    return np.asarray(np.rint(255 * colors), dtype=np.uint8)


def _to_8bit(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Percentiles 0.2 and 99.8 to 0 and 255."""
    return np.asarray(np.rint(stretch_percentiles(image, 0.2, 99.8)), dtype=np.uint8)


def ious(labels: NDArray[Any], truth: NDArray[Any]) -> dict[int, float]:
    """IoU of each object of `truth` with the same number in `labels`."""
    from napari_simmat.engine.masks import iou

    return {int(k): iou(labels == k, truth == k) for k in np.unique(truth) if k}
