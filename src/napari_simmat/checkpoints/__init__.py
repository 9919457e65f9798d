"""Models on disk: checkpoints, SAM's weights, the SimMAT authors' files, and the library of them all."""
