"""Files that bioio reads, and those on which its readers fail."""

from types import SimpleNamespace

import numpy as np
import pytest

from napari_simmat.datasets.folder import find_labeled_files
from napari_simmat.io.bioio_reader import read_with_bioio
from napari_simmat.io.image_file import ReadOptions
from napari_simmat.io.readers import read_image
from napari_simmat.io.refusals import RefusedFileError

pytest.importorskip("bioio_imageio")


def test_bioio_files_are_read(tmp_path):
    """Here a portable pixmap, which this package itself does not read."""
    from PIL import Image

    plane = np.zeros((20, 30), np.uint8)
    plane[5:9, 7:15] = 255
    Image.fromarray(plane).convert("RGB").save(tmp_path / "a.ppm")
    image = read_image(tmp_path / "a.ppm")
    assert image.data.shape[:2] == (20, 30)
    values = np.asarray(image.data)
    assert ((values if values.ndim == 2 else values[..., 0]) > 127).sum() == 4 * 8


def test_bioio_unsupported_file_is_refused(tmp_path):
    (tmp_path / "a.czi").write_bytes(b"ZISRAWFILE and then nothing of the kind")
    with pytest.raises(ValueError, match=r"a\.czi"):
        read_image(tmp_path / "a.czi")


def test_bioio_images_serve_evaluation_and_training(tmp_path):
    """Unless a file that is read here has its stem."""
    from PIL import Image

    plane = np.zeros((20, 30), np.uint8)
    plane[5:9, 7:15] = 255
    for name in ("a.ppm", "a_labels.png", "b.ppm", "b.png", "b_labels.png"):
        Image.fromarray(plane).convert("RGB").save(tmp_path / name)
    for name in ("a.json", "c.txt"):
        (tmp_path / name).write_text("{}")
    assert [file.image.name for file in find_labeled_files(tmp_path)] == ["a.ppm", "b.png"]


class Image:
    """What bioio makes of a file whose metadata, or pixels, its reader does not understand."""

    dims = SimpleNamespace(order="TCZYX")
    shape, dtype, channel_names, scenes = (1, 1, 1, 4, 5), np.uint8, ("a",), ("one", "two")
    reader = np.zeros(1)

    def __init__(self, path):
        self.pixels = "pixels" not in path.name

    def get_image_dask_data(self, _):
        if not self.pixels:
            raise ValueError("axes don't match array")
        return np.ones((4, 5), np.uint8)

    @property
    def physical_pixel_sizes(self):
        raise RuntimeError("Expected 1 distance scale but found 0.")


def test_pixels_are_read_where_a_reader_fails_on_their_size(tmp_path, monkeypatch):
    monkeypatch.setattr("bioio.BioImage", Image)
    (tmp_path / "a.czi").touch()
    image = read_with_bioio(tmp_path / "a.czi", ReadOptions())
    assert (image.axes, image.shape, image.scale) == ("YX", (4, 5), {})
    assert image.notes == (
        "Its reader finds no size of a pixel (Expected 1 distance scale but found 0.), so the "
        "table is in pixels; --pixel-size and --unit state it.",
        "Of its scenes the first is read; 1 other is left out.",
    )


def test_a_reader_that_fails_is_named_not_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("bioio.BioImage", Image)
    (tmp_path / "no-pixels.lif").touch()
    with pytest.raises(RefusedFileError, match=r"numpy .* failed \(axes don't match array\); save"):
        read_with_bioio(tmp_path / "no-pixels.lif", ReadOptions())
