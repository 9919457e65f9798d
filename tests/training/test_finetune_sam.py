"""Fine-tuning a network of SAM's shape, against one step written out by hand."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from napari_simmat.checkpoints.checkpoint import read_spec, read_tensors
from napari_simmat.models.spec import InputSize
from napari_simmat.models.tuning import STRATEGIES
from napari_simmat.progress import finish
from napari_simmat.training.batches import Batches
from napari_simmat.training.config import practical_config
from napari_simmat.training.finetune import train_job
from napari_simmat.training.labeled_planes import LabeledPlanes
from napari_simmat.training.run_folder import BEST_FILE
from napari_simmat.training.trainer import Trainer
from tests.nightly import nightly_but
from tests.small_sam import small_sam
from tests.training.conftest import SIDE
from tests.training.squares import FEW, pictures, short


@pytest.fixture(scope="module")
def large():
    """Planes of 96 x 96, so that they have to be resized."""
    return pictures(channels=3, side=96)


def test_sam_step_is_the_papers(sam, large, tmp_path, monkeypatch):
    """Stock SAM's own forward, the loss as it is written, and its gradient."""
    ours: dict[str, torch.Tensor] = {}
    follow = Trainer._follow_gradient

    def watched(self):
        named = self.module.network.named_parameters()
        ours.update({name: p.grad.clone() for name, p in named if p.grad is not None})
        return follow(self)

    monkeypatch.setattr(Trainer, "_follow_gradient", watched)
    config = short(transfer="zeroshot", strategy="full", steps=1, epochs=1)
    trained = finish(train_job(sam, large, config, "m", tmp_path / "run"))
    spec = trained.spec
    assert spec.input_size == InputSize(method="stretch", size=SIDE)

    planes = LabeledPlanes(large, large.train, spec, SIDE)
    finish(planes.scan_job("train on"))
    batch = Batches(planes, config).batch(0, slice(0, 2))
    network = small_sam(SIDE)
    network.load_state_dict(sam.network.state_dict())
    loss = torch.zeros(())
    for image, mask, points, labels in zip(
        batch.images, batch.masks, batch.prompts.points, batch.prompts.labels, strict=True
    ):
        assert labels.tolist() == [1, -1]
        x, y = points[0].tolist()
        assert mask[int(y), int(x)]
        embedding = network.image_encoder(image[None])
        click = torch.tensor([[[x, y]]]), torch.tensor([[1]])
        sparse, dense = network.prompt_encoder(points=click, boxes=None, masks=None)
        logits, _ = network.mask_decoder(
            image_embeddings=embedding,
            image_pe=network.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        target = torch.from_numpy(mask[2::4, 2::4].astype(np.float32))[None, None]
        assert logits.shape == target.shape == (1, 1, 16, 16)
        p = logits.sigmoid()
        dice = 1 - (2 * (p * target).sum() + 1e-5) / ((p**2).sum() + (target**2).sum() + 1e-5)
        loss = loss + (dice + functional.binary_cross_entropy(p, target)) / 2
    loss.backward()
    theirs = {
        name: parameter.grad
        for name, parameter in network.named_parameters()
        if parameter.grad is not None and not name.startswith("prompt_encoder.")
    }
    scale = max(float(each.abs().max()) for each in theirs.values())
    assert theirs.keys() <= ours.keys()
    for name, gradient in ours.items():
        expected = theirs.get(name, torch.zeros_like(gradient))
        assert (gradient - expected).abs().max() < 1e-5 * scale, name


@pytest.mark.parametrize("strategy", nightly_but(STRATEGIES, "lora", "prefix"))
def test_sam_trains_by_every_strategy(strategy, sam, tmp_path, monkeypatch):
    """With all kinds of prompts and corrections, on any number of channels."""
    size = 3 if STRATEGIES[strategy].size else None
    config = practical_config(sam.spec, **FEW, strategy=strategy, size=size)
    trained = finish(train_job(sam, pictures(2, 5, side=80), config, "m", tmp_path / "run"))
    before = sam.network.state_dict()
    for name, each in trained.student.network.state_dict().items():
        if name not in trained.student.names:
            assert torch.equal(each, before[name])
    held = read_tensors(tmp_path / "run" / BEST_FILE)
    assert set(held) == set(trained.student.names)
    assert read_spec(tmp_path / "run" / BEST_FILE).input_size.method == "stretch"
    assert len(trained.spec.channels) == 5
