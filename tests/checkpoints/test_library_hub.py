"""Models on the Hugging Face Hub, checked against a stand-in for it."""

import sys
from dataclasses import replace

import pytest

from napari_simmat.checkpoints.checkpoint import read_spec, read_tensors, save_checkpoint
from napari_simmat.checkpoints.library import NEEDS_LIBRARY, fetch_job, model_card, push_job
from napari_simmat.checkpoints.registry import find_model
from napari_simmat.cli import main
from napari_simmat.io.files import user_folder
from napari_simmat.progress import finish
from tests.checkpoints.hub_server import Hub, running_hub

huggingface_hub = pytest.importorskip("huggingface_hub")
constants = pytest.importorskip("huggingface_hub.constants")
# Of its own HTTP library.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
THERMAL = find_model("thermal")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with running_hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        monkeypatch.setenv("HF_TOKEN", "of-the-test")
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
        server.token = "of-the-test"
        yield server


def hosted(hub: Hub, **files: bytes) -> str:
    hub.repositories["lab/camera"] = {f"{name}.safetensors": data for name, data in files.items()}
    return "hf:lab/camera"


def test_push_and_fetch_give_the_same_file_with_its_card(hub, capsys):
    assert main(["models", "push", "thermal", "hf:lab/camera", "--private"]) == 0
    assert f"{hub.address}/lab/camera/commit/" in capsys.readouterr().out
    assert hub.private == {"lab/camera": True}
    files = hub.repositories["lab/camera"]
    assert list(files) == ["thermal.safetensors", "README.md"]
    assert files["thermal.safetensors"] == THERMAL.path.read_bytes()
    assert main(["models", "fetch", "hf:lab/camera", "--name", "from-the-lab"]) == 0
    fetched = find_model("from-the-lab")
    assert fetched.path == user_folder("models") / "from-the-lab.safetensors"
    assert fetched.path.read_bytes() == THERMAL.path.read_bytes()
    assert [path.name for path in user_folder("models").iterdir()] == ["from-the-lab.safetensors"]


def test_card_has_the_hubs_metadata_and_the_description():
    spec = replace(read_spec(THERMAL.path), license="CC-BY-4.0", author="A | *B*")
    spec = replace(spec, base=replace(spec.base, name="vit_b"))
    text = model_card(spec, "lab/camera", "thermal.safetensors")
    card = huggingface_hub.ModelCard(text)
    assert card.data.license == "cc-by-4.0"
    assert card.data.base_model == "facebook/sam-vit-base"
    assert card.data.pipeline_tag == "mask-generation"
    assert card.data.library_name == "napari-simmat"
    assert {"napari", "simmat"} <= set(card.data.tags)
    assert "simmat models fetch hf:lab/camera" in text
    assert spec.base.sha256 in text
    assert r"- Author: A \| \*B\*" in text
    assert f"| {spec.channels[0].name} |" in text
    other = huggingface_hub.ModelCard(model_card(replace(spec, license="Mine: 1"), "a/b", "c"))
    assert (other.data.license, other.data.license_name) == ("other", "Mine: 1")


def refused(address: str, kind: type[Exception], sentence: str) -> None:
    with pytest.raises(kind, match=sentence):
        finish(fetch_job(address))
    assert not user_folder("models").exists() or not list(user_folder("models").iterdir())


def test_fetch_of_another_checksum_keeps_nothing(hub):
    address = hosted(hub, a=THERMAL.path.read_bytes())
    hub.wrong_checksum = True
    refused(address, ValueError, r"^a\.safetensors of lab/camera has another checksum")


def test_fetch_of_no_model_is_refused_as_a_file_is(hub, tmp_path):
    refused(hosted(hub, a=b"\x80\x04pickle"), ValueError, "can run code when it is opened, so it")
    cut = THERMAL.path.read_bytes()[:-1000]
    refused(hosted(hub, a=cut), ValueError, "is cut off or damaged")
    spec, tensors = read_spec(THERMAL.path), read_tensors(THERMAL.path)
    [name, *_] = tensors
    tensors["intruder"] = tensors.pop(name)
    save_checkpoint(tmp_path / "x.safetensors", spec, tensors)
    refused(
        hosted(hub, a=(tmp_path / "x.safetensors").read_bytes()), ValueError, "intruder|tensors"
    )


def test_fetch_of_several_models_is_refused(hub):
    refused(hosted(hub), ValueError, r"holds 0 safetensors files \(none\)")
    refused(hosted(hub, a=b"", b=b""), ValueError, r"holds 2 safetensors files \(a\.s.*, b\.s")
    outside = {"../../a": b"", "folder/b": b""}
    refused(hosted(hub, **outside), ValueError, r"holds 0 safetensors files \(none\)")


def test_fetch_of_a_taken_name_is_refused(hub):
    address = hosted(hub, thermal=THERMAL.path.read_bytes())
    refused(address, ValueError, "thermal is the name of a built-in model")


def test_fetch_turns_errors_of_the_hub_into_a_sentence(hub, monkeypatch):
    refused("hf:lab/nothing", OSError, "^There is no repository lab/nothing on the Hugging Face")
    refused("hf:nothing", ValueError, "^hf:nothing is no address on the Hugging Face Hub; write hf")
    monkeypatch.setenv("HF_TOKEN", "another")
    with pytest.raises(OSError, match=r"^The Hugging Face Hub does not let you use lab/camera"):
        finish(push_job("thermal", "hf:lab/camera"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    refused("hf:lab/camera", OSError, r"^The Hugging Face Hub (cannot be reached|did not answer)")


def test_push_of_a_published_foundation_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.zeros(1)}, tmp_path / "sam.pth")
    with pytest.raises(ValueError, match="share what you trained on it"):
        finish(push_job(tmp_path / "sam.pth", "hf:lab/camera"))


def test_hub_without_its_library_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for job in (push_job("thermal", "hf:a/b"), fetch_job("hf:a/b")):
        with pytest.raises(ValueError, match="needs the package huggingface_hub") as missing:
            finish(job)
        assert str(missing.value) == NEEDS_LIBRARY
