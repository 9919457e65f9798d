"""Images encoded ahead: what is stored, what is skipped, what does not fit."""

import shutil
import weakref

import numpy as np
import pytest
import tifffile
from skimage.data import coins

from napari_simmat.batch import encode, loaded_image
from napari_simmat.batch.encode import TOO_LITTLE_SPACE, TOO_MANY, encode_images_job
from napari_simmat.batch.plan import SegmentConfig, find_images
from napari_simmat.checkpoints.loading import load_model
from napari_simmat.cli import main
from napari_simmat.engine.embeddings import EmbeddingCache, EmbeddingStore
from napari_simmat.engine.predictor import Predictor
from napari_simmat.io.files import OutputError, format_size, user_folder
from napari_simmat.io.readers import open_image, read_image
from napari_simmat.progress import finish
from tests.slides import drawn_slide, write_generic

CONFIG = SegmentConfig(model="tiny")


@pytest.fixture
def data(tmp_path, monkeypatch):
    """An image with its labels, a stack of two planes, and a file that is no image."""
    monkeypatch.setenv("NAPARI_SIMMAT_HOME", str(tmp_path / "home"))
    folder = tmp_path / "data"
    folder.mkdir()
    tifffile.imwrite(folder / "a.tif", coins()[:48, 20:68])
    tifffile.imwrite(folder / "a_labels.tif", np.ones((48, 48), np.uint8))
    planes = np.stack([coins()[top : top + 48, 20:68] for top in (0, 40)])
    tifffile.imwrite(folder / "b.tif", planes, photometric="minisblack", metadata={"axes": "ZYX"})
    (folder / "c.tif").write_text("this is no image")
    return folder


def test_encode_images_once_serves_a_predictor(data, capsys):
    assert main(["encode", str(data), "--model", "tiny"]) == 1  # c.tif
    said = capsys.readouterr()
    assert "a.tif: 1 plane encoded" in said.out
    assert "b.tif: 2 planes encoded\n" in said.out
    assert "3 planes ready" in said.out
    assert "c.tif" in said.err
    files = {
        path: path.stat().st_mtime_ns for path in user_folder("embeddings").rglob("*.safetensors")
    }
    assert len(files) == 3
    main(["encode", str(data), "--model", "tiny"])
    assert "b.tif: 2 planes encoded, 2 of them before" in capsys.readouterr().out
    cache = EmbeddingCache(store=EmbeddingStore(writes=False))
    predictor = Predictor(load_model("tiny"), cache=cache)
    predictor.set_image(tifffile.imread(data / "b.tif"), plane=1)
    assert predictor.encodes == 0
    predictor.set_image(255 - tifffile.imread(data / "b.tif"))
    assert predictor.encodes == 1
    assert len(cache.store) == 3, "only read"


def test_encode_a_level_serves_who_segments_it(tmp_path, monkeypatch):
    """As the Segment tab does with a slide; a large plane without levels is encoded as ever."""
    monkeypatch.setenv("NAPARI_SIMMAT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(loaded_image, "LAZY_ABOVE", 10_000)
    slide = write_generic(tmp_path / "slide.tif", drawn_slide((256, 384)))
    photo = tmp_path / "photo.tif"
    tifffile.imwrite(photo, coins()[:128, :128])
    words = ["--model", "tiny", "--device", "cpu"]
    assert main(["encode", str(slide), *words]) == 1
    assert main(["encode", str(slide), "--level", "1", *words]) == 0
    assert main(["encode", str(photo), *words]) == 0
    predictor = Predictor(
        load_model("tiny"), device="cpu", cache=EmbeddingCache(store=EmbeddingStore(writes=False))
    )
    predictor.set_image(np.asarray(read_image(slide).levels[0][...]), channel_axis=-1)
    predictor.set_image(tifffile.imread(photo))
    assert predictor.encodes == 0


def test_encode_images_stopped_resumes(data):
    images = find_images([data])
    job = encode_images_job(images, CONFIG)
    for _ in job:
        if len(EmbeddingStore()) == 2:
            break
    job.close()
    assert [each.new for each in finish(encode_images_job(images, CONFIG))] == [0, 1, 0]


def test_encode_images_too_large_is_refused(data, tmp_path, monkeypatch):
    images = find_images([data])
    one = EmbeddingStore(tmp_path / "one")
    finish(encode_images_job(images[:1], CONFIG, one))
    small = EmbeddingStore(tmp_path / "small", 2 * one.last_size)
    with pytest.raises(OutputError) as refused:
        finish(encode_images_job(images, CONFIG, small))
    assert str(refused.value) == TOO_MANY.format(
        "3 planes", format_size(3 * one.last_size), format_size(small.max_bytes)
    )
    usage = shutil.disk_usage(tmp_path)._replace(free=one.last_size)
    monkeypatch.setattr("napari_simmat.batch.encode.shutil.disk_usage", lambda _: usage)
    full = EmbeddingStore(tmp_path / "full")
    with pytest.raises(OutputError) as refused:
        finish(encode_images_job(images, CONFIG, full))
    assert str(refused.value) == TOO_LITTLE_SPACE.format(
        format_size(3 * one.last_size), full.folder, format_size(usage.free)
    )


def test_encode_images_keeps_one_image_open(data, monkeypatch):
    """Sixty stacks were all in memory before the first was encoded."""
    for number in range(6):
        shutil.copy(data / "b.tif", data / f"b{number}.tif")
    alive, most = weakref.WeakSet(), 0

    def opened(*args, **options):
        image = open_image(*args, **options)
        alive.add(image)
        nonlocal most
        most = max(most, len(alive))
        return image

    monkeypatch.setattr(encode, "open_image", opened)
    results = finish(encode_images_job(find_images([data]), CONFIG))
    assert sum(each.planes for each in results) == 15
    assert most <= 3
