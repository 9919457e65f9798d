"""Data sets of folders: what becomes a sample, what is refused and how."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_simmat.datasets.dataset import DataConfig, Dataset
from napari_simmat.datasets.folder import from_folder
from napari_simmat.engine.coordinates import InputTransform
from napari_simmat.engine.image_stack import ChannelStack
from napari_simmat.engine.settings import ChannelSelection
from napari_simmat.models.spec import Base, InputSize, ModelSpec, Normalization

RNG = np.random.default_rng(0)
H, W = 12, 20
RAW = Normalization(method="none")


def objects(*ids: int, shape: tuple[int, int] = (H, W)) -> np.ndarray:
    """Squares of 4 pixels side by side, with a gap of three."""
    labels = np.zeros(shape, np.uint16)
    for number, label in enumerate(ids):
        labels[4:6, 1 + 5 * number : 3 + 5 * number] = label
    return labels


def image(*shape: int) -> np.ndarray:
    return RNG.integers(0, 4000, shape or (H, W)).astype(np.uint16)


def write(path: Path, values: np.ndarray, **options) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".png":
        Image.fromarray(values).save(path)
    else:
        tifffile.imwrite(path, values, **{"photometric": "minisblack", **options})
    return values


def pair(folder: Path, name: str, values: np.ndarray, labels: np.ndarray, **options) -> None:
    write(folder / f"{name}.tif", values, **options)
    write(folder / f"{name}_labels.tif", labels)


def named(dataset) -> tuple[list[str], list[str]]:
    return [s.name for s in dataset.train], [s.name for s in dataset.validation]


def spec_of(dataset: Dataset, size: InputSize) -> ModelSpec:
    """Of a checkpoint for the data set."""
    return ModelSpec(
        name="m",
        modality="",
        channels=dataset.channels,
        normalization=dataset.normalization,
        input_size=size,
        base=Base(name="", architecture="", sha256=""),
        transfer="simmat",
    )


@pytest.fixture
def folder(tmp_path):
    """Ten images with two objects each."""
    for name in "abcdefghij":
        pair(tmp_path / "cells", name, image(), objects(1, 2))
    return tmp_path / "cells"


def raw(**selection: Any) -> DataConfig:
    """Selected channels, whose values are kept."""
    return DataConfig(selection=ChannelSelection(**selection), normalization=RAW)


def ratio(value: float) -> DataConfig:
    return DataConfig(selection=ChannelSelection(pixel_ratio=value))


def test_from_folder_makes_samples_of_images(folder):
    dataset = from_folder(folder)
    assert (dataset.name, dataset.modality) == ("cells", "cells")
    assert dataset.channel_names == ("intensity",)
    assert (len(dataset.train), len(dataset.validation), dataset.test) == (8, 2, ())
    values, labels = dataset.train[0].load()
    assert (values.dtype, labels.dtype) == (np.float32, np.int32)
    assert (values.shape, labels.shape) == ((1, H, W), (H, W))
    assert dataset.regions(labels) == [1, 2]


def test_sample_is_normalized_by_its_whole_stack(tmp_path):
    """The values are those that a checkpoint's image is given later."""
    stack = image(3, 2, H, W) + np.arange(3, dtype=np.uint16)[:, None, None, None] * 1000
    labels = np.stack([objects(1), objects(), objects(2, 70000 % 65536)])
    pair(tmp_path, "stack", stack, labels, metadata={"axes": "ZCYX"}, imagej=True)
    pair(tmp_path, "other", stack[0], objects(1), metadata={"axes": "CYX"}, imagej=True)
    dataset = from_folder(tmp_path)
    samples = (*dataset.train, *dataset.validation)
    assert {s.name for s in samples} == {"stack plane 0", "stack plane 2", "other"}
    spec = spec_of(dataset, InputSize())
    later = ChannelStack.build(stack, channel_axis=1, inputs=spec.inputs)
    values, found = next(s for s in samples if s.name == "stack plane 2").load()
    assert np.array_equal(values, later.normalized((2,)))
    assert np.array_equal(found, labels[2])


def test_channels_have_mean_and_std_of_the_training_images(folder):
    dataset = from_folder(folder, DataConfig(units=("counts",), modality="phase contrast"))
    values = np.stack([sample.load()[0] for sample in dataset.train])
    assert dataset.channels[0].mean == pytest.approx(values.mean())
    assert dataset.channels[0].std == pytest.approx(values.std())
    assert (dataset.channels[0].unit, dataset.modality) == ("counts", "phase contrast")


def test_sample_can_be_read_in_another_process(folder):
    sample = from_folder(folder).train[0]
    again = pickle.loads(pickle.dumps(sample))  # noqa: S301
    for ours, theirs in zip(sample.load(), again.load(), strict=True):
        assert np.array_equal(ours, theirs)


def test_sample_ids_may_have_any_size_and_sign(tmp_path):
    labels = objects(1, 2).astype(np.int64)
    labels[labels == 2] = 2**40
    labels[0, 0] = -3
    for name in "ab":
        write(tmp_path / f"{name}.npy", image())
        write(tmp_path / f"{name}_labels.npy", labels)
    found = from_folder(tmp_path).train[0].load()[1]
    assert np.unique(found).tolist() == [0, 1, 2]
    assert np.array_equal(found > 0, objects(1, 2) > 0)


@pytest.mark.parametrize(
    ("channels", "axis", "expected"),
    [(None, 0, [0, 1, 2]), ((2, 0), 0, [2, 0]), (("1",), 0, [1]), (None, -3, [0, 1, 2])],
)
def test_from_folder_takes_channels_by_number(channels, axis, expected, tmp_path):
    stack = image(3, H, W)
    for name in "ab":
        pair(tmp_path, name, stack, objects(1))
    config = raw(channels=channels, channel_axis=axis)
    dataset = from_folder(tmp_path, config)
    assert dataset.channel_names == tuple(str(index) for index in expected)
    assert np.array_equal(dataset.train[0].load()[0], stack[expected])


def test_from_folder_finds_channels_by_name_in_any_order(tmp_path):
    stack = image(2, H, W)
    for name, order, labels in (("a", [0, 1], ["DAPI", "GFP"]), ("b", [1, 0], ["GFP", "DAPI"])):
        metadata = {"axes": "CYX", "Channel": {"Name": labels}}
        pair(tmp_path, name, stack[order], objects(1), ome=True, metadata=metadata)
    for channels, expected in ((None, [0, 1]), (("gfp", "DAPI"), [1, 0]), (("GFP",), [1])):
        dataset = from_folder(tmp_path, raw(channels=channels))
        assert dataset.channel_names == tuple(["DAPI", "GFP"][index] for index in expected)
        for sample in (*dataset.train, *dataset.validation):
            assert np.array_equal(sample.load()[0], stack[expected])


def test_from_folder_leaves_out_alpha(tmp_path):
    colors = RNG.integers(0, 255, (H, W, 4)).astype(np.uint8)
    for name, shown in (("a", colors), ("b", colors[..., :3])):
        write(tmp_path / f"{name}.png", shown)
        write(tmp_path / f"{name}_labels.png", objects(1).astype(np.uint8))
    dataset = from_folder(tmp_path, DataConfig(normalization=RAW))
    assert dataset.channel_names == ("red", "green", "blue")
    for sample in (*dataset.train, *dataset.validation):
        assert np.array_equal(sample.load()[0], np.moveaxis(colors[..., :3], -1, 0))


@pytest.mark.parametrize("subfolders", [False, True])
def test_from_folder_takes_a_file_for_each_channel(subfolders, tmp_path, caplog):
    images, labels = (
        (tmp_path / "images", tmp_path / "labels") if subfolders else (tmp_path, tmp_path)
    )
    dapi, gfp = image(), image().astype(np.float32)
    for name in ("cell1", "cell2"):
        write(images / f"{name}_DAPI.tif", dapi)
        write(images / f"{name}_gfp.tif", gfp)
        write(images / f"{name}_brightfield.tif", image())
        write(labels / f"{name}_labels.tif", objects(1))
    write(images / "cell3_DAPI.tif", dapi)
    dataset = from_folder(tmp_path, raw(channels=("GFP", "DAPI")))
    assert dataset.channel_names == ("GFP", "DAPI")
    assert sorted([*named(dataset)[0], *named(dataset)[1]]) == ["cell1", "cell2"]
    assert np.array_equal(dataset.train[0].load()[0], np.stack([gfp, dapi]))
    assert "cell3_DAPI.tif" in caplog.text
    assert "brightfield" not in caplog.text


def test_channel_files_may_have_a_channel_axis_of_one(tmp_path):
    zarr = pytest.importorskip("zarr")
    channels = {name: image(1, 1, 1, H, W) for name in ("DAPI", "GFP")}  # T, C, Z, Y, X
    axes = [{"name": name} for name in "tczyx"]
    for name, values in channels.items():
        group = zarr.open_group(tmp_path / f"cell1_{name}.ome.zarr", mode="w")
        zarr.create_array(group.store, name="0", data=values)
        multiscales = [{"axes": axes, "datasets": [{"path": "0"}]}]
        group.attrs.update({"ome": {"version": "0.5", "multiscales": multiscales}})
    write(tmp_path / "cell1_labels.tif", objects(1, 2))
    dataset = from_folder(tmp_path, raw(channels=("GFP", "DAPI")))
    expected = np.stack([channels["GFP"], channels["DAPI"]]).reshape(2, H, W)
    halves = [sample.load()[0] for sample in (*dataset.train, *dataset.validation)]
    np.testing.assert_array_equal(np.concatenate(halves, axis=2), expected)


def test_split_depends_on_the_seed_alone(folder):
    first, again = from_folder(folder), from_folder(folder)
    assert named(first) == named(again)
    assert first.channels == again.channels
    others = {tuple(named(from_folder(folder, DataConfig(seed=seed)))[1]) for seed in range(5)}
    assert len(others) > 1
    assert len(from_folder(folder, DataConfig(validation_fraction=0.01)).validation) == 1
    assert len(from_folder(folder, DataConfig(validation_fraction=0.99)).train) == 1


@pytest.mark.parametrize("seed", range(2))
def test_split_keeps_planes_of_a_stack_or_series_together(seed, tmp_path):
    for name in "abc":
        pair(tmp_path, name, image(4, H, W), np.stack([objects(1)] * 4))
    for time in range(3):
        pair(tmp_path, f"movie_T{time:02}_z001", image(), objects(1))
    dataset = from_folder(tmp_path, DataConfig(validation_fraction=0.5, seed=seed))
    sides = [{sample.group for sample in side} for side in (dataset.train, dataset.validation)]
    assert not sides[0] & sides[1]
    assert sides[0] | sides[1] == {"a", "b", "c", "movie"}
    assert len(dataset.train) + len(dataset.validation) == 15


@pytest.mark.parametrize("name", ["validation", "val"])
def test_from_folder_takes_subfolders_as_the_split(name, tmp_path):
    for side, count in (("train", 3), (name, 1), ("test", 2)):
        for number in range(count):
            pair(tmp_path / side, str(number), image(), objects(1))
    dataset = from_folder(tmp_path)
    assert named(dataset) == (["train/0", "train/1", "train/2"], ["validation/0"])
    assert [sample.name for sample in dataset.test] == ["test/0", "test/1"]


def test_lone_image_is_halved_with_a_warning(tmp_path, caplog):
    shown, labels = image(), objects(1, 2, 3, 4)
    labels[8, 5:11] = 5  # one of its six pixels lies right of the middle: no piece
    labels[10, 7:11] = 6  # one of its four pixels does: a piece
    pair(tmp_path, "cells", shown, labels)
    dataset = from_folder(tmp_path, DataConfig(normalization=RAW))
    assert named(dataset) == (["cells left half"], ["cells right half"])
    (left, left_ids), (right, right_ids) = dataset.train[0].load(), dataset.validation[0].load()
    assert np.array_equal(np.concatenate([left, right], axis=2)[0], shown)
    assert np.unique(left_ids).tolist() == [0, 1, 2, 5, 6]
    assert np.unique(right_ids).tolist() == [0, 3, 4, 6]
    assert "All labels are in one image, cells: its left half trains and its right half" in (
        caplog.text
    )


def test_lone_image_is_cut_across_its_longer_side(tmp_path):
    pair(tmp_path / "tall", "a", image(20, 12), objects(1, 2, shape=(12, 20)).T)
    assert named(from_folder(tmp_path / "tall"))[1] == ["a lower half"]
    pair(tmp_path / "left", "a", image(12, 40), objects(1, 2, shape=(12, 40)))
    left, right = from_folder(tmp_path / "left").train[0], from_folder(tmp_path / "left").validation
    assert left.load()[1].shape == (12, 4)  # centers at 2 and 7, of columns counted by edges
    assert np.unique(right[0].load()[1]).tolist() == [0, 2]


def test_lone_image_has_no_nearly_empty_half(tmp_path):
    labels = objects(1, 2, 3, shape=(20, 40)) + objects(4, 5, 6, shape=(20, 40))[::-1] + 0
    labels[10, 30] = 7  # 1 of 7 lies right
    pair(tmp_path, "a", image(20, 40), labels)
    dataset = from_folder(tmp_path)
    assert named(dataset) == (["a upper half"], ["a lower half"])
    assert np.unique(dataset.validation[0].load()[1]).tolist() == [0, 4, 5, 6, 7]


def test_lone_stack_is_halved_at_one_place(tmp_path):
    labels = np.stack([objects(1, 0, 0, 4), objects(), objects(1), objects(0, 0, 0, 4)])
    pair(tmp_path, "stack", image(4, H, W), labels)
    dataset = from_folder(tmp_path)
    assert named(dataset) == (
        ["stack plane 0 left half", "stack plane 2 left half"],
        ["stack plane 0 right half", "stack plane 3 right half"],
    )
    assert {s.load()[0].shape for s in (*dataset.train, *dataset.validation)} == {(1, H, W // 2)}


def test_from_folder_warns_of_images_without_objects(folder, caplog):
    write(folder / "c_labels.tif", objects())
    dataset = from_folder(folder)
    assert "c" not in [name for side in named(dataset) for name in side]
    assert "c has no labeled object and is left out." in caplog.text


def bad_shape(folder: Path) -> None:
    write(folder / "c_labels.tif", objects(1, shape=(H, W + 1)))


def no_labels(folder: Path) -> None:
    for path in folder.glob("*_labels.tif"):
        path.unlink()


def nothing_labeled(folder: Path) -> None:
    for path in folder.glob("*_labels.tif"):
        write(path, objects())


def one_object(folder: Path) -> None:
    nothing_labeled(folder)
    write(folder / "d_labels.tif", objects(7))


def one_place(folder: Path) -> None:
    nothing_labeled(folder)
    speck = np.zeros((2, H, W), np.uint16)
    speck[:, 3, 5] = 1
    pair(folder, "d", image(2, H, W), speck)


def float_labels(folder: Path) -> None:
    write(folder / "c_labels.tif", objects(1).astype(np.float32))


def constant(folder: Path) -> None:
    for path in folder.glob("?.tif"):
        write(path, np.stack([image(), np.full((H, W), 7, np.uint16)]))


def channel_missing(folder: Path) -> None:
    for path in folder.glob("?.tif"):
        count = 2 if path.stem == "c" else 3
        write(path, image(count, H, W))


def name_missing(folder: Path) -> None:
    for path in folder.glob("?.tif"):
        names = ["DAPI", "Cy5" if path.stem == "c" else "GFP"]
        metadata = {"axes": "CYX", "Channel": {"Name": names}}
        write(path, image(2, H, W), ome=True, metadata=metadata)


def file_missing(folder: Path) -> None:
    for path in sorted(folder.glob("?.tif")):
        write(path.with_name(f"{path.stem}_DAPI.tif"), image())
        path.rename(path.with_name(f"{path.stem}_GFP.tif"))
    (folder / "c_GFP.tif").unlink()


def file_of_another_shape(folder: Path) -> None:
    for path in sorted(folder.glob("?.tif")):
        write(path.with_name(f"{path.stem}_DAPI.tif"), image(H, W - (path.stem == "c")))
        path.rename(path.with_name(f"{path.stem}_GFP.tif"))


def unreadable(folder: Path) -> None:
    (folder / "c.tif").write_bytes((folder / "c.tif").read_bytes()[:60])


def complex_image(folder: Path) -> None:
    write(folder / "c.tif", image().astype(np.complex64))


def no_image(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def only_validation(folder: Path) -> None:
    (folder / "val").mkdir()


def nothing(folder: Path) -> None:
    pass


AXIS = {"channel_axis": 0}


@pytest.mark.parametrize(
    ("spoil", "config", "sentence"),
    [
        (
            bad_shape,
            {},
            r"c_labels\.tif has the shape 12 x 21, the image c\.tif without channels 12 x 20",
        ),
        (no_labels, {}, r"No image in .*cells has labels; save each label image"),
        (nothing_labeled, {}, "No image to train on has a labeled object: the labels are 0"),
        (one_object, {}, "There is a single labeled object, in d, .*label a second one"),
        (one_place, {}, "All labels are in d, and its objects lie in one place"),
        (float_labels, {}, r"c_labels\.tif holds float32 values; labels are integers"),
        (constant, AXIS, "Channel 1 is constant in every training image"),
        (
            channel_missing,
            {**AXIS, "channels": (0, 2)},
            "c: There is no channel 2; the image has 2 channels, counted",
        ),
        (channel_missing, AXIS, r"c has 2 channels, but the first image has 3 \(0, 1, 2\)"),
        (name_missing, {}, r"c: There is no channel called GFP; there are DAPI, Cy5\..* Every"),
        (nothing, {"channels": ("DAPI",)}, "a: There is no channel called DAPI; the channels here"),
        (
            file_missing,
            {"channels": ("DAPI", "GFP")},
            r"c has labels \(c_labels\.tif\) but no file for channel GFP",
        ),
        (
            file_of_another_shape,
            {"channels": ("GFP", "DAPI")},
            r"c_DAPI\.tif has the shape 12 x 19, c_GFP\.tif has 12 x 20",
        ),
        (unreadable, {}, r"c\.tif could not be read .*damaged or cut short"),
        (complex_image, {}, "c has values of type complex64; .*magnitude"),
        (no_image, {}, r"There is no image in .*cells; save each label image"),
        (only_validation, {}, "has a folder val but none for training"),
    ],
)
def test_from_folder_refuses_unusable_data(spoil, config, sentence, folder):
    spoil(folder)
    with pytest.raises((ValueError, TypeError), match=sentence) as refused:
        from_folder(folder, DataConfig(selection=ChannelSelection(**config)))
    assert "\n" not in str(refused.value)
    assert str(refused.value).endswith((".", ").", "labels"))


def test_from_folder_refuses_wrong_units_and_a_missing_folder(folder):
    with pytest.raises(ValueError, match=r"There are 1 channels \(intensity\) but 2 units"):
        from_folder(folder, DataConfig(units=("K", "m")))
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        from_folder(folder / "nowhere")


def test_sample_of_long_pixels_is_as_the_predictor_sees_it(tmp_path):
    values, labels = image(), objects(1, 2)
    sizes = {"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 1.5}
    for name in "ab":
        pair(tmp_path, name, values, labels, ome=True, metadata=sizes)
    dataset = from_folder(tmp_path, ratio(7.0))  # the file's own holds
    seen, ids = dataset.train[0].load()
    assert (seen.shape, ids.shape) == ((1, 3 * H, W), (3 * H, W))
    # Each row of labels becomes three; an object of two rows has six.
    assert np.array_equal(ids, np.repeat(labels, 3, axis=0))
    spec = spec_of(dataset, InputSize(method="native", minimum=1))
    stack = ChannelStack.build(values, inputs=spec.inputs, pixel_size=(3.0, 1.0))
    frame = InputTransform.of(values.shape, spec.input_size, stack.pixel_size)
    assert np.array_equal(seen, frame.resize(stack.normalized()))


def test_pixel_ratio_holds_where_the_file_does_not_say(tmp_path):
    for name in "ab":
        pair(tmp_path, name, image(), objects(1, 2))
    _, ids = from_folder(tmp_path, ratio(0.25)).train[0].load()
    assert np.array_equal(ids, np.repeat(objects(1, 2), 4, axis=1))
    _, ids = from_folder(tmp_path, ratio(1.1)).train[0].load()
    assert np.array_equal(ids, objects(1, 2))
    with pytest.raises(ValueError, match=r"height over its width is above 0, not -1\.0\.$"):
        DataConfig(selection=ChannelSelection(pixel_ratio=-1.0))
