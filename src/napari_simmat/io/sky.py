"""Where on the sky pixels are: the world coordinates of FITS, computed by astropy."""

from __future__ import annotations

import warnings
from functools import lru_cache
from importlib import import_module
from typing import Any


def sky_of(header: Any) -> str:
    """The header of the celestial world coordinates that a FITS header gives; empty without any.

    Raises what astropy raises on a header that contradicts itself.
    """
    wcs: Any = import_module("astropy.wcs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = wcs.WCS(header)
        if not found.has_celestial:
            return ""
        # Of an image alone distortions are kept; other axes than those of the sky are left out.
        plane = found if found.naxis == 2 else found.celestial
        return str(plane.to_header_string(relax=True))


def right_ascension(sky: str, y: float, x: float) -> tuple[float, float]:
    """Right ascension and declination (ICRS) in degrees of a place in pixels, from 0."""
    place = _coordinates(sky).pixel_to_world(x, y).icrs
    return float(place.ra.deg), float(place.dec.deg)


@lru_cache(maxsize=4)
def _coordinates(sky: str) -> Any:
    wcs: Any = import_module("astropy.wcs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return wcs.WCS(import_module("astropy.io.fits").Header.fromstring(sky))
