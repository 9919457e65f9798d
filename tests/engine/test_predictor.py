"""The predictor's contract: encode once, answer the same, survive, and say what is wrong."""

import dataclasses
import re
from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import dask.array as da
import numpy as np
import pytest
import torch
import zarr
from PIL import Image

from napari_simmat.checkpoints.loading import load_model
from napari_simmat.engine import device as device_module
from napari_simmat.engine.device import BROKEN_MODEL, OR_EXACT, BrokenModelError
from napari_simmat.engine.embeddings import EmbeddingCache, EmbeddingStore
from napari_simmat.engine.masks import iou
from napari_simmat.engine.normalization import Statistics
from napari_simmat.engine.predictor import Predictor
from napari_simmat.engine.prompts import Prompt
from napari_simmat.models.network import DecodedMasks
from napari_simmat.models.spec import Model
from napari_simmat.models.tuning import build_network
from napari_simmat.progress import finish
from tests.pretended_gpu import pretended_gpu
from tests.widgets.scenes import dots_in_a_dish


@pytest.fixture(scope="module")
def model():
    return load_model("tiny")


@pytest.fixture
def predictor(model):
    return Predictor(model, "cpu")


@pytest.fixture(scope="module")
def discs():
    """(image uint16 (90, 120), truth (90, 120)): a bright disc of radius 20 and a dim one of 12."""
    y, x = np.mgrid[:90, :120]
    truth = np.zeros((90, 120), int)
    truth[(y - 40) ** 2 + (x - 35) ** 2 <= 20**2] = 1
    truth[(y - 55) ** 2 + (x - 90) ** 2 <= 12**2] = 2
    noise = np.random.default_rng(0).normal(0, 40, truth.shape)
    return (1000 + np.array([0, 3000, 1500])[truth] + noise).astype(np.uint16), truth


def test_predict_of_a_click_or_box_finds_its_object(predictor, discs):
    image, truth = discs
    predictor.set_image(image)
    assert iou(predictor.predict(points=[(40, 35)]).mask, truth == 1) > 0.8
    assert iou(predictor.predict(points=[(55, 90)]).mask, truth == 2) > 0.8
    assert iou(predictor.predict(box=(43, 78, 68, 103)).mask, truth == 2) > 0.8


@pytest.mark.parametrize("edge", [-0.5, 255.5])
def test_predict_on_the_edge_is_that_of_the_outermost_pixel(predictor, edge):
    y, x = np.mgrid[:256, :256]
    image = np.where(np.hypot(y - round(edge), x - 128) < 40, 200, 30).astype(np.uint8)
    predictor.set_image(image)
    mask = predictor.predict(points=[(edge, 128)]).mask
    assert iou(mask, image > 100) > 0.9


def test_predict_of_a_box_ends_near_it(predictor, discs, monkeypatch):
    """The network answers everything; 10 % of 20 rows and of 40 columns, and a pixel, are left."""
    predictor.set_image(discs[0])
    logits = torch.arange(1.0, 5.0)[:, None, None].expand(4, 48, 64).clone()
    everything = DecodedMasks(logits, torch.ones(4))
    monkeypatch.setattr(type(predictor.model.network), "decode", lambda *_: everything)
    box = (30, 40, 50, 80)
    first = predictor.predict(box=box)
    admitted = np.zeros((90, 120), bool)
    admitted[27:53, 35:85] = True
    assert np.array_equal(first.mask, admitted)
    assert predictor.predict(box=box, mask=first.logits).mask.sum() == 26 * 50
    assert predictor.predict(box=box, points=[(40, 60)]).mask.sum() == 26 * 50
    assert first.alternative(1).alternative(0).mask.sum() == 26 * 50

    # Who chooses a larger mask, or clicks beyond, knows that the object ends elsewhere.
    larger = first.alternative(1)
    assert larger.mask.all()
    assert predictor.predict(box=box, mask=larger.logits).mask.all()
    assert predictor.predict(box=box, mask=larger.mask).mask.all()
    assert predictor.predict(box=box, points=[(40, 86)]).mask.all()
    assert not predictor.predict(box=box, points=[(40, 86)], labels=[0]).mask.all()


def test_predict_of_ten_clicks_encodes_once(predictor, discs):
    image, _ = discs
    predictor.set_image(image)
    for x in range(30, 40):
        predictor.predict(points=[(40, x)])
    assert predictor.encodes == 1
    before = predictor.predict(points=[(40, 35)])
    predictor.set_image(image[::-1])
    assert predictor.encodes == 2
    predictor.set_image(image.copy())  # other memory, same content
    assert predictor.encodes == 2
    np.testing.assert_array_equal(predictor.predict(points=[(40, 35)]).logits, before.logits)
    changed = image.copy()
    changed[0, 0] += 1
    predictor.set_image(changed)
    assert predictor.encodes == 3


@pytest.mark.parametrize(
    "kind", [np.asarray, da.from_array, zarr.array], ids=["numpy", "dask", "zarr"]
)
def test_set_plane_keeps_the_statistics_of_the_stack(predictor, discs, kind):
    image, truth = discs
    stack = np.stack([image // 8, image, image[::-1]])
    predictor.set_image(kind(stack), plane=1)
    alone = predictor.predict(points=[(40, 35)])
    statistics = predictor.statistics
    predictor.set_plane(2)
    assert predictor.statistics == statistics
    flipped = predictor.predict(points=[(49, 35)])
    assert iou(flipped.mask, (truth == 1)[::-1]) > 0.8
    predictor.set_plane((1,))
    np.testing.assert_array_equal(predictor.predict(points=[(40, 35)]).logits, alone.logits)
    assert predictor.encodes == 2
    other = Predictor(predictor.model, "cpu")
    other.set_image(image, statistics=statistics)  # a plane by itself with the stack's numbers
    np.testing.assert_array_equal(other.predict(points=[(40, 35)]).logits, alone.logits)


def test_set_image_selects_and_repeats_channels(predictor, discs):
    image, _ = discs
    gray = Predictor(predictor.model, "cpu")
    gray.set_image(image)
    two = np.stack([np.zeros_like(image), image])
    predictor.set_image(two, channel_axis=0, channels=(1, 1, 1))
    asked = {"points": [(40, 35)]}
    np.testing.assert_array_equal(predictor.predict(**asked).logits, gray.predict(**asked).logits)
    with pytest.raises(ValueError, match="channels"):
        predictor.set_image(two, channel_axis=0)


def test_set_image_job_closed_changes_nothing(predictor, discs):
    image, truth = discs
    predictor.set_image(image)
    ran = []
    hook = predictor.model.network.image_encoder.blocks[-1].register_forward_hook(
        lambda *_: ran.append(1)
    )
    try:
        job = predictor.set_image_job(image[::-1].copy())
        steps = []
        for progress in job:
            steps.append(progress)
            if progress.message == "encoding" and progress.done == 2:
                break
        job.close()
    finally:
        hook.remove()
    assert steps[-1].total > steps[-1].done
    assert not ran
    assert predictor.encodes == 1
    assert iou(predictor.predict(points=[(40, 35)]).mask, truth == 1) > 0.8


def test_set_image_job_leaves_gradients_on_between_steps(predictor, discs):
    job = predictor.set_image_job(discs[0])
    next(job)
    assert torch.is_grad_enabled()
    assert not torch.is_autocast_enabled("cpu")
    finish(job)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (7, 5), (1500, 40), (33, 1100)])
def test_predict_on_odd_shapes_gives_masks_of_their_shape(predictor, shape):
    image = np.random.default_rng(0).normal(size=shape)
    predictor.set_image(image)
    middle = (shape[0] // 2, shape[1] // 2)
    assert predictor.predict(points=[middle]).masks.shape == (3, *shape)
    assert predictor.predict(box=(0, 0, *shape)).mask.shape == shape


def test_predict_shifted_by_pixels_shifts_the_mask(predictor):
    """Half-pixel centers: no drift between the image's grid and the network's."""
    y, x = np.mgrid[:256, :256]
    centers = []
    for cy, cx in ((128, 120), (129, 122)):
        predictor.set_image(100.0 * ((y - cy) ** 2 + (x - cx) ** 2 <= 30**2))
        centers.append(np.argwhere(predictor.predict(points=[(cy, cx)]).mask).mean(0))
    assert centers[0] == pytest.approx([128, 120], abs=0.75)
    assert centers[1] - centers[0] == pytest.approx([1, 2], abs=0.35)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"points": [(1, 1)], "labels": [1, 0]}, "1 points but 2 labels"),
        ({"box": (100, 10, 120, 20)}, "lies outside the image of 90 x 120 pixels"),
        ({"mask": np.ones((5, 5), np.float32)}, "logits have shape .5, 5., this image needs"),
    ],
)
def test_predict_refuses_wrong_prompts(predictor, discs, asked, sentence):
    predictor.set_image(discs[0])
    with pytest.raises((ValueError, TypeError), match=sentence):
        predictor.predict(**asked)
    assert predictor.predict(points=[(40, 35)]).mask.any()


@pytest.mark.parametrize("given", ["tiny", None])
def test_predictor_of_a_name_is_refused(given):
    with pytest.raises(TypeError, match=r"reads a loaded model, load_model\(\.\.\.\), not"):
        Predictor(given)


def test_predict_of_an_unknown_kind_of_prompt_is_refused(predictor, discs, monkeypatch):
    predictor.set_image(discs[0])
    network = type(predictor.model.network)
    monkeypatch.setattr(network, "prompt_kinds", frozenset({"points"}))
    with pytest.raises(ValueError, match=r"does not read this kind of prompt: box\. Use another"):
        predictor.predict(box=(20, 15, 61, 56))
    assert predictor.predict(points=[(40, 35)]).mask.any()


def test_predict_without_an_image_says_so(predictor):
    with pytest.raises(RuntimeError, match="no image yet; call set_image first"):
        predictor.predict(points=[(1, 1)])
    with pytest.raises(RuntimeError, match="no image yet"):
        predictor.set_plane(0)


@pytest.mark.parametrize(
    ("device", "sentence"),
    [
        ("gpu", "'gpu' is unknown"),
        ("cuda:99", "no (cuda device|device cuda:99)"),
        ("meta", "not supported"),
    ],
)
def test_choose_device_names_a_missing_one(model, device, sentence):
    with pytest.raises(ValueError, match=sentence):
        Predictor(model, device)


def test_choose_precision_of_names_and_devices(model, discs, monkeypatch):
    monkeypatch.setattr(device_module, "half_precision_is_faster", lambda: True)
    image, truth = discs
    with pytest.raises(ValueError, match="'double' is unknown; use auto, exact, fast"):
        Predictor(model, "cpu", "double")
    assert Predictor(model, "cpu").precision == "exact"
    fast = Predictor(model, "cpu", "fast")
    fast.set_image(image)
    assert iou(fast.predict(points=[(40, 35)]).mask, truth == 1) > 0.8
    assert fast.precision == "fast"
    monkeypatch.setattr(device_module, "half_precision_is_faster", lambda: False)
    assert Predictor(model, "cpu", "fast").precision == "exact"


def test_quality_best_encodes_four_views_once(model, discs, tmp_path):
    image, truth = discs
    with pytest.raises(ValueError, match="Quality is fast or best, not 'high'"):
        Predictor(model, "cpu", quality="high")
    cache = EmbeddingCache(store=EmbeddingStore(tmp_path))
    fast, best = (Predictor(model, "cpu", cache=cache, quality=q) for q in ("fast", "best"))
    steps = [sum(1 for _ in each.set_image_job(image)) for each in (fast, best)]
    assert steps[1] > 3 * steps[0]
    assert (fast.encodes, best.encodes) == (1, 1)  # one does not take the other's embedding
    masks = [each.predict(points=[(40, 35)]) for each in (fast, best)]
    assert not np.array_equal(masks[0].logits, masks[1].logits)
    assert all(iou(each.mask, truth == 1) > 0.8 for each in masks)
    assert best.sibling().quality == "best"
    cache.clear()
    again = Predictor(model, "cpu", cache=cache, quality="best")
    again.set_image(image)
    assert again.encodes == 0  # from the disk
    np.testing.assert_array_equal(again.predict(points=[(40, 35)]).logits, masks[1].logits)


def test_quality_best_of_other_networks_stays_fast(model):
    sam = Model(model.spec, build_network("vit_t"), "random")
    assert Predictor(sam, "cpu", quality="best").quality == "fast"


def test_half_precision_is_measured_once(monkeypatch):
    small, large = [0, 1] * 8, [0, 4] * 4
    clock = iter(small + large + [0, 1] * 4)
    monkeypatch.setattr(device_module, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    device_module.half_precision_is_faster.cache_clear()
    assert device_module.half_precision_is_faster()
    assert device_module.half_precision_is_faster()  # the clock is not asked again
    clock = iter(small + large + [0, 5] * 4)
    device_module.half_precision_is_faster.cache_clear()
    assert not device_module.half_precision_is_faster()
    clock = iter([0, 9] * 4 + [0, 1] * 4)  # imitated: no large product is waited for
    device_module.half_precision_is_faster.cache_clear()
    assert not device_module.half_precision_is_faster()
    device_module.half_precision_is_faster.cache_clear()


@pytest.fixture
def fail(monkeypatch):
    """Let a network's `encode_job` or `decode` raise an error where `fails(input)`."""

    def install(network, method, error, fails=lambda _: True):
        original = getattr(network, method)

        def encode_job(image):
            if fails(image):
                raise error
            return (yield from original(image))

        def decode(encoded, prompt):
            if fails(encoded):
                raise error
            return original(encoded, prompt)

        failing = encode_job if method == "encode_job" else decode
        monkeypatch.setattr(network, method, failing, raising=False)

    return install


NO_MEMORY = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.fixture
def on_gpu(monkeypatch):
    """A predictor on a GPU that is pretended."""
    with pretended_gpu(monkeypatch):
        yield Predictor(load_model("tiny"), "cuda:0", "exact")


def test_encode_out_of_memory_goes_smaller_and_says_so(on_gpu, discs, fail, tmp_path, caplog):
    """An image of 450 x 360 pixels, of which 256 fit; what was reduced is not stored."""
    image, truth = discs
    store, largest = EmbeddingStore(tmp_path), [256]
    on_gpu.cache = EmbeddingCache(store=store)
    large = np.kron(image, np.ones((5, 3), np.uint16))
    too_large = lambda values: max(values.shape[-2:]) > largest[0]  # noqa: E731
    fail(on_gpu.model.network, "encode_job", NO_MEMORY, too_large)
    on_gpu.set_image(large)
    assert on_gpu.note == "Memory ran out; encoding at 225 pixels instead."
    assert on_gpu.note in caplog.text
    assert on_gpu.device.type == "cuda"
    mask = on_gpu.predict(points=[(200, 105)]).mask
    assert mask.shape == large.shape
    assert iou(mask, np.kron(truth == 1, np.ones((5, 3)))) > 0.6
    assert (len(on_gpu.cache), len(store)) == (1, 0)
    on_gpu.cache.clear()
    largest[0] = 10_000
    on_gpu.set_image(large)
    assert not on_gpu.note
    assert len(store) == 1


@pytest.mark.parametrize("method", ["encode_job", "decode"])
def test_compute_out_of_memory_at_every_size_uses_the_cpu(on_gpu, discs, fail, method):
    fail(on_gpu.model.network, method, NO_MEMORY, lambda _: on_gpu.device.type == "cuda")
    on_gpu.set_image(discs[0])
    assert on_gpu.predict(points=[(40, 35)]).mask.any()
    assert on_gpu.device == torch.device("cpu")
    assert on_gpu.note == "The memory of cuda ran out; computing on the CPU instead."


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("encode_job", "DefaultCPUAllocator: can't allocate memory: you tried to ..."),
        ("encode_job", "[enforce fail at alloc_cpu.cpp:121] data. not enough memory: you ..."),
        ("encode_job", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
        ("decode", "DefaultCPUAllocator: can't allocate memory: you tried to ..."),
    ],
)
def test_compute_out_of_memory_on_the_cpu_says_so(predictor, discs, fail, method, words):
    fail(predictor.model.network, method, RuntimeError(words))
    sentence = "computer's memory ran out; close other programs"
    if method == "encode_job":
        with pytest.raises(MemoryError, match=sentence):
            predictor.set_image(discs[0])
        return
    predictor.set_image(discs[0])
    with pytest.raises(MemoryError, match=sentence):
        predictor.predict(points=[(40, 35)])


def test_predict_follows_the_declared_mask_choice(model, discs):
    """`single` takes token 0; `stock` the best of three for a lone point only."""
    image, _ = discs
    stock = Model(dataclasses.replace(model.spec, mask_choice="stock"), model.network, "s")
    predictor = Predictor(stock, "cpu")
    predictor.set_image(image)
    lone = predictor.predict(points=[(40, 35)])
    np.testing.assert_array_equal(lone.mask, lone.masks[lone.scores.argmax()])
    assert lone.score == pytest.approx(lone.scores.max())
    single = Predictor(model, "cpu")
    single.set_image(image)
    boxed = {"box": (20, 15, 61, 56)}
    np.testing.assert_array_equal(predictor.predict(**boxed).logits, single.predict(**boxed).logits)
    assert not np.array_equal(single.predict(points=[(40, 35)]).logits, lone.logits)


@pytest.mark.gpu
def test_predict_on_cuda_equals_the_cpu(model, discs, monkeypatch):
    image, _ = discs
    here, there = Predictor(model, "cpu"), Predictor(load_model("tiny"), "cuda", "exact")
    uploads = []
    move = torch.Tensor.to

    def counted(self, *args, **named):
        moved = move(self, *args, **named)
        if moved.is_cuda and not self.is_cuda:
            uploads.append(tuple(self.shape))
        return moved

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "to", counted)
        for predictor in (here, there):
            predictor.set_image(image)
    assert len(uploads) == 1  # the image, once; the embedding stays where it was made
    asked = {"points": [(40, 35)]}
    ours, theirs = there.predict(**asked).logits, here.predict(**asked).logits
    assert np.linalg.norm(ours - theirs) <= 1e-3 * np.linalg.norm(theirs)
    for _ in range(5):
        there.predict(**asked)
    assert there.encodes == 1


def test_predict_low_res_of_many_equals_each_alone(predictor, discs):
    predictor.set_image(discs[0])
    prompts = [
        Prompt(points=[(40, 35)]),
        Prompt(box=(43, 78, 68, 103)),
        Prompt(points=[(55, 90)]),
        Prompt(points=[(55, 90), (40, 35)], labels=[1, 0]),
    ]
    for prompt, answer in zip(prompts, predictor.predict_low_res(prompts), strict=True):
        [result] = predictor.predict_many([prompt])
        patch = answer.patch(0)
        mask = np.zeros(discs[0].shape, bool)
        height, width = patch.logits.shape
        mask[patch.top : patch.top + height, patch.left : patch.left + width] = patch.logits > 0
        assert iou(mask, result.mask) > 0.999
        assert answer.predicted_iou[0] == pytest.approx(result.score, abs=1e-5)


def test_encode_tile_is_normalized_as_the_whole(predictor):
    image = np.arange(3 * 80 * 90, dtype=np.float32).reshape(3, 80, 90)
    predictor.set_image(image, plane=1)
    whole = predictor.stack.normalized((1,))
    part = predictor.stack.part((1,), slice(10, 50), slice(20, 90))
    np.testing.assert_array_equal(part.normalized(), whole[:, 10:50, 20:90])
    finish(predictor.encode_tile_job(1, slice(10, 50), slice(20, 90)))
    assert predictor.predict(points=[(39, 69)]).mask.shape == (40, 70)
    with pytest.raises(ValueError, match="outside"):
        predictor.predict(points=[(40, 0)])
    predictor.set_plane(1)
    assert predictor.encodes == 2
    assert predictor.predict(points=[(39, 69)]).mask.shape == (80, 90)


@pytest.fixture(scope="module")
def squashed():
    """A disc (Y, X) of radius 36 of which every sixth row is left, and the part in the object."""
    y, x = np.mgrid[:150, :140]
    inside = np.hypot(y - 75, x - 70) <= 36
    noise = np.random.default_rng(0).normal(0, 40, inside.shape)
    image = (1000 + 2500 * inside + noise).astype(np.uint16)
    return image[3::6], inside[3::6]


def test_set_image_with_long_pixels_sees_square_ones(predictor, squashed):
    image, truth = squashed
    assert image.shape == (25, 140)
    predictor.set_image(image, pixel_size=(6.0, 1.0))
    click = predictor.predict(points=[(12, 70)])
    box = predictor.predict(box=(6, 34, 18, 107))
    assert click.mask.shape == box.mask.shape == image.shape
    assert iou(click.mask, truth) > 0.9
    assert iou(box.mask, truth) > 0.9
    refined = predictor.predict(points=[(12, 70)], mask=click.logits)
    assert iou(refined.mask, truth) > 0.9
    assert iou(predictor.predict(mask=truth).mask, truth) > 0.9
    (result,) = predictor.predict_low_res([Prompt(points=((12, 70),), labels=(1,))])
    patch = result.patch(0)
    height, width = patch.logits.shape
    apart = np.zeros(image.shape, bool)
    apart[patch.top : patch.top + height, patch.left : patch.left + width] = patch.logits > 0
    assert (apart != click.mask).sum() <= 2  # up to rounding


def test_set_image_with_long_pixels_equals_a_resampled_image(predictor, squashed):
    image, _ = squashed
    predictor.set_image(image, pixel_size=(6.0, 1.0))
    statistics, ours = predictor.statistics, predictor.predict(points=[(12, 70)])
    values = predictor.stack.normalized() / 255  # so that 0..1 is all that is left to do
    fine = np.asarray(
        Image.fromarray(values[0]).resize((140, 150), Image.Resampling.BILINEAR), np.float32
    )
    predictor.set_image(fine, statistics=Statistics((0.0,) * 3, (1.0,) * 3))
    assert statistics != predictor.statistics
    # Row 12 is rows 72 to 77, its middle between two of them.
    theirs = predictor.predict(points=[(74.5, 70)])
    assert ours.logits.shape == theirs.logits.shape
    assert np.abs(ours.logits - theirs.logits).max() < 0.05
    assert ours.mask.sum() == pytest.approx(theirs.mask.sum() / 6, rel=0.05)


def test_set_image_with_pixels_of_one_shape_encodes_once(model, squashed):
    image, _ = squashed
    predictor = Predictor(model, "cpu")
    predictor.set_image(image)
    for square in ((1.0, 1.0), (0.3, 0.3), (1.1, 1.0)):
        predictor.set_image(image, pixel_size=square)
    assert predictor.encodes == 1
    for long in ((6.0, 1.0), (0.6, 0.1)):
        predictor.set_image(image, pixel_size=long)
    assert predictor.encodes == 2
    predictor.set_image(np.stack([image[::-1], image]), pixel_size=(6.0, 1.0))
    predictor.set_plane(1)  # the plane of a stack is the image
    assert predictor.encodes == 4  # its statistics are of both


@pytest.mark.parametrize("part", ["image_encoder", "mask_decoder.iou_prediction_head"])
@pytest.mark.parametrize("precision", ["exact", "fast"])
def test_predict_with_a_broken_model_is_refused(model, discs, part, precision):
    network = deepcopy(model.network)
    for name, parameter in network.named_parameters():
        if name.startswith(part) and parameter.ndim > 1:
            parameter.data.fill_(3e38)
    broken = Predictor(dataclasses.replace(model, network=network, fingerprint=part), "cpu")
    broken._compute.precision = precision  # not every processor offers both
    sentence = re.escape(
        BROKEN_MODEL.format(model.spec.name, OR_EXACT if precision == "fast" else "")
    )
    if part == "image_encoder":
        with pytest.raises(BrokenModelError, match=sentence):
            broken.set_image(discs[0])
        return
    broken.set_image(discs[0])
    for ask in (
        lambda: broken.predict(points=[(40, 35)]),
        lambda: broken.predict(box=(20, 20, 60, 60)),
        lambda: broken.predict_low_res([Prompt(points=[(40, 35)]), Prompt(points=[(50, 80)])]),
    ):
        with pytest.raises(BrokenModelError, match=sentence):
            ask()


@pytest.mark.parametrize(
    ("enlarged", "alone_means"), [(1, "dish"), pytest.param(2, "dot", marks=pytest.mark.slow)]
)
def test_click_takes_what_is_as_large_as_expected(model, enlarged, alone_means):
    image, labels = dots_in_a_dish()
    image, labels = (np.kron(each, np.ones((enlarged, enlarged))) for each in (image, labels))
    predictor = Predictor(model, device="cpu")
    predictor.set_image(image.astype(np.float32))
    shown = {"dot": labels == 100, "dish": image > 0.2}
    click = Prompt(points=((128.0 * enlarged, 180.0 * enlarged),))
    alone, small, large = (
        predictor.predict_many([replace(click, expected_area=area)])[0].mask
        for area in (None, shown["dot"].sum(), np.pi * (80 * enlarged) ** 2)
    )
    assert iou(alone, shown[alone_means]) > 0.8
    assert iou(small, shown["dot"]) > 0.8
    assert iou(large, shown["dish"]) > 0.8
