"""Objects from the maps of micro-sam's decoder: the watershed, its thresholds, tiles, refusals."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage as ndi

from napari_simmat.engine.everything.candidates import PixelBox, masks_to_instances
from napari_simmat.engine.everything.decoded_objects import (
    InstanceMaps,
    decode_objects_job,
    watershed_objects,
)
from napari_simmat.engine.everything.generator import segment_everything
from napari_simmat.engine.everything.tiles import segment_tiles_job
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.settings import AutomaticSettings
from napari_simmat.models.spec import Base, Channel, InputSize, ModelSpec, Normalization
from napari_simmat.progress import finish
from tests.scripted_predictor import all_match

SPEC = ModelSpec(
    name="cells",
    modality="RGB",
    channels=tuple(Channel(name=name, mean=0, std=1) for name in "rgb"),
    normalization=Normalization(),
    input_size=InputSize(method="longest", size=1024),
    base=Base(name="cells", architecture="vit_b", sha256=""),
    mask_choice="stock",
    instance_decoder="here",
)
SHARP = AutomaticSettings(by="decoder", foreground_smoothing=0, distance_smoothing=0)


def maps_of(labels: np.ndarray) -> InstanceMaps:
    """What a perfect decoder says of these objects (Y, X)."""
    foreground = np.where(labels > 0, 0.9, 0.1)
    center, boundary = np.ones((2, *labels.shape))
    for number, at in enumerate(ndi.find_objects(labels), start=1):
        mask = np.pad(labels[at] == number, 1)
        depth = ndi.distance_transform_edt(mask)[1:-1, 1:-1] / 4
        own = labels[at] == number
        boundary[at][own] = 1 - np.minimum(depth[own], 1)
        middle = np.array(ndi.center_of_mass(own))
        away = np.linalg.norm(np.argwhere(own) - middle, axis=1)
        center[at][own] = away / away.max()
    return InstanceMaps(*(each.astype(np.float32) for each in (foreground, center, boundary)))


class Decoding:
    """Stands for a predictor whose model says what a perfect decoder would of `truth`."""

    def __init__(self, truth: np.ndarray) -> None:
        self.truth, self.shape = truth, truth.shape
        self.model = SimpleNamespace(
            spec=SPEC, kind=None, network=SimpleNamespace(), pixels=None, decoder=None
        )
        self.model.network.expected_size = None
        self.parts: list[tuple[slice, slice]] = []
        self.whole = maps_of(truth)

    def keeping_plane(self):
        return nullcontext()

    def encode_tile_job(self, _plane, *part, **_keep):
        self.parts.append(part)
        yield from ()

    def instance_maps_job(self):
        yield from ()
        return np.stack([each[self.parts[-1]] for each in self.whole])


def squares(side: int, *corners: tuple[int, int], size: int = 16) -> np.ndarray:
    labels = np.zeros((side, side), int)
    for number, (y, x) in enumerate(corners, start=1):
        labels[y : y + size, x : x + size] = number
    return labels


def test_watershed_separates_objects_that_touch():
    truth = squares(64, (10, 10), (10, 26), (40, 30))
    np.testing.assert_array_equal(watershed_objects(maps_of(truth), SHARP), truth)


def test_watershed_needs_a_seed_and_the_foreground():
    """One object of 3 x 3 pixels, by hand: its middle is a seed, its eight others are reached."""
    foreground = np.zeros((5, 6), np.float32)
    foreground[1:4, 1:4] = 0.6
    center = boundary = np.ones((5, 6), np.float32)
    assert not watershed_objects(InstanceMaps(foreground, center, boundary), SHARP).any()
    center, boundary = center.copy(), boundary.copy()
    center[2, 2] = boundary[2, 2] = 0.4
    found = watershed_objects(InstanceMaps(foreground, center, boundary), SHARP)
    np.testing.assert_array_equal(found, foreground > 0.5)
    for name in ("center_distance_threshold", "boundary_distance_threshold"):
        strict = AutomaticSettings(by="decoder", distance_smoothing=0, **{name: 0.4})
        assert not watershed_objects(InstanceMaps(foreground, center, boundary), strict).any()
    strict = AutomaticSettings(by="decoder", distance_smoothing=0, foreground_threshold=0.61)
    assert not watershed_objects(InstanceMaps(foreground, center, boundary), strict).any()


@pytest.mark.parametrize("noise", [0.02, 0.5])
def test_watershed_gives_the_labels_of_micro_sam(noise):
    segmentation = pytest.importorskip("micro_sam.instance_segmentation")
    rng = np.random.default_rng(0)
    truth = squares(128, *((y, x) for y in range(4, 100, 20) for x in range(3, 100, 16)))
    clean = maps_of(truth)
    maps = [
        ndi.gaussian_filter(each + rng.normal(0, noise, each.shape), 0.7).astype(np.float32)
        for each in clean
    ]
    theirs = segmentation.InstanceSegmentationWithDecoder(None, None)
    names = ("foreground", "center_distances", "boundary_distances")
    theirs.set_state({name: each.copy() for name, each in zip(names, maps, strict=True)})
    predictor = Decoding(truth)
    predictor.whole = InstanceMaps(*maps)
    expected = theirs.generate(min_size=20).astype(int)
    found = segment_everything(predictor)
    assert len(np.unique(expected)) > 20
    assert all_match(expected, found.labels, 0.999)
    assert len(found) == len(np.unique(expected)) - 1


def test_objects_found_by_the_decoder_are_not_merged_or_dropped():
    truth = squares(64, (0, 10), (10, 30), (40, 30))
    predictor = Decoding(truth)
    found = segment_everything(predictor, SHARP)
    np.testing.assert_array_equal(found.labels, truth)
    np.testing.assert_allclose(found.scores, 0.9, rtol=1e-6)
    assert len(predictor.parts) == 1

    candidates = finish(decode_objects_job(predictor, SHARP))
    apart = masks_to_instances(candidates, AutomaticSettings(keep_border=False))
    np.testing.assert_array_equal(apart.labels > 0, truth > 1)
    assert len(masks_to_instances(candidates, AutomaticSettings(quality=0.95))) == 0
    assert len(masks_to_instances(candidates, AutomaticSettings(min_area=257))) == 0
    assert len(masks_to_instances(candidates, AutomaticSettings(min_area=256))) == 3


def test_decoder_of_a_part_counts_from_its_corner():
    predictor = Decoding(squares(64, (10, 10), (40, 30)))
    found = finish(decode_objects_job(predictor, SHARP, (), PixelBox(32, 20, 64, 64)))
    assert found.shape == (32, 44)
    assert [each.box for each in found.known] == [PixelBox(8, 10, 24, 26)]


def test_tiles_of_the_decoder_are_stitched():
    truth = squares(300, (20, 20), (120, 120), (5, 140), (250, 270), (200, 60), size=18)
    settings = AutomaticSettings(
        by="decoder", tile=128, tile_overlap=48, foreground_smoothing=0, distance_smoothing=0
    )
    predictor = Decoding(truth)
    labels = np.zeros(truth.shape, np.uint32)
    scores = finish(segment_tiles_job(predictor, labels, settings))
    assert all_match(truth, labels, 0.999)
    assert len(scores) == 5
    assert len(predictor.parts) > 4
    labels = np.zeros(truth.shape, np.uint32)
    left = SimpleNamespace(
        part=lambda tile: np.array(tile.x0 < 150), holds=lambda points: points[:, 1] < 150
    )
    finish(segment_tiles_job(predictor, labels, settings, tissue=left))
    assert all_match(np.where(np.isin(truth, [1, 2, 3, 5]), truth, 0), labels, 0.999)


def test_decoder_decides_unless_it_is_said_how_to_click():
    def chosen(**settings):
        return AutomaticSettings(**settings).for_model(SPEC).by

    assert chosen() == chosen(second_look=True) == chosen(min_area=5) == "decoder"
    for how in (
        {"seeds": "maxima"},
        {"points_per_side": 9},
        {"object_side": 9},
        {"crop_layers": 1},
    ):
        assert chosen(**how) == "clicks"
        assert chosen(by="decoder", **how) == "decoder"
    assert AutomaticSettings().for_model(SPEC).thresholds == (0.5, 0.0)
    assert AutomaticSettings(by="clicks").for_model(SPEC).thresholds == (0.88, 0.95)


def test_prompts_are_clicked_whatever_decides():
    predictor = Decoding(squares(64, (10, 10)))
    with pytest.raises(ValueError, match="outside"):  # it is asked as a prompt
        segment_everything(predictor, SHARP, prompts=[Prompt(points=((99, 99),), labels=(1,))])
    assert predictor.parts == []
