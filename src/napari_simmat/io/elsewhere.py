"""Files that no reader here knows: asked of those that are installed, else told what to install."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from napari_simmat.io.bioio_reader import is_bioio_file, read_with_bioio
from napari_simmat.io.image_file import ImageFile, ReadOptions
from napari_simmat.io.lif import read_lif, reads_lif
from napari_simmat.io.plugin_reader import has_plugin, read_with_plugins
from napari_simmat.io.refusals import RefusedFileError


class Needed(NamedTuple):
    """What reads a format: what to install, and its license where that is the GPL."""

    format: str
    packages: str
    license: str = ""


_ROSETTA = "npe2 napari-rosettasciio"
_GPL = "GPL-3.0"
NEEDED = {
    ".czi": Needed("Zeiss CZI", "bioio bioio-czi", _GPL),
    ".lif": Needed("Leica LIF", "liffile"),
    ".nd2": Needed("Nikon ND2", "bioio bioio-nd2"),
    ".dv": Needed("DeltaVision", "bioio bioio-dv"),
    ".r3d": Needed("DeltaVision", "bioio bioio-dv"),
    ".sldy": Needed("SlideBook", "bioio bioio-sldy"),
    ".vsi": Needed("Olympus VSI", "bioio bioio-vsi"),
    ".mrc": Needed("MRC", "npe2 napari-mrcfile-reader"),
    ".rec": Needed("MRC", "npe2 napari-mrcfile-reader"),
    ".map": Needed("MRC", "npe2 napari-mrcfile-reader"),
    ".dm3": Needed("Gatan Digital Micrograph", _ROSETTA, _GPL),
    ".dm4": Needed("Gatan Digital Micrograph", _ROSETTA, _GPL),
    ".emd": Needed("EMD", _ROSETTA, _GPL),
    ".ser": Needed("FEI SER", _ROSETTA, _GPL),
    ".oib": Needed("Olympus OIB", "bioio bioio-bioformats", "GPL-2.0"),
    ".ims": Needed("Imaris", "bioio bioio-bioformats", "GPL-2.0"),
}
"""By the ending of a file's name."""
INSTALL = (
    "Cannot read {name}: {format} is read by other packages; install them (pip install "
    "{packages}){license}."
)
UNKNOWN = (
    "Cannot read {name}: unsupported file type; give one of {formats}, or install a napari reader "
    "plugin for it, or bioio and its reader (e.g. pip install bioio bioio-nd2)."
)
UNSUPPORTED = "Cannot read {name}: unsupported file type; give one of {formats}."


def is_read_elsewhere(path: Path) -> bool:
    """Whether an installed package reads a file: bioio, or of the formats above another one."""
    is_known = path.suffix.lower() in NEEDED
    return reads_lif(path) or (is_known and has_plugin(path)) or is_bioio_file(path)


def read_elsewhere(
    path: Path, options: ReadOptions, *, own: Sequence[str], formats: str
) -> ImageFile:
    """Read a file by napari's reader plugins, or by bioio where these give pixels no size.

    LIF is asked of liffile first, which reads scans that the others do not.

    Parameters
    ----------
    path, options
        As of a `Reader`.
    own, formats
        Endings of files that are read here, which are not asked of others, and their names.

    Raises
    ------
    RefusedFileError
        If none reads it; it says what to install.
    """
    if path.suffix.lower() in own:
        raise RefusedFileError(UNSUPPORTED.format(name=path.name, formats=formats))
    if reads_lif(path):
        return read_lif(path, options)
    plugins = read_with_plugins(path, options)
    if plugins is not None and plugins.scale:
        return plugins
    bioio = read_with_bioio(path, options)
    if bioio is not None and (plugins is None or bioio.scale):
        return bioio
    if plugins is not None:
        return plugins
    needed = NEEDED.get(path.suffix.lower())
    if needed is None:
        raise RefusedFileError(UNKNOWN.format(name=path.name, formats=formats))
    gpl = f"; part of them is under the {needed.license}" if needed.license else ""
    words = {"format": needed.format, "packages": needed.packages, "license": gpl}
    raise RefusedFileError(INSTALL.format(name=path.name, **words))
