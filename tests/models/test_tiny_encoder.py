import torch

from napari_simmat.models.tiny_encoder import TokenAttention


@torch.no_grad()
def test_token_attention_of_many_tokens_spans_each_block():
    torch.manual_seed(0)
    attention = TokenAttention(12, 2, qkv_bias=True)
    tokens = torch.randn(1, 70, 40, 12)
    output = attention(tokens)
    for rows, near_rows in (((0, 16), (0, 32)), ((32, 48), (24, 56)), ((64, 70), (38, 70))):
        for columns, near_columns in (((0, 16), (0, 32)), ((32, 40), (8, 40))):
            near = tokens[:, slice(*near_rows), slice(*near_columns)]
            top, left = near_rows[0], near_columns[0]
            here = attention(near)[
                :, rows[0] - top : rows[1] - top, columns[0] - left : columns[1] - left
            ]
            assert torch.allclose(output[:, slice(*rows), slice(*columns)], here, atol=1e-5)
