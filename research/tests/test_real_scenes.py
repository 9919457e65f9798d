"""Real labeled images as scenes: their table, split and shares, and what is known of them."""

import csv

import numpy as np
import pytest
import tifffile

from napari_simmat.training.batches import UNKNOWN
from simmat_research.real_scenes import read_sources, real_drawer
from simmat_research.scene_pool import DrawnScene, ScenePool, with_glare

TABLE = """folder,share,complete,filled,license,source
cells,3,yes,no,CC0,somewhere
leaves,1,no,yes,MIT,elsewhere
"""


@pytest.fixture
def folder(tmp_path):
    """Cells: 12 images with the values 100 on 10 (validation: 200); leaves: RGB, with a spot."""
    (tmp_path / "cells").mkdir()
    (tmp_path / "leaves").mkdir()
    rows = [("file", "split")]
    for number in range(12):
        labels = np.zeros((80, 90), np.uint16)
        labels[20:40, 30:60] = 7
        labels[60:75, 5:20] = 9
        is_kept = number % 4 == 0
        image = np.where(labels, 200 if is_kept else 100, 10).astype(np.uint16)
        tifffile.imwrite(tmp_path / "cells" / f"cell{number:02}.tif", image)
        tifffile.imwrite(tmp_path / "cells" / f"cell{number:02}_labels.tif", labels)
        rows.append((f"cell{number:02}.tif", "validation" if is_kept else "train"))
    with (tmp_path / "cells" / "split.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    labels = np.zeros((120, 120), np.uint16)
    labels[20:100, 30:90] = 1
    labels[50:60, 50:60] = 2
    image = np.stack([40 * labels, 90 + 0 * labels, 30 * labels], -1).astype(np.uint8)
    tifffile.imwrite(tmp_path / "leaves" / "leaf.tif", image, photometric="rgb")
    tifffile.imwrite(tmp_path / "leaves" / "leaf_labels.tif", labels)
    return tmp_path


def sources(folder, table=TABLE):
    (folder / "sources.csv").write_text(table)
    return {source.name: source for source in read_sources(folder)}


def test_sources_of_a_table_are_as_described(folder):
    cells, leaves = sources(folder).values()
    assert (cells.share, cells.complete, cells.filled, cells.license) == (3, True, False, "CC0")
    assert (leaves.complete, leaves.filled, leaves.source) == (False, True, "elsewhere")
    assert [len(cells.train), len(cells.validation)] == [9, 3]
    assert {file.name for file in cells.validation} == {"cell00", "cell04", "cell08"}
    assert cells.card["images"] == 9
    assert cells.recipe != sources(folder, TABLE.replace("3,yes", "2,yes"))["cells"].recipe


def test_sources_without_a_table_are_all_folders_incomplete(folder):
    cells, leaves = read_sources(folder)
    assert cells.share == pytest.approx(12**0.5)
    assert leaves.share == 1
    assert not cells.complete
    assert len(leaves.train) == 1


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("name,share\ncells,1\n", "needs the columns folder, kind, share.*it has name, share"),
        ("folder,share\ncells,none\n", "share of cells in .* is none; give a number"),
        ("folder,share\ncells,-1\n", "share of cells in .* is -1; give a number above"),
        ("folder,share\nnothing,1\n", "There is no folder .*nothing"),
        ("folder,share\n", "has no subfolder"),
    ],
)
def test_sources_of_a_bad_table_are_refused(folder, table, message):
    with pytest.raises((ValueError, OSError), match=message):
        sources(folder, table)


def test_split_covers_every_image(folder):
    path = folder / "cells" / "split.csv"
    path.write_text(path.read_text().replace("cell03.tif,train", "cell03.tif,later"))
    with pytest.raises(ValueError, match=r"gives no split for cell03\.tif"):
        sources(folder)
    path.write_text(path.read_text().replace("train", "validation").replace("later", "validation"))
    with pytest.raises(ValueError, match="cells has no image to train on"):
        sources(folder)


def test_split_without_its_columns_is_refused(folder):
    (folder / "cells" / "split.csv").write_text("name,part\ncell00.tif,train\n")
    with pytest.raises(ValueError, match=r"cells/split\.csv gives no split for cell00\.tif"):
        sources(folder)


def test_drawer_skips_images_without_objects(folder):
    labels = np.zeros((80, 90), np.uint16)
    image = np.full((80, 90), np.nan, np.float32)
    for number in range(1, 12):
        tifffile.imwrite(folder / "cells" / f"cell{number:02}_labels.tif", labels)
    image[:40] = 5
    tifffile.imwrite(folder / "cells" / "cell05.tif", image)
    labels[20:40, 30:60] = 7
    tifffile.imwrite(folder / "cells" / "cell05_labels.tif", labels)
    cells = sources(folder)["cells"]
    for seed in range(10):
        scene = real_drawer([cells])(np.random.default_rng(seed))
        assert scene.labels.max() == 7
        assert np.isfinite(scene.image).all()
    tifffile.imwrite(folder / "cells" / "cell05_labels.tif", 0 * labels)
    with pytest.raises(ValueError, match="images of cells drawn at random have no labeled object"):
        real_drawer([cells])(np.random.default_rng(0))


def test_split_keeps_a_series_together(tmp_path):
    (tmp_path / "stack").mkdir()
    for well in range(40):
        for time in range(3):
            stem = tmp_path / "stack" / f"well{well}_t{time:02}"
            tifffile.imwrite(f"{stem}.tif", np.ones((8, 8), np.uint8))
            tifffile.imwrite(f"{stem}_labels.tif", np.ones((8, 8), np.uint8))
    [source] = read_sources(tmp_path)
    train, kept = (
        {file.name.split("_")[0] for file in files} for files in (source.train, source.validation)
    )
    assert kept
    assert not train & kept


def test_drawer_never_trains_on_validation_images(folder, monkeypatch):
    found = sources(folder)["cells"]
    read = []
    kind = type(found.train[0])
    original = kind.read
    monkeypatch.setattr(kind, "read", lambda self, *a: read.append(self.name) or original(self, *a))
    for kept, files in ((False, found.train), (True, found.validation)):
        read.clear()
        draw = real_drawer([found], validation=kept)
        for seed in range(20):
            draw(np.random.default_rng(seed))
        assert set(read) <= {f"cells/{file.name}" for file in files}
        assert read


def test_drawer_gives_images_in_range_around_an_object(folder):
    draw = real_drawer(sources(folder).values())
    sides = []
    for seed in range(60):
        image, labels, filled = draw(np.random.default_rng(seed))
        assert image.shape == (3, *labels.shape)
        assert image.dtype == np.float32
        assert image.min() >= 0
        assert image.max() <= 255
        assert max(labels.shape) <= 650
        present = np.unique(labels)
        assert present.max() > 0
        if not filled:
            sides += [np.sqrt((labels == label).sum()) for label in present if label > 0]
    assert np.quantile(sides, 0.1) < 25  # objects of sides 24 and 15, enlarged and reduced
    assert np.quantile(sides, 0.9) > 50


def test_ground_far_from_objects_of_incomplete_is_unknown(folder):
    found = sources(folder)
    there = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        assert (real_drawer([found["cells"]])(rng).labels >= 0).all()
        labels = real_drawer([found["leaves"]])(rng).labels
        there.append((labels == UNKNOWN).any())
        beside = [labels[:-1] * (labels[1:] == UNKNOWN), labels[:, :-1] * (labels[:, 1:] == -1)]
        assert all((each <= 0).all() for each in beside)  # a ring lies between
    assert sum(there) > 10


def test_filled_object_includes_the_objects_inside():
    labels = np.zeros((120, 120), np.int32)
    labels[20:100, 30:90] = 1
    labels[50:60, 50:60] = 2
    labels[70:80, 50:60] = 0  # a hole through which the ground is seen
    for filled, area in ((False, 80 * 60 - 200), (True, 80 * 60 - 100)):
        pool = ScenePool(
            0,
            lambda _, f=filled: DrawnScene(np.zeros((3, 120, 120), np.float32), labels, f),
            size=1,
        )
        sizes = {int(m.sum()) for s in range(30) for m in pool.crops(s, 4, (160,)).masks[0]}
        assert sizes <= {area, 100}
        assert area in sizes


def test_debris_takes_the_range_and_is_an_object():
    labels = np.zeros((96, 96), np.int32)
    labels[30:60, 30:60] = 1
    scene = DrawnScene(np.where(labels, 200, 50)[None].repeat(3, 0).astype(np.float32), labels)
    draw = with_glare(lambda _: scene)
    seen = [draw(np.random.default_rng(seed)) for seed in range(300)]
    changed = [each for each in seen if each is not scene]
    assert 8 <= len(changed) <= 50
    debris = 0
    for image, ids, _ in changed:
        dim = image[0][(ids == 1)]
        if ids.max() > 1:
            debris += 1
            assert image[0][ids == ids.max()].mean() > 100
        assert not len(dim) or np.median(dim) < 120
    assert debris > 2
