"""Planes as the network gets them, and the batches of a step."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import InterpolationMode, resize

from napari_simmat.checkpoints.catalog import sam_spec
from napari_simmat.datasets.dataset import Dataset, Sample
from napari_simmat.datasets.labeled_image import resize_nearest
from napari_simmat.models.spec import Base, Channel, InputSize, ModelSpec, Normalization
from napari_simmat.progress import finish
from napari_simmat.training import labeled_planes as module
from napari_simmat.training.batches import (
    MAX_OBJECT_SHARE,
    SIDE_MULTIPLE,
    Batches,
    augment,
    choose_objects,
    crop_around_object,
    equal_parts,
    halve_until_fits,
    visible_objects,
)
from napari_simmat.training.config import TrainConfig
from napari_simmat.training.labeled_planes import LabeledPlane, LabeledPlanes, as_rgb, rgb_channels
from napari_simmat.training.losses import to_mask_grid


class Given:
    """Planes that are there already."""

    def __init__(self, *planes: LabeledPlane, side: int, native: bool) -> None:
        self._planes, self.side, self.native = planes, side, native
        self.darkness = torch.tensor([-7.0, -9.0])[:, None, None]

    def __len__(self) -> int:
        return len(self._planes)

    def __getitem__(self, index: int) -> LabeledPlane:
        return self._planes[index]


def plane(
    *boxes: tuple[int, int, int, int], shape: tuple[int, int] = (64, 64), name="p"
) -> LabeledPlane:
    """Objects in y0, x0, y1, x1; the image of two channels equals the labels."""
    labels = np.zeros(shape, np.int32)
    for number, (y0, x0, y1, x1) in enumerate(boxes, start=1):
        labels[y0:y1, x0:x1] = number
    image = torch.from_numpy(np.stack([labels, labels]).astype(np.float32))
    return LabeledPlane(name, image, labels, tuple(range(1, len(boxes) + 1)))


def batches(*planes: LabeledPlane, side: int = 64, native: bool = True, **settings) -> Batches:
    config = TrainConfig(**{"batch": 4, **settings})
    return Batches(Given(*planes, side=side, native=native), config)  # type: ignore[arg-type]


MIXED = (
    plane((4, 4, 20, 20), (30, 30, 60, 50)),
    plane((2, 40, 30, 60), shape=(40, 90)),
    plane((10, 10, 110, 100), (0, 112, 20, 128), shape=(128, 128)),
    plane((5, 5, 30, 12), shape=(33, 31)),
    plane((0, 0, 64, 64)),
)
VARIED = {"prompts": ("click", "box", "points"), "corrections": 2, "objects": 3, "augment": True}


def same(one, two) -> bool:
    return (
        torch.equal(one.images, two.images)
        and torch.equal(one.labels, two.labels)
        and np.array_equal(one.masks, two.masks)
        and torch.equal(one.prompts.points, two.prompts.points)
        and torch.equal(one.prompts.labels, two.prompts.labels)
        and (one.rounds, one.keys) == (two.rounds, two.keys)
    )


@pytest.mark.parametrize("settings", [{}, VARIED])
def test_batches_depend_on_seed_and_step_alone(settings):
    everything = slice(0, 4)
    one, two = batches(*MIXED, **settings), batches(*MIXED, **settings)
    two.batch(7, everything)
    assert same(one.batch(3, everything), two.batch(3, everything))
    assert not same(one.batch(3, everything), one.batch(4, everything))
    other = batches(*MIXED, **settings, seed=1)
    assert not same(one.batch(3, everything), other.batch(3, everything))


@pytest.mark.parametrize("settings", [{}, VARIED])
@pytest.mark.parametrize("count", [2, 4])
def test_batches_parts_equal_those_of_the_whole(count, settings):
    """Even where its planes differ in size: else dividing it would change the gradient."""
    for step in range(6):
        drawn = batches(*MIXED, **settings)
        whole = drawn.batch(step, slice(0, 4))
        several = [drawn.batch(step, part) for part in equal_parts(4, count)]
        assert torch.equal(torch.cat([each.images for each in several]), whole.images)
        assert torch.equal(torch.cat([each.labels for each in several]), whole.labels)
        assert np.array_equal(np.concatenate([each.masks for each in several]), whole.masks)
        for name in ("points", "labels"):
            joined = torch.cat([getattr(each.prompts, name) for each in several])
            assert torch.equal(joined, getattr(whole.prompts, name))
        assert {each.rounds for each in several} == {whole.rounds}
        assert [key for each in several for key in each.keys] == list(whole.keys)


def test_batches_show_each_plane_once_in_a_random_order():
    drawn = batches(*[plane((2, 2, 9, 9))] * 6, batch=2)
    seen = [key[0] for step in range(6) for key in drawn.batch(step, slice(0, 2)).keys]
    first, second = seen[:6], seen[6:]
    assert sorted(first) == sorted(second) == list(range(6))
    assert first != second


def test_batches_draw_every_object_with_a_click_in_it():
    drawn = batches(*MIXED)
    middles = set()
    for step in range(30):
        batch = drawn.batch(step, slice(0, 4))
        assert batch.masks.shape == (4, *batch.images.shape[-2:])
        assert batch.rounds == 0
        for mask, points, labels in zip(
            batch.masks, batch.prompts.points, batch.prompts.labels, strict=True
        ):
            assert labels.tolist() == [1, -1]
            x, y = points[0].int().tolist()
            assert mask[y, x]
            middles.add((mask.shape, int(mask.sum())))
    areas = {area for _, area in middles}
    assert {16 * 16, 30 * 20, 28 * 20, 25 * 7, 64 * 64 // 4} <= areas


def test_batches_renumber_labels_of_any_size():
    labels = np.zeros((64, 64), np.int64)
    labels[4:20, 4:20], labels[30:60, 30:50] = 7, 2**31 - 1
    image = torch.zeros(2, 64, 64)
    odd = LabeledPlane("odd", image, labels, (7,))  # the other one is too small to be prompted
    batch = batches(odd, plane((0, 0, 64, 64)), batch=2).batch(0, slice(0, 2))
    assert batch.labels.shape == (2, *batch.images.shape[-2:])
    first = next(each for each in batch.labels if each[-1, -1] == 0)
    assert torch.equal(first[:64, :64], torch.from_numpy((labels > 0) + 1 * (labels > 7)))


def test_batches_have_one_prompt_kind_and_rounds_per_step():
    drawn = batches(*MIXED, prompts=("click", "box"), corrections=2)
    kinds, rounds = set(), set()
    for step in range(20):
        batch = drawn.batch(step, slice(0, 4))
        (row,) = {tuple(row) for row in batch.prompts.labels.tolist()}
        kinds.add(row)
        rounds.add(batch.rounds)
    assert kinds == {(1, -1), (2, 3)}
    assert rounds == {0, 1, 2}


@pytest.mark.parametrize("zoomed", [False, True])
def test_crop_around_object_holds_it_within_the_side(zoomed):
    large = plane((40, 150, 90, 190), (0, 0, 20, 20), shape=(100, 200))
    for seed in range(40):
        part, whole = crop_around_object(large, 1, 96, np.random.default_rng(seed), zoomed)
        assert not whole
        assert max(part.labels.shape) <= 96
        assert part.image.shape[1:] == part.labels.shape
        assert (part.labels == 1).sum() >= 100
        assert set(part.objects) <= {1, 2}


def test_crop_around_object_keeps_a_thin_one_when_zoomed():
    """A line of one row may vanish when a crop is made smaller, wherever in it the line lies."""
    thin = plane((100, 90, 101, 130), shape=(200, 200))
    not_zoomed = 0
    for seed in range(400):
        part, _ = crop_around_object(thin, 1, 64, np.random.default_rng(seed), True)
        assert max(part.labels.shape) <= 64
        assert (part.labels == 1).any()
        not_zoomed += np.array_equal(part.image[0].numpy(), part.labels)
    assert not_zoomed > 10


def test_crop_around_object_keeps_image_and_labels_aligned():
    large = plane((40, 150, 90, 190), (0, 0, 20, 20), shape=(100, 200))
    for seed in range(10):
        part, _ = crop_around_object(large, 1, 96, np.random.default_rng(seed), False)
        assert np.array_equal(part.image[0].numpy(), part.labels)
        zoomed, _ = crop_around_object(large, 1, 96, np.random.default_rng(seed), True)
        # Between the pixels the image is a mixture: it agrees but for the outline.
        wrong = np.abs(zoomed.image[0].numpy() - zoomed.labels) > 0.75
        assert wrong.mean() < 0.01


def test_crop_around_object_leaves_a_small_plane_unchanged():
    small = plane((4, 4, 20, 20))
    part, whole = crop_around_object(small, 1, 64, np.random.default_rng(0), False)
    assert whole
    assert torch.equal(part.image, small.image)
    assert part.objects == small.objects


def test_halve_until_fits_halves_for_a_large_object():
    large = plane((10, 10, 130, 120), shape=(160, 160))
    level, halved = halve_until_fits(large, 1, 96)  # 120 pixels do not fit into 72, 60 do
    assert halved
    assert level.labels.shape == (80, 80)
    assert (level.labels == 1).sum() == 60 * 55
    fits, halved = halve_until_fits(large, 1, int(120 / MAX_OBJECT_SHARE))
    assert fits is large
    assert not halved
    part, whole = crop_around_object(large, 1, 96, np.random.default_rng(0), False)
    assert (part.labels.shape, whole) == ((80, 80), False)


def test_choose_objects_takes_only_half_visible_ones():
    """A window of 96 around the first sees the second from none to all of it."""
    large = plane((40, 100, 60, 120), (40, 140, 60, 180), shape=(100, 200))
    shares = set()
    for seed in range(60):
        part, _ = crop_around_object(large, 1, 96, np.random.default_rng(seed), False)
        share = (part.labels == 2).sum() / 800
        shares.add(share)
        assert (2 in part.objects) == (share >= 0.5)
        chosen = choose_objects(part, 1, 3, np.random.default_rng(seed))
        assert chosen.tolist() == ([1, 2, 2] if share >= 0.5 else [1, 1, 1])
    assert any(0 < share < 0.5 for share in shares)
    assert any(share >= 0.5 for share in shares)


def test_visible_objects_take_ids_of_any_size():
    labels = np.zeros((8, 8), np.int32)
    labels[:4], labels[4:] = 2**31 - 1, 2**30
    far = LabeledPlane("far", torch.zeros(1, 8, 8), labels, (2**30, 2**31 - 1))
    assert visible_objects(far, labels[:5]) == (2**31 - 1,)
    assert sorted(choose_objects(far, 2**30, 2, np.random.default_rng(0))) == [2**30, 2**31 - 1]


def test_augment_moves_image_and_labels_alike():
    square = plane((2, 3, 7, 12), (20, 5, 30, 7))
    turned = set()
    for seed in range(60):
        other = augment(square, np.random.default_rng(seed))
        image = other.image[0].numpy()
        # Brightness and contrast are the same function everywhere: three ids, three values.
        values = {label: np.unique(image[other.labels == label]) for label in (0, 1, 2)}
        assert all(len(each) == 1 for each in values.values())
        background, one, two = (float(values[label][0]) for label in (0, 1, 2))
        assert two - one == pytest.approx(one - background, rel=1e-5)
        assert 0.7 < one - background < 1.4
        turned.add(other.labels.tobytes())
    assert len(turned) == 8
    assert other.labels.flags.c_contiguous


def test_batches_pad_smaller_images_with_the_mean():
    """To the largest image of the step, in multiples that the network wants."""
    small, wide = plane((1, 1, 9, 9), shape=(20, 40)), plane((1, 1, 9, 9), shape=(33, 50))
    drawn = batches(small, wide, batch=2)
    batch = drawn.batch(0, slice(0, 2))
    assert SIDE_MULTIPLE == 32
    assert batch.images.shape == (2, 2, 64, 64)
    for image, mask, key in zip(batch.images, batch.masks, batch.keys, strict=True):
        number, height, width = key
        inside = (20, 40) if number == 0 else (33, 50)
        assert (height, width) == (64, 64)
        assert image[:, inside[0] :].abs().sum() == image[:, :, inside[1] :].abs().sum() == 0
        assert mask.sum() == 64
        assert np.array_equal(image[0].numpy() == 1, mask)


def test_batches_of_one_input_size_are_not_cropped():
    drawn = batches(plane((4, 4, 20, 20)), side=64, native=False, batch=1)
    batch = drawn.batch(0, slice(0, 1))
    assert batch.images.shape == (1, 2, 64, 64)
    assert list(batch.keys) == [(0, 64, 64)]


def test_batches_give_changed_images_no_key():
    """Its embedding is another one each time."""
    changed = batches(plane((4, 4, 20, 20)), augment=True, batch=1).batch(0, slice(0, 1))
    cut = batches(plane((4, 4, 20, 20), shape=(100, 64)), batch=1).batch(0, slice(0, 1))
    assert list(changed.keys) == list(cut.keys) == [None]


@pytest.mark.parametrize("native", [True, False])
def test_batches_hide_channels_but_never_all(native):
    whole = {"native": native, "batch": 8, **VARIED}
    plain = batches(plane((0, 0, 64, 64)), **whole).batch(0, slice(0, 8))
    hidden = batches(plane((0, 0, 64, 64)), drop_channels=0.5, **whole).batch(0, slice(0, 8))
    darkness = torch.tensor([-7.0, -9.0])
    gone = hidden.images[:, :, 2, 2] == darkness
    assert 0 < gone.sum() < 8
    assert not gone.all(1).any()
    assert torch.equal(hidden.images[~gone], plain.images[~gone])
    assert np.array_equal(hidden.masks, plain.masks)
    assert all(key is None for key, any_ in zip(hidden.keys, gone.any(1), strict=True) if any_)


def sample(name: str, values: np.ndarray, labels: np.ndarray) -> Sample:
    return Sample(name, name, lambda: (values.astype(np.float32), labels.astype(np.int32)))


def dataset_of(*samples: Sample, channels: int = 2, min_size: int = 0) -> Dataset:
    return Dataset(
        name="data",
        modality="data",
        channels=tuple(Channel(name=f"c{n}", mean=10.0 * n, std=n + 1) for n in range(channels)),
        normalization=Normalization(method="none"),
        train=samples,
        validation=(sample("v", np.zeros((channels, 8, 8)), np.ones((8, 8))),),
        min_size=min_size,
    )


def spec_of(dataset: Dataset, method: str = "native", transfer: str = "simmat") -> ModelSpec:
    return ModelSpec(
        name="m",
        modality="",
        channels=dataset.channels,
        normalization=dataset.normalization,
        input_size=InputSize(method=method, size=64),  # type: ignore[arg-type]
        base=Base(name="", architecture="", sha256=""),
        transfer=transfer,
    )


def scanned(dataset: Dataset, spec: ModelSpec, side: int = 64) -> LabeledPlanes:
    planes = LabeledPlanes(dataset, dataset.train, spec, side)
    finish(planes.scan_job("train on"))
    return planes


def test_planes_are_standardized_by_channel():
    values = np.stack([np.full((8, 6), 4.0), np.full((8, 6), 16.0)])
    labels = np.zeros((8, 6), int)
    labels[:4, :4], labels[6:, 4:] = 3, 5
    dataset = dataset_of(sample("a", values, labels))
    planes = scanned(dataset, spec_of(dataset))
    assert planes.native
    plane = planes[0]
    assert plane.image.dtype == torch.float32
    assert plane.image[:, 0, 0].tolist() == [4.0, 3.0]  # (4 - 0) / 1, (16 - 10) / 2
    assert np.array_equal(plane.labels, labels)
    assert plane.objects == (3,)  # of the other's 4 pixels nothing can be learned


def test_planes_darkness_is_the_lowest_value_standardized():
    dataset = dataset_of(sample("s", np.zeros((2, 8, 8)), np.ones((8, 8))))
    planes = LabeledPlanes(dataset, dataset.train, spec_of(dataset), 64)
    assert planes.darkness.flatten().tolist() == [0, -5]


def test_planes_of_one_input_size_are_stretched():
    """Each of the 4 x 8 pixels becomes 16 x 8."""
    labels = np.zeros((4, 8), int)
    labels[1:3, 2:6] = 7
    values = np.stack([labels * 1.0, np.zeros((4, 8))])
    dataset = dataset_of(sample("a", values, labels))
    planes = scanned(dataset, spec_of(dataset, "stretch"), side=64)
    assert not planes.native
    plane = planes[0]
    assert plane.image.shape == (2, 64, 64)
    expected = np.zeros((64, 64), int)
    expected[16:48, 16:48] = 7
    assert np.array_equal(plane.labels, expected)
    # The image runs evenly from one pixel's middle to the next one's: half at the outline.
    for line in ((0, 32), (0, slice(None), 32)):
        assert np.array_equal(plane.image[line].numpy() > 3.5, expected[line[1:]] > 0)
    assert (plane.image[0, 32, 32], plane.image[0, 0, 0]) == (pytest.approx(7), 0)


@pytest.mark.parametrize("as_published", [False, True])
def test_planes_as_published_are_sampled_as_theirs(as_published):
    """Bilinear at the new pixels' centers, whole numbers of 8 bits, objects of a pixel."""
    values = np.tile(np.repeat([0.0, 10.9, 20.0, 29.9996], 32), (2, 128, 1))
    labels = np.zeros((128, 128), int)
    labels[:2, :2] = 5
    rule = Normalization(low=0, high=100, keep_uint8=True)
    dataset = replace(dataset_of(sample("a", values, labels)), normalization=rule)
    plain = tuple(Channel(name=name, mean=0.0, std=1.0) for name in "ab")
    spec = replace(spec_of(dataset, "stretch"), channels=plain)
    planes = LabeledPlanes(dataset, dataset.train, spec, 64, as_published)
    plane = planes[0]
    assert planes.cell_pixel == (0 if as_published else None)
    assert plane.objects == ((5,) if as_published else ())  # of one pixel
    line = plane.image[0, 0]
    assert line[[0, 20, 40, 63]].tolist() == (
        [0, 10, 20, 30] if as_published else pytest.approx([0, 10.9, 20, 29.9996])
    )
    # The four nearest pixels count with a filter, two of them without.
    expected = [0, 0, 10, 10] if as_published else [0, 10.9 / 8, 10.9 * 7 / 8, 10.9]
    assert line[14:18].tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("shape", [(90, 150), (50, 37), (64, 64)])
def test_planes_as_published_are_those_of_torchvision(shape):
    """The authors' Resize of image and label, from Pillow's nearest pixels to the mask grid."""
    rng = np.random.default_rng(7)
    values = rng.integers(0, 256, (2, *shape)).astype(np.uint8)
    labels = np.kron(rng.integers(0, 5, (10, 10)), np.ones((9, 15), int))[: shape[0], : shape[1]]
    dataset = dataset_of(sample("a", values.astype(np.float32), labels))
    plain = tuple(Channel(name=name, mean=0.0, std=1.0) for name in "ab")
    spec = replace(spec_of(dataset, "stretch"), channels=plain)
    planes = LabeledPlanes(dataset, dataset.train, spec, 64, as_published=True)
    plane = planes[0]
    theirs = resize(torch.from_numpy(values).float(), [64, 64], antialias=False)
    torch.testing.assert_close(plane.image, theirs, rtol=0, atol=1e-4)
    small = Image.fromarray(labels.astype(np.int32)).resize((64, 64), Image.Resampling.NEAREST)
    kept = torch.from_numpy(np.array(small))[None].float()
    grid = resize(kept, [16, 16], InterpolationMode.NEAREST)[0]
    for label in plane.objects:
        own = torch.from_numpy(plane.labels == label)[None]
        ours = to_mask_grid(own, 4, planes.cell_pixel)[0, 0]
        assert torch.equal(ours > 0, grid == label)


def test_resize_nearest_takes_the_value_at_each_center():
    labels = np.array([[1, 2, 3], [4, 5, 6]])
    assert resize_nearest(labels, (2, 3)).tolist() == labels.tolist()
    assert resize_nearest(labels, (4, 3)).tolist() == [[1, 2, 3], [1, 2, 3], [4, 5, 6], [4, 5, 6]]
    assert resize_nearest(labels, (1, 1)).tolist() == [[5]]
    assert resize_nearest(np.array([[1, 2, 3, 4]]), (1, 2)).tolist() == [[2, 4]]


@pytest.mark.parametrize(
    ("channels", "taken"), [(1, [0, 0, 0]), (2, [0, 1, 1]), (3, [0, 1, 2]), (5, [0, 1, 2])]
)
def test_planes_without_transfer_layer_have_three_channels(channels, taken):
    """They are standardized by the data set's numbers, not the base's of photographs."""
    assert as_rgb(channels) == taken
    values = np.arange(channels)[:, None, None] * np.ones((1, 8, 8))
    dataset = dataset_of(sample("a", values, np.ones((8, 8))), channels=channels)
    rgb = tuple(Channel(name=name, mean=1.0, std=2.0) for name in ("red", "green", "blue"))
    spec = replace(spec_of(dataset, transfer="zeroshot"), channels=rgb)
    image = scanned(dataset, spec)[0].image
    expected = [(index - 10 * index) / (index + 1) for index in taken]
    assert image[:, 0, 0].tolist() == expected


def test_zero_shot_of_bright_values_is_not_overexposed():
    """Intensities of zju-rgbp reach 510; the base's own numbers would make 141.125 a 2.2."""
    published = [
        ("intensity red", 141.125, 139.955),
        ("intensity green", 141.375, 140.576),
        ("intensity blue", 138.996, 141.135),
        *((f"{kind} {color}", 0.0, 0.4) for kind in ("AoLP", "DoLP") for color in "rgb"),
    ]
    values = np.full((9, 8, 8), 141.125)
    values[0] += 139.955
    dataset = replace(
        dataset_of(sample("a", values, np.ones((8, 8)))),
        channels=tuple(Channel(name=name, mean=mean, std=std) for name, mean, std in published),
        normalization=Normalization(method="none", scale=510),
    )
    rgb = sam_spec("vit_b", "vit_b", "").channels
    spec = replace(spec_of(dataset, transfer="zeroshot"), channels=rgb)
    image = scanned(dataset, spec)[0].image
    assert image[:, 0, 0].tolist() == pytest.approx([1.0, -0.25 / 140.576, 2.129 / 141.135])
    named = rgb_channels(spec, dataset)
    assert [(each.name, each.std) for each in named] == [
        ("red", 139.955),
        ("green", 140.576),
        ("blue", 141.135),
    ]


def test_planes_without_objects_are_left_out_with_a_warning(caplog):
    one = np.ones((8, 8))
    samples = [sample("a", np.zeros((2, 8, 8)), one * 0), sample("b", np.ones((2, 8, 8)), one)]
    dataset = dataset_of(*samples)
    with caplog.at_level(logging.WARNING):
        planes = scanned(dataset, spec_of(dataset))
    assert (len(planes), planes[0].name) == (1, "b")
    assert "1 of 2 planes hold no object of at least 16 pixels of the network's in" in caplog.text
    nothing = dataset_of(samples[0], min_size=9)
    sentence = "data has no object to train on of at least 16 pixels .* and more than 9 pixels"
    with pytest.raises(ValueError, match=sentence):
        scanned(nothing, spec_of(nothing))


def test_planes_hold_only_regions_above_min_size():
    """32 of 64 pixels are half of 1024 x 1024."""
    labels = np.ones((8, 8))
    labels[:4] = 2
    labels[4:, :4] = 3
    just_below = dataset_of(sample("a", np.zeros((2, 8, 8)), labels), min_size=1024 * 1024 // 4)
    assert scanned(just_below, spec_of(just_below))[0].objects == (2,)


def test_planes_beyond_the_cache_are_read_again(monkeypatch):
    times = {"a": 0, "b": 0}

    def counted(name):
        def load():
            times[name] += 1
            return np.ones((2, 8, 8), np.float32), np.ones((8, 8), np.int32)

        return Sample(name, name, load)

    monkeypatch.setattr(module, "CACHE_BYTES", 1000)  # a plane has 2 * 256 + 256 bytes
    dataset = dataset_of(counted("a"), counted("b"))
    planes = scanned(dataset, spec_of(dataset))
    for index in (0, 1, 0, 1):
        assert planes[index].name == "ab"[index]
    assert times == {"a": 1, "b": 3}


def test_planes_digest_tells_data_apart():
    def digest(values, labels):
        dataset = dataset_of(sample("a", values, labels))
        return scanned(dataset, spec_of(dataset)).digest

    values, labels = np.ones((2, 8, 8)), np.ones((8, 8))
    other = labels.copy()
    other[0, 0] = 0
    assert digest(values, labels) == digest(values.copy(), labels.copy())
    files = (values, labels), (values * 2, labels), (values, other)
    assert len({digest(*each) for each in files}) == 3


def test_labeled_plane_halved_averages_the_image():
    image = torch.tensor([[[1.0, 3.0, 5.0], [5.0, 7.0, 9.0], [2.0, 2.0, 8.0]]])
    labels = np.array([[1, 0, 2], [0, 0, 0], [3, 0, 4]], np.int32)
    half = LabeledPlane("a", image, labels, (1, 2)).halved()
    assert half.image.tolist() == [[[4.0, 7.0], [2.0, 8.0]]]
    assert half.labels.tolist() == [[1, 2], [3, 4]]
