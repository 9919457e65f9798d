"""Scenes that are drawn, with exact labels, and the sensors that look at them."""

from napari_simmat.learn.scenes.looks import FAMILIES, render
from napari_simmat.learn.scenes.samples import draw_sample
from napari_simmat.learn.scenes.scene import Scene, draw_scene
from napari_simmat.learn.scenes.sensors import SENSORS, draw_sensor_sample

__all__ = [
    "FAMILIES",
    "SENSORS",
    "Scene",
    "draw_sample",
    "draw_scene",
    "draw_sensor_sample",
    "render",
]
