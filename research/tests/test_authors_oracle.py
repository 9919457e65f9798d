"""Parity with the authors' published code, run as it is: set SIMMAT_AUTHORS to a folder with both.

Clone github.com/mt-cly/SimMAT and SimCMF there. Their networks, made small, get random weights and
are saved as their ``train.py`` does.
"""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from napari_simmat.checkpoints.loading import load_model
from research.tests.test_authors import install  # noqa: F401, a fixture
from tests.model_files import import_file
from tests.small_sam import small_sam

CLONES = Path(os.environ.get("SIMMAT_AUTHORS", "nowhere"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CLONES.is_dir(), reason="SIMMAT_AUTHORS names no clones of their code"),
]
NETWORKS = (
    "sam_full_finetune", "sam_linear_probing", "sam_lora", "sam_mlp_adapter", "sam_prompt",
    "sam_prefix",
)  # fmt: skip
LAYERS = {
    "SimMAT": {"simmat": "simmat", "baseline_a": "baseline_a", "baseline_b": "baseline_b"},
    "SimCMF": {
        "simcmf": "simcmf",
        "baseline_a": "baseline_a",
        "baseline_b": "simcmf_b",
        "baseline_c": "baseline_b",
        "baseline_d": "simcmf_d",
        "preconvk3n1d8": "preconvk3n1d3",
        "preconvk5n4d8": "preconvk5n4d8",
        "preattnp16n1d16": "preattnp16n1d16",
    },
}
"""Their `-proj_type` -> our transfer layer."""
THEIR_SIDE = """
import argparse, importlib, sys, types
from functools import partial
import torch
sys.modules["cv2"] = types.ModuleType("cv2")  # utils.py draws with it
import utils
networks, layers, sam, folder = eval(sys.argv[1])
weights = torch.load(sam)
for network in networks:
    kind = "sam_naive" if network in ("sam_full_finetune", "sam_linear_probing") else network
    m = importlib.import_module(f"models.{kind}.modeling")
    for layer in layers:
        torch.manual_seed(len(layer))
        args = argparse.Namespace(uniformInit=False)
        encoder = m.ImageEncoderViT(
            args=args, img_size=160, embed_dim=48, depth=3, num_heads=3, out_chans=32, in_chans=4,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6), use_rel_pos=True, window_size=7,
            global_attn_indexes=[2], proj_type=layer, pretrained_state_dict=weights)
        transformer = m.TwoWayTransformer(depth=2, embedding_dim=32, mlp_dim=64, num_heads=4)
        theirs = m.Sam(args, encoder, m.PromptEncoder(32, (10, 10), (160, 160), 16),
                       m.MaskDecoder(transformer_dim=32, transformer=transformer))
        theirs.load_state_dict(weights, strict=False)
        names = utils.set_trainable_params(theirs, net_name=network)
        with torch.no_grad():
            for name, parameter in theirs.named_parameters():
                if name in names and not name.startswith("prompt_encoder."):
                    parameter.add_(0.05 * torch.randn_like(parameter))
        theirs.eval()
        image = torch.randn(1, 4, 160, 160)
        click = torch.tensor([[[61.0, 34.0]]]), torch.ones(1, 1)
        with torch.no_grad():
            embedding, logits = theirs.image_encoder(image), theirs(image, click)
        state = {k: v for k, v in theirs.state_dict().items() if k in names}
        utils.save_checkpoint({"epoch": 1, "model": network, "state_dict": state, "optimizer": {},
                               "scheduler": {}, "best_iou": 0.5, "path_helper": {}},
                              False, folder, f"{network}-{layer}.pth")
        torch.save([image, embedding, logits], f"{folder}/{network}-{layer}.pt")
"""


@pytest.mark.parametrize("repository", LAYERS)
def test_import_computes_what_the_published_code_does(
    repository,
    install,  # noqa: F811
    tmp_path,
    capsys,
):
    torch.manual_seed(0)
    build = partial(small_sam, global_blocks=(2,))
    sam = build()
    install(sam, build)
    torch.save(sam.state_dict(), tmp_path / "sam.pth")
    given = NETWORKS, list(LAYERS[repository]), str(tmp_path / "sam.pth"), str(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", THEIR_SIDE, repr(given)],
        cwd=CLONES / repository, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": "."},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    click = {"points": torch.tensor([[61.0, 34.0]]), "labels": torch.tensor([1])}
    for network in NETWORKS:
        for theirs, ours in LAYERS[repository].items():
            name = f"{network}-{theirs}"
            image, embedding, logits = torch.load(tmp_path / f"{name}.pt")
            assert import_file(tmp_path / f"{name}.pth", modality="rgbt").spec.transfer == ours
            model = load_model(name).network
            with torch.no_grad():
                encoded = model.encode(image)
                decoded = model.decode(encoded, click).logits[:1]
            pairs = (encoded.embedding, embedding), (decoded, logits[0])
            off = [(one - other).abs().max().item() for one, other in pairs]
            moved = int(((decoded > 0) != (logits[0] > 0)).sum())
            line = f"{repository} {network} {theirs} {off[0]:.0e} {off[1]:.0e} {moved}\n"
            with capsys.disabled():
                sys.stdout.write(line)
            assert max(off) < 1e-4, name
            assert moved < 3, name
