"""Which settings of segmenting everything change nothing: each way of finding leaves some unread.

`tiny`'s decoder looks at several scales at once, so a second look is nothing to it. Command and
Python say so, and the window grays these controls.
"""

from __future__ import annotations

from dataclasses import fields, replace

from napari_simmat._text import format_list
from napari_simmat.engine.settings import BY_TINY, AutomaticSettings
from napari_simmat.models.spec import ModelSpec

ALWAYS = frozenset({"by", "words", "quality", "min_area", "max_area", "keep_border"})
IN_TILES = frozenset({"tile", "tile_overlap", "overlap"})
"""What every way reads on a large plane."""
FILTERS = frozenset({"stability", "offset", "agreement", "box_overlap", "overlap", "background"})
"""What masks that overlap are filtered by: those of clicks and words."""
BY_MICRO_SAM = frozenset({
    "center_distance_threshold", "boundary_distance_threshold", "foreground_threshold",
    "foreground_smoothing", "distance_smoothing",
})  # fmt: skip
ON_A_GRID = frozenset({"points_per_side", "crop_layers", "second_look"})
AT_SPOTS = frozenset({"maxima_distance", "maxima_height"})

IDLE = "{options}: without effect {why}."
DECODED = "where a decoder finds the objects"
CLICK = "; --auto.by clicks makes use of {them}"
NAMED = "where words say what to look for"
CLICKED = "on clicks as the other settings place them"


def idle_settings(settings: AutomaticSettings, spec: ModelSpec, seeded: bool = False) -> set[str]:
    """The names of all settings that change nothing as the others are.

    Parameters
    ----------
    settings
        All of them.
    spec
        The model.
    seeded
        Whether given points or labels are where it is clicked.
    """
    return {each.name for each in fields(settings)} - _read(settings, spec, seeded)


def idle_sentence(settings: AutomaticSettings, spec: ModelSpec) -> str:
    """Which options were given, and change nothing, and why; empty for none."""
    defaults, idle = AutomaticSettings(), idle_settings(settings, spec)
    idle = {name for name in idle if getattr(settings, name) != getattr(defaults, name)}
    if not idle:
        return ""
    why = CLICKED
    if settings.words:
        why = NAMED
    elif settings.uses_decoder(spec):
        would = idle_settings(replace(settings, by="clicks"), spec)
        them = "it" if len(idle) == 1 else "them"
        why = DECODED + ("" if idle & would else CLICK.format(them=them))
    in_order = (each.name for each in fields(settings) if each.name in idle)
    options = format_list(f"--auto.{name.replace('_', '-')}" for name in in_order)
    return IDLE.format(options=options, why=why)


def _read(settings: AutomaticSettings, spec: ModelSpec, seeded: bool) -> frozenset[str]:
    """Those that the way of finding reads."""
    always = ALWAYS | IN_TILES
    if settings.words:
        return always | FILTERS
    if settings.uses_decoder(spec) and not seeded:
        # A setting that makes clicks the way is read, as long as nothing else says the way.
        chooses = frozenset({"seeds", "object_side", "points_per_side", "crop_layers"})
        read = always | (chooses if settings.by == "auto" else frozenset())
        if settings.by == BY_TINY:
            return read | {"offset"}
        return read if spec.base.embedded else read | BY_MICRO_SAM
    read = always | FILTERS
    if seeded:
        return read
    read |= {"seeds", "object_side"}
    if settings.seeds == "hematoxylin":
        return read | AT_SPOTS
    if settings.seeds != "grid":
        return read | AT_SPOTS | {"maxima_channel"}
    read |= ON_A_GRID
    read -= {"second_look"} if settings.object_side else set()  # there is none of a known size
    return read | ({"crop_overlap"} if settings.crop_layers else set())
