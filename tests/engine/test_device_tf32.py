"""TF32 on a CUDA device: what torch is told, and that it is told again afterwards."""

import pytest
import torch

from napari_simmat.engine.device import tf32_allowed, tf32_job
from napari_simmat.progress import Progress, finish

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
KINDS = (torch.backends.cuda.matmul, torch.backends.cudnn)


def flags() -> tuple[bool, ...]:
    return tuple(kind.allow_tf32 for kind in KINDS)


@pytest.fixture(autouse=True)
def exact():
    """Both off, as a user may have set them."""
    before = flags()
    for kind in KINDS:
        kind.allow_tf32 = False
    yield
    for kind, was in zip(KINDS, before, strict=True):
        kind.allow_tf32 = was


def test_tf32_allowed_sets_both_flags_and_restores_them():
    KINDS[1].allow_tf32 = True
    with tf32_allowed(CUDA):
        assert flags() == (True, True)
    assert flags() == (False, True)
    with pytest.raises(ValueError, match="a step"), tf32_allowed(CUDA):
        raise ValueError("a step")
    assert flags() == (False, True)


@pytest.mark.parametrize(("device", "allowed"), [(CPU, True), (CUDA, False)])
def test_tf32_allowed_changes_nothing_elsewhere(device, allowed):
    with tf32_allowed(device, allowed):
        assert flags() == (False, False)


def test_tf32_job_is_in_force_within_its_steps_only():
    seen, closed = [], []

    def job():
        try:
            for number in range(3):
                seen.append(flags())
                yield Progress(number, 3)
            return "done"
        finally:
            closed.append(flags())

    between = []
    assert finish(tf32_job(job(), CUDA, True), lambda _: between.append(flags())) == "done"
    assert seen == [(True, True)] * 3
    assert between == [(False, False)] * 3
    canceled = tf32_job(job(), CUDA, True)
    next(canceled)
    canceled.close()
    assert len(closed) == 2
    assert flags() == (False, False)
