"""The window: layers become values, one worker thread owns the model, a folder per tab.

Only this package imports napari and Qt.
"""
