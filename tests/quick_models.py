"""The built-in models, loaded once for all tests, and what they encode, encoded once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import pytest

from napari_simmat.io.files import ASSETS
from napari_simmat.progress import Progress, map_progress

if TYPE_CHECKING:
    import torch

    from napari_simmat.models.network import Encoded
    from napari_simmat.models.spec import Model

MAX_ENCODINGS = 48
"""That are kept: some take 15 MB."""


class Remembered(NamedTuple):
    """The steps of a job and its result."""

    steps: list[Progress]
    result: Any


@pytest.fixture(scope="session")
def built_in() -> dict[str, Remembered]:
    """What `loaded_once` remembers, by the name that is asked for."""
    return {}


@pytest.fixture
def loaded_once(monkeypatch: pytest.MonkeyPatch, built_in: dict[str, Remembered]) -> Iterator[None]:
    """Load each built-in model once in all tests; one that a test changes is forgotten."""
    from napari_simmat.checkpoints import loading
    from napari_simmat.checkpoints.registry import find_model

    load_model_job = loading.load_model_job
    used: dict[str, list[Any]] = {}

    def load_or_recall_job(name: Any) -> Any:
        path = find_model(name).path
        if path is None or path.parent != ASSETS:
            return (yield from load_model_job(name))
        if str(name) not in built_in:
            steps: list[Progress] = []
            job = load_model_job(name)
            model = yield from map_progress(job, lambda step: steps.append(step) or step)
            built_in[str(name)] = Remembered(steps, model)
        else:
            yield from built_in[str(name)].steps
        model = built_in[str(name)].result
        used.setdefault(str(name), _state_of(model))
        return model

    monkeypatch.setattr(loading, "load_model_job", load_or_recall_job)
    yield
    for name, state in used.items():
        if _state_of(built_in[name].result) != state:
            del built_in[name]


def _state_of(model: Model) -> list[Any]:
    """What changes where a network is trained, moved or given other weights."""
    return [
        (name, each.data_ptr(), each._version, each.requires_grad)
        for name, each in (*model.network.named_parameters(), *model.network.named_buffers())
    ]


@pytest.fixture(scope="session")
def encodings() -> dict[Any, Remembered]:
    """What `encoded_once` remembers."""
    return {}


@pytest.fixture
def encoded_once(monkeypatch: pytest.MonkeyPatch, encodings: dict[Any, Remembered]) -> None:
    """Encode equal images with equal weights once in all tests: the same steps, the same values."""
    import torch

    from napari_simmat.models.tiny import TinyNetwork

    encode_job = TinyNetwork.encode_job

    def encode_or_recall_job(network: Any, image: torch.Tensor, averaged: bool = False) -> Any:
        pixels = hashlib.blake2b(image.cpu().numpy().tobytes()).digest()
        autocast = torch.is_autocast_enabled(image.device.type)
        key = _digest_of(network), pixels, image.shape, image.device, averaged, autocast
        if key in encodings:
            yield from encodings[key].steps
            return _anew(encodings[key].result)
        steps: list[Progress] = []
        job = encode_job(network, image, averaged)
        encoded = yield from map_progress(job, lambda step: steps.append(step) or step)
        encodings[key] = Remembered(steps, _anew(encoded))
        if len(encodings) > MAX_ENCODINGS:
            del encodings[next(iter(encodings))]
        return encoded

    monkeypatch.setattr(TinyNetwork, "encode_job", encode_or_recall_job)


_digests: WeakKeyDictionary[Any, tuple[list[Any], bytes, Any]] = WeakKeyDictionary()


def _digest_of(network: Any) -> bytes:
    """Of its weights, which are read again only if one was replaced or written to."""
    weights = [each.detach() for each in (*network.parameters(), *network.buffers())]
    state = [(each.data_ptr(), each._version) for each in weights]
    if network not in _digests or _digests[network][0] != state:
        content = hashlib.blake2b()
        for each in weights:
            content.update(each.cpu().numpy().tobytes())
        _digests[network] = state, content.digest(), weights  # kept, so is where they lie
    return _digests[network][1]


def _anew(encoded: Encoded) -> Encoded:
    """Without what prompts have left in its cache."""
    coarser = encoded.coarser and _anew(encoded.coarser)
    return replace(encoded, coarser=coarser)


@pytest.fixture
def quick_models(loaded_once: None, encoded_once: None) -> None:
    """Both: these tests are about what is made of a model's answer."""
