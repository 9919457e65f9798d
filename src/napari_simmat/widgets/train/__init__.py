"""The Train tab: images, settings, the training in its own process, its course."""
