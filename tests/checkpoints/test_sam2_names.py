"""SAM 2's files: Meta's ``.pt`` and the Hub's safetensors are the same network."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from napari_simmat.checkpoints.catalog import PREPROCESSING, PUBLISHED_WEIGHTS
from napari_simmat.checkpoints.checkpoint import read_spec, save_checkpoint
from napari_simmat.checkpoints.library import push_job
from napari_simmat.checkpoints.loading import load_model
from napari_simmat.checkpoints.registry import find_model
from napari_simmat.checkpoints.sam2_names import renamed_sam2
from napari_simmat.engine.predictor import Predictor
from napari_simmat.models.tuning import build_network
from napari_simmat.progress import finish
from tests.model_files import import_file
from tests.sam2_models import shrink_sam2

pytest.importorskip("transformers")

# As in ``sam2.1_hiera_tiny.pt``; each rule of the table changes one of them at least.
PUBLISHED = {
    "image_encoder.trunk.pos_embed": (1, 96, 7, 7),
    "image_encoder.trunk.patch_embed.proj.weight": (96, 3, 7, 7),
    "image_encoder.trunk.blocks.3.norm1.weight": (192,),
    "image_encoder.trunk.blocks.3.proj.weight": (384, 192),
    "image_encoder.trunk.blocks.3.attn.qkv.weight": (1152, 192),
    "image_encoder.trunk.blocks.3.mlp.layers.0.weight": (1536, 384),
    "image_encoder.trunk.blocks.3.mlp.layers.1.bias": (384,),
    "image_encoder.neck.convs.0.conv.weight": (256, 768, 1, 1),
    "sam_prompt_encoder.point_embeddings.3.weight": (1, 256),
    "sam_prompt_encoder.mask_downscaling.6.bias": (256,),
    "sam_mask_decoder.transformer.layers.1.mlp.layers.0.weight": (2048, 256),
    "sam_mask_decoder.transformer.layers.1.mlp.layers.1.weight": (256, 2048),
    "sam_mask_decoder.output_hypernetworks_mlps.2.layers.2.weight": (32, 256),
    "sam_mask_decoder.iou_prediction_head.layers.2.weight": (4, 256),
    "sam_mask_decoder.pred_obj_score_head.layers.2.weight": (1, 256),
    "sam_mask_decoder.conv_s1.weight": (64, 256, 1, 1),
    "memory_attention.layers.0.norm3.weight": (256,),
    "memory_attention.layers.0.cross_attn_image.k_proj.weight": (256, 64),
    "memory_attention.layers.0.self_attn.out_proj.weight": (256, 256),
    "memory_attention.norm.bias": (256,),
    "memory_encoder.mask_downsampler.encoder.3.weight": (16, 4, 3, 3),
    "memory_encoder.mask_downsampler.encoder.4.weight": (16,),
    "memory_encoder.mask_downsampler.encoder.12.weight": (256, 256, 1, 1),
    "memory_encoder.pix_feat_proj.weight": (256, 256, 1, 1),
    "memory_encoder.fuser.layers.1.dwconv.weight": (256, 1, 7, 7),
    "memory_encoder.fuser.layers.1.norm.weight": (256,),
    "memory_encoder.fuser.layers.1.pwconv1.weight": (1024, 256),
    "memory_encoder.fuser.layers.1.gamma": (256,),
    "memory_encoder.out_proj.weight": (64, 256, 1, 1),
    "obj_ptr_proj.layers.0.weight": (256, 256),
    "obj_ptr_proj.layers.1.weight": (256, 256),
    "obj_ptr_proj.layers.2.weight": (256, 256),
    "obj_ptr_tpos_proj.weight": (64, 256),
    "mask_downsample.weight": (1, 1, 4, 4),
    "maskmem_tpos_enc": (7, 1, 1, 64),
    "no_mem_embed": (1, 1, 256),
    "no_mem_pos_enc": (1, 1, 256),
    "no_obj_ptr": (1, 256),
    "no_obj_embed_spatial": (1, 64),
}


def test_metas_names_become_ours():
    state = build_network("hiera_tiny", initialize=False).state_dict()
    found = renamed_sam2({name: torch.empty(shape) for name, shape in PUBLISHED.items()})
    assert len(found) == len(PUBLISHED)
    for name, each in found.items():
        assert state[name].shape == each.shape, name


def test_names_of_others_stay():
    state = build_network("vit_b", initialize=False).state_dict()
    assert renamed_sam2(state).keys() == state.keys()


@pytest.fixture
def hub_file(sam2_pair, tmp_path, monkeypatch):
    """A file as on the Hub."""
    shrink_sam2(monkeypatch)
    row = PREPROCESSING["sam2"]
    small = row._replace(input_size=replace(row.input_size, size=256, minimum=256))
    monkeypatch.setitem(PREPROCESSING, "sam2", small)
    path = tmp_path / "model.safetensors"
    plain = {name: each.clone() for name, each in sam2_pair.library.state_dict().items()}
    save_file(plain, path, {"format": "pt"})
    return path


def test_file_of_the_hub_is_a_foundation(hub_file, sam2_pair, user_folder):
    entry = import_file(hub_file, "my_sam2")
    assert (entry.kind, entry.is_base, entry.problem) == ("own", True, None)
    assert entry.path == user_folder / "bases" / "my_sam2.safetensors"
    model = load_model("my_sam2")
    assert model.spec.base.architecture == "hiera_tiny"
    assert "Segment Anything 2.1 (Hiera tiny)" in model.spec.description
    assert (model.spec.input_size.method, model.spec.mask_choice) == ("stretch", "stock")
    for name, each in sam2_pair.ours.state_dict().items():
        assert torch.equal(model.network.state_dict()[name], each)
    with pytest.raises(ValueError, match="foundation that its authors publish"):
        finish(push_job("my_sam2", "hf:me/my-sam2"))


def test_its_masks_are_those_of_the_network(hub_file, sam2_pair):
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    predictor = Predictor(load_model(hub_file), "cpu", "exact")
    predictor.set_image(image, channel_axis=-1)
    found = predictor.predict(points=[(100, 75)], labels=[1])
    mean, std = (
        [each * 255 for each in numbers]
        for numbers in (
            (0.485, 0.456, 0.406),
            (0.229, 0.224, 0.225),  # ImageNet's, as in SAM2Transforms
        )
    )
    standardized = (torch.from_numpy(image).float() - torch.tensor(mean)) / torch.tensor(std)
    ours = sam2_pair.ours
    with torch.no_grad():
        encoded = ours.encode(standardized.permute(2, 0, 1)[None])
        click = {"points": torch.tensor([[75.0, 100.0]]), "labels": torch.tensor([1])}
        expected = ours.decode(encoded, click)
    best = 1 + int(expected.predicted_iou[1:].argmax())
    difference = np.abs(found.logits - expected.logits[best].numpy()).max()
    assert difference < 1e-3
    assert found.score == pytest.approx(float(expected.predicted_iou[best]), rel=1e-4)


def test_checkpoint_stands_on_a_file_of_the_hub(hub_file, tmp_path, user_folder):
    entry = import_file(hub_file, "my_sam2")
    base = load_model("my_sam2")
    torch.manual_seed(0)
    network = build_network("hiera_tiny", channels=5, transfer="simmat", strategy="lora", size=2)
    names = [name for name, each in network.named_parameters() if each.requires_grad]
    state = network.state_dict()
    spec = base.spec
    channels = tuple(
        type(spec.channels[0])(name=f"band {n}", mean=100.0, std=50.0) for n in range(5)
    )
    trained = replace(
        spec, name="five", channels=channels, transfer="simmat", strategy="lora", strategy_size=2
    )
    path = tmp_path / "five.safetensors"
    save_checkpoint(path, trained, {name: state[name] for name in names})
    assert read_spec(path).base.sha256 == spec.base.sha256
    model = load_model(path)
    predictor = Predictor(model, "cpu", "exact")
    predictor.set_image(np.random.default_rng(0).random((5, 64, 80)), channel_axis=0)
    assert predictor.predict(box=(10, 10, 40, 40)).mask.shape == (64, 80)
    assert entry.path is not None
    with entry.path.open("r+b") as file:
        file.truncate(entry.path.stat().st_size - 1000)
    with pytest.raises(ValueError, match=r"cut off or damaged|stands on"):
        load_model(path)


def test_file_that_lacks_a_tensor_is_refused(hub_file, sam2_pair, tmp_path):
    plain = {name: each.clone() for name, each in sam2_pair.library.state_dict().items()}
    del plain["object_pointer_proj.proj_in.weight"]
    path = tmp_path / "half.safetensors"
    save_file(plain, path, {"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks memory\.pointer\.proj_in\.weight"):
        load_model(path)


def test_safetensors_of_something_else_says_what_is_wanted(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(2)}, path, {"format": "pt"})
    assert "without a SimMAT description" in str(find_model(path).problem)


def test_catalog_names_four_sizes_of_sam2():
    rows = [each for each in PUBLISHED_WEIGHTS.values() if each.preprocessing == "sam2"]
    assert [each.architecture for each in rows] == [
        "hiera_tiny",
        "hiera_small",
        "hiera_base_plus",
        "hiera_large",
    ]
    assert all(each.license == "Apache-2.0" and each.size_is_published for each in rows)
