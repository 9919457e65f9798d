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
from napari_simmat.models.expected_size import ExpectedSize
from napari_simmat.models.multiscale import (
    UNEXPECTED_SIZE_PENALTY,
    LevelTile,
    LevelWindow,
    PromptExtent,
    box_iou,
    candidate_levels,
    clicked_size,
    coarseness_penalty,
    level_tiles,
    levels_by_likelihood,
    mask_thickness,
    prompt_extent,
    pyramid_scales,
    scaled_images,
    trust,
)
from napari_simmat.models.network import Encoded
from napari_simmat.models.tiny import build_tiny
from napari_simmat.models.tiny_encoder import (
    DENSE_CHANNELS,
    MAX_PRIOR_LOGIT,
    SIZE,
    SIZE_UNIT,
    TokenAttention,
)
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


def test_prompt_extent_of_each_prompt():
    none = torch.zeros(0, 2)
    mask = torch.full((1, 1, 50, 60), -5.0)
    assert prompt_extent(none, None, None) is None
    assert prompt_extent(none, None, mask) is None
    box = prompt_extent(none, torch.tensor([3.0, 4.0, 103.0, 54.0]), mask)
    assert box == PromptExtent((3, 4), (103, 54), whole=True)
    assert (box.longest, box.middle) == (100, (53, 29))
    clicks = prompt_extent(torch.tensor([[5.0, 9.0], [45.0, 3.0]]), None, mask)
    assert clicks == PromptExtent((5, 3), (45, 9), whole=False)
    mask[..., 10:20, 30:45] = 5
    thick = float(mask_thickness(mask[0, 0]))
    found = prompt_extent(none, None, mask)
    assert found == PromptExtent((59.5, 19.5), (89.5, 39.5), whole=True, thickness=thick)
    assert found.size == thick
    wider = prompt_extent(torch.tensor([[5.0, 9.0]]), None, mask)
    assert wider == PromptExtent((5, 9), (89.5, 39.5), whole=True, thickness=thick)


def test_mask_thickness_of_shapes():
    """A disk as the square root of its area; a ring, and a comb, as their thin parts."""
    y, x = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    away = (y - 64).hypot(x - 64)
    masks = torch.stack([40 - away, torch.minimum(40 - away, away - 32), away - 1000])
    disk, ring, empty = mask_thickness(masks).tolist()
    assert disk == pytest.approx(2 * math.sqrt(math.pi) * 40, rel=0.03)  # 2 pixels a cell
    assert ring == pytest.approx(2 * math.sqrt(math.pi) * 8, rel=0.06)
    assert empty == 0
    comb = torch.full((128, 128), -1.0)
    comb[10:100, 10:106:12] = 1  # teeth one cell wide
    assert mask_thickness(comb) < 6
    assert coarseness_penalty(torch.stack([masks[0], comb, masks[2]])).tolist() == pytest.approx(
        [1 / disk, 1 / float(mask_thickness(comb)), 0.5]
    )


def test_candidate_levels_suit_the_extent():
    levels = [level(1024 // n, 1024 // n, 1 / n) for n in (1, 2, 4, 8)]

    nowhere = torch.zeros(0, 2)

    def tried_scales(side, whole=True):
        extent = PromptExtent((0, 0), (side, side), whole)
        return [each.scale for each in candidate_levels(levels, extent, nowhere)]

    assert tried_scales(20) == [1, 0.5]
    assert tried_scales(70) == [1, 0.5]
    assert tried_scales(90) == [1, 0.5]  # 76 pixels on the first one, 38 on the second
    assert tried_scales(120) == [0.5, 0.25]
    assert tried_scales(180) == [0.5, 0.25]
    assert tried_scales(240) == [0.25, 0.125]
    assert tried_scales(500) == [0.25, 0.125]
    assert tried_scales(1024) == [0.125]  # on the others it does not fit into a window
    assert tried_scales(300, whole=False) == [0.5, 0.25, 0.125]  # its size is not known
    folded = PromptExtent((0, 0), (150, 150), whole=True, thickness=14.0)  # as far as it fits
    assert [each.scale for each in candidate_levels(levels, folded, nowhere)] == [1, 0.5]
    long = PromptExtent((0, 0), (800, 10), whole=True)
    assert [each.scale for each in candidate_levels(levels, long, nowhere)] == [0.25, 0.125]
    assert candidate_levels(levels, None, nowhere) == levels
    vast = PromptExtent((0, 0), (5000, 5000), whole=True)
    assert candidate_levels(levels, vast, nowhere) == levels[-1:]


def test_levels_by_likelihood_begin_with_the_fitting_size():
    sizes = {1.0: 190.0, 0.5: 96.0, 0.25: 50.0, 0.125: 20.0}
    levels = [level(int(1024 * s), int(1024 * s), s, size=sizes[s]) for s in sizes]
    click = torch.tensor([[400.0, 300.0]])
    assert [each.scale for each in levels_by_likelihood(levels, click)] == [0.25, 0.5, 0.125, 1.0]
    assert [each.scale for each in candidate_levels(levels, None, click)] == [0.25, 0.5, 0.125, 1.0]
    # Two clicks, which do not fit the first level.
    far = PromptExtent((0, 0), (300, 300), whole=False)
    assert [each.scale for each in candidate_levels(levels, far, click)] == [0.25, 0.5, 0.125]


def test_trust_falls_with_an_unusual_size():
    logits = torch.full((64, 64), -3.0)
    logits[:15, :15] = 3.0  # 30 pixels of the level, as usual
    assert trust(0.8, logits, left=False) == pytest.approx(0.8)
    assert trust(0.8, logits, left=True) == pytest.approx(-0.2)
    logits[:48, :48] = 3.0
    assert trust(0.8, logits, left=False) == pytest.approx(0.8 - 0.1 * math.log(96 / 30))
    assert trust(0.8, -logits.abs(), left=False) == pytest.approx(0.8 - 0.1 * math.log(30))
    expected = ExpectedSize(math.log(48), 0.3)
    assert trust(0.8, logits, False, False, expected, 2.0) == trust(0.8, logits, left=False)
    lost = UNEXPECTED_SIZE_PENALTY * (math.log(4) - 0.3)  # 192 pixels of the input, four times 48
    assert trust(0.8, logits, False, False, expected, 0.5) == pytest.approx(
        trust(0.8, logits, left=False) - lost
    )
    assert trust(1.0, logits, left=False, filled=True) < trust(0, -logits.abs(), left=True)


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


def test_box_iou_of_masks():
    masks = torch.full((4, 40, 50), -4.0)
    masks[0, 10:20, 15:35] = 4  # pixels 20 to 40 down, 30 to 70 across
    masks[1, 10:20, 15:25] = 4  # its left half
    masks[2] = 4  # everything
    corners = torch.tensor([[29.5, 19.5], [69.5, 39.5]])
    found = box_iou(masks, corners)
    torch.testing.assert_close(found, torch.tensor([1.0, 0.5, 800 / 8000, 0.0]))
    softer = torch.where(masks > 0, masks, -12.0)  # it ends a quarter of a cell earlier
    sides = (40 - 2 * 0.5) * (20 - 2 * 0.5)
    assert box_iou(softer, corners)[0].item() == pytest.approx(sides / 800)
    beyond = torch.tensor([[29.5, 19.5], [169.5, 39.5]])  # parts outside the window do not count
    assert box_iou(masks, beyond)[0].item() == pytest.approx(800 / 1400)


def test_clicked_size_is_that_of_the_dense_head():
    there = level(128, 128, 0.5, size=20.0)
    there.maps["dense"][0, SIZE, 10, 40] = math.log(80 / SIZE_UNIT)
    assert clicked_size(there, torch.tensor([[160.0, 40.0]])) == pytest.approx(80)
    assert clicked_size(there, torch.tensor([[0.0, 0.0]])) == pytest.approx(20)


def test_level_window_notices_a_mask_that_leaves_it():
    half = level(512, 512, 0.5)
    logits = torch.full((128, 128), -5.0)
    logits[:40, 30:90] = 5
    assert LevelWindow(128, 0, 256, 256).is_left(logits, half)
    assert not LevelWindow(0, 0, 256, 256).is_left(logits, half)  # the image itself ends there
    logits[:2] = -5
    assert not LevelWindow(128, 0, 256, 256).is_left(logits, half)


@torch.no_grad()
def test_token_attention_of_many_tokens_spans_each_block():
    torch.manual_seed(0)
    attention = TokenAttention(12, 2, qkv_bias=True)
    tokens = torch.randn(1, 70, 40, 12)
    output = attention(tokens)
    for rows, near_rows in (((0, 16), (0, 32)), ((32, 48), (24, 56)), ((64, 70), (38, 70))):
        for columns, near_columns in (((0, 16), (0, 32)), ((32, 40), (8, 40))):
            near = tokens[:, slice(*near_rows), slice(*near_columns)]
            top, left = near_rows[0], near_columns[0]
            here = attention(near)[
                :, rows[0] - top : rows[1] - top, columns[0] - left : columns[1] - left
            ]
            assert torch.allclose(output[:, slice(*rows), slice(*columns)], here, atol=1e-5)


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
@pytest.mark.parametrize("factor", nightly_but((0.5, 2, 4, 8), 0.5, 2))
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
