import dask.array
import numpy as np
import pytest

from napari_simmat.datasets.dataset import DataConfig
from napari_simmat.datasets.folder import from_folder
from napari_simmat.engine.settings import ChannelSelection
from napari_simmat.io.readers import read_image, read_labels
from napari_simmat.progress import finish
from napari_simmat.widgets.layer_data import LabeledValue, write_layers_job
from tests.widgets.scenes import discs


def value(name: str = "field", labels: np.ndarray | None = None) -> LabeledValue:
    image, truth = discs((64, 72))
    channels = (
        ("45 deg", (255 * image).astype(np.uint8)),
        ("DAPI", (60000 * image).astype(">u2")),
        ("height", image - 0.5),
    )
    return LabeledValue(name, channels, truth if labels is None else labels, "truth")


def test_write_layers_makes_a_data_set_of_equal_values(tmp_path):
    images = [value("a/b.tif"), value("a:b.tif"), value("c")]
    finish(write_layers_job(images, tmp_path / "layers"))
    for name, array in images[0].channels:
        read = read_image(tmp_path / "layers" / f"a-b.tif_{name}.npy").data
        assert read.dtype == array.dtype.newbyteorder("=")
        assert np.array_equal(read, array)
    assert np.array_equal(
        read_labels(tmp_path / "layers" / "a-b.tif_labels.npy").data, images[0].labels
    )
    config = DataConfig(
        selection=ChannelSelection(channels=tuple(name for name, _ in images[0].channels))
    )
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
    job = write_layers_job(
        [LabeledValue("movie", (("height", lazy),), truth, "truth")], tmp_path / "layers"
    )
    assert [progress.done for progress in job] == list(range(1, 13))
    dataset = from_folder(
        tmp_path / "layers", DataConfig(selection=ChannelSelection(channels=("height",)))
    )
    assert len({sample.name for sample in (*dataset.train, *dataset.validation)}) == 12, "halves"
    read = read_image(tmp_path / "layers" / "movie_height.npy").data
    assert np.array_equal(read, stack.reshape(6, 64, 72).astype(np.float32))


def test_empty_labels_are_one_sentence(tmp_path):
    empty = value(labels=np.zeros((64, 72), dtype=np.int32))
    with pytest.raises(ValueError, match="truth has no object: its labels are 0 everywhere"):
        finish(write_layers_job([empty], tmp_path / "layers"))


def test_a_part_that_cannot_be_read_is_one_sentence(tmp_path):
    def broken(block):
        raise OSError("the disk is gone")

    lazy = dask.array.map_blocks(broken, dask.array.zeros((64, 72)), dtype=float, meta=np.array(()))
    image = LabeledValue("field", (("height", lazy),), discs((64, 72))[1], "truth")
    with pytest.raises(ValueError, match=r"A part of field could not be read \(the disk is gone\)"):
        finish(write_layers_job([image], tmp_path / "layers"))


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    import errno

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", full)
    with pytest.raises(OSError, match=r"The disk is full: field_45 deg\.npy could not be written"):
        finish(write_layers_job([value()], tmp_path / "layers"))
