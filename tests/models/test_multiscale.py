"""`tiny` at several scales: the pyramid, its windows, and the levels chosen for prompts."""

import math

import numpy as np
import pytest
import torch
from skimage.data import hubble_deep_field
from torch.nn.functional import interpolate

from napari_simmat.checkpoints.loading import load_model
from napari_simmat.engine.masks import iou
from napari_simmat.engine.predictor import Predictor
from napari_simmat.engine.prompts import Prompt
from napari_simmat.models import multiscale
from napari_simmat.models.dense_prior import DENSE_CHANNELS, MAX_PRIOR_LOGIT, SIZE, SIZE_UNIT
from napari_simmat.models.multiscale import (
    LevelTile,
    LevelWindow,
    level_tiles,
    pyramid_scales,
    scaled_images,
)
from napari_simmat.models.network import Encoded
from napari_simmat.models.tiny import build_tiny
from napari_simmat.progress import finish
from tests.nightly import nightly_but


def level(height: int, width: int, scale: float, size: float = 40.0) -> Encoded:
    dense = torch.zeros(1, DENSE_CHANNELS, height // 2, width // 2)
    dense[:, SIZE] = math.log(size / SIZE_UNIT)
    embedding = torch.arange(height // 8 * (width // 8)).reshape(1, 1, height // 8, width // 8)
    return Encoded(embedding, (height, width), {"dense": dense}, scale)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((64, 64), [2]),
        ((256, 160), [2, 1, 0.5]),
        ((512, 288), [1, 0.5, 0.25]),
        ((1024, 1344), [1, 0.5, 0.25, 0.125, 0.0625]),
        ((2048, 32), [1, 0.5, 0.25, 0.125, 0.0625]),
    ],
)
def test_pyramid_scales_halve_until_the_image_is_small(shape, expected):
    assert pyramid_scales(*shape) == expected
    made = list(scaled_images(torch.ones(1, 2, *shape)))
    assert [scale for scale, _ in made] == expected
    for scale, image in made:
        assert not any(side % 32 for side in image.shape[-2:])
        filled = [math.ceil(side * scale) for side in shape]
        assert image.sum() == pytest.approx(2 * math.prod(filled), rel=1e-5)


def test_level_window_lies_around_a_point_within_the_level():
    half = level(512, 320, 0.5)
    assert LevelWindow.around(half, (320.0, 512.0)) == (128, 32, 256, 256)
    assert LevelWindow.around(half, (0.0, 0.0)) == (0, 0, 256, 256)
    assert LevelWindow.around(half, (639.0, 1023.0)) == (256, 64, 256, 256)
    assert LevelWindow.around(level(96, 64, 1.0), (50.0, 50.0)) == (0, 0, 96, 64)


def test_level_window_crops_every_map_alike():
    whole = level(512, 320, 0.5)
    part = LevelWindow(128, 32, 256, 256).crop(whole)
    assert part.input_size == (256, 256)
    assert part.embedding.shape == (1, 1, 32, 32)
    assert int(part.embedding[0, 0, 0, 0]) == 16 * 40 + 4
    assert part.maps["dense"].shape == (1, DENSE_CHANNELS, 128, 128)


@pytest.mark.parametrize("scale", [2.0, 1.0, 0.5, 0.25])
def test_level_window_pastes_masks_where_they_were(scale):
    shape = (256, 320)  # of the mask grid: an input of 512 x 640
    whole = torch.full((1, 1, *shape), -8.0)
    whole[..., 96:160, 128:192] = 8.0
    side = [int(side * 2 * scale) for side in shape]
    window = LevelWindow.around(level(*side, scale), (320.0, 256.0))
    inside = window.mask(whole, scale)
    assert inside.shape[-2:] == (window.height // 2, window.width // 2)
    back = window.paste(inside[0], scale, shape)
    outside = window.paste(torch.zeros_like(inside[0]), scale, shape) == -MAX_PRIOR_LOGIT
    agree = ((back > 0) == (whole[0] > 0)) | outside
    assert agree.float().mean() > 0.999  # bilinear enlarging rounds corners
    assert (back[outside] == -MAX_PRIOR_LOGIT).all()
    assert ((back > 0).sum() > 0.9 * (whole[0] > 0)[~outside].sum()).all()


def test_level_window_counts_points_from_its_corner():
    window = LevelWindow(64, 32, 256, 256)
    points = torch.tensor([[200.0, 300.0], [10.0, 300.0]])
    inner = window.points(points, 0.5)
    assert inner.tolist() == [[200.5 / 2 - 0.5 - 32, 300.5 / 2 - 0.5 - 64], [-27.25, 85.75]]
    assert window.holds(inner).tolist() == [True, False]


def test_level_window_notices_a_mask_that_fills_it():
    """On a level of 100 x 120 pixels, padded to 128 x 128; or the upper half of a window of it."""
    logits = torch.full((64, 64), -5.0)
    logits[:50, :51] = 5  # 85 % of 50 x 60 cells
    window = LevelWindow(0, 0, 128, 128)
    assert not window.is_filled(logits, 0.5, (200, 240))
    logits[0, 51] = 5
    assert window.is_filled(logits, 0.5, (200, 240))
    assert not window.is_filled(logits, 0.5, (400, 400))  # the image goes on
    assert not LevelWindow(0, 32, 128, 128).is_filled(logits, 0.5, (256, 400))
    assert LevelWindow(48, 8, 128, 128).is_filled(logits, 0.5, (296, 256))


def test_level_window_notices_a_mask_that_leaves_it():
    half = level(512, 512, 0.5)
    logits = torch.full((128, 128), -5.0)
    logits[:40, 30:90] = 5
    assert LevelWindow(128, 0, 256, 256).is_left(logits, half)
    assert not LevelWindow(0, 0, 256, 256).is_left(logits, half)  # the image itself ends there
    logits[:2] = -5
    assert not LevelWindow(128, 0, 256, 256).is_left(logits, half)


@torch.no_grad()
def test_encode_job_links_levels_that_equal_scaled_images():
    torch.manual_seed(0)
    network, image = build_tiny(), torch.randn(1, 3, 320, 288)
    steps: list[float] = []
    encoded = finish(network.encode_job(image), lambda p: steps.append(p.done / p.total))
    assert steps == sorted(steps)
    assert steps[-1] == 1
    assert [each.scale for each in encoded.levels] == [1, 0.5, 0.25]
    for each, (_, scaled) in zip(encoded.levels, scaled_images(image), strict=True):
        alone = network.encode(scaled)
        assert torch.equal(each.embedding, alone.embedding)
        assert each.input_size == tuple(scaled.shape[-2:])
    half = encoded.to(dtype=torch.float16)
    assert [each.embedding.dtype for each in half.levels] == [torch.float16] * 3
    assert half.nbytes * 2 == encoded.nbytes


def test_level_tiles_cover_a_large_level_once():
    assert level_tiles(2048, 64) == [LevelTile(*[slice(0, 2048), slice(0, 64)] * 2)]
    for height, width in ((2080, 96), (4096, 3008)):
        covered = torch.zeros(height, width)
        for tile in level_tiles(height, width):
            covered[tile.core_rows, tile.core_columns] += 1
            assert tile.rows.start <= tile.core_rows.start < tile.core_rows.stop <= tile.rows.stop
            assert max(tile.rows.stop - tile.rows.start, 0) <= 2048
        assert (covered == 1).all()


@torch.no_grad()
@pytest.mark.parametrize(
    ("contrast", "all_over", "at_a_seam"),
    nightly_but(((0, 0.12, 0.15), (0.1, 0.2, 0.2)), (0.1, 0.2, 0.2)),
)
def test_place_tile_is_nearly_the_level_at_once(contrast, all_over, at_a_seam, monkeypatch):
    torch.manual_seed(0)
    shipped = load_model("tiny").network
    network = build_tiny("tiny_lite")
    weights = network.state_dict() | dict(shipped.state_dict())
    weights["image_encoder.local.mix.weight"] += contrast * torch.randn(32, 32, 1, 1)
    network.load_state_dict(weights)
    image = torch.nn.functional.interpolate(torch.randn(1, 3, 96, 48), scale_factor=8)
    whole = network.encode(image)
    monkeypatch.setattr(multiscale, "MAX_UNTILED_SIDE", 512)
    monkeypatch.setattr(multiscale, "TILE_CORE", 256)
    tiled = finish(network.encode_job(image))
    assert tiled.input_size == whole.input_size
    for ours, theirs in (
        (tiled.embedding, whole.embedding),
        *zip(tiled.maps.values(), whole.maps.values(), strict=True),
    ):
        assert ours.shape == theirs.shape
        assert (ours - theirs).norm() / theirs.norm() < all_over  # attention sees more
        seam = slice(ours.shape[-2] // 3 - 2, ours.shape[-2] // 3 + 2)
        worst = (ours - theirs)[..., seam, :].norm() / theirs[..., seam, :].norm()
        assert worst < at_a_seam


@torch.no_grad()
@pytest.mark.slow
def test_predict_finds_a_galaxy_in_a_large_field():
    """The coarsest level sees a field of dots, and is sure of all of it."""
    field = np.tile(hubble_deep_field(), (4, 3, 1))[:3000, :3000]
    predictor = Predictor(load_model("tiny"), device="cpu")
    predictor.set_image(field, channel_axis=-1)
    for y, x in ((736, 244), (662, 516), (542, 636), (802, 826), (769, 689), (826, 713)):
        result = predictor.predict(points=[(y, x)])
        assert result.mask[y, x]
        assert 20 < result.mask.sum() < 200
        assert predictor.predict_low_res([Prompt(points=((y, x),))])[0].patch(0).logits.size < 2000


@torch.no_grad()
@pytest.mark.parametrize("factor", nightly_but((0.5, 2, 4, 8), 2))
def test_decode_of_an_enlarged_image_enlarges_the_mask(factor):
    """Discs on a plain background, at half the size and enlarged: the mask is nearly the same."""
    y, x = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
    image = torch.full((1, 3, 256, 256), -1.0)
    discs = ((60, 70, 14), (180, 160, 40), (60, 200, 24))
    for cy, cx, radius in discs:
        image[..., (y - cy) ** 2 + (x - cx) ** 2 < radius**2] = 1.0
    network = load_model("tiny").network
    original = finish(network.encode_job(image))
    resized = finish(network.encode_job(interpolate(image, scale_factor=factor, mode="area")))
    for cy, cx, radius in discs:
        there = torch.tensor([[float(cx), float(cy)]])
        ours = network.decode(original, {"points": there, "labels": torch.tensor([1])})
        point = torch.tensor([[(cx + 0.5) * factor - 0.5, (cy + 0.5) * factor - 0.5]])
        theirs = network.decode(resized, {"points": point, "labels": torch.tensor([1])})
        mask = interpolate((theirs.logits[:1, None] > 0).float(), (128, 128), mode="area") >= 0.5
        assert iou((ours.logits[0] > 0).numpy(), mask[0, 0].numpy()) > 0.85
        truth = math.pi * radius**2 / 4
        assert 0.8 * truth < (ours.logits[0] > 0).sum() < 1.2 * truth
