"""The AIMS benchmark's layouts, values and lists."""

import math

import numpy as np
import pytest
from PIL import Image

from napari_simmat.progress import finish
from research.tests.aims_folders import WRITERS, gray, mask, picture, ramp, write_layout
from simmat_research.aims import AIMS, LAYOUTS, from_aims, polarization, read_job
from simmat_research.authors import MODALITIES

RAMP = ((ramp() - 10) / 47 * 255)[0, 1]  # the second of 48 equal steps


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    """All layouts in one folder; tests that change one write their own."""
    root = tmp_path_factory.mktemp("aims")
    for name in WRITERS:
        write_layout(name, root)
    return root


# key -> values at pixel (0, 1), raw or 0..255; images to train and to test on; threshold
EXPECTED = {
    "zju-rgbp": ([120, 60, 0, 0, 0, 0, 2 / 3, 2 / 3, 0], 3, 2, 10_000),
    "pgsnet_p": ([40, 50, 60, 70, 80, 90], 3, 2, 100),
    "pgsnet_rgbp": ([10, 20, 30, 40, 50, 60, 70, 80, 90], 3, 2, 100),
    "d": ([RAMP], 3, 1, 0),
    "rgbd": ([100, 100, 100, RAMP], 3, 1, 0),
    "hha": ([50, 50, 50], 3, 1, 0),
    "rgbhha": ([100, 100, 100, 50, 50, 50], 3, 1, 0),
    "nir": ([200], 3, 2, 1000),
    "rgbnir": ([1, 2, 3, 200], 3, 2, 1000),
    "t": ([RAMP], 21, 4, 0),
    "rgbt": ([1, 2, 3, RAMP], 21, 4, 0),
    "t_500": ([RAMP], 3, 2, 0),
    "rgbt_500": ([1, 2, 3, RAMP], 3, 2, 0),
}


def test_aims_has_every_modality():
    assert set(EXPECTED) == set(AIMS) == set(MODALITIES)


@pytest.mark.parametrize("key", AIMS)
def test_from_aims_has_channels_splits_and_threshold(key, benchmark):
    values, train, test, min_size = EXPECTED[key]
    dataset = from_aims(benchmark, key)
    assert (len(dataset.train), len(dataset.test), dataset.min_size) == (train, test, min_size)
    assert dataset.validation == dataset.test
    assert len(set(dataset.channel_names)) == len(values)
    for sample in (*dataset.train, *dataset.test):
        image, labels = sample.load()
        assert (image.dtype, labels.dtype) == (np.float32, np.int32)
        assert image.shape == (len(values), 6, 8)
        assert image[:, 0, 1].tolist() == pytest.approx(values, abs=1e-5)
        assert np.array_equal(labels, mask())


@pytest.mark.parametrize(
    ("key", "mean", "std"),
    [
        ("d", [0.449], [0.226]),
        ("rgbd", [0.485, 0.456, 0.406, 0.449], [0.229, 0.224, 0.225, 0.226]),
        ("rgbhha", [0.485, 0.456, 0.406] * 2, [0.229, 0.224, 0.225] * 2),
        ("nir", [0.50381], [0.20590]),
        ("rgbt_500", [0.37961, 0.39143, 0.38458, 0.35633], [0.22784, 0.23296, 0.23524, 0.21658]),
    ],
)
def test_from_aims_standardizes_as_published(key, mean, std, benchmark):
    """(value / 255 - mean) / std, though values and statistics are kept in 0..255."""
    dataset = from_aims(benchmark, key)
    image = dataset.train[0].load()[0][:, 2, 3]
    own = np.array([(channel.mean, channel.std) for channel in dataset.channels])
    ours = (image - own[:, 0]) / own[:, 1]
    assert ours == pytest.approx((image / 255 - np.array(mean)) / np.array(std), abs=1e-5)


def test_from_aims_statistics_of_zju_are_not_divided(benchmark):
    dataset = from_aims(benchmark, "zju-rgbp")
    means = [channel.mean for channel in dataset.channels]
    assert means[:4] == [141.125, 141.375, 138.996, -0.01453]
    assert dataset.normalization.method == "none"
    assert [channel.unit for channel in dataset.channels[2:5]] == ["", "rad", "rad"]
    dark = dataset.train[0].load()[0][:, 0, 0]  # no light at any angle
    assert dark.tolist() == [0] * 9


def test_polarization_of_known_light():
    def at(*values):
        return [float(part) for part in polarization(*(np.array(value) for value in values))]

    assert at(100, 60, 20, 60) == pytest.approx([120, 0, 2 / 3], abs=1e-6)  # partly, along 0
    assert at(100, 50, 0, 50) == pytest.approx([100, 0, 1], abs=1e-5)  # fully
    assert at(50, 100, 50, 0) == pytest.approx([100, math.pi / 4, 1], abs=1e-5)  # along 45
    assert at(80, 80, 20, 20) == pytest.approx([100, math.pi / 8, math.sqrt(0.72)], abs=1e-5)
    assert at(20, 20, 80, 80) == pytest.approx([100, math.pi / 8, math.sqrt(0.72)], abs=1e-5)
    assert at(255, 255, 255, 255) == pytest.approx([510, 0, 0], abs=1e-6)
    assert at(0, 0, 0, 0) == [0, 0, 0]
    assert at(200, 0, 0, 0)[2] == 1  # impossible light is fully polarized, not more


def test_from_aims_leaves_out_broken_items(benchmark):
    names = [sample.name for sample in from_aims(benchmark, "pgsnet_p").train]
    assert names == ["train/a", "train/b", "train/c"]
    nyu = from_aims(benchmark, "d")
    assert [sample.name for sample in (*nyu.train, *nyu.test)] == ["1", "2", "13980", "3"]


def test_from_aims_subsets_take_every_tenth_and_second(benchmark):
    dataset = from_aims(benchmark, "t_500")
    assert [sample.name for sample in dataset.train] == ["train/00", "train/10", "train/20"]
    assert [sample.name for sample in dataset.test] == ["test/00", "test/02"]


def test_regions_are_measured_at_1024_pixels(benchmark):
    labels = from_aims(benchmark, "nir").train[0].load()[1]
    assert from_aims(benchmark, "nir").regions(labels) == [2, 300]
    # One of 48 pixels is 21845 of 1024 x 1024.
    assert from_aims(benchmark, "zju-rgbp").regions(np.kron(labels, np.ones((9, 9), int))) == [
        2,
        300,
    ]
    wide = np.zeros((100, 200), np.int32)
    wide[0, :2], wide[9, 9] = 1, 7  # 104.9 and 52.4 pixels
    assert from_aims(benchmark, "pgsnet_p").regions(wide) == [1]
    assert from_aims(benchmark, "t").regions(wide) == [1, 7]


def test_from_aims_turns_a_colored_nir_picture_gray(tmp_path):
    folder = write_layout("IVRG_RGBNIR", tmp_path)
    path = folder / "Outdoor_dataset/NIRimages/田野/a_nir.png"
    colors = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    picture(path, colors)
    [values] = from_aims(folder, "nir").train[0].load()[0]
    np.testing.assert_array_equal(values, np.asarray(Image.fromarray(colors).convert("L")))


def test_read_gives_what_a_name_of_the_command_says(benchmark):
    dataset = finish(read_job(f"nir:{benchmark}"))
    assert [each.name for each in dataset.train] == [
        each.name for each in from_aims(benchmark, "nir").train
    ]
    with pytest.raises(ValueError, match="aims:nir lacks its folder; write aims:KEY:FOLDER"):
        finish(read_job("nir"))


def test_from_aims_refuses_an_unknown_key(tmp_path):
    with pytest.raises(ValueError, match="'lidar' is unknown; give one of zju-rgbp, pgsnet_p"):
        from_aims(tmp_path, "lidar")


@pytest.mark.parametrize("key", AIMS)
def test_from_aims_refuses_another_layout(key, tmp_path):
    with pytest.raises(ValueError, match="is not laid out as the benchmark's") as refused:
        from_aims(tmp_path, key)
    assert LAYOUTS[AIMS[key]].needs[0] in str(refused.value)
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        from_aims(tmp_path / "nowhere", key)


def test_from_aims_needs_only_the_files_of_its_key(tmp_path):
    folder = write_layout("NYUDepthv2", tmp_path)
    (folder / "Depth" / "2.npy").unlink()
    assert len(from_aims(folder, "rgbhha").train) == 3
    with pytest.raises(FileNotFoundError, match=r"2\.npy should be there but is missing"):
        from_aims(folder, "d")
    (folder / "Mask_gt" / "1.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"and 1 more should be there but are missing"):
        from_aims(folder, "d")


@pytest.mark.parametrize("path", ["../../secret.png", "/etc/passwd", "C:\\\\x.png"])
@pytest.mark.parametrize("column", [1, 2])
def test_from_aims_refuses_paths_outside_the_folder(path, column, tmp_path):
    folder = write_layout("IVRG_RGBNIR", tmp_path)
    row = ["0", "NIRimages/a_nir.png", "a.png"]
    row[column] = path
    list_ = folder / "IVRG-nir_train_GroundTruth.csv"
    list_.write_text(f"n,i,m\n{','.join(row)}\n", encoding="gbk")
    with pytest.raises(ValueError, match="lies outside the data set's folder"):
        from_aims(folder, "nir")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"n,i,m\n0,only.png\n", "line 2, has 2 columns"),
        (b"n,i,m\n0,,\n", "a line without a path"),
        (b"n,i,m\n\xff\xff\xff", "is not text in gbk"),
        (b"n,i,m\n", "lists no image for train"),
    ],
)
def test_from_aims_refuses_a_malformed_list(text, sentence, tmp_path):
    folder = write_layout("IVRG_RGBNIR", tmp_path)
    (folder / "IVRG-nir_train_GroundTruth.csv").write_bytes(text)
    with pytest.raises(ValueError, match=sentence):
        from_aims(folder, "nir")


def test_from_aims_refuses_pickles_and_other_pictures(tmp_path):
    folder = write_layout("NYUDepthv2", tmp_path)
    np.save(folder / "Depth" / "1.npy", np.array([{}], object), allow_pickle=True)
    picture(folder / "Depth" / "2.npy", np.ones((6, 8), complex))
    picture(folder / "Mask_gt" / "13980.png", gray(1)[:3])
    one, two, three = from_aims(folder, "d").train
    with pytest.raises(ValueError, match=r"1\.npy holds Python objects, which can run code"):
        one.load()
    with pytest.raises(ValueError, match=r"2\.npy holds complex128 values of shape 6 x 8"):
        two.load()
    with pytest.raises(ValueError, match=r"labels of 13980 have the shape 3 x 8.* 6 x 8"):
        three.load()

    polar = write_layout("pgsnet", tmp_path)
    picture(polar / "train/aolp/a_aolp.tiff", np.ones((6, 8, 3), np.uint16))
    with pytest.raises(ValueError, match=r"a_aolp\.tiff holds uint16 values .*8 bits"):
        from_aims(polar, "pgsnet_p").train[0].load()


def test_from_aims_does_not_train_on_test_images(tmp_path, caplog):
    folder = write_layout("NYUDepthv2", tmp_path)
    with (folder / "train.txt").open("a") as file:
        file.write("RGB/3.jpg\nRGB/1.jpg\n\n")
    dataset = from_aims(folder, "d")
    assert [sample.name for sample in dataset.train] == ["1", "2", "13980"]
    assert "1 images to train on are also among those to test on" in caplog.text
