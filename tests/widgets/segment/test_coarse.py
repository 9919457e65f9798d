"""A first mask from a coarse encoding, while SAM's whole one is computed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from qtpy.QtCore import Qt
from segment_anything import sam_model_registry

from napari_simmat.checkpoints.loading import load_model
from napari_simmat.engine import embeddings
from napari_simmat.engine.predictor import Predictor
from napari_simmat.models import tuning
from napari_simmat.models.sam import SamNetwork
from napari_simmat.models.spec import Model
from napari_simmat.progress import finish
from napari_simmat.widgets import worker
from napari_simmat.widgets.segment.controller import COARSE, COARSE_COMMIT
from tests.plain_authors import DEPTH, WIDTH, small_sam
from tests.widgets.conftest import SECONDS, Window
from tests.widgets.gate import click_without_waiting
from tests.widgets.scenes import gray

CLICK = (60.0, 160.0)


@pytest.fixture
def sam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of SAM's shape with three narrow blocks and random numbers."""
    monkeypatch.setitem(sam_model_registry, "vit_b", lambda: small_sam(1024))
    monkeypatch.setitem(tuning._SAM_SHAPES, (WIDTH, DEPTH), "vit_b")
    torch.manual_seed(0)
    torch.save(small_sam(1024).state_dict(), tmp_path / "small.pth")
    return tmp_path / "small.pth"


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Semaphore]:
    """How many blocks of the whole encoding may be computed; four make it complete."""
    # The worker drops progress that follows too closely; here no later one would come.
    monkeypatch.setattr(worker, "_REPORT_EVERY", 0.0)
    permits = threading.Semaphore(0)
    original = SamNetwork.encode_job

    def held(self: SamNetwork, image: torch.Tensor) -> Any:
        job = original(self, image)
        while True:
            assert permits.acquire(timeout=SECONDS / 1000)
            try:
                progress = next(job)
            except StopIteration as end:
                return end.value
            yield progress

    monkeypatch.setattr(SamNetwork, "encode_job", held)
    yield permits
    permits.release(100)


@pytest.fixture
def encoding(window: Window, sam: Path, blocks: threading.Semaphore) -> Window:
    """The window in the middle of encoding an image: one block is done."""
    window.viewer.add_image(gray(), name="discs")
    window.open_widget()
    window.tab.models.set_value(sam)
    blocks.release()
    window.qtbot.waitUntil(lambda: window.status.fraction == 0.25)
    return window


def shown(window: Window) -> np.ndarray:
    return np.asarray(window.workspace.preview.layer.data) > 0


def wait_for_preview(window: Window) -> None:
    window.qtbot.waitUntil(lambda: window.status.text.startswith(COARSE))


def expected(model: Model, coarse: bool, **prompt: Any) -> np.ndarray:
    """What the engine answers by itself."""
    predictor = Predictor(model, "cpu")
    finish(predictor.open_image_job(gray()))
    assert not coarse or finish(predictor.coarse_preview_job())
    if not coarse:
        predictor.set_plane(())
    return predictor.predict(**prompt).mask


def test_a_preview_is_to_look_at_and_the_exact_mask_is_committed(
    encoding: Window, sam: Path, blocks: threading.Semaphore
) -> None:
    click_without_waiting(encoding, *CLICK)
    blocks.release()  # the encoding is left after the block in which the click came
    wait_for_preview(encoding)
    assert encoding.status.kind == "working"
    coarse = shown(encoding)
    encoding.tap(Qt.Key.Key_C)
    blocks.release()
    encoding.qtbot.waitUntil(lambda: COARSE_COMMIT in encoding.status.text)
    assert encoding.workspace.objects is None
    blocks.release()
    encoding.idle()
    assert encoding.controller.inference.service.encodes == 1, "gone on with, not begun anew"
    blocks.release(4)
    model = load_model(sam)
    [point] = encoding.workspace.session.history.last.before.prompts.points
    whole = expected(model, False, points=[point])
    assert np.array_equal(coarse, expected(model, True, points=[point]))
    assert np.array_equal(np.asarray(encoding.workspace.objects.data) > 0, whole)
    assert not np.array_equal(coarse, whole)
    assert not shown(encoding).any()


def test_a_newer_click_changes_the_preview_and_both_change_the_exact_mask(
    encoding: Window, blocks: threading.Semaphore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "PREVIEW_CUTOFF", 1.0)  # three of four blocks are
    click_without_waiting(encoding, *CLICK)
    blocks.release()
    wait_for_preview(encoding)
    first = shown(encoding)
    click_without_waiting(encoding, 150, 60)
    blocks.release()
    encoding.qtbot.waitUntil(lambda: not np.array_equal(shown(encoding), first))
    assert encoding.status.text.startswith(COARSE)
    blocks.release()
    encoding.idle()
    assert encoding.status.kind == "done"
    assert encoding.controller.inference.service.encodes == 1
    [(asked, answer)] = encoding.workspace.session.predictions.values()
    assert len(asked.prompts.points) == 2
    assert np.array_equal(shown(encoding), answer.masks[0])


def test_canceling_takes_the_preview_away(encoding: Window, blocks: threading.Semaphore) -> None:
    click_without_waiting(encoding, *CLICK)
    blocks.release()
    wait_for_preview(encoding)
    assert shown(encoding).any()
    encoding.tab.status._cancel.click()
    assert not shown(encoding).any()
    assert encoding.status.kind == "canceled"
    assert encoding.workspace.objects is None
    blocks.release()
    encoding.idle()
    assert not shown(encoding).any()


def test_what_is_nearly_encoded_needs_no_preview(
    encoding: Window, blocks: threading.Semaphore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SamNetwork, "coarse_preview_job", None)  # it would fail
    blocks.release()
    encoding.qtbot.waitUntil(lambda: encoding.status.fraction == 0.5)
    click_without_waiting(encoding, *CLICK)
    blocks.release(2)
    encoding.idle()
    assert encoding.status.kind == "done"
    assert len(encoding.workspace.session.predictions) == 1
