"""How good a network is, while it trains and compared with its base."""

from dataclasses import replace

import numpy as np
import pytest

from napari_simmat.models.spec import IoUCalibration
from napari_simmat.progress import finish
from napari_simmat.training import validation
from napari_simmat.training.finetune import train_checkpoint_job
from napari_simmat.training.validation import (
    MIN_CALIBRATED,
    compare_with_base_job,
    fit_calibration,
)
from tests.nightly import nightly_but
from tests.training.squares import by_hand, pictures, short


@pytest.mark.parametrize("channels", nightly_but((1, 2, 5), 2))
def test_compare_with_base_gives_the_base_three_channels(channels, base):
    """They are standardized by the data set's numbers."""
    dataset = pictures(2, channels)
    taken = {1: [0, 0, 0], 2: [0, 1, 1]}.get(channels, [0, 1, 2])
    own = [dataset.channels[index] for index in taken]
    spec = replace(base.spec, channels=tuple(replace(c, name=f"{n}") for n, c in enumerate(own)))
    figures, _ = finish(
        compare_with_base_job(base, spec, base.network, dataset, dataset.validation, "cpu")
    )
    assert figures["before"] == by_hand(replace(base, spec=spec), dataset, taken)
    assert figures["after"] == figures["before"]  # here the same network


def test_fit_calibration_finds_slope_and_keeps_the_order():
    predicted = np.linspace(0.05, 0.95, 40)
    known = IoUCalibration(slope=0.6, offset=-1.2)
    fit = fit_calibration(predicted, known.apply(predicted))
    assert (fit.slope, fit.offset) == pytest.approx((0.6, -1.2), abs=1e-3)
    assert fit_calibration(predicted[: MIN_CALIBRATED - 1], predicted[: MIN_CALIBRATED - 1]) is None
    fitted = fit_calibration(predicted, predicted[::-1]).apply(predicted)
    assert (np.diff(fitted) > 0).all()


@pytest.mark.slow
def test_compare_with_base_leaves_out_planes_without_objects(base, dataset, tmp_path, monkeypatch):
    """Of many, some are, spread evenly over those that have an object; each is read once."""
    first = dataset.validation[0]

    def sample(number):
        def load():
            values, labels = first.load()
            read.append(number)
            return values, labels * (number % 2)

        return replace(first, name=f"plane {number}", group=f"{number}", load=load)

    read: list[int] = []
    data = replace(dataset, validation=tuple(sample(number) for number in range(8)))
    monkeypatch.setattr(validation, "MAX_PLANES", 2)
    messages: list[str] = []
    job = train_checkpoint_job(base, data, short(), tmp_path / "x.safetensors", tmp_path / "folder")
    spec = finish(job, lambda progress: messages.append(progress.message))
    compared = [message for message in messages if message.startswith("comparing")]
    assert compared == ["comparing on plane 1", "comparing on plane 5"]
    assert read == [*range(8), 1, 5]
    assert spec.metrics["before"]["click"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(("pixels", "planes"), [(100, 4), (3, 3), (0, 2)])
def test_compare_with_base_takes_fewer_large_planes(pixels, planes, base, dataset, monkeypatch):
    """`pixels` in planes; two are looked at in any case."""
    samples = dataset.validation[:1] * 4
    monkeypatch.setattr(validation, "MAX_PIXELS", pixels * samples[0].load()[1].size)
    seen: list[str] = []
    job = compare_with_base_job(base, base.spec, base.network, dataset, samples, "cpu")
    finish(job, lambda progress: seen.append(progress.message))
    assert len([message for message in seen if message.startswith("comparing")]) == planes
