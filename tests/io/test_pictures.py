"""GIF, WebP and JPEG 2000, by Pillow; PNG, JPEG and BMP are in `test_readers`."""

import numpy as np
import pytest
from PIL import Image

from napari_simmat.io.readers import read_image

PLANE = np.add.outer(np.arange(40), np.arange(50)).astype(np.uint8)


@pytest.mark.parametrize("name", ["a.webp", "a.jp2", "a.j2k"])
def test_colors_are_read_as_stored(tmp_path, name):
    colors = np.stack([PLANE, PLANE + 1, 255 - PLANE], axis=-1)
    lossless = {"lossless": True} if name.endswith("webp") else {"irreversible": False}
    Image.fromarray(colors).save(tmp_path / name, **lossless)
    image = read_image(tmp_path / name)
    assert (image.axes, image.rgb, image.notes) == ("YXS", True, ())
    assert np.array_equal(image.data, colors)


def test_a_band_of_sentinel_2_keeps_16_bits(tmp_path):
    band = PLANE.astype(np.uint16) * 100
    Image.fromarray(band).save(tmp_path / "B04.jp2", irreversible=False)
    image = read_image(tmp_path / "B04.jp2")
    assert image.data.dtype == np.uint16
    assert np.array_equal(image.data, band)


def test_deep_colors_of_jpeg_2000_are_not_cut_to_8_bits(tmp_path):
    imagecodecs = pytest.importorskip("imagecodecs")
    colors = np.stack([PLANE.astype(np.uint16) * factor for factor in (10, 100, 200)], axis=-1)
    encoded = imagecodecs.jpeg2k_encode(colors, level=0, reversible=True, codecformat="jp2")
    (tmp_path / "a.jp2").write_bytes(encoded)
    assert np.array_equal(read_image(tmp_path / "a.jp2").data, colors)


def test_a_gif_has_its_colors_and_tells_of_other_frames(tmp_path):
    frames = [Image.fromarray(np.where(n < PLANE, 255, 0).astype(np.uint8)) for n in (20, 40)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    image = read_image(tmp_path / "a.gif")
    first = np.asarray(image.data) if image.data.ndim == 2 else np.asarray(image.data)[..., 0]
    assert np.array_equal(first > 127, PLANE > 20)
    assert image.notes == ("Of its 2 frames the first is read; save them as TIFF to read all.",)


@pytest.mark.parametrize("ending", ["gif", "webp", "jp2"])
def test_a_picture_that_is_cut_short_is_refused_in_a_sentence(tmp_path, ending):
    Image.fromarray(np.stack([PLANE] * 3, axis=-1)).save(tmp_path / f"a.{ending}")
    whole = (tmp_path / f"a.{ending}").read_bytes()
    (tmp_path / f"a.{ending}").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=rf"a\.{ending} could not be read"):
        read_image(tmp_path / f"a.{ending}")


@pytest.mark.parametrize("ending", ["gif", "webp", "jp2"])
def test_more_pixels_than_a_picture_may_have_are_refused(tmp_path, monkeypatch, ending):
    Image.fromarray(np.stack([PLANE] * 3, axis=-1)).save(tmp_path / f"a.{ending}")
    monkeypatch.setenv("NAPARI_SIMMAT_LIMITS", "picture_pixels=100")
    with pytest.raises(ValueError, match="2,000 pixels of a picture, more than the 100"):
        read_image(tmp_path / f"a.{ending}")
