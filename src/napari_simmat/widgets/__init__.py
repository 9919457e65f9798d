"""The window: layers become values, one worker, one tab per file. Alone imports napari and Qt."""
