"""Scenes that are drawn, with exact labels, and the sensors that look at them."""

from napari_simmat.learn.scenes.benchmark import benchmark_sample, split_generator
from napari_simmat.learn.scenes.looks import FAMILIES, render
from napari_simmat.learn.scenes.samples import draw_sample
from napari_simmat.learn.scenes.scene import Scene, draw_scene
from napari_simmat.learn.scenes.sensors import (
    PSEUDO_SENSORS,
    SENSORS,
    draw_sensor_sample,
    sensor_named,
)
from napari_simmat.learn.scenes.volumes import draw_volume

__all__ = [
    "FAMILIES",
    "PSEUDO_SENSORS",
    "SENSORS",
    "Scene",
    "benchmark_sample",
    "draw_sample",
    "draw_scene",
    "draw_sensor_sample",
    "draw_volume",
    "render",
    "sensor_named",
    "split_generator",
]
