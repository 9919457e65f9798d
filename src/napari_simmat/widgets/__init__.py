"""The window: layers become values, one worker, one tab per folder. Only this package imports napari and Qt."""
