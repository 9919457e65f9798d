"""Which published model is made for the kind of image at hand, and what its download is.

The kind follows from what a file says of its pixels. A light microscope does not resolve 100 nm, so
pixels below 20 nm are an electron microscope's; those of whole cells have at most two micrometers.
Named are models that find all objects at once, and what they are for: grains or coins may lie under
a microscope, too. Nothing is fetched.
"""

from __future__ import annotations

from napari_simmat.checkpoints.catalog import DECODER_SIZE, PUBLISHED_WEIGHTS
from napari_simmat.checkpoints.registry import find_model
from napari_simmat.io.files import format_size
from napari_simmat.io.reference import ImageReference
from napari_simmat.models.spec import ModelSpec

MODEL_FOR = {
    "electron microscopy": "vit_b_em_organelles",
    "histopathology": "vit_b_histopathology",
    "light microscopy": "vit_b_lm",
}
"""By `PublishedWeights.modality`: of several sizes the one in the middle."""
_ELECTRONS = 0.02
"""Micrometers to a pixel of an electron microscope, at most."""
_CELLS = 2.0
"""Micrometers to a pixel of an image of cells, at most."""
_MICROMETERS = {"nm": 1e-3, "um": 1.0, "mm": 1e3}
THERE_IS = "For {purpose} there is {name} ({size}, license {license}), which is not here. "
BY_COMMAND = "`simmat models fetch {name}` downloads it."
BY_WINDOW = "Choose it in the list of models to download it."


def image_modality(reference: ImageReference, *, rgb: bool, bright: bool) -> str:
    """What kind of image it is, a key of `MODEL_FOR`; empty where its file does not tell.

    Parameters
    ----------
    reference
        What the image's file says besides its pixels.
    rgb
        Whether it is a picture in colors of 8 bits, as slide scanners make. Three channels of more
        are a composite of stains.
    bright
        Whether that shows transmitted light; otherwise it is a picture of a composite.
    """
    known = reference.of("X")
    if known is None or reference.world is not None or known[1] not in _MICROMETERS:
        return ""
    micrometers = known[0] * _MICROMETERS[known[1]]
    if micrometers <= _ELECTRONS:
        return "" if rgb else "electron microscopy"
    if micrometers > _CELLS:
        return ""
    return "histopathology" if rgb and bright else "light microscopy"


def better_model(reference: ImageReference, used: ModelSpec, *, rgb: bool, bright: bool) -> str:
    """The name of a model made for such images that is not here; empty if there is none.

    Only in place of an embedded foundation: who chose another one chose it for the image.
    """
    name = MODEL_FOR.get(image_modality(reference, rgb=rgb, bright=bright), "")
    if not name or not used.base.embedded or used.name != used.base.name:
        return ""
    return name if find_model(name).path is None else ""


def download_sentence(name: str, how: str = BY_COMMAND) -> str:
    """What is said of a model that is not here: its purpose, size, license, and `how` to get it."""
    row = PUBLISHED_WEIGHTS[name]
    size = row.size + (DECODER_SIZE if row.decoder else 0)
    purpose = row.purpose.rstrip(".")
    return (THERE_IS + how).format(
        name=name,
        size=format_size(size),
        license=row.license,
        purpose=purpose[0].lower() + purpose[1:],
    )
