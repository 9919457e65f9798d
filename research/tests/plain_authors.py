"""Files as SimMAT's authors' code writes them, made without the package's own modules.

`AuthorsNetwork` is stock SAM in which every tuned part is written out by hand, head by head; its
parameters have the names that arXiv 2409.08083's public code gives them, which are what the files
hold. `write` saves it as the training loop does, optimizer and all.
"""

import copy
import math
from pathlib import Path

import numpy as np
import torch
from segment_anything.modeling import Sam
from segment_anything.modeling.image_encoder import Block, window_partition, window_unpartition
from torch import Tensor, nn

from tests.small_sam import WIDTH

# What of a network's parameters is in its files: those whose names contain one of these.
KEPT = {
    "sam_full_finetune": ("",),
    "sam_linear_probing": ("patch_embed", "pos_embed"),
    "sam_lora": ("lora",),
    "sam_mlp_adapter": ("Adapter",),
    "sam_prompt": ("prompt",),
    "sam_prefix": ("prefix",),
}
SIZES = {"sam_lora": 5, "sam_mlp_adapter": 7, "sam_prompt": 6, "sam_prefix": 4}


class EncoderAttention(nn.Module):
    def __init__(self, stock: nn.Module, network: str, size: int) -> None:
        super().__init__()
        self.qkv, self.proj, self.heads = stock.qkv, stock.proj, stock.num_heads
        self.rel_pos_h, self.rel_pos_w = stock.rel_pos_h, stock.rel_pos_w
        width = self.proj.in_features
        add_tuning(self, network, size, width, width)

    def forward(self, x: Tensor) -> Tensor:  # (B, H, W, d)
        images, height, width, dim = x.shape
        flat = x.flatten(1, 2)
        q, k, v = self.qkv(flat).split(dim, dim=-1)
        q, v = with_lora(self, q, flat, "q"), with_lora(self, v, flat, "v")
        more_k = more_v = torch.zeros(1, 0, dim)
        if hasattr(self, "deep_prompt_embeddings"):
            _, more_k, more_v = self.qkv(self.deep_prompt_embeddings).split(dim, dim=-1)
        if hasattr(self, "prefix_key_embeddings"):
            more_k, more_v = self.prefix_key_embeddings, self.prefix_value_embeddings
        rows, columns = torch.arange(height), torch.arange(width)
        table_h = self.rel_pos_h[rows[:, None] - rows + height - 1]  # (H, H, c)
        table_w = self.rel_pos_w[columns[:, None] - columns + width - 1]
        part = dim // self.heads
        mixed = []
        for head in range(self.heads):
            at = slice(head * part, (head + 1) * part)
            query = q[..., at]
            grid = query.reshape(images, height, width, part)
            own = (query @ k[..., at].mT / math.sqrt(part)).reshape(
                images, height, width, height, width
            )
            own = own + torch.einsum("bijc,ikc->bijk", grid, table_h)[..., None]
            own = own + torch.einsum("bijc,jlc->bijl", grid, table_w)[..., None, :]
            logits = torch.cat(
                [own.reshape(images, -1, height * width), query @ more_k[..., at].mT / part**0.5],
                dim=-1,
            )
            values = torch.cat([v[..., at], more_v[..., at].expand(images, -1, -1)], dim=1)
            mixed.append(logits.softmax(-1) @ values)
        return self.proj(torch.cat(mixed, dim=-1)).reshape(x.shape)


class DecoderAttention(nn.Module):
    def __init__(self, stock: nn.Module, network: str, size: int) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = stock.q_proj, stock.k_proj, stock.v_proj
        self.out_proj, self.heads = stock.out_proj, stock.num_heads
        add_tuning(self, network, size, stock.embedding_dim, stock.internal_dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # (B, N, d)
        if hasattr(self, "deep_prompt_embeddings"):
            k, v = (
                torch.cat([each, self.deep_prompt_embeddings.repeat(len(each), 1, 1)], dim=1)
                for each in (k, v)
            )
        if hasattr(self, "prefix_key_embeddings"):
            k = torch.cat([k, self.prefix_key_embeddings.repeat(len(k), 1, 1)], dim=1)
            v = torch.cat([v, self.prefix_value_embeddings.repeat(len(v), 1, 1)], dim=1)
        query = with_lora(self, self.q_proj(q), q, "q")
        key = self.k_proj(k)
        value = with_lora(self, self.v_proj(v), v, "v")
        heads = zip(*(each.chunk(self.heads, dim=-1) for each in (query, key, value)), strict=True)
        mixed = [(a @ b.mT / math.sqrt(a.shape[-1])).softmax(-1) @ c for a, b, c in heads]
        return self.out_proj(torch.cat(mixed, dim=-1))


def add_tuning(module: nn.Module, network: str, size: int, width: int, inner: int) -> None:
    if network == "sam_lora":
        for part in "qv":
            setattr(module, f"lora_{part}_a", nn.Linear(width, size, bias=False))
            setattr(module, f"lora_{part}_b", nn.Linear(size, inner, bias=False))
    if network == "sam_prompt":
        module.deep_prompt_embeddings = nn.Parameter(torch.randn(1, size, width))
    if network == "sam_prefix":
        module.prefix_key_embeddings = nn.Parameter(torch.randn(1, size, width))
        module.prefix_value_embeddings = nn.Parameter(torch.randn(1, size, width))


def with_lora(module: nn.Module, projected: Tensor, x: Tensor, part: str) -> Tensor:
    if not hasattr(module, "lora_q_a"):
        return projected
    return projected + getattr(module, f"lora_{part}_b")(getattr(module, f"lora_{part}_a")(x))


class Adapter(nn.Module):
    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.down_proj, self.up_proj = nn.Linear(width, size), nn.Linear(size, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.up_proj(self.down_proj(x).clamp(min=0)) / 10


class EncoderBlock(nn.Module):
    def __init__(self, stock: nn.Module, size: int) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2 = stock.norm1, stock.attn, stock.norm2
        self.mlp, self.window = stock.mlp, stock.window_size
        self.Adapter_mlp = Adapter(WIDTH, size)

    def forward(self, x: Tensor) -> Tensor:  # (B, H, W, d)
        normed = self.norm1(x)
        if self.window:
            windows, padded = window_partition(normed, self.window)
            seen = window_unpartition(self.attn(windows), self.window, padded, x.shape[1:3])
        else:
            seen = self.attn(normed)
        stream = x + seen
        return stream + self.mlp(self.norm2(stream)) + self.Adapter_mlp(stream)


class DecoderBlock(nn.Module):
    def __init__(self, stock: nn.Module, size: int, width: int) -> None:
        super().__init__()
        for name, child in stock.named_children():
            setattr(self, name, child)
        self.first = stock.skip_first_layer_pe
        self.Adapter_mlp = Adapter(width, size)

    def forward(
        self, queries: Tensor, keys: Tensor, query_pe: Tensor, key_pe: Tensor
    ) -> tuple[Tensor, Tensor]:
        if self.first:
            t = self.norm1(self.self_attn(queries, queries, queries))
        else:
            placed = queries + query_pe
            t = self.norm1(queries + self.self_attn(placed, placed, queries))
        t = t + self.cross_attn_token_to_image(t + query_pe, keys + key_pe, keys)
        beside = self.Adapter_mlp(t)  # of the sum, before it is normed
        t = self.norm2(t)
        t = self.norm3(t + self.mlp(t) + beside)
        return t, self.norm4(keys + self.cross_attn_image_to_token(keys + key_pe, t + query_pe, t))


class ChannelNorm(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, dim=1, keepdim=True, correction=0)
        return (x - mean) / (variance + 1e-6).sqrt() * self.weight + self.bias


class Projector(nn.Module):
    """The layers of SimMAT and, with other names than there, those of SimCMF."""

    def __init__(self, transfer: str, channels: int, stock: nn.Conv2d) -> None:
        super().__init__()
        width = stock.out_channels
        if transfer == "simmat":
            layers = nn.Conv2d(channels, 64, 3, 1, 1), nn.ReLU(), nn.Conv2d(64, 3, 3, 1, 1)
            self.zip_proj = nn.Sequential(*layers)
        if transfer == "preconvk5n4d8":
            convs = [(channels, 8, 5), (8, 8, 5), (8, 8, 5), (8, 3, 1)]
            first, *others = (nn.Conv2d(*sizes, padding=sizes[-1] // 2) for sizes in convs)
            self.zip_proj = nn.Sequential(
                first, others[0], nn.ReLU(), others[1], nn.ReLU(), others[2]
            )
        if transfer == "preattnp8n2d16":
            blocks = [Block(16, num_heads=8, norm_layer=nn.LayerNorm) for _ in range(2)]
            first, last = nn.Conv2d(channels, 16, 8, 8), nn.Linear(16, 8 * 8 * 3)
            self.zip_proj = nn.Sequential(first, *blocks, last)
        if transfer == "baseline_a":
            self.patch_embedding = nn.Conv2d(channels, width, 16, 16)
        if transfer == "simcmf_b":
            first, last = (
                nn.Conv2d(channels, 4 * channels, 3, padding=1),
                nn.Conv2d(4 * channels, 3, 1, padding=1),
            )
            self.zip_rgbx = nn.Sequential(first, nn.ReLU(), last)
        if transfer in ("baseline_b", "simcmf_d", "simcmf"):
            self.zip_rgbx = nn.Conv2d(channels, 3, 1)
        if transfer in ("baseline_b", "simcmf_b"):
            self.patch_embedding = nn.Conv2d(3, width, 16, 16)
            self.patch_embedding.load_state_dict(stock.state_dict())
        if transfer == "simcmf":
            wide = 4 * channels
            first, last = nn.Conv2d(channels, wide, 3, 1, 1), nn.Conv2d(wide, channels, 3, 1, 1)
            self.moe = nn.Sequential(
                first, ChannelNorm(wide), nn.ReLU(), last, nn.AdaptiveAvgPool2d(1)
            )
            self.group_patch_embedding = nn.ModuleList(
                nn.Conv2d(1, width, 16, 16) for _ in range(channels)
            )
            self.fc = nn.Linear(channels, 1, bias=False)

    def forward(self, image: Tensor, stock: nn.Conv2d) -> Tensor:
        """(B, C, H, W) -> (B, d, h, w)."""
        if hasattr(self, "moe"):
            gate = self.moe(image).sigmoid()
            tokens = stock(self.zip_rgbx(gate * image))
            for share, own, plane in zip(
                self.fc.weight[0], self.group_patch_embedding, ((1 - gate) * image).unbind(1),
                strict=True,
            ):  # fmt: skip
                tokens = tokens + share * own(plane[:, None])
            return tokens
        if hasattr(self, "zip_proj") and isinstance(self.zip_proj[-1], nn.Linear):
            tokens = self.zip_proj[0](image).permute(0, 2, 3, 1)
            for layer in self.zip_proj[1:]:
                tokens = layer(tokens)
            image = tokens.reshape((*image[:, 0].shape, 3)).permute(0, 3, 1, 2)
        elif hasattr(self, "zip_proj"):
            image = self.zip_proj(image)
        elif hasattr(self, "zip_rgbx"):
            image = self.zip_rgbx(image)
        return getattr(self, "patch_embedding", stock)(image)


class AuthorsNetwork(nn.Module):
    """One of the authors' networks on weights of SAM, with what is trained at random numbers.

    `kept` are the names of the parameters that are in its files.
    """

    def __init__(
        self, sam: Sam, network: str, transfer: str, channels: int, size: int | None = None
    ) -> None:
        super().__init__()
        sam = copy.deepcopy(sam)
        size = SIZES.get(network, 0) if size is None else size
        self.network, self.transfer = network, transfer
        self.image_encoder, self.prompt_encoder = sam.image_encoder, sam.prompt_encoder
        self.mask_decoder = sam.mask_decoder
        encoder, transformer = self.image_encoder, self.mask_decoder.transformer
        if transfer != "zeroshot":
            encoder.projector = Projector(transfer, channels, encoder.patch_embed.proj)
        for index, block in enumerate(encoder.blocks):
            block.attn = EncoderAttention(block.attn, network, size)
            if network == "sam_mlp_adapter":
                encoder.blocks[index] = EncoderBlock(block, size)
        places = [(layer, name) for layer in transformer.layers for name in layer._modules]
        for parent, name in (*places, (transformer, "final_attn_token_to_image")):
            if "attn" in name:
                setattr(parent, name, DecoderAttention(getattr(parent, name), network, size))
        if network == "sam_mlp_adapter":
            for index, layer in enumerate(transformer.layers):
                transformer.layers[index] = DecoderBlock(layer, size, transformer.embedding_dim)
        marks = (*KEPT[self.network], "image_encoder.projector")
        parameters = dict(self.named_parameters())
        self.kept = {name for name in parameters if any(mark in name for mark in marks)}
        with torch.no_grad():
            for name in sorted(self.kept):
                if not name.startswith("prompt_encoder."):
                    parameters[name].add_(0.1 * torch.randn_like(parameters[name]))
        self.eval()

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """Images (1, C, H, W) -> their embedding (1, d, h, w)."""
        encoder = self.image_encoder
        stock = encoder.patch_embed.proj
        projector = getattr(encoder, "projector", None)
        tokens = stock(image) if projector is None else projector(image, stock)
        tokens = tokens.permute(0, 2, 3, 1)
        tokens = tokens + encoder.pos_embed
        for block in encoder.blocks:
            tokens = block(tokens)
        return encoder.neck(tokens.permute(0, 3, 1, 2))

    @torch.no_grad()
    def decode(self, embedding: Tensor, x: float, y: float) -> Tensor:
        """Logits (1, 1, h, w) of the single mask for a click."""
        click = torch.tensor([[[x, y]]]), torch.ones(1, 1)
        sparse, dense = self.prompt_encoder(points=click, boxes=None, masks=None)
        masks, _ = self.mask_decoder(
            image_embeddings=embedding,
            image_pe=self.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        return masks

    def forward(self, image: Tensor, x: float, y: float) -> Tensor:
        """Logits (1, 1, h, w) of the single mask for a click on images (1, C, H, W)."""
        return self.decode(self.encode(image), x, y)

    def content(self, **changes: object) -> dict[str, object]:
        """What a file holds after a few epochs; entries can be replaced."""
        optimizer = torch.optim.Adam(self.parameters(), lr=3e-4)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=10, gamma=0.5)
        for name, parameter in self.named_parameters():
            parameter.grad = torch.zeros_like(parameter) if name in self.kept else None
        optimizer.step()  # no gradient, no change, but a state to save
        scheduler.step()
        state = {name: each for name, each in self.state_dict().items() if name in self.kept}
        return {
            "epoch": 46,
            "model": self.network,
            "state_dict": state,
            "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
            "best_iou": np.float64(0.5388),
            "path_helper": {"prefix": "logs/a", "ckpt_path": "logs/a/Model", "log_path": "logs/a"},
            **changes,
        }

    def write(self, path: Path, **changes: object) -> Path:
        """Save a file as the authors' code does."""
        torch.save(self.content(**changes), path)
        return path
