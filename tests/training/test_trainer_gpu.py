"""Training on a pretended GPU: each strategy keeps to its device; memory that runs out."""

from contextlib import nullcontext

import pytest
import torch

from napari_simmat.engine import device
from napari_simmat.models.tuning import STRATEGIES
from napari_simmat.progress import finish
from napari_simmat.training import trainer
from napari_simmat.training.batches import UNKNOWN, Batches
from napari_simmat.training.labeled_planes import LabeledPlanes
from napari_simmat.training.losses import TrainingModule
from napari_simmat.training.trainable import make_trainable
from napari_simmat.training.validation import validate_network_job
from tests.nightly import nightly_but
from tests.pretended_gpu import pretended_gpu
from tests.training.squares import short


@pytest.mark.parametrize("gpu", nightly_but(("cuda:0", "mps:0"), "cuda:0"))
@pytest.mark.parametrize("strategy", nightly_but(STRATEGIES, "lora"))
def test_step_of_each_strategy_on_a_gpu_is_that_of_a_cpu(gpu, strategy, base, dataset, monkeypatch):
    config = short(strategy=strategy, auxiliary=True, corrections=2, prompts=("click",))
    losses = []
    for place in ("cpu", gpu):
        student = make_trainable(base, dataset, config, "squares")
        planes = LabeledPlanes(dataset, dataset.train, student.spec, 64)
        batch = Batches(planes, config).batch(0, slice(0, 2))

        with nullcontext() if place == "cpu" else pretended_gpu(monkeypatch):
            network = student.network.to(place).train()
            module = TrainingModule(network, config.auxiliary, config.smoothing)
            trained = [each for each in network.parameters() if each.requires_grad]
            optimizer = torch.optim.Adam(trained, lr=1e-3)
            torch.manual_seed(0)
            loss, _ = module(batch.to(torch.device(place)))
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
            assert {each.device.type for each in trained} == {place.partition(":")[0]}
            assert {each.device.type for each in student.tensors().values()} == {"cpu"}
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.parametrize("gpu", nightly_but(("cuda:0", "mps:0"), "cuda:0"))
def test_frozen_features_and_unknown_pixels_on_a_gpu(gpu, base, dataset, monkeypatch):
    """The second step takes the features from main memory; both losses are those of a CPU."""
    config = short(strategy="decoder", transfer="zeroshot", prompts=("click",))
    found = {}
    for place in ("cpu", gpu):
        student = make_trainable(base, dataset, config, "squares")
        planes = LabeledPlanes(dataset, dataset.train, student.spec, 64)
        batch = Batches(planes, config).batch(0, slice(0, 2))
        batch.keys = [(index, 64, 64) for index in range(len(batch.images))]
        batch.labels[:, :8, :8] = UNKNOWN
        with nullcontext() if place == "cpu" else pretended_gpu(monkeypatch):
            module = TrainingModule(student.network.to(place).train(), False)
            assert module.frozen
            steps = [module(batch.to(torch.device(place)))[0] for _ in range(2)]
            found[place] = [float(each.detach()) for each in steps]
        assert len(module.features) == len(batch.images)
    assert found[gpu] == pytest.approx(found["cpu"], rel=1e-5)


@pytest.mark.parametrize("gpu", nightly_but(("cuda:0", "mps:0"), "cuda:0"))
def test_validation_on_a_gpu_is_that_of_a_cpu(gpu, base, dataset, monkeypatch):
    student = make_trainable(base, dataset, short(), "squares")
    planes = LabeledPlanes(dataset, dataset.train, student.spec, 64)
    reached = finish(validate_network_job(student.network, planes, 64))
    with pretended_gpu(monkeypatch):
        there = finish(validate_network_job(student.network.to(gpu), planes, 64))
    assert there == reached
    assert reached.ious


@pytest.mark.slow
def test_step_without_memory_is_computed_in_parts(train, monkeypatch, caplog):
    """Four images do not fit, two neither; the gradient is that of `accumulate`."""
    expected = train("parts", batch=4, accumulate=4).student.tensors()
    whole = TrainingModule.loss_job
    tried = []

    def short_of_memory(self, batch):
        tried.append(len(batch.images))
        if len(batch.images) > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return whole(self, batch)

    monkeypatch.setattr(TrainingModule, "loss_job", short_of_memory)
    found = train("whole", batch=4).student.tensors()
    assert tried[:6] == [4, 2, 1, 1, 1, 1]
    assert set(tried[6:]) == {1}
    assert all(torch.equal(each, found[name]) for name, each in expected.items())
    assert [record.args or record.msg for record in caplog.records if "parts" in record.msg] == [
        trainer.HALVED.format(2),
        trainer.HALVED.format(4),
    ]


def test_step_beyond_free_memory_is_computed_in_parts(train, monkeypatch):
    """A CPU promises memory that there is not: each image takes a quarter of what was free."""
    expected = train("parts", batch=4, accumulate=2).student.tensors()
    whole, taken, tried = TrainingModule.loss_job, [], []

    def loss_job(self, batch):
        tried.append(len(batch.images))
        taken.append(len(batch.images))
        result = yield from whole(self, batch)
        taken.clear()
        return result

    monkeypatch.setattr(TrainingModule, "loss_job", loss_job)
    monkeypatch.setattr(device, "available_memory", lambda: 2**30 * (4 - sum(taken)))
    monkeypatch.setattr(trainer, "release", lambda _: taken.clear())
    found = train("whole", batch=4).student.tensors()
    assert tried[:3] == [4, 2, 2]
    assert set(tried[3:]) == {2}
    assert all(torch.equal(each, found[name]) for name, each in expected.items())


def test_image_without_memory_is_explained(train, monkeypatch):
    def no_memory(self, batch):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(TrainingModule, "loss_job", no_memory)
    with pytest.raises(MemoryError, match=r"Memory ran out with 1 image at once\. Train with"):
        train()
