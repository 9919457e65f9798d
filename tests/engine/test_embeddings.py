"""Encoded once: in memory, on disk, between processes, and when interrupted."""

import os
from typing import Any

import numpy as np
import pytest
import torch

from napari_simmat import Predictor
from napari_simmat.checkpoints.loading import load_model
from napari_simmat.engine.embeddings import (
    MAX_BYTES,
    MIN_BYTES,
    EmbeddingCache,
    EmbeddingStore,
    ResumableEncodings,
    default_bytes,
)
from napari_simmat.models.network import DecodedMasks, Encoded, Network
from napari_simmat.models.spec import Model
from napari_simmat.progress import Job, Progress, finish

PLANES = 48


class Counting(Network):
    """A stand-in for the encoder: three steps, and an embedding that tells the image apart."""

    mask_stride = 1

    def __init__(self, inner: Any) -> None:
        torch.nn.Module.__init__(self)
        self.inner = inner
        self.steps: list[float] = []
        self.encoded: list[float] = []

    def encode_job(self, image: torch.Tensor) -> Job[Encoded]:
        for done in (1, 2, 3):
            self.steps.append(float(image.mean()))
            yield Progress(done, 3, "encoding")
        self.encoded.append(float(image.mean()))
        size = image.shape[-2:]
        maps = {"values": image[:, :1].clone()}
        coarser = Encoded(image[:, :1, ::2, ::2].clone(), (size[0], size[1]), scale=0.5)
        whole = image.contiguous(memory_format=torch.channels_last)
        return Encoded(whole, (size[0], size[1]), maps, coarser=coarser)

    def decode(self, encoded: Encoded, *_: Any) -> Any:
        logits = encoded.embedding[0, :1] - encoded.embedding.mean()
        return DecodedMasks(logits.repeat(4, 1, 1), torch.full((4,), 0.9))


@pytest.fixture(scope="module")
def spec():
    return load_model("tiny").spec


@pytest.fixture
def model(spec):
    return Model(spec, Counting(None), "counting")


@pytest.fixture
def stack():
    rng = np.random.default_rng(0)
    return rng.integers(0, 255, (PLANES, 24, 32), dtype=np.uint8)


def test_encoder_encodes_again_what_changed_meanwhile(model, stack):
    """As an array that a microscope fills, or a layer that is painted on."""
    image = stack.copy()
    predictor, fresh = Predictor(model, "cpu"), Predictor(model, "cpu")
    predictor.set_image(image)
    job = predictor.set_plane_job(1)
    next(job)  # by now it was read
    image[1] = stack[2]
    finish(job)
    predictor.set_plane(1)
    fresh.set_image(image, plane=1, statistics=predictor.statistics)
    mine, right = (each._embedding.encoded.embedding for each in (predictor, fresh))
    assert torch.equal(mine, right)


def test_cache_bound_holds_at_every_moment(model, stack):
    predictor = Predictor(model, "cpu")
    predictor.set_image(stack)
    size = predictor.cache.nbytes
    cache = predictor.cache = EmbeddingCache(int(5.5 * size))
    for plane in range(PLANES):
        predictor.set_plane(plane)
        assert cache.nbytes <= cache.max_bytes
        assert cache.nbytes == len(cache) * size
    assert len(cache) == 5
    before = predictor.encodes
    predictor.set_plane(PLANES - 5)
    assert predictor.encodes == before, "the least recently used went first"
    cache.clear()
    assert (cache.nbytes, len(cache)) == (0, 0)
    with pytest.raises(ValueError, match="memory for embeddings cannot be negative"):
        EmbeddingCache(-1)
    assert MIN_BYTES <= default_bytes() <= MAX_BYTES


def test_prefetch_stops_before_it_pushes_out_what_is_ready(model, stack, tmp_path):
    predictor = Predictor(model, "cpu")
    predictor.set_image(stack)
    size = predictor.cache.nbytes
    predictor.cache = EmbeddingCache(4 * size)
    assert finish(predictor.prefetch_job(range(10, 20))) == 4
    before = predictor.encodes
    for plane in range(10, 14):
        predictor.set_plane(plane)
    assert predictor.encodes == before
    predictor.cache = EmbeddingCache(4 * size, EmbeddingStore(tmp_path))
    assert finish(predictor.prefetch_job(range(10, 20))) == 10, "the disk takes the others"


def test_prefetch_canceled_keeps_the_plane_and_resumes(model, stack):
    predictor = Predictor(model, "cpu")
    predictor.set_image(stack, plane=5)
    before = predictor.predict(points=[(3, 3)]).mask
    job = predictor.prefetch_job(range(PLANES))
    said = []
    while predictor.encodes < 4:
        said.append(next(job))
    job.close()
    assert [each.done for each in said] == sorted(each.done for each in said)
    assert said[0].total == PLANES
    assert np.array_equal(predictor.predict(points=[(3, 3)]).mask, before)
    assert finish(predictor.prefetch_job(range(PLANES))) == PLANES
    assert predictor.encodes == PLANES
    assert len(model.network.steps) == 3 * PLANES, "not even a step was computed twice"


def test_set_plane_resumes_an_interrupted_prefetch(model, stack):
    predictor = Predictor(model, "cpu")
    predictor.set_image(stack, plane=0)
    ahead = predictor.prefetch_job([1, 2])
    for _ in range(3):
        next(ahead)  # plane 1 is begun
    assert predictor.encodes == 1
    predictor.set_plane(1)  # the click
    assert predictor.encodes == 2
    assert finish(ahead) == 2
    assert predictor.encodes == 3
    assert len(model.network.steps) == 9


@pytest.fixture
def stored(model, stack, tmp_path):
    """A store with three planes."""
    store = EmbeddingStore(tmp_path / "embeddings")
    predictor = Predictor(model, "cpu", cache=EmbeddingCache(store=store))
    predictor.set_image(stack)
    finish(predictor.prefetch_job(range(3)))
    return store


def encodes(model: Model, stack: np.ndarray, store: EmbeddingStore) -> int:
    """How many of the three planes are encoded again."""
    predictor = Predictor(model, "cpu", cache=EmbeddingCache(store=store))
    for plane in range(3):
        predictor.set_image(stack, plane=plane)
    return predictor.encodes


def test_store_returns_what_was_stored(model, stack, stored):
    fresh, again = Predictor(model, "cpu"), None
    fresh.set_image(stack, plane=2)
    again = Predictor(model, "cpu", cache=EmbeddingCache(store=stored))
    again.set_image(stack, plane=2)
    assert (fresh.encodes, again.encodes) == (1, 0)
    one, other = fresh._embedding, again._embedding
    assert one.transform == other.transform
    for mine, theirs in zip(one.encoded.levels, other.encoded.levels, strict=True):
        assert torch.equal(mine.embedding, theirs.embedding)
        assert theirs.embedding.is_contiguous(memory_format=torch.channels_last)
        assert (mine.input_size, mine.scale) == (theirs.input_size, theirs.scale)
        assert mine.maps.keys() == theirs.maps.keys()
        assert all(torch.equal(mine.maps[name], theirs.maps[name]) for name in mine.maps)
    assert len(stored) == 3
    assert stored.nbytes == sum(path.stat().st_size for path in stored.folder.glob("*/*"))
    stored.clear()
    assert (len(stored), stored.nbytes) == (0, 0)


def test_store_keeps_half_precision(stack, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_simmat.engine.device.half_precision_is_faster", lambda: True)
    store = EmbeddingStore(tmp_path / "embeddings")
    tiny, masks = load_model("tiny"), []
    for encodes in (1, 0):
        predictor = Predictor(tiny, "cpu", "fast", EmbeddingCache(store=store))
        predictor.set_image(stack[0])
        assert predictor.encodes == encodes
        assert torch.bfloat16 in {each.dtype for each in predictor._embedding.encoded.maps.values()}
        masks.append(predictor.predict(points=[(8, 8)]).logits)
    assert len(store) == 1
    assert np.array_equal(*masks)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: b"\x80\x04cos\nsystem\n(S'echo hacked'\ntR.",
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: content.replace(b"counting", b"countinG"),
    ],
    ids=["cut", "empty", "pickle", "one bit", "another key"],
)
def test_store_with_a_damaged_file_encodes_again(model, stack, stored, damage):
    whole = {path: path.read_bytes() for path in stored.folder.glob("*/*")}
    for path, content in whole.items():
        path.write_bytes(damage(content))
    assert encodes(model, stack, stored) == 3
    assert encodes(model, stack, stored) == 0
    sizes = {path: path.stat().st_size for path in stored.folder.glob("*/*")}
    assert sizes == {path: len(content) for path, content in whole.items()}


def test_store_in_a_read_only_folder_is_read(model, stack, stored, monkeypatch):
    def refused(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "utime", refused)
    assert encodes(model, stack, stored) == 0
    assert len(stored) == 3


def test_store_with_the_file_of_another_image_ignores_it(model, stack, stored):
    first, second, _ = sorted(stored.folder.glob("*/*"))
    first.write_bytes(second.read_bytes())
    assert encodes(model, stack, stored) == 1


def test_store_bound_holds_and_the_oldest_goes_first(model, stack, stored):
    size = stored.nbytes // 3
    small = EmbeddingStore(stored.folder, max_bytes=int(3.5 * size))
    for age, path in enumerate(sorted(stored.folder.glob("*/*"))):
        os.utime(path, (1000 + age, 1000 + age))
    oldest = min(stored.folder.glob("*/*"), key=lambda path: path.stat().st_mtime)
    predictor = Predictor(model, "cpu", cache=EmbeddingCache(store=small))
    predictor.set_image(stack, plane=10)
    assert len(small) == 3
    assert small.nbytes <= small.max_bytes
    assert not oldest.exists()
    with pytest.raises(ValueError, match="cannot be negative"):
        EmbeddingStore(stored.folder, -1)


def test_store_that_cannot_write_says_so(model, stack, tmp_path):
    (tmp_path / "taken").write_text("a file, not a folder")
    store = EmbeddingStore(tmp_path / "taken")
    predictor = Predictor(model, "cpu", cache=EmbeddingCache(store=store))
    predictor.set_image(stack)
    assert predictor.predict(points=[(3, 3)]).mask.shape == (24, 32)
    assert "is not a folder" in store.problem
    assert len(store) == 0


def counting(log: list[int], count: int = 3) -> Job[int]:
    for number in range(count):
        log.append(number)
        yield Progress(number, count)
    return len(log)


def test_resumable_encodings_continue_and_tell_who_is_overtaken():
    jobs: ResumableEncodings[int] = ResumableEncodings(limit=2)
    log: list[int] = []
    left = jobs.resume_job("a", lambda: counting(log))
    next(left)
    left.close()
    assert finish(jobs.resume_job("a", lambda: counting(log))) == 3
    assert log == [0, 1, 2]
    assert len(jobs) == 0
    log.clear()
    slow = jobs.resume_job("a", lambda: counting(log))
    next(slow)
    assert finish(jobs.resume_job("a", lambda: counting(log))) == 3
    assert finish(slow) is None


def test_resumable_encodings_keep_the_last_and_no_failed_job():
    jobs: ResumableEncodings[int] = ResumableEncodings(limit=2)
    closed = []

    def watched(name):
        try:
            yield Progress(0, 1)
            yield Progress(1, 1)
        finally:
            closed.append(name)
        return 0

    for name in "abc":
        job = jobs.resume_job(name, lambda name=name: watched(name))
        next(job)
        job.close()
    assert closed == ["a"]
    jobs.clear()
    assert sorted(closed) == ["a", "b", "c"]

    def failing():
        yield Progress(0, 1)
        raise ValueError("broken")

    for _ in range(2):
        with pytest.raises(ValueError, match="broken"):
            finish(jobs.resume_job("d", failing))
    assert len(jobs) == 0
