"""SAM 3's files: the Hub's safetensors and Meta's ``.pt`` are the same network."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from napari_simmat.checkpoints.catalog import ON_REQUEST
from napari_simmat.checkpoints.checkpoint import save_checkpoint
from napari_simmat.checkpoints.library import remove
from napari_simmat.checkpoints.loading import load_model
from napari_simmat.checkpoints.registry import find_model, own_models
from napari_simmat.checkpoints.sam3_names import renamed_sam3
from napari_simmat.checkpoints.sam_weights import fetch_job
from napari_simmat.engine.predictor import Predictor
from napari_simmat.models.tuning import build_network
from napari_simmat.progress import finish
from tests.model_files import import_file
from tests.sam3_models import SIDE, write_vocabulary

pytest.importorskip("transformers")

TRUNK = "detector.backbone.vision_backbone.trunk."
TEXT = "detector.backbone.language_backbone.encoder."
LAYERS = "text_encoder.text_model.encoder.layers."
# As in ``sam3.pt``; each rule of the table changes one of them at least.
PUBLISHED = {
    TRUNK + "pos_embed": (1, 577, 1024),
    TRUNK + "patch_embed.proj.weight": (1024, 3, 14, 14),
    TRUNK + "ln_pre.weight": (1024,),
    TRUNK + "blocks.31.norm2.weight": (1024,),
    TRUNK + "blocks.31.attn.qkv.weight": (3072, 1024),
    TRUNK + "blocks.31.attn.proj.bias": (1024,),
    TRUNK + "blocks.31.mlp.fc1.weight": (4736, 1024),
    "detector.backbone.vision_backbone.sam2_convs.0.dconv_2x2_0.weight": (1024, 512, 2, 2),
    "detector.backbone.vision_backbone.sam2_convs.0.dconv_2x2_1.weight": (512, 256, 2, 2),
    "detector.backbone.vision_backbone.sam2_convs.1.dconv_2x2.weight": (1024, 512, 2, 2),
    "detector.backbone.vision_backbone.convs.2.conv_1x1.weight": (256, 1024, 1, 1),
    "detector.backbone.vision_backbone.convs.2.conv_3x3.weight": (256, 256, 3, 3),
    "detector.backbone.language_backbone.resizer.weight": (256, 1024),
    TEXT + "positional_embedding": (32, 1024),
    TEXT + "text_projection": (1024, 512),
    TEXT + "token_embedding.weight": (49408, 1024),
    TEXT + "ln_final.weight": (1024,),
    TEXT + "transformer.resblocks.23.attn.out_proj.weight": (1024, 1024),
    TEXT + "transformer.resblocks.23.ln_2.weight": (1024,),
    TEXT + "transformer.resblocks.23.mlp.c_fc.weight": (4096, 1024),
    TEXT + "transformer.resblocks.23.mlp.c_proj.weight": (1024, 4096),
    "detector.geometry_encoder.label_embed.weight": (2, 256),
    "detector.geometry_encoder.boxes_pool_project.weight": (256, 256, 7, 7),
    "detector.geometry_encoder.norm.weight": (256,),
    "detector.geometry_encoder.img_pre_norm.weight": (256,),
    "detector.geometry_encoder.encode_norm.weight": (256,),
    "detector.geometry_encoder.encode.2.self_attn.out_proj.weight": (256, 256),
    "detector.geometry_encoder.encode.2.cross_attn_image.out_proj.bias": (256,),
    "detector.geometry_encoder.encode.2.linear2.weight": (256, 2048),
    "detector.geometry_encoder.encode.2.norm3.weight": (256,),
    "detector.transformer.encoder.layers.5.cross_attn_image.out_proj.weight": (256, 256),
    "detector.transformer.encoder.layers.5.linear1.weight": (2048, 256),
    "detector.transformer.encoder.layers.5.norm1.weight": (256,),
    "detector.transformer.decoder.layers.5.cross_attn.out_proj.weight": (256, 256),
    "detector.transformer.decoder.layers.5.ca_text.out_proj.weight": (256, 256),
    "detector.transformer.decoder.layers.5.norm1.weight": (256,),
    "detector.transformer.decoder.layers.5.catext_norm.weight": (256,),
    "detector.transformer.decoder.layers.5.norm2.weight": (256,),
    "detector.transformer.decoder.layers.5.norm3.weight": (256,),
    "detector.transformer.decoder.layers.5.linear1.weight": (2048, 256),
    "detector.transformer.decoder.norm.weight": (256,),
    "detector.transformer.decoder.bbox_embed.layers.2.weight": (4, 256),
    "detector.transformer.decoder.query_embed.weight": (200, 256),
    "detector.transformer.decoder.boxRPB_embed_x.layers.1.weight": (8, 256),
    "detector.transformer.decoder.presence_token_head.layers.2.weight": (1, 256),
    "detector.transformer.decoder.presence_token_out_norm.weight": (256,),
    "detector.transformer.decoder.ref_point_head.layers.0.weight": (256, 512),
    "detector.segmentation_head.pixel_decoder.conv_layers.2.weight": (256, 256, 3, 3),
    "detector.segmentation_head.mask_predictor.mask_embed.layers.2.weight": (256, 256),
    "detector.segmentation_head.cross_attend_prompt.out_proj.weight": (256, 256),
    "detector.segmentation_head.cross_attn_norm.weight": (256,),
    "detector.segmentation_head.semantic_seg_head.weight": (1, 256, 1, 1),
    "detector.segmentation_head.instance_seg_head.weight": (256, 256, 1, 1),
    "detector.dot_prod_scoring.prompt_mlp.layers.0.weight": (2048, 256),
    "detector.dot_prod_scoring.prompt_mlp.out_norm.weight": (256,),
    "detector.dot_prod_scoring.prompt_proj.weight": (256, 256),
    "detector.dot_prod_scoring.hs_proj.weight": (256, 256),
    "tracker.maskmem_tpos_enc": (7, 1, 1, 64),
    "tracker.no_mem_embed": (1, 1, 256),
    "tracker.mask_downsample.weight": (1, 1, 4, 4),
    "tracker.transformer.encoder.layers.3.cross_attn_image.k_proj.weight": (256, 64),
    "tracker.transformer.encoder.layers.3.norm3.weight": (256,),
    "tracker.transformer.encoder.norm.weight": (256,),
    "tracker.maskmem_backbone.mask_downsampler.encoder.3.weight": (16, 4, 3, 3),
    "tracker.maskmem_backbone.fuser.layers.1.gamma": (256,),
    "tracker.maskmem_backbone.out_proj.weight": (64, 256, 1, 1),
    "tracker.sam_prompt_encoder.point_embeddings.3.weight": (1, 256),
    "tracker.sam_mask_decoder.transformer.layers.1.mlp.layers.1.weight": (256, 2048),
    "tracker.sam_mask_decoder.conv_s1.weight": (64, 256, 1, 1),
    "tracker.obj_ptr_proj.layers.1.weight": (256, 256),
    "tracker.obj_ptr_tpos_proj.weight": (64, 256),
}
LEFT_OUT = (
    TRUNK + "blocks.31.attn.freqs_cis",
    "detector.backbone.vision_backbone.convs.3.conv_1x1.weight",
    "detector.backbone.vision_backbone.sam2_convs.3.conv_3x3.bias",
    "detector.geometry_encoder.points_pool_project.weight",
)


@pytest.fixture(scope="module")
def whole_state():
    return build_network("sam3", initialize=False).state_dict()


def test_metas_names_become_those_of_sam3(whole_state):
    tensors = {name: torch.empty(shape, device="meta") for name, shape in PUBLISHED.items()}
    found = renamed_sam3(tensors | {name: torch.empty(2, device="meta") for name in LEFT_OUT})
    assert len(found) == len(PUBLISHED)
    for name, each in found.items():
        assert whole_state[name].shape == each.shape, name


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        (TEXT + "transformer.resblocks.0.attn.", LAYERS + "0.self_attn."),
        ("detector.geometry_encoder.encode.0.self_attn.", "geometry_encoder.layers.0.self_attn."),
        ("detector.transformer.encoder.layers.0.self_attn.", "detr_encoder.layers.0.self_attn."),
        ("detector.transformer.decoder.layers.0.self_attn.", "detr_decoder.layers.0.self_attn."),
        ("detector.segmentation_head.cross_attend_prompt.", "mask_decoder.prompt_cross_attn."),
    ],
)
def test_metas_joint_projections_are_divided(name, stem, whole_state):
    marker = {TRUNK + "ln_pre.bias": torch.zeros(1024)}
    found = renamed_sam3(marker | {name + "in_proj_bias": torch.arange(6)})
    parts = [found[f"words.detector.{stem}{part}_proj.bias"].tolist() for part in "qkv"]
    assert parts == [[0, 1], [2, 3], [4, 5]]
    assert f"words.detector.{stem}v_proj.bias" in whole_state


def test_table_of_positions_loses_that_of_no_place():
    found = renamed_sam3({TRUNK + "pos_embed": torch.arange(5.0).view(1, 5, 1)})
    assert found["image_encoder.pos_embed"].flatten().tolist() == [1, 2, 3, 4]


@pytest.mark.slow
def test_file_of_the_hub_is_a_foundation_on_request(sam3_hub_file, sam3_trio, user_folder):
    entry = import_file(sam3_hub_file, "sam3")
    assert (entry.kind, entry.is_base, entry.problem) == ("own", True, None)
    assert entry.spec.base.architecture == "sam3"  # known before it is loaded
    assert entry.path == user_folder / "bases" / "sam3.safetensors"
    model = load_model("sam3")
    assert "Segment Anything 3" in model.spec.description
    assert model.spec.license == "SAM License"
    assert (model.spec.input_size.method, model.spec.mask_choice) == ("stretch", "stock")
    for name, each in sam3_trio.ours.state_dict().items():
        assert torch.equal(model.network.state_dict()[name], each)


def test_vocabulary_comes_and_goes_with_its_foundation(sam3_hub_file, user_folder):
    import_file(sam3_hub_file, "mute")
    with pytest.raises(ValueError, match=r"mute cannot read words.* as .*mute\.tokenizer\.json"):
        _ = load_model("mute").vocabulary_file
    write_vocabulary(sam3_hub_file.with_name("tokenizer.json"))
    import_file(sam3_hub_file, "sam3")
    kept = user_folder / "bases" / "sam3.tokenizer.json"
    assert load_model("sam3").vocabulary_file == kept
    assert load_model(sam3_hub_file).vocabulary_file.name == "tokenizer.json"
    assert {each.name for each in own_models()} == {"mute", "sam3"}
    remove("sam3")
    assert not kept.exists()


def test_metas_file_is_read_without_its_complex_numbers(sam3_trio, tmp_path, small_sam3):
    """The names of the image encoder are Meta's; others are missed, which is said."""
    encoder = sam3_trio.ours.image_encoder
    held = {
        TRUNK + "blocks.0.attn.qkv.weight": encoder.blocks[0].attn.qkv.weight,
        TRUNK + "blocks.0.attn.freqs_cis": torch.zeros(4, 4, dtype=torch.complex64),
    }
    path = tmp_path / "sam3.pt"
    torch.save({"model": held, "epoch": 3}, path)
    with pytest.raises(ValueError, match=r"sam3\.pt .*encoder width 0, 1 blocks"):
        load_model(path)
    held[TRUNK + "patch_embed.proj.weight"] = encoder.patch_embed.projection.weight
    torch.save({"model": held}, path)
    with pytest.raises(ValueError, match=r"it lacks .*no_mem_embed"):
        load_model(path)


def test_its_masks_are_those_of_the_network(sam3_hub_file, sam3_trio):
    """A cell of the masks has 3.5 pixels of the input; the image is as large as the input."""
    image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    predictor = Predictor(load_model(sam3_hub_file), "cpu", "exact")
    predictor.set_image(image, channel_axis=-1)
    found = predictor.predict(points=[(44, 33)], labels=[1])
    ours = sam3_trio.ours
    with torch.no_grad():
        encoded = ours.encode((torch.from_numpy(image).float() / 127.5 - 1).permute(2, 0, 1)[None])
        click = {"points": torch.tensor([[33.0, 44.0]]), "labels": torch.tensor([1])}
        expected = ours.decode(encoded, click)
    best = 1 + int(expected.predicted_iou[1:].argmax())
    assert np.abs(found.logits - expected.logits[best].numpy()).max() < 1e-3
    enlarged = torch.nn.functional.interpolate(
        expected.logits[None, best : best + 1], (SIDE, SIDE), mode="bilinear"
    )
    assert np.mean(found.mask == (enlarged[0, 0].numpy() > 0)) > 0.999
    refined = predictor.predict(points=[(44, 33)], labels=[1], mask=found.logits)
    drawn = predictor.predict(mask=found.mask)
    assert refined.mask.shape == drawn.mask.shape == (SIDE, SIDE)


def test_checkpoint_stands_on_sam3_under_its_license(sam3_hub_file, tmp_path, user_folder):
    import_file(sam3_hub_file, "sam3")
    base = load_model("sam3").spec
    torch.manual_seed(0)
    network = build_network("sam3", channels=5, transfer="simmat", strategy="lora", size=2)
    names = [name for name, each in network.named_parameters() if each.requires_grad]
    state = network.state_dict()
    channels = tuple(
        replace(base.channels[0], name=f"band {n}", mean=100.0, std=50.0) for n in range(5)
    )
    spec = replace(
        base, name="five", channels=channels, transfer="simmat", strategy="lora", strategy_size=2
    )
    path = tmp_path / "five.safetensors"
    save_checkpoint(path, spec, {name: state[name] for name in names})
    predictor = Predictor(load_model(path), "cpu", "exact")
    predictor.set_image(np.random.default_rng(0).random((5, 64, 80)), channel_axis=0)
    assert predictor.predict(box=(10, 10, 40, 40)).mask.shape == (64, 80)
    assert base.base.binding_license == "SAM License"


@pytest.mark.parametrize("part", ["tracker", "detector"])
def test_part_of_sam3_alone_is_refused(part, sam3_trio, tmp_path):
    state = getattr(sam3_trio, part).state_dict()
    path = tmp_path / "part.safetensors"
    save_file({name: each.clone() for name, each in state.items()}, path, {"format": "pt"})
    with pytest.raises(ValueError, match=r"part\.safetensors .*one part of SAM 3 alone"):
        load_model(path)


def test_file_of_sam3_that_lacks_a_tensor_is_refused(sam3_trio, tmp_path, small_sam3):
    plain = sam3_trio.hub_file()
    del plain["detector_model.vision_encoder.backbone.layers.1.attention.k_proj.weight"]
    path = tmp_path / "half.safetensors"
    save_file(plain, path, {"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks image_encoder\.blocks\.1\.attn\.qkv\.weight"):
        load_model(path)


def test_sam3_says_how_to_ask_for_it(user_folder):
    for asked in (lambda: finish(fetch_job("sam3")), lambda: find_model("sam3")):
        with pytest.raises(ValueError, match=r"accept its terms.*simmat models import"):
            asked()
    assert "SAM License" in ON_REQUEST["sam3"]
