"""`tiny` against the plain reference, at any size, and where its positions lie."""

from dataclasses import replace
from itertools import product

import pytest
import torch

from napari_simmat.models import tiny
from napari_simmat.models.multiscale import WINDOW
from napari_simmat.models.tiny_encoder import REFERENCE_TOKENS, LocalContrast
from napari_simmat.models.tuning import build_network
from napari_simmat.progress import finish
from tests.models import plain_tiny
from tests.nightly import nightly_but


@pytest.fixture(scope="module", params=["tiny", "tiny_deep"])
def network(request):
    torch.manual_seed(0)
    network = build_network(request.param)
    with torch.no_grad():  # no tensor at zero or one, where a mistake would not show
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


def relative(ours, theirs):
    return float((ours - theirs).norm() / theirs.norm())


def clicked(points, labels=None):
    """A prompt of clicks (K, 2) x, y, all positive by default."""
    points = torch.as_tensor(points)
    return {"points": points, "labels": torch.ones(len(points)) if labels is None else labels}


PROMPTS = {
    "click": {"points": [(40.0, 30.0)], "labels": [1]},
    "negative click alone": {"points": [(40.0, 30.0)], "labels": [0]},
    "several clicks": {"points": [(40.0, 30.0), (20.5, 11.25), (55.0, 60.0)], "labels": [1, 1, 0]},
    "box": {"box": (10.0, 12.0, 50.0, 41.5)},
    "box and click": {"points": [(30.0, 20.0)], "labels": [1], "box": (10.0, 12.0, 50.0, 41.5)},
    "box and negative": {"points": [(30.0, 20.0)], "labels": [0], "box": (10.0, 12.0, 50.0, 41.5)},
    "click on a corner": {"points": [(0.0, 0.0)], "labels": [1]},
}


KINDS = (*PROMPTS, "mask", "mask and clicks")
SIZES = ((64, 96), (32, 32), (320, 352))


@pytest.mark.parametrize(
    ("kind", "size"),
    nightly_but(
        product(KINDS, SIZES),
        *((kind, (64, 96)) for kind in KINDS),
        ("several clicks", SIZES[1]),
        ("mask and clicks", (320, 352)),
    ),
)
@torch.no_grad()
def test_decode_equals_the_plain_reference(network, size, kind):
    torch.manual_seed(1)
    image = torch.randn(1, 3, *size)
    weights = network.state_dict()
    given = dict(PROMPTS.get(kind, {}))
    if kind.startswith("mask"):
        given = dict(PROMPTS["several clicks"]) if "clicks" in kind else {}
        given["mask"] = 8 * torch.randn(size[0] // 2, size[1] // 2)
    if size[0] == 32:
        for name in ("points", "box"):
            if name in given:
                given[name] = _halved(given[name])
    ours = network.encode(image)
    theirs = plain_tiny.encode(weights, image)
    parts = (ours.embedding, ours.maps["skip4"], ours.maps["skip2"], ours.maps["dense"])
    for our, their in zip(parts, theirs, strict=True):
        assert relative(our, their) < 1e-4

    logits, quality = plain_tiny.decode(weights, theirs, **given)
    points, labels, box, mask = (given.get(n) for n in ("points", "labels", "box", "mask"))
    tokens = [*(points or ()), *((box[:2], box[2:]) if box else ((0.0, 0.0),))]
    kinds = [*(labels or ()), *((2, 3) if box else (-1,))]
    batched = network.decode_batch(
        ours,
        torch.tensor([tokens]),
        torch.tensor([kinds]),
        None if mask is None else mask[None, None],
    )
    assert relative(batched[0][0], logits) < 1e-4
    assert relative(batched[1][0], quality) < 1e-4
    if max(size) <= WINDOW:  # the whole image is one window
        prompt = {
            name: torch.tensor(given[name]) for name in ("points", "labels", "box") if name in given
        }
        prompt |= {} if mask is None else {"mask": mask[None, None]}
        result = network.decode(ours, prompt)
        if kind == "box":
            middle = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
            again = plain_tiny.decode(weights, theirs, points=[middle], labels=[1], box=box)
            logits, quality = plain_tiny.fuller((logits, quality), again, box)
        logits, quality = plain_tiny.ordered(logits, quality, box, mask)
        assert relative(result.logits, logits) < 1e-4
        assert relative(result.predicted_iou, quality) < 1e-4


def test_sizes_compare_both_kernels_of_the_attention():
    """The sizes above lie on both sides of the switch between the two ways to compute it."""
    assert (64 // 16) * (96 // 16) <= REFERENCE_TOKENS < (320 // 16) * (352 // 16)


@torch.no_grad()
def test_decode_batch_on_two_images_equals_single_prompts(network):
    torch.manual_seed(2)
    images = torch.randn(2, 3, 64, 64)
    points = torch.rand(6, 2, 2) * 60
    labels = torch.tensor([[1, -1]]).expand(6, 2)
    logits, quality = network.decode_batch(network.encode(images), points, labels)
    for number in range(6):
        alone = network.encode(images[number // 3][None])
        result = network.decode(alone, clicked(points[number, :1], labels[number, :1]))
        assert relative(logits[number], result.logits) < 1e-4
        assert relative(quality[number], result.predicted_iou) < 1e-4


@torch.no_grad()
def test_decode_batch_in_half_precision_is_exact(network):
    """Of what is encoded; distances between pixels have no meaning in bfloat16."""
    torch.manual_seed(4)
    encoded = network.encode(torch.randn(1, 3, 64, 64))
    points, labels = torch.tensor([[[40.25, 30.5], [0.0, 0.0]]]), torch.tensor([[1, -1]])
    exact = network.decode_batch(encoded, points, labels)
    with torch.autocast("cpu", torch.bfloat16):
        half = network.decode_batch(encoded, points, labels)
    for one, other in zip(half, exact, strict=True):
        assert torch.equal(one, other)


@torch.no_grad()
def test_decode_of_a_corrected_mask_takes_no_coarse_level(network, monkeypatch):
    """Of two levels whose predicted IoU differs by a hundredth, the finer one is chosen."""
    mask = torch.full((1, 1, 128, 128), -5.0)
    mask[..., 58:70, 58:70] = 5
    encoded = finish(network.encode_job(torch.zeros(1, 3, 256, 256)))
    scales = []

    def in_window(level, window, *_):
        scales.append(level.scale)
        part = window.mask(mask, level.scale)[0].expand(4, -1, -1)
        return part, torch.tensor([0.8 if level.scale == 2 else 0.81, 0.1, 0.1, 0.1])

    monkeypatch.setattr(network, "_in_window", in_window)
    found = network.decode(encoded, {**clicked([[128.0, 128.0]]), "mask": mask})
    assert scales == [2, 1]
    assert found.predicted_iou[0] == 0.8


@torch.no_grad()
@pytest.mark.parametrize("together", [False, True])
def test_decode_never_prefers_a_mask_of_everything(network, monkeypatch, together):
    """The coarsest level is sure of all that it sees, the finer ones less of a small square."""
    encoded = finish(network.encode_job(torch.zeros(1, 3, 224, 256)))
    square = torch.full((4, 128, 128), -5.0)
    square[:, 60:68, 60:68] = 5
    everything = torch.full((4, 64, 64), -5.0)
    everything[:, :53] = 5  # of 56 rows: below them the level is padded
    masks = {2: square, 1: square[:, :112], 0.5: everything}

    def in_window(level, *_):
        quality = 0.96 if level.scale == 0.5 else 0.3
        return masks[level.scale], torch.full((4,), quality)

    def on_level(of, level, clicks, whole, expected):
        for each in original(of, level, clicks, whole, expected):
            quality = in_window(level)[1]
            attended = each.attended[0]._replace(predicted_iou=quality[None])
            yield replace(each, attended=[attended])

    original = tiny._on_level
    monkeypatch.setattr(network, "_in_window", in_window)
    monkeypatch.setattr(tiny, "_on_level", on_level)
    monkeypatch.setattr(network.mask_decoder, "form", lambda _, level: in_window(level)[0][None])
    click = torch.tensor([[126.0, 126.0]])
    if together:
        [found] = network.decode_clicks(encoded, click)
    else:
        found = network.decode(encoded, clicked(click))
    assert 0 < (found.logits[0] > 0).sum() <= 64
    assert found.predicted_iou[0] == pytest.approx(0.3)
    several = torch.tensor([[60.0, 60.0], [126.0, 126.0]])
    assert network.decode(encoded, clicked(several)).predicted_iou[0] == pytest.approx(0.96)


@torch.no_grad()
def test_local_contrast_finds_the_dim_beside_the_bright():
    """A square a hundred times dimmer than another stands out as if it were alone."""
    local = LocalContrast(4)
    local.mix.weight.copy_(torch.eye(4)[:, :, None, None])
    image = torch.zeros(1, 4, 160, 160)
    image[..., 20:30, 20:30] = 0.5
    alone = local(image) - image
    image[..., 120:130, 120:130] = 50.0
    contrast = local(image) - image
    assert torch.equal(contrast[..., :60, :60], alone[..., :60, :60])
    dim, ground = contrast[0, 0, 20:30, 20:30], contrast[0, 0, 32:40, 32:40]
    assert dim.mean() - ground.mean() > 2  # deviations, of a square that is 0.5 higher
    lone = torch.zeros(1, 4, 160, 160)
    lone[..., 80, 80] = 50.0
    assert (local(lone) - lone).max() == LocalContrast.LIMIT
    assert torch.equal(local(torch.full((1, 4, 16, 24), 7.0)), torch.full((1, 4, 16, 24), 7.0))


def test_local_contrast_of_nothing_has_a_gradient():
    local = LocalContrast(4)
    image = torch.full((1, 4, 16, 24), 7.0, requires_grad=True)
    local(image).sum().backward()
    assert torch.equal(image.grad, torch.ones_like(image))
    assert torch.isfinite(local.mix.weight.grad).all()


def _halved(values):
    if isinstance(values, tuple):
        return tuple(value / 2 for value in values)
    return [(x / 2, y / 2) for x, y in values]


@torch.no_grad()
def test_decode_box_returns_the_mask_that_fills_it(network, monkeypatch):
    masks = torch.full((4, 32, 32), -5.0)
    masks[0, 8:16, 8:16] = 5  # half of the box below, with the best predicted quality
    masks[2, 8:16, 8:24] = 5  # the box: pixels 16 to 48 across, 16 to 32 down
    quality = torch.tensor([0.9, 0.5, 0.7, 0.1])
    monkeypatch.setattr(network, "_in_window", lambda *_: (masks, quality))
    encoded = network.encode(torch.zeros(1, 3, 64, 64))
    boxed = network.decode(encoded, {"box": torch.tensor([15.5, 15.5, 47.5, 31.5])})
    assert torch.equal(boxed.logits, masks[[2, 0, 1, 3]])
    assert torch.equal(boxed.predicted_iou, quality[[2, 0, 1, 3]])
    corrected = network.decode(encoded, {"mask": masks[None, 2:3]})
    assert torch.equal(corrected.logits, masks)  # without a box the predicted quality decides
    monkeypatch.setattr(network, "_in_window", lambda *_: (masks, quality.flip(0)))
    stays = network.decode(encoded, clicked([[20.0, 20.0]]))
    assert torch.equal(stays.logits, masks), "the single mask"


@torch.no_grad()
@pytest.mark.parametrize(("poor", "sure"), [(slice(8, 12), 0.8), (slice(8, 24), 0.3)])
@pytest.mark.parametrize("better", [True, False])
def test_decode_of_a_box_with_a_poor_mask_tries_a_click(network, monkeypatch, poor, sure, better):
    first, second = torch.full((2, 4, 32, 32), -5.0)
    first[:, 8:16, poor] = 5  # a quarter of the box below, or all of it, but hardly sure
    second[:, 8:16, 8:23] = 5

    def in_window(level, window, prompt):
        if not len(prompt["points"]):
            return first, torch.full((4,), sure)
        assert prompt["points"].tolist() == [[31.5, 23.5]]
        assert prompt["labels"].tolist() == [1]
        return second, torch.full((4,), 0.7 if better else 0.0)

    monkeypatch.setattr(network, "_in_window", in_window)
    encoded = network.encode(torch.zeros(1, 3, 64, 64))
    box = torch.tensor([15.5, 15.5, 47.5, 31.5])
    assert torch.equal(network.decode(encoded, {"box": box}).logits, second if better else first)
    given = network.decode(encoded, {"box": box, "mask": first[None, :1]})
    assert torch.equal(given.logits, first)  # a mask says what is meant
