"""micro-sam's decoder with random weights, for tests."""

import torch

from napari_simmat.models.instance_decoder import InstanceDecoder


def random_decoder(transposed: bool = False) -> InstanceDecoder:
    """A decoder in evaluation mode; equal each time, and no layer leaves its input as it is."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        decoder = InstanceDecoder(transposed)
        for name, values in decoder.named_buffers():
            if name.endswith("running_mean"):
                values.normal_()
            elif name.endswith("running_var"):
                values.uniform_(0.5, 2)
    return decoder.eval()
