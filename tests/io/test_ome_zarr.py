"""OME-Zarr of all versions: axes, sizes and places, compared with the models of others."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from napari_simmat.io.ome_zarr import BEGINS, NOT_APPLIED, OTHER_SYSTEMS, TURNED
from napari_simmat.io.readers import read_image
from napari_simmat.io.reference import ImageReference
from napari_simmat.io.zarr import write_labels_zarr

VOLUME = np.arange(2 * 3 * 8 * 10, dtype=np.uint16).reshape(2, 3, 8, 10)
NAMES = "czyx"
SCALE = [1.0, 2.0, 0.5, 0.25]
MOVED = [0.0, 10.0, 200.0, -30.0]
SIZES = {"Z": 2.0, "Y": 0.5, "X": 0.25}
ORIGIN = {"Z": 10.0, "Y": 200.0, "X": -30.0}


def axes() -> list[dict[str, str]]:
    space = [{"name": n, "type": "space", "unit": "micrometer"} for n in "zyx"]
    return [{"name": "c", "type": "channel"}, *space]


def steps(moved: bool = True) -> list[dict[str, Any]]:
    scale = {"type": "scale", "scale": SCALE}
    return [scale, {"type": "translation", "translation": MOVED}] if moved else [scale]


def write(path: Path, version: str, image: dict[str, Any], data: np.ndarray = VOLUME) -> Path:
    """A group of one level with the metadata of an image, where its version has them."""
    old = version < "0.5"
    group = zarr.open_group(path, mode="w", zarr_format=2 if old else 3)
    known = {} if old else {"dimension_names": tuple(NAMES[-data.ndim :])}
    group.create_array("0", data=data, chunks=(1,) * (data.ndim - 2) + data.shape[-2:], **known)
    level = {"path": "0", **image.pop("level", {})}
    described = {"datasets": [level], **image}
    if old:
        group.attrs.update({"multiscales": [{"version": version, **described}]})
    else:
        group.attrs.update({"ome": {"version": version, "multiscales": [described]}})
    return path


def version_06(**more: Any) -> dict[str, Any]:
    """An image of 0.6 whose axes are those of a coordinate system."""
    placed = {"type": "sequence", "transformations": steps()}
    placed |= {"input": {"path": "0"}, "output": {"name": "physical"}}
    system = {"name": "physical", "axes": axes()}
    level = {"coordinateTransformations": [more.pop("step", placed)]}
    return {"coordinateSystems": [system, *more.pop("systems", [])], "level": level, **more}


def made(version: str, path: Path) -> Path:
    if version < "0.3":
        return write(path, version, {}, VOLUME[None])
    if version == "0.3":
        return write(path, version, {"axes": list(NAMES)})
    if version < "0.6":
        level = {"coordinateTransformations": steps()}
        return write(path, version, {"axes": axes(), "level": level})
    return write(path, version, version_06())


@pytest.mark.parametrize("version", ["0.1", "0.2", "0.3", "0.4", "0.5", "0.6rc0", "0.6"])
def test_ome_zarr_of_each_version_has_its_axes_and_sizes(tmp_path, version):
    image = read_image(made(version, tmp_path / "a.zarr"))
    assert image.axes == ("TCZYX" if version < "0.3" else "CZYX")
    np.testing.assert_array_equal(np.asarray(image.data).reshape(VOLUME.shape), VOLUME)
    if version < "0.4":  # they have no sizes
        assert (image.scale, image.origin, image.notes) == ({}, {}, ())
        return
    assert (image.scale, set(image.units.values())) == (SIZES, {"um"})
    assert image.origin == ORIGIN
    assert image.notes == (BEGINS.format("z 10 um, y 200 um, x -30 um"),)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_is_read_as_its_models_say(tmp_path, version):
    models = pytest.importorskip("ome_zarr_models")
    path = made(version, tmp_path / "a.zarr")
    theirs = models.open_ome_zarr(zarr.open_group(path, mode="r"))
    assert theirs.ome_zarr_version == version
    [multiscale] = theirs.ome_attributes.multiscales
    image = read_image(path)
    assert image.axes.lower() == "".join(axis.name for axis in multiscale.axes)
    scale, translation = multiscale.datasets[0].coordinateTransformations
    letters = image.axes
    assert {x: s for x, s in zip(letters, scale.scale, strict=True) if x != "C"} == image.scale
    moved = zip(letters, translation.translation, strict=True)
    assert {letter: at for letter, at in moved if at} == image.origin


@pytest.mark.parametrize("version", ["0.4", "0.5", "0.6"])
def test_ome_zarr_is_read_as_in_napari(tmp_path, version):
    reader = pytest.importorskip("napari_ome_zarr._reader")
    path = made(version, tmp_path / "images" / "deep" / "a.zarr")
    [(_, options, _)] = reader.napari_get_reader(str(path))(str(path))
    image = read_image(path)
    affine = np.asarray(options["affine"]) @ np.diag([*options["scale"], 1])
    np.testing.assert_allclose(np.diag(affine)[:3], [*image.scale.values()])
    if version == "0.6":  # of earlier ones it leaves the translation out
        np.testing.assert_allclose(affine[:3, 3], [*image.origin.values()])


def test_ome_zarr_transformations_of_all_levels_come_last(tmp_path):
    level = {"coordinateTransformations": steps()}
    whole = [{"type": "scale", "scale": [1, 10, 10, 10]}]
    described = {"axes": axes(), "level": level, "coordinateTransformations": whole}
    image = read_image(write(tmp_path / "a.zarr", "0.4", described))
    assert image.scale == {"Z": 20.0, "Y": 5.0, "X": 2.5}
    assert image.origin == {"Z": 100.0, "Y": 2000.0, "X": -300.0}


def test_ome_zarr_further_systems_are_named(tmp_path):
    system = {"name": "atlas", "axes": axes()}
    to_atlas = {"type": "affine", "affine": np.eye(5)[:4].tolist()}
    to_atlas |= {"input": {"name": "physical"}, "output": {"name": "atlas"}}
    described = version_06(systems=[system], coordinateTransformations=[to_atlas])
    image = read_image(write(tmp_path / "a.zarr", "0.6", described))
    assert (image.scale, image.origin) == (SIZES, ORIGIN)
    assert OTHER_SYSTEMS.format("atlas", "physical") in image.notes


@pytest.mark.parametrize(
    ("linear", "sizes", "has_unit"),
    [
        ([[0.6, -0.8], [0.8, 0.6]], {"Y": 1.0, "X": 1.0}, True),  # turned
        ([[2, 0], [0, -3]], {"Y": 2.0, "X": 3.0}, True),  # mirrored
        ([[1, 1], [0, 1]], {"Y": 1.0, "X": 2**0.5}, False),  # sheared: no size of a pixel
    ],
)
def test_ome_zarr_turns_are_named(tmp_path, linear, sizes, has_unit):
    step = {"type": "affine", "affine": np.hstack([linear, [[5], [7]]]).tolist()}
    step |= {"input": {"path": "0"}, "output": {"name": "physical"}}
    system = {"name": "physical", "axes": axes()[-2:]}
    described = {
        "coordinateSystems": [system],
        "level": {"coordinateTransformations": [step]},
    }
    image = read_image(write(tmp_path / "a.zarr", "0.6", described, VOLUME[0, 0]))
    assert image.notes == (TURNED,)
    assert image.scale == pytest.approx(sizes)
    assert (image.reference.voxel("YX") is not None) == has_unit


def test_ome_zarr_unknown_transformation_is_named(tmp_path):
    step = {"type": "displacements", "path": "field"}
    image = read_image(write(tmp_path / "a.zarr", "0.6", version_06(step=step)))
    assert image.axes == "CZYX"
    assert image.scale == {}
    assert NOT_APPLIED.format("displacements") in image.notes


def test_ome_zarr_without_the_axes_of_its_version_is_refused(tmp_path):
    path = write(tmp_path / "a.zarr", "0.7", {"level": {}})
    with pytest.raises(ValueError, match=r"a\.zarr is OME-Zarr 0\.7 without the axes"):
        read_image(path)


@pytest.mark.parametrize(
    ("unit", "size", "ours"), [("angstrom", 0.05, "nm"), ("", 0.5, None), ("furlong", 0.5, None)]
)
def test_ome_zarr_other_units(tmp_path, unit, size, ours):
    level = {"coordinateTransformations": [{"type": "scale", "scale": [0.5, 0.5]}]}
    named = [{"name": name, "type": "space", "unit": unit} for name in "yx"]
    image = read_image(
        write(tmp_path / "a.zarr", "0.4", {"axes": named, "level": level}, VOLUME[0, 0])
    )
    assert image.scale["X"] == pytest.approx(size)
    assert image.units.get("X") == ours


def test_labels_of_ome_zarr_lie_on_their_image(tmp_path):
    reader = pytest.importorskip("napari_ome_zarr._reader")
    models = pytest.importorskip("ome_zarr_models.v05.image_label")
    labels = np.zeros((3, 300, 400), np.uint16)
    labels[1, 100:140, 10:20] = 4
    reference = ImageReference(scale=SIZES, units=dict.fromkeys("ZYX", "um"), origin=ORIGIN)
    path = tmp_path / "results" / "deep" / "a_labels.ome.zarr"
    path.parent.mkdir(parents=True)
    write_labels_zarr(path, labels, "ZYX", reference)
    model = models.ImageLabel.from_zarr(zarr.open_group(path, mode="r"))
    levels = model.attributes.ome.multiscales[0].datasets
    assert len(levels) == 2
    for level in levels:
        assert level.coordinateTransformations[1].translation == [10.0, 200.0, -30.0]
    [(_, options, kind)] = reader.napari_get_reader(str(path))(str(path))
    assert kind == "labels"
    np.testing.assert_allclose(options["scale"], [2, 0.5, 0.25])
    assert read_image(path).origin == ORIGIN


def named(path: Path, names: str | list[str], shape: tuple[int, ...]) -> Path:
    """OME-Zarr 0.4 whose axis n has pixels of size n + 1."""
    data = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    scale = {"type": "scale", "scale": [float(n + 1) for n in range(len(shape))]}
    described = [{"name": name} for name in names]
    level = {"coordinateTransformations": [scale]}
    return write(path, "0.4", {"axes": described, "level": level}, data)


@pytest.mark.parametrize(
    ("names", "letters", "scale"),
    [
        (["t", "tile", "y", "x"], "TQYX", {"T": 1.0, "Q": 2.0, "Y": 3.0, "X": 4.0}),
        (["theta", "z", "y", "x"], "QZYX", {"Q": 1.0, "Z": 2.0, "Y": 3.0, "X": 4.0}),
        (["time", "channel", "y", "x"], "TCYX", {"T": 1.0, "Y": 3.0, "X": 4.0}),
    ],
)
def test_axes_go_by_their_whole_names(tmp_path, names, letters, scale):
    image = read_image(named(tmp_path / "a.zarr", names, (2, 3, 4, 5)))
    assert image.axes == letters
    assert image.scale == scale
