"""Folders of label images that any program wrote, matched by name with the images of a set."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat._text import pluralize
from napari_simmat.datasets.folder import LabeledFile, image_entries, size_misfit
from napari_simmat.io.axes import same_except_singletons
from napari_simmat.io.image_file import ImageFile
from napari_simmat.io.readers import read_labels, stem_of

logger = logging.getLogger(__name__)

ENDINGS = (
    "", "_labels", "_label", "_masks", "_mask", "_cp_masks", "_seg", "_segmentation", "_instances",
    "_instance_segmentation", "_objects", "_pred", "_prediction", "_instanseg_prediction",
    "_Object Identities", ".stardist",
)  # fmt: skip
"""What may follow an image's stem in the name of a label image of it."""
RULE = f"STEM.tif, or STEM followed by {', '.join(ENDINGS[1:])}"
CELLPOSE_OWN = "_seg.npy"
"""Ending of Cellpose's own files, which hold Python objects and lie beside its label images."""
_SHOWN = 5


def match_label_files(folder: Path, files: Sequence[LabeledFile]) -> dict[str, Path]:
    """The label image of each image in a folder, by the image's name; of some there is none.

    It is called like the image, or like it followed by one of `ENDINGS`; where a name fits two
    images, it belongs to the longer one. The images of the set and their own labels are passed
    over, so that a program may have written beside them; files of no image are noted.

    Raises
    ------
    ValueError, OSError
        If there is no such folder, it holds no label image of these, or two of one image.
    """
    if not folder.exists():
        raise FileNotFoundError(f"There is no folder {folder}; check its name.")
    if not folder.is_dir():
        raise ValueError(f"{folder} is a file; give the folder that holds the label images.")
    own = {path.resolve() for file in files for path in (file.image, file.labels)}
    by_length = sorted((file.name for file in files), key=len)
    owner = {f"{name}{ending}": name for name in by_length for ending in ENDINGS}
    found: dict[str, Path] = {}
    strangers: list[str] = []
    for path in image_entries(folder):
        if path.resolve() in own or path.name.endswith(CELLPOSE_OWN):
            continue
        name = owner.get(stem_of(path))
        if name is None:
            strangers.append(path.name)
        elif name in found:
            raise ValueError(
                f"{found[name].name} and {path.name} in {folder} may both be the labels of {name}; "
                "keep one of them."
            )
        else:
            found[name] = path
    if not found:
        raise ValueError(
            f"No file in {folder} is named after an image of the set; name the label images {RULE}."
        )
    if strangers:
        count = pluralize(len(strangers), "file")
        shown = _shown(strangers)
        logger.warning("%s in %s named after no image left out: %s.", count, folder, shown)
    return found


def check_complete(folder: Path, found: dict[str, Path], files: Sequence[LabeledFile]) -> None:
    """Refuse a folder that lacks the labels of an image: what was left out is not measured.

    Raises
    ------
    ValueError
        With the names of these images.
    """
    if missing := [file.name for file in files if file.name not in found]:
        raise ValueError(
            f"{folder} has no label image of {pluralize(len(missing), 'image')} of "
            f"{len(files)} ({_shown(missing)}); name them {RULE}, and save an empty one where the "
            "program found nothing."
        )


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def read_labels_of(path: Path, shape: Sequence[int], image: str, axes: str = "") -> NDArray[Any]:
    """A label image in the shape (..., Y, X) of an image without its channels.

    Raises
    ------
    ValueError, OSError
        If it cannot be read, has another size than the `image` of that name, or a negative id.
    """
    return labels_of_shape(read_labels(path), shape, image, axes)


def labels_of_shape(
    found: ImageFile, shape: Sequence[int], image: str, axes: str = ""
) -> NDArray[Any]:
    """The same of a label image that was read."""
    path = found.path
    if not same_except_singletons(found.shape, shape):
        raise ValueError(size_misfit(str(path), found.shape, image, shape, axes))
    values = np.asarray(found.data).reshape(shape)
    if values.min(initial=0) < 0:
        raise ValueError(
            f"{path} holds the id {values.min()}; ids of objects are positive, 0 is the background."
        )
    return values
