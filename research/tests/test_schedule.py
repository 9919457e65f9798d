"""How long an experiment takes, by numbers that can be counted by hand."""

from types import SimpleNamespace

import pytest
import torch

from napari_simmat.progress import Progress, finish
from napari_simmat.training.trainer import TrainProgress
from simmat_research import schedule
from simmat_research.experiments import BenchmarkConfig, make_runs
from simmat_research.schedule import Clock, RunWork, seconds_to_encode

CONFIG = BenchmarkConfig(protocol="paper", tuning="lora")
DATASET = SimpleNamespace(train=[0] * 100, validation=[0] * 7, test=[0] * 7)


@pytest.fixture
def works():
    """Zero-shot and scratch of figure 4a on 100 images: 25 steps in each of 51 epochs."""
    runs = make_runs("transfer", ("nir",), (0,), CONFIG, {"nir": 100})
    return [RunWork(run, CONFIG, DATASET) for run in runs[:2]]


@pytest.fixture
def clock(monkeypatch):
    """The time; it stands until it is set."""
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(schedule.time, "monotonic", lambda: now.seconds)
    return now


def test_work_counts_steps_validations_and_the_test(works):
    zero, scratch = works
    assert (zero.steps, zero.images) == (0, 7)
    assert (scratch.steps, scratch.in_a_step) == (51 * 25, 3 * 4)
    # Validated before the first step, after every fifth epoch and the last one.
    assert scratch.others == 7 + (1 + 10 + 1) * 7
    assert scratch.images == 51 * 25 * 12 + 91


def test_clock_tells_the_time_before_the_first_run(works):
    said = []
    Clock(works, said.append).begin(0.5, "cuda")
    Clock(works, said.append).begin(650.0, "cpu")
    assert said == [
        "2 runs with 1,275 steps in all: about 2 h 8 min on cuda, where one image is encoded in "
        "0.5 s.",
        "2 runs with 1,275 steps in all: about 116 days on cpu, where one image is encoded in "
        "11 min.",
    ]  # 15,398 images


def test_clock_tells_the_time_left_after_the_first_steps(works, clock):
    said = []
    watched = Clock(works, said.append)

    def tested():
        yield Progress(1, 1, "validating")
        return "zero"

    def trained():
        for seconds, progress in (
            (100.0, TrainProgress(0, 1275, "validation IoU 3.0 %")),
            (106.0, TrainProgress(1, 1275, "training")),  # it warms up
            (107.0, Progress(1, 1275, "training")),
            (109.0, TrainProgress(2, 1275, "training")),
            (999.0, TrainProgress(3, 1275, "training")),
        ):
            clock.seconds = seconds
            yield progress
        return "row"

    assert finish(watched.watch_job(tested(), works[0])) == "zero"
    assert said == []
    assert finish(watched.watch_job(trained(), works[1])) == "row"
    # 1,273 steps of 3 s, and 91 images of a quarter of a second.
    assert said == ["A step takes 3 s, so about 64 min are left."]
    finish(watched.watch_job(trained(), works[1]))
    assert len(said) == 1


def test_clock_does_not_count_a_validation_as_a_step(works, clock):
    said = []

    def trained():
        for seconds, done in ((0.0, 0), (4.0, 1), (50.0, 1), (54.0, 2)):
            clock.seconds = seconds
            yield TrainProgress(done, 1275, "training")

    finish(Clock(works[1:], said.append).watch_job(trained(), works[1]))
    assert [sentence[:18] for sentence in said] == ["A step takes 4 s, "]


def test_seconds_to_encode_takes_the_second_of_two(clock):
    seen = []

    def encode(image):
        seen.append(tuple(image.shape))
        clock.seconds += 0.75 if len(seen) == 1 else 0.25
        return SimpleNamespace(embedding=torch.zeros(1))

    network = SimpleNamespace(to=lambda device: None, encode=encode)
    assert seconds_to_encode(network, 64, torch.device("cpu")) == 0.25
    assert seen == [(1, 3, 64, 64)] * 2
