"""Models on disk: checkpoints, SAM's weights, the authors' files, and the list of all models."""
