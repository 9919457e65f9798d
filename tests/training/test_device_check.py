"""The check of a device: it passes where results are equal, and says where they are not."""

import numpy as np
import pytest
import torch

from napari_simmat.cli import main
from napari_simmat.models.tiny import TinyNetwork
from napari_simmat.progress import finish
from napari_simmat.training import device_check
from napari_simmat.training.device_check import (
    CheckResult,
    check_device_job,
    check_full_memory,
    check_prediction,
    check_training,
    drawn_image,
    report,
)
from tests.pretended_gpu import pretended_gpu


@pytest.fixture(autouse=True)
def small_images(monkeypatch):
    monkeypatch.setattr(device_check, "SIDE", 128)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)


@pytest.fixture
def one_process(monkeypatch):
    """Other processes have the shipped models, and take seconds to start."""
    monkeypatch.setattr(device_check, "check_two_processes", lambda device: "both done")


def states(results: list[CheckResult]) -> dict[str, str]:
    return {each.name: each.state for each in results}


def test_check_of_a_cpu_passes(one_process, monkeypatch):
    monkeypatch.setattr("napari_simmat.engine.device.half_precision_is_faster", lambda: False)
    results = finish(check_device_job("cpu", ["tiny"], ["lora", "frozen"]))
    assert states(results) == {
        "tiny: encode and click, exact": "passed",
        "tiny: encode and click, fast": "not possible here",
        "train: lora": "passed",
        "train: frozen": "passed",
        "train: half precision": "passed",
        "memory of the device runs out": "not possible here",
        "two processes at once": "passed",
    }
    text = report("cpu", results)
    assert "| train: lora | passed |" in text
    assert torch.__version__ in text


@pytest.mark.slow
def test_check_of_a_gpu_computes_there(monkeypatch):
    """What is compared is computed on the device: a broken kernel of it is found."""
    with pretended_gpu(monkeypatch):
        assert "embedding differs by 0.0e+00" in check_prediction("tiny", "cuda:0", "exact")
    encode_job = TinyNetwork.encode_job

    def wrong_on_a_gpu(self, image, averaged=False):
        return encode_job(self, image.flip(-1) if image.device.type == "cuda" else image, averaged)

    monkeypatch.setattr(TinyNetwork, "encode_job", wrong_on_a_gpu)
    with pretended_gpu(monkeypatch), pytest.raises(ValueError, match="embedding differs by"):
        check_prediction("tiny", "cuda:0", "exact")


def test_a_training_with_other_losses_fails(monkeypatch):
    assert "losses differ by 0.0e+00" in check_training("cpu")
    found = iter(([0.9, 0.8], [0.9, 0.7]))
    monkeypatch.setattr(device_check, "_logged_losses", lambda path: next(found))
    with pytest.raises(ValueError, match="losses differ by"):
        check_training("cpu")


def test_an_error_is_a_line_of_the_report(one_process, monkeypatch):
    def broken(*given, **more):
        raise RuntimeError("no kernel |\n for this")

    monkeypatch.setattr(device_check, "check_prediction", broken)
    results = finish(check_device_job("cpu", ["tiny"], []))
    assert results[0].state == "FAILED"
    assert "| FAILED | RuntimeError: no kernel / for this |" in report("cpu", results)


def test_full_memory_moves_to_the_cpu_and_back(monkeypatch):
    """On a GPU that is pretended to have a little free memory, which the network fills."""
    from napari_simmat.checkpoints.loading import load_model

    monkeypatch.setattr(device_check, "_model", lambda name: load_model("tiny"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda place: (2**20, 2**33))
    full = [True]
    encode_job = TinyNetwork.encode_job

    def out_of_memory(self, image, averaged=False):
        if image.device.type == "cuda" and full[0]:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return encode_job(self, image, averaged)

    monkeypatch.setattr(TinyNetwork, "encode_job", out_of_memory)
    monkeypatch.setattr(device_check, "release", lambda place: full.clear() or full.append(False))
    with pretended_gpu(monkeypatch):
        assert "computing on the CPU instead" in check_full_memory("cuda:0")


def test_drawn_images_differ_and_have_four_discs():
    image, labels = drawn_image(0)
    assert image.shape == (2, 128, 128)
    assert sorted(np.unique(labels)) == [0, 1, 2, 3, 4]
    assert not np.array_equal(image, drawn_image(1)[0])


@pytest.mark.slow
def test_command_writes_the_report_and_fails_with_it(tmp_path, one_process, monkeypatch, capsys):
    monkeypatch.setattr("napari_simmat.engine.device.half_precision_is_faster", lambda: False)
    path = tmp_path / "check.md"
    given = ["check", "--device", "cpu", "--foundation", "tiny", "--strategy", "frozen"]
    assert main([*given, "--output", str(path)]) == 0
    assert "tiny: encode and click, exact" in path.read_text()
    capsys.readouterr()
    monkeypatch.setattr(device_check, "_logged_losses", lambda path: [float("nan")])
    assert main([*given, "--output", str(path)]) == 1
    assert "2 of 6 checks failed" in capsys.readouterr().err
    assert "| train: frozen | FAILED | " in path.read_text()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--foundation", "vit_x"], "There is no foundation 'vit_x'; use tiny, vit_b"),
        (["--device", "cuda:7"], "There is no cuda device here"),
        (["--strategy", "magic"], "magic"),
    ],
)
def test_command_refuses_what_is_not_there(given, words, tmp_path, capsys):
    assert main(["check", "--output", str(tmp_path / "check.md"), *given]) in (1, 2)
    assert words in "".join(capsys.readouterr())
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.shipped_models
def test_two_processes_give_equal_masks():
    assert "their masks are equal" in device_check.check_two_processes("cpu")
