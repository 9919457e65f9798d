import dask.array
import numpy as np
import pytest

from napari_simmat.datasets.dataset import DataConfig
from napari_simmat.datasets.folder import from_folder
from napari_simmat.datasets.labeled_image import LabeledImage
from napari_simmat.engine.settings import ChannelSelection
from napari_simmat.io.readers import read_image, read_labels
from napari_simmat.progress import finish
from napari_simmat.widgets.train.training_layers import write_layers_job
from tests.widgets.scenes import discs


def value(name: str = "field", labels: np.ndarray | None = None) -> LabeledImage:
    image, truth = discs((64, 72))
    arrays = [(255 * image).astype(np.uint8), (60000 * image).astype(">u2"), image - 0.5]
    names = ("45 deg", "DAPI", "height")
    return LabeledImage(name, arrays, truth if labels is None else labels, channel_names=names)


def test_write_layers_makes_a_data_set_of_equal_values(tmp_path):
    images = [value("a/b.tif"), value("a:b.tif"), value("c")]
    finish(write_layers_job(images, tmp_path / "layers"))
    for name, array in zip(images[0].channel_names, images[0].arrays, strict=True):
        read = read_image(tmp_path / "layers" / f"a-b.tif_{name}.npy").data
        assert read.dtype == array.dtype.newbyteorder("=")
        assert np.array_equal(read, array)
    assert np.array_equal(
        read_labels(tmp_path / "layers" / "a-b.tif_labels.npy").data, images[0].labels
    )
    config = DataConfig(selection=ChannelSelection(channels=images[0].channel_names))
    dataset = from_folder(tmp_path / "layers", config)
    assert dataset.channel_names == ("45 deg", "DAPI", "height")
    assert len(dataset.train) + len(dataset.validation) == 3
    _, labels = dataset.train[0].load()
    assert np.array_equal(labels, images[0].labels)


def test_the_planes_of_a_lazy_stack_lie_along_one_axis(tmp_path):
    image, labels = discs((64, 72))
    stack = np.stack([[image * (1 + t + z) for z in range(3)] for t in range(2)])
    lazy = dask.array.from_array(stack.astype(np.float32), chunks=(1, 1, 64, 72))
    truth = np.broadcast_to(labels, stack.shape)
    movie = LabeledImage("movie", [lazy], truth, channel_names=("height",))
    job = write_layers_job([movie], tmp_path / "layers")
    assert [progress.done for progress in job] == list(range(1, 13))
    dataset = from_folder(
        tmp_path / "layers", DataConfig(selection=ChannelSelection(channels=("height",)))
    )
    assert len({sample.name for sample in (*dataset.train, *dataset.validation)}) == 12, "halves"
    read = read_image(tmp_path / "layers" / "movie_height.npy").data
    assert np.array_equal(read, stack.reshape(6, 64, 72).astype(np.float32))


def test_empty_labels_are_one_sentence(tmp_path):
    empty = value(labels=np.zeros((64, 72), dtype=np.int32))
    with pytest.raises(
        ValueError, match="The labels of field hold no object: they are 0 everywhere"
    ):
        finish(write_layers_job([empty], tmp_path / "layers"))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError("the disk is gone"), r" \(the disk is gone\); its file may be damaged"),
        (TypeError("no number"), r": tests failed \(TypeError: no number\)\. That is a fault"),
    ],
)
def test_a_part_that_cannot_be_read_is_one_sentence(error, words, tmp_path):
    def broken(block):
        raise error

    lazy = dask.array.map_blocks(broken, dask.array.zeros((64, 72)), dtype=float, meta=np.array(()))
    image = LabeledImage("field", [lazy], discs((64, 72))[1], channel_names=("height",))
    with pytest.raises(ValueError, match=f"A part of field could not be read{words}"):
        finish(write_layers_job([image], tmp_path / "layers"))


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    import errno

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", full)
    with pytest.raises(OSError, match=r"The disk is full: field_45 deg\.npy could not be written"):
        finish(write_layers_job([value()], tmp_path / "layers"))
