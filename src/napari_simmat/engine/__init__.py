"""Image and prompt to mask: files, channels, coordinates, embeddings, models on disk."""
