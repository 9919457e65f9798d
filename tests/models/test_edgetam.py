"""EdgeTAM against the model of `transformers`, and what of it can be tuned."""

from typing import Any

import pytest
import torch

from napari_simmat.checkpoints.sam2_names import renamed_sam2
from napari_simmat.models import edgetam, hiera_encoder
from napari_simmat.models.edgetam import NEEDS_TIMM, build_edgetam
from napari_simmat.models.tuning import STRATEGIES, architecture_of, build_network, tune
from tests.models.test_sam2 import PROMPTS
from tests.sam2_models import SIDE, library_masks, with_random_numbers

pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")
TUNES = [name for name, row in STRATEGIES.items() if not row.needs_attention]


def library_model(kind: str = "EdgeTam") -> Any:
    """The library's EdgeTAM on small images; its own default builds another trunk."""
    trunk = transformers.TimmWrapperConfig(
        architecture=edgetam.TRUNK,
        model_args={"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]},
    )
    vision = transformers.EdgeTamVisionConfig(
        backbone_config=trunk, backbone_feature_sizes=[[SIDE // n] * 2 for n in (4, 8, 16)]
    )
    config = getattr(transformers, f"{kind}Config")(
        vision_config=vision, prompt_encoder_config={"image_size": SIDE}
    )
    return getattr(transformers, f"{kind}Model")(config)


@pytest.fixture(scope="module")
def pair():
    """The same random numbers twice: in the library's model and in ours."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(hiera_encoder, "SIDE", SIDE)
        library = with_random_numbers(library_model()).eval()
        ours = build_edgetam(initialize=False)
        ours.load_state_dict(renamed_sam2(library.state_dict()), strict=True, assign=True)
        ours.requires_grad_(False)
        yield library, ours


@pytest.fixture(scope="module")
def image():
    torch.manual_seed(3)
    return torch.randn(1, 3, SIDE, SIDE)


@torch.no_grad()
def test_embedding_and_masks_equal_those_of_the_library(pair, image):
    library, ours = pair
    encoded = ours.encode(image)
    *finer, coarse = library.get_image_embeddings(image)
    assert encoded.embedding.std() > 0
    torch.testing.assert_close(encoded.embedding, coarse, rtol=1e-3, atol=1e-4)
    for mine, theirs in zip((encoded.maps["s0"], encoded.maps["s1"]), finer, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)
    for prompt in PROMPTS.values():
        expected, iou = library_masks(library, encoded, prompt)
        decoded = ours.decode(encoded, prompt)
        assert (decoded.logits - expected).abs().max() < 1e-2 * expected.std()
        torch.testing.assert_close(decoded.predicted_iou, iou, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["EdgeTam", "EdgeTamVideo"])
def test_files_of_the_hub_load_strictly(kind, pair):
    state = renamed_sam2(library_model(kind).state_dict())
    assert set(state) == set(pair[1].state_dict()), "what its memory is made of is left out"
    assert architecture_of(state) == "edgetam"


def test_names_of_metas_file_are_known(pair):
    """Of each part a tensor; ``pytest.mark.slow`` tests have no file of Meta's either."""
    known = set(pair[1].state_dict())
    names = {
        "image_encoder.trunk.body.stem.conv1.c.weight": True,
        "image_encoder.trunk.body.stages_3.blocks.0.token_mixer.conv1.bn.running_mean": True,
        "image_encoder.neck.convs.0.conv.weight": True,
        "no_mem_embed": True,
        "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix": True,
        "sam_mask_decoder.transformer.layers.0.mlp.layers.0.weight": True,
        "sam_mask_decoder.pred_obj_score_head.layers.2.bias": True,
        "spatial_perceiver.latents": False,
        "memory_attention.layers.1.cross_attn_image.q_proj.weight": False,
        "memory_encoder.mask_downsampler.encoder.12.weight": False,
        "obj_ptr_proj.layers.0.weight": False,
        "maskmem_tpos_enc": False,
        "no_mem_pos_enc": False,
        "no_obj_ptr": False,
        "no_obj_embed_spatial": False,
        "mask_downsample.weight": False,
    }
    renamed = renamed_sam2(dict.fromkeys(names, torch.zeros(1)))
    assert len(renamed) == sum(names.values())
    assert set(renamed) <= known


@pytest.mark.parametrize("strategy", TUNES)
def test_edgetam_trains_each_strategy_that_fits(strategy, monkeypatch):
    monkeypatch.setattr(hiera_encoder, "SIDE", 64)
    network = build_network("edgetam", channels=5, transfer="simmat", strategy=strategy)
    network.train()
    encoded = network.with_decoder_maps(network.features(torch.randn(1, 5, 64, 64)))
    points, labels = torch.tensor([[[20.0, 30.0]]]), torch.ones(1, 1, dtype=torch.long)
    logits, quality = network.decode_batch(encoded, points, labels)
    (logits.mean() + quality.mean()).backward()
    trained = {name: each for name, each in network.named_parameters() if each.requires_grad}
    assert any(each.grad is not None and each.grad.any() for each in trained.values())
    moving = [each for each in network.image_encoder.modules() if hasattr(each, "running_mean")]
    assert moving
    assert not any(each.training for each in moving), "statistics stay those of the base"


@pytest.mark.parametrize("strategy", sorted(set(STRATEGIES) - set(TUNES)))
def test_strategies_of_attention_are_refused(strategy, monkeypatch):
    monkeypatch.setattr(hiera_encoder, "SIDE", 64)
    network = build_network("edgetam")
    message = f"no attention, which strategy {strategy} would change; use one of frozen, decoder"
    with pytest.raises(ValueError, match=message):
        tune(network, strategy)


def test_missing_timm_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(ValueError, match="EdgeTAM needs the package timm") as refused:
        build_edgetam()
    assert str(refused.value) == NEEDS_TIMM
