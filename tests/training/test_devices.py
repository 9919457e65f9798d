"""Where a training runs, and who speaks."""

from __future__ import annotations

import re
import sys

import pytest
import torch

from napari_simmat.training import trainer
from napari_simmat.training.trainer import Devices, is_first_process


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_one_processor_is_the_plain_strategy(precision: str, capfd) -> None:
    fabric = Devices(device="cpu").fabric(precision)
    fabric.launch()
    assert (fabric.world_size, fabric.is_global_zero, fabric.device.type) == (1, True, "cpu")
    assert capfd.readouterr() == ("", "")  # nothing is announced


@pytest.mark.parametrize(
    ("settings", "precision", "sentence"),
    [
        ({"count": 0}, "32-true", "at least one device on one node, not 0 on 1"),
        ({"nodes": 0}, "32-true", "at least one device on one node, not 1 on 0"),
        ({"device": "cpu:0", "count": 2}, "32-true", "2 devices are requested, but cpu:0 is 1"),
        ({"device": "cpu"}, "16-mixed", trainer.NO_16_MIXED),
        ({"device": "moon"}, "32-true", "Device 'moon' is unknown"),
    ],
)
def test_what_is_not_there_gets_a_sentence(settings, precision: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Devices(**settings).fabric(precision)


@pytest.mark.parametrize(
    ("settings", "quicker", "precision"),
    [
        ({"device": "cpu"}, True, "bf16-mixed"),
        ({"device": "cpu"}, False, "32-true"),
        ({"device": "cpu", "count": 2}, True, "32-true"),
        ({"device": "cuda"}, True, "bf16-mixed"),
        ({"device": "cuda"}, False, "32-true"),
        ({"device": "mps"}, True, "32-true"),
    ],
)
def test_precision_is_half_where_that_is_quicker(
    settings: dict, quicker: bool, precision: str, monkeypatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: quicker)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(trainer, "half_precision_is_faster", lambda: quicker)
    places = Devices(**settings)
    assert places.precision("auto") == precision
    assert places.precision("16-mixed") == "16-mixed"


@pytest.mark.parametrize("quicker", [True, False])
def test_half_precision_that_is_slower_is_remarked(quicker: bool, monkeypatch, caplog) -> None:
    monkeypatch.setattr(trainer, "half_precision_is_faster", lambda: quicker)
    places = Devices(device="cpu")
    places.fabric("32-true")
    assert not caplog.messages
    places.fabric("bf16-mixed")
    assert caplog.messages == ([] if quicker else [trainer.SLOW_HALF_PRECISION])


def test_more_gpus_than_there_are(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="4 devices are requested, but cuda is 2; request 2, or"):
        Devices(device="cuda", count=4).fabric("32-true")


def test_tasks_of_slurm_that_are_counted_otherwise(monkeypatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE", raising=False)
    with pytest.raises(ValueError, match="--ntasks=2; use --ntasks-per-node instead"):
        Devices(device="cpu").fabric("32-true")


def test_without_lightning_fabric_it_is_said_how_to_get_it(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(ImportError, match=re.escape(trainer.NO_FABRIC)):
        Devices().fabric("32-true")


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, True),
        ({"LOCAL_RANK": "0", "NODE_RANK": "0"}, True),
        ({"LOCAL_RANK": "1"}, False),
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, False),
        ({"SLURM_PROCID": "0"}, True),
        ({"SLURM_PROCID": "3"}, False),
        ({"RANK": "2", "LOCAL_RANK": "0"}, False),
    ],
)
def test_the_first_process_speaks(environment: dict[str, str], first: bool, monkeypatch) -> None:
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_first_process() is first
