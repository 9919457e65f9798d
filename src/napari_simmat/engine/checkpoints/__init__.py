"""Models on disk: checkpoints, SAM's weights, the authors' files, and the zoo over them all."""
