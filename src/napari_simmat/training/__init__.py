"""Train modality checkpoints and pretrain the embedded foundation."""
