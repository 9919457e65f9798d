import pytest

from napari_simmat.io.units import UNKNOWN_UNIT, known_unit, unit_named


@pytest.mark.parametrize(
    "name", ["um", "µm", "\N{GREEK SMALL LETTER MU}m", "micron", "Micrometer", " micrometre "]
)
def test_micrometers_in_any_spelling(name):
    assert unit_named(name) == "um"


def test_unknown_units_are_refused():
    words = UNKNOWN_UNIT.format("furlong", "m, cm, mm, um, nm, s, ms, min, h")
    with pytest.raises(ValueError, match=words):
        unit_named("furlong")
    assert known_unit("pixel") == ""
