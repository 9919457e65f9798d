"""`tiny` written out plainly from its tensors: the oracle of the network's own code.

No class of the network is used; every step is spelled out with torch's basic operations, one
prompt at a time.
"""

import math

import torch
from torch.nn import functional as F


def conv(w, name, x, **how):
    return F.conv2d(x, w[name + ".weight"], w[name + ".bias"], **how)


def channel_norm(w, name, x):
    mean = x.mean(1, keepdim=True)
    variance = (x - mean).square().mean(1, keepdim=True)
    shape = (1, -1, 1, 1)
    scaled = (x - mean) / (variance + 1e-6).sqrt()
    return scaled * w[name + ".weight"].view(shape) + w[name + ".bias"].view(shape)


def layer_norm(w, name, x, eps=1e-6):
    mean = x.mean(-1, keepdim=True)
    variance = (x - mean).square().mean(-1, keepdim=True)
    return (x - mean) / (variance + eps).sqrt() * w[name + ".weight"] + w[name + ".bias"]


def linear(w, name, x):
    return x @ w[name + ".weight"].T + w[name + ".bias"]


def residual(w, name, x):
    inner = conv(w, name + ".first", channel_norm(w, name + ".norm", x), padding=1).relu()
    return x + w[name + ".gain"] * conv(w, name + ".second", inner, padding=1)


def double(x):
    return x.repeat_interleave(2, -1).repeat_interleave(2, -2)


def local_contrast(w, x):
    """Each map less its mean around a pixel, over the deviation of all maps there."""
    rows, columns = x.shape[-2] // 8, x.shape[-1] // 8

    def around(values):
        cells = values.reshape(*values.shape[:2], rows, 8, columns, 8).mean((3, 5))
        framed = torch.full((*cells.shape[:2], rows + 2, columns + 2), torch.nan)
        framed[..., 1:-1, 1:-1] = cells
        shifted = [framed[..., i : i + rows, j : j + columns] for i in range(3) for j in range(3)]
        return torch.stack(shifted).nanmean(0)

    mean = around(x)
    variance = around(x**2).mean(1, keepdim=True) - (mean**2).mean(1, keepdim=True)
    spread = (variance + 0.03**2).sqrt()
    mean, spread = (F.interpolate(each, x.shape[-2:], mode="bilinear") for each in (mean, spread))
    contrast = ((x - mean) / spread).clamp(-5, 5)
    weight = w["image_encoder.local.mix.weight"][:, :, 0, 0]
    return x + torch.einsum("oc,bchw->bohw", weight, contrast)


def encode(w, image):
    """(1, 3, H, W) -> embedding, stride 4 and 2 maps, dense map."""
    e = "image_encoder."
    two = conv(w, e + "patch_embed.proj", image, stride=2, padding=1)
    if e + "local.mix.weight" in w:
        two = local_contrast(w, two)
    two = conv(w, e + "stage2.1", two.relu(), padding=1).relu()
    four = conv(w, e + "stage4.0", two, stride=2, padding=1)
    for i in (1, 2):
        four = residual(w, f"{e}stage4.{i}", four)
    eight = channel_norm(w, e + "stage8.0", four)
    eight = conv(w, e + "stage8.1", eight, stride=2, padding=1)
    for i in (2, 3, 4):
        eight = residual(w, f"{e}stage8.{i}", eight)
    eight = channel_norm(w, e + "norm8", eight)
    grid = conv(w, e + "to_tokens", eight, stride=2, padding=1)
    grid = grid + conv(w, e + "position", grid, padding=1, groups=grid.shape[1])
    _, width, h, v = grid.shape
    x = grid[0].flatten(1).T  # (hw, d)
    for i in range(sum(name.startswith(e) and name.endswith("norm1.weight") for name in w)):
        b = f"{e}blocks.{i}."
        q, k, value = linear(w, b + "attn.qkv", layer_norm(w, b + "norm1", x)).chunk(3, -1)
        parts, each = [], width // 6
        for head in range(6):
            part = slice(head * each, (head + 1) * each)
            scores = q[:, part] @ k[:, part].T / math.sqrt(each)
            scores = scores * math.log(len(x)) / math.log(256)
            parts.append(scores.softmax(-1) @ value[:, part])
        x = x + linear(w, b + "attn.proj", torch.cat(parts, -1))
        inner = F.gelu(linear(w, b + "mlp.lin1", layer_norm(w, b + "norm2", x)))
        x = x + linear(w, b + "mlp.lin2", inner)
    top = layer_norm(w, e + "norm", x).T.reshape(1, width, h, v)
    top = double(conv(w, e + "top", top))
    fused = (top + conv(w, e + "lateral8", eight)).relu()
    embedding = channel_norm(w, e + "neck.2", conv(w, e + "neck.1", fused, padding=1))
    fine = double(conv(w, e + "down4", embedding))
    fine = (fine + conv(w, e + "lateral4", channel_norm(w, e + "norm4", four))).relu()
    fine = conv(w, e + "fuse4.1", fine, padding=1).relu()
    fine = residual(w, e + "fuse4.3", fine)
    dense = F.pixel_shuffle(conv(w, e + "dense", fine), 2)
    d = "mask_decoder."
    return embedding, conv(w, d + "skip4", fine), conv(w, d + "skip2", two), dense


def prior(dense, points, labels, box, mask):
    """The first guess, (h, w) logits, pixel by pixel where it matters."""
    _, _, h, v = dense.shape
    rows = (torch.arange(h) * 2 + 0.5)[:, None].expand(h, v)
    columns = (torch.arange(v) * 2 + 0.5)[None].expand(h, v)
    size = 16 * dense[0, 4].clamp(-3, 5).exp()
    center_y, center_x = rows + dense[0, 2] * size, columns + dense[0, 3] * size

    def affinity(x, y):
        r = min(max(int((y + 0.5) / 2), 0), h - 1)
        c = min(max(int((x + 0.5) / 2), 0), v - 1)
        gap = (center_y - center_y[r, c]) ** 2 + (center_x - center_x[r, c]) ** 2
        free = (dense[0, 5:13] - dense[0, 5:13, r, c][:, None, None]).square().sum(0)
        scale = (dense[0, 13, r, c] + 1).clamp(-5, 5).exp()
        logits = 2 + dense[0, 14, r, c] - (gap / size[r, c] ** 2 + free) * scale
        return logits.clamp(-10, 10)

    def fits(share, box):
        """How well a guess fills a box: its share inside, and whether it comes near each side."""
        x0, y0, x1, y1 = box
        held = share * (20 * covered(box) - 10).sigmoid()
        tall, wide = max(0.12 * (y1 - y0), 4), max(0.12 * (x1 - x0), 4)
        edges = (rows < y0 + tall, rows > y1 - tall, columns < x0 + wide, columns > x1 - wide)
        reached = sum((held * edge).max() for edge in edges) / 4
        return float(held.sum() / share.sum().clamp(min=1e-6) + reached)

    def covered(box):
        x0, y0, x1, y1 = box
        up = ((rows - y0) / 2 + 0.5).clamp(0, 1) * ((y1 - rows) / 2 + 0.5).clamp(0, 1)
        along = ((columns - x0) / 2 + 0.5).clamp(0, 1) * ((x1 - columns) / 2 + 0.5).clamp(0, 1)
        return up * along

    if mask is not None and not points and box is None:
        guess = mask.clamp(-10, 10)
    else:
        clicks = [p for p, k in zip(points, labels, strict=True) if k == 1]
        others = [p for p, k in zip(points, labels, strict=True) if k == 0]
        if box is not None and not clicks:
            x0, y0, x1, y1 = box
            middle_y, middle_x = (y0 + y1 + 1) / 2, (x0 + x1 + 1) / 2
            tall, wide = max(y1 - y0, 2), max(x1 - x0, 2)
            misfit = ((center_y - middle_y) / (0.35 * tall)) ** 2
            misfit = misfit + ((center_x - middle_x) / (0.35 * wide)) ** 2
            wanted = 0.5 * math.log(0.7 * tall * wide / 256)
            misfit = misfit + 4 * (dense[0, 4] - wanted) ** 2 - F.logsigmoid(dense[0, 1])
            inside = (rows > y0) & (rows < y1) & (columns > x0) & (columns < x1)
            best = int((misfit + 1e4 * ~inside).argmin())
            tried = [(float(columns.flatten()[best]), float(rows.flatten()[best]))]
            parts = (0.125, 0.375, 0.625, 0.875)
            tried += [(x0 + a * (x1 - x0), y0 + b * (y1 - y0)) for a in parts for b in parts]
            clicks = [max(tried, key=lambda at: fits(affinity(*at).sigmoid(), box))]
        guess = torch.zeros(h, v)
        if clicks:
            guess = torch.stack([affinity(*p) for p in clicks]).amax(0)
        if others:
            guess = guess - torch.stack([affinity(*p).clamp(min=0) for p in others]).amax(0)
        if box is not None:
            guess = torch.minimum(guess, 20 * covered(box) - 10)
        guess = guess.clamp(-10, 10)
        if mask is not None:
            guess = (guess + mask.clamp(-10, 10)) / 2
    for (x, y), kind in zip(points, labels, strict=True):
        hill = 4 * torch.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * 4.0**2))
        guess = guess + hill if kind == 1 else guess - hill
    return guess


def position(w, y, x):
    """Encoding of positions in pixels of the image's edges, (..., C)."""
    matrix = w["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"]
    at = 2 * torch.stack([x, y], -1) / 256 - 1
    angle = 2 * math.pi * (at @ matrix)
    return torch.cat([angle.sin(), angle.cos()], -1)


def attend(w, name, q, k, v, heads=8):
    q, k, v = (linear(w, f"{name}.{n}_proj", t) for n, t in (("q", q), ("k", k), ("v", v)))
    each = q.shape[-1] // heads
    parts = []
    for head in range(heads):
        part = slice(head * each, (head + 1) * each)
        scores = q[:, part] @ k[:, part].T / math.sqrt(each)
        parts.append(scores.softmax(-1) @ v[:, part])
    return linear(w, name + ".out_proj", torch.cat(parts, -1))


def mlp(w, name, x, depth=3):
    for i in range(depth):
        x = linear(w, f"{name}.layers.{i}", x)
        x = x.relu() if i < depth - 1 else x
    return x


def decode(w, encoded, points=(), labels=(), box=None, mask=None):
    """Points [(x, y)], box (x0, y0, x1, y1), mask (h, w) logits -> logits (4, h, w), (4,)."""
    embedding, skip4, skip2, dense = encoded
    p, d, t = "prompt_encoder.", "mask_decoder.", "mask_decoder.transformer."
    guess = prior(dense, points, labels, box, mask)

    tokens = []
    for (x, y), kind in zip(points, labels, strict=True):
        here = position(w, torch.tensor(y + 0.5), torch.tensor(x + 0.5))
        tokens.append(here + w[f"{p}point_embeddings.{kind}.weight"][0])
    if box is None:
        tokens.append(w[p + "not_a_point_embed.weight"][0])
    else:
        for corner, (x, y) in enumerate([box[:2], box[2:]]):
            here = position(w, torch.tensor(y + 0.5), torch.tensor(x + 0.5))
            tokens.append(here + w[f"{p}point_embeddings.{2 + corner}.weight"][0])

    m = p + "mask_downscaling."
    x = conv(w, m + "0", guess[None, None] / 5, stride=2)
    x = F.gelu(channel_norm(w, m + "1", x))
    x = F.gelu(channel_norm(w, m + "4", conv(w, m + "3", x, stride=2)))
    source = embedding + conv(w, m + "6", x)

    _, width, h, v = source.shape
    y = ((torch.arange(h) + 0.5) * 8)[:, None].expand(h, v)
    x = ((torch.arange(v) + 0.5) * 8)[None].expand(h, v)
    keys_at = position(w, y, x).reshape(h * v, width)
    keys = source[0].flatten(1).T
    own = torch.cat([w[d + "iou_token.weight"], w[d + "mask_tokens.weight"]])
    at = queries = torch.cat([own, torch.stack(tokens)])
    for i in range(2):
        b = f"{t}layers.{i}."
        if i == 0:
            queries = attend(w, b + "self_attn", queries, queries, queries)
        else:
            moved = queries + at
            queries = queries + attend(w, b + "self_attn", moved, moved, queries)
        queries = layer_norm(w, b + "norm1", queries, 1e-5)
        cross = b + "cross_attn_token_to_image"
        queries = queries + attend(w, cross, queries + at, keys + keys_at, keys)
        queries = layer_norm(w, b + "norm2", queries, 1e-5)
        inner = linear(w, b + "mlp.lin2", linear(w, b + "mlp.lin1", queries).relu())
        queries = layer_norm(w, b + "norm3", queries + inner, 1e-5)
        cross = b + "cross_attn_image_to_token"
        keys = keys + attend(w, cross, keys + keys_at, queries + at, queries)
        keys = layer_norm(w, b + "norm4", keys, 1e-5)
    final = t + "final_attn_token_to_image"
    queries = queries + attend(w, final, queries + at, keys + keys_at, keys)
    queries = layer_norm(w, t + "norm_final_attn", queries, 1e-5)

    grid = keys.T.reshape(1, width, h, v)
    up = d + "output_upscaling."
    grid = F.conv_transpose2d(grid, w[up + "0.weight"], w[up + "0.bias"], stride=2) + skip4
    grid = F.gelu(channel_norm(w, up + "1", grid))
    grid = F.conv_transpose2d(grid, w[up + "3.weight"], w[up + "3.bias"], stride=2) + skip2
    grid = F.gelu(grid)[0]
    logits = []
    for i in range(4):
        weights = mlp(w, f"{d}output_hypernetworks_mlps.{i}", queries[1 + i])
        formed = torch.einsum("c,chw->hw", weights, grid)
        logits.append(formed + w[d + "prior_gain"][i] * guess)
    return torch.stack(logits), mlp(w, d + "iou_prediction_head", queries[0])


def ordered(logits, quality, box, mask):
    """The best mask first: of a box or a mask the best of four, else the single mask."""
    scores = [float(q) for q in quality]
    if box is not None:
        scores = [w + fills(each, box) for w, each in zip(scores, logits, strict=True)]
    best = scores.index(max(scores)) if box is not None or mask is not None else 0
    order = [best, *(i for i in range(4) if i != best)]
    return logits[order], quality[order]


def fuller(first, second, box):
    """Of a box's masks and those with a click in its middle, where the former are poor."""
    (best, filled, sure), (other, *_) = (
        max(
            (float(q) + fills(m, box), fills(m, box), float(q)) for m, q in zip(*masks, strict=True)
        )
        for masks in (first, second)
    )
    return second if (filled < 0.4 or sure < 0.35) and other > best else first


def fills(mask, box):
    """IoU of a mask's bounding box, between the pixels where it ends, with a box."""
    spans = []
    for values in (mask.max(0).values.tolist(), mask.max(1).values.tolist()):
        inside = [i for i, value in enumerate(values) if value > 0]
        if not inside:
            return 0.0
        first, last = inside[0], inside[-1]
        low, high = 2 * first, 2 * (last + 1)
        if first > 0:
            low = 2 * first - 2 * values[first] / (values[first] - values[first - 1]) + 1
        if last < len(values) - 1:
            high = 2 * last + 2 * values[last] / (values[last] - values[last + 1]) + 1
        spans.append((low, high))
    (x0, x1), (y0, y1) = spans
    left, top, right, bottom = (value + 0.5 for value in box)
    common = max(min(x1, right) - max(x0, left), 0) * max(min(y1, bottom) - max(y0, top), 0)
    return common / ((x1 - x0) * (y1 - y0) + (right - left) * (bottom - top) - common)
