"""Objects in stacks: from prompts on some planes to all planes on which the object is."""

from napari_simmat.engine.propagation_settings import PropagationSettings
from napari_simmat.engine.volume.propagating import Propagator
from napari_simmat.engine.volume.tracks import Section, Track

__all__ = ["PropagationSettings", "Propagator", "Section", "Track"]
