import numpy as np
import pytest

from napari_simmat.datasets.folder import find_labeled_files
from napari_simmat.io.readers import read_image

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
