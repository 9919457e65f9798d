"""The checkpoints in the package, on drawn scenes that they were not trained on."""

from dataclasses import replace

import pytest

from napari_simmat.checkpoints.loading import load_model
from napari_simmat.progress import finish
from napari_simmat.training.validation import compare_with_base_job
from simmat_research.generated import GeneratedConfig, generate_job


@pytest.mark.slow
@pytest.mark.parametrize("sensor", ["depth", "multispectral"])
def test_shipped_checkpoint_is_better_than_its_base(sensor):
    """On scenes never trained on; for thermal and polarization the base alone is as good."""
    drawn = finish(
        generate_job(GeneratedConfig(sensor=sensor, side=160, train=1, validation=1, test=4))
    )
    checkpoint = load_model(sensor)
    known = replace(drawn, channels=checkpoint.spec.channels)
    base = load_model(checkpoint.spec.base.name)
    figures, _ = finish(
        compare_with_base_job(base, checkpoint.spec, checkpoint.network, known, known.test, "cpu")
    )
    assert figures["after"]["click"] > figures["before"]["click"] + 3
    assert figures["after"]["box"] > figures["before"]["box"] + 2
