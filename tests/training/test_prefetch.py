"""Batches drawn ahead: the same ones, from other threads."""

import threading

import pytest

from napari_simmat.progress import finish
from napari_simmat.training.devices import Devices
from napari_simmat.training.finetune import train_job
from napari_simmat.training.prefetch import Prefetch
from tests.training.squares import pictures, read_log, short

WHOLE = slice(0, 4)


@pytest.fixture
def drawn():
    return []


@pytest.fixture
def prefetch(drawn):
    def draw(step: int, part: slice) -> tuple[int, slice]:
        drawn.append((step, threading.current_thread()))
        if step == 5:
            raise OSError("gone.png is gone.")
        return step, part

    made = []

    def make(total: int, workers: int) -> Prefetch[tuple[int, slice]]:
        made.append(Prefetch(draw, total, workers))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_prefetch_gives_each_step_its_own_batch(workers, prefetch, drawn):
    ahead = prefetch(5, workers)
    assert [ahead(step, WHOLE) for step in range(5)] == [(step, WHOLE) for step in range(5)]
    ahead.close()
    assert sorted(step for step, _ in drawn) == [0, 1, 2, 3, 4]  # none twice, none beyond the last
    here = {thread is threading.current_thread() for _, thread in drawn}
    assert here == {workers == 0}


def test_prefetch_draws_the_next_steps_meanwhile(prefetch, drawn):
    ahead = prefetch(100, 3)
    ahead(0, WHOLE)
    ahead.close()
    assert {step for step, _ in drawn} <= {0, 1, 2, 3}


def test_prefetch_follows_a_step_that_is_halved(prefetch):
    """What was drawn for whole steps is dropped once memory ran out."""
    ahead, halves = prefetch(4, 2), (slice(0, 2), slice(2, 4))
    assert ahead(0, WHOLE) == (0, WHOLE)
    found = [ahead(step, half) for step in (0, 1, 2, 3) for half in halves]
    assert found == [(step, half) for step in (0, 1, 2, 3) for half in halves]


def test_prefetch_raises_the_error_at_its_step(prefetch):
    ahead = prefetch(9, 2)
    for step in range(5):
        assert ahead(step, WHOLE) == (step, WHOLE)
    with pytest.raises(OSError, match=r"gone\.png is gone"):
        ahead(5, WHOLE)


def test_training_with_readers_is_equal_to_the_bit(base, tmp_path):
    """Losses of each step and the trained tensors; all of 8 images are read in each epoch."""
    config = short(steps=6, epochs=6, validate_every=6, batch=2)
    reached = {}
    for workers in (0, 2):
        folder, places = tmp_path / f"{workers}", Devices(device="cpu", workers=workers)
        trained = finish(train_job(base, pictures(8), config, "squares", folder, places))
        losses = [row["loss"] for row in read_log(folder / "log.csv") if "loss" in row]
        tensors = {name: each.tolist() for name, each in trained.student.tensors().items()}
        reached[workers] = losses, tensors
    assert len(reached[0][0]) == 6
    assert reached[0] == reached[2]


@pytest.mark.parametrize("workers", [-1, 65])
def test_devices_with_too_many_readers_are_refused(workers):
    with pytest.raises(ValueError, match=rf"{workers} threads cannot read.*choose 0 to 64"):
        Devices(workers=workers)


def test_devices_read_ahead_beside_a_gpu_only(monkeypatch):
    assert Devices(device="cpu").readers == 0
    assert Devices(device="cpu", workers=3).readers == 3
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert Devices().readers == 4
