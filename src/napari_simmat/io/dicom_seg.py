"""DICOM SEG: the objects of a series, which, unlike all other outputs, are the patient's."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat import __version__
from napari_simmat.io.dicom import holds_dicom, is_dicom, series_in
from napari_simmat.io.reference import LPS, ImageReference, World

if TYPE_CHECKING:
    from pydicom.uid import UID

NOT_DICOM = (
    "{} is not a DICOM series, so its objects are not written as DICOM SEG; choose a label image."
)
NO_VOLUME = "DICOM SEG holds the objects of one volume, but the image has the axes {}."
HIGHDICOM_MISSING = "DICOM SEG needs the package highdicom; install it (pip install highdicom)."
NO_SEG = "The objects cannot be written as DICOM SEG ({}); choose a label image."
_OF_STUDY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate",
    "StudyTime", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
"""Tags that DICOM SEG repeats, empty where the series has none."""


def seg_problem(axes: str, reference: ImageReference | None) -> str:
    """Why objects cannot be written as DICOM SEG, in one sentence; empty if they can."""
    file = None if reference is None else reference.file
    if file is None or not file.exists() or not (holds_dicom if file.is_dir() else is_dicom)(file):
        return NOT_DICOM.format("The image" if file is None else file.name)
    if axes not in ("YX", "ZYX"):
        return NO_VOLUME.format(axes)
    return "" if find_spec("highdicom") else HIGHDICOM_MISSING


def write_seg(
    path: Path, labels: NDArray[Any], reference: ImageReference, classes: Mapping[int, str]
) -> None:
    """Write labels (Y, X) or (Z, Y, X) of a series as DICOM SEG, a segment for each object.

    It belongs to the patient and study of the series, in `reference.file`. A segment is named by
    the object's class and id; its tracking identifier is the id. Equal objects are equal bytes.
    """
    import highdicom as hd  # an extra
    from pydicom import dcmread

    world, file = reference.world, reference.file
    assert file is not None
    if world is None:
        raise ValueError(NO_SEG.format("the series does not say where its slices lie"))
    series = series_in(file if file.is_dir() else file.parent).values()
    files = next(each for each in series if file.is_dir() or file in each)
    sources = [dcmread(each, stop_before_pixels=True) for each in files]
    volume = labels.reshape((-1, *labels.shape[-2:]))
    values = np.unique(volume[volume > 0]).tolist()
    numbered = np.searchsorted([0, *values], volume).astype(np.uint16)
    content = repr((values, dict(classes))) + str(sources[0].SeriesInstanceUID)
    uid = _Identifiers(numbered.tobytes() + content.encode())
    affine = LPS @ world.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    columns = affine[:3, :3] / spacing
    _complete(sources, uid, spacing[2])
    try:
        written = hd.seg.Segmentation(
            sources,
            numbered,
            hd.seg.SegmentationTypeValues.BINARY,
            _segments(values, classes, uid),
            series_instance_uid=uid("series"),
            series_number=int(sources[0].get("SeriesNumber") or 0) + 1000,
            sop_instance_uid=uid("instance"),
            instance_number=1,
            manufacturer="napari-simmat",
            manufacturer_model_name="napari-simmat",
            software_versions=__version__,
            device_serial_number="1",
            series_description="SimMAT objects",
            omit_empty_frames=bool(values),
            pixel_measures=hd.PixelMeasuresSequence(
                pixel_spacing=[spacing[1], spacing[0]], slice_thickness=spacing[2]
            ),
            plane_orientation=hd.PlaneOrientationSequence(
                hd.CoordinateSystemNames.PATIENT, [*columns[:, 0], *columns[:, 1]]
            ),
            plane_positions=[
                hd.PlanePositionSequence(hd.CoordinateSystemNames.PATIENT, origin.tolist())
                for origin in _origins(world, len(volume))
            ],
        )
    except (AttributeError, ValueError, TypeError, KeyError) as error:
        raise ValueError(NO_SEG.format(" ".join(str(error).split())[:200])) from None
    _make_repeatable(written, sources[0], uid)
    written.save_as(path)


class _Identifiers:
    """Identifiers (UID) that are equal for equal content, unlike random ones."""

    def __init__(self, content: bytes) -> None:
        self._content = hashlib.sha256(content).digest()

    def __call__(self, purpose: object) -> UID:
        """The identifier for one purpose."""
        from pydicom.uid import UID

        digest = hashlib.sha256(self._content + str(purpose).encode()).digest()
        return UID(f"2.25.{int.from_bytes(digest[:15])}")


def _origins(world: World, count: int) -> NDArray[np.float64]:
    """Where each of `count` slices begins, in the patient's coordinates (LPS), (count, 3)."""
    if world.origins is not None and len(world.origins) == count:
        return np.asarray(world.origins @ LPS[:3, :3])
    # Those of a layer or a file of one step lie along the affine.
    affine = LPS @ world.affine
    return np.asarray(affine[:3, 3] + np.arange(count)[:, np.newaxis] * affine[:3, 2])


def _complete(sources: Sequence[Any], uid: _Identifiers, thickness: float) -> None:
    """Give the slices of a series the tags that highdicom copies from them, where they lack any."""
    lacking: dict[str, Any] = dict.fromkeys(_OF_STUDY, "")
    lacking |= {name: uid(name) for name in ("StudyInstanceUID", "FrameOfReferenceUID")}
    lacking["SliceThickness"] = thickness
    for source in sources:
        for name, value in lacking.items():
            if name not in source:
                setattr(source, name, value)


def _segments(labels: Sequence[int], classes: Mapping[int, str], uid: _Identifiers) -> list[Any]:
    """A description for each object; one without pixels if there is none."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    algorithm = hd.AlgorithmIdentificationSequence(
        "napari-simmat", codes.cid7162.ArtificialIntelligence, __version__
    )
    return [
        hd.seg.SegmentDescription(
            number,
            f"{classes.get(label) or 'object'} {label}"[:64],
            codes.SCT.Tissue,
            codes.SCT.Tissue,
            hd.seg.SegmentAlgorithmTypeValues.SEMIAUTOMATIC,
            algorithm_identification=algorithm,
            tracking_uid=uid(label),
            tracking_id=str(label),
        )
        for number, label in enumerate(labels or [0], start=1)
    ]


def _make_repeatable(written: Any, source: Any, uid: _Identifiers) -> None:
    """Put the time of the series for that of writing, and identifiers for random ones."""
    for part in ("Date", "Time"):
        first = str(source.get(f"Study{part}") or ("20000101" if part == "Date" else "000000"))
        for name in (f"Content{part}", f"InstanceCreation{part}"):
            setattr(written, name, first)
    for each in written.get("ContributingEquipmentSequence", ()):
        each.pop("ContributionDateTime", None)
    organization = uid("dimensions")
    for sequence in (written.DimensionOrganizationSequence, written.DimensionIndexSequence):
        for each in sequence:
            each.DimensionOrganizationUID = organization
