import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_simmat.engine.channels.bands import BANDS
from napari_simmat.engine.channels.indices import (
    INDICES,
    MAX_LENGTH,
    PlacedIndex,
    bands_note,
    bands_of,
    parse_index,
    parse_indices,
)

NIR, RED, BLUE = np.array([0.5, 0.3, 0.0]), np.array([0.1, 0.3, 0.0]), np.array([0.05, 0.1, 0.0])


@pytest.mark.parametrize("name", INDICES)
def test_known_indices_are_formulas_of_known_bands(name):
    index = parse_index(name.upper())
    known = {word for band in BANDS for word in band.names}
    assert index.name == name
    assert set(index.bands) <= known
    values = index.of({band: np.full(2, 0.2 + 0.1 * n) for n, band in enumerate(index.bands)})
    assert np.isfinite(values).all()


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("ndvi", 0.4 / 0.6),
        ("savi", 1.5 * 0.4 / 1.1),
        ("evi2", 2.5 * 0.4 / (0.5 + 0.24 + 1)),
        ("evi", 2.5 * 0.4 / (0.5 + 0.6 - 0.375 + 1)),
        ("msavi", (2 - (4 - 3.2) ** 0.5) / 2),
    ],
)
def test_known_indices_as_computed_by_hand(name, first):
    values = parse_index(name).of({"nir": NIR, "red": RED, "blue": BLUE})
    assert values[0] == pytest.approx(first)


def test_index_divided_by_zero_is_missing():
    values = parse_index("ndvi").of({"nir": NIR, "red": RED})
    assert values[1] == 0
    assert np.isnan(values[2])
    unsigned = {"nir": np.array([1], np.uint8), "red": np.array([200], np.uint8)}
    assert parse_index("ndvi").of(unsigned)[0] == pytest.approx(-199 / 201)


def test_formula_knows_operators_functions_and_quoted_bands():
    index = parse_index("mine = -sqrt(abs(`band 8`)) + maximum(red, 2) * 3 - log(1) ** 2 / 2")
    assert index.bands == ("band 8", "red")
    assert index.of({"band 8": np.array([-9.0]), "red": np.array([1.0])}) == pytest.approx(3)
    assert parse_index("x=minimum(a, b) ** -1").of({"a": np.array([4.0]), "b": np.array([5.0])})[
        0
    ] == pytest.approx(0.25)
    assert parse_index("x = quoted0 + `quoted0 b`").bands == ("quoted0", "quoted0 b")


@pytest.mark.parametrize(
    "formula",
    [
        "__import__('os').system('true')", "nir.real", "nir[0]", "[nir]", "(nir, red)", "'nir'",
        "nir if red else 1", "lambda: nir", "nir and red", "nir < red", "nir // red", "nir % red",
        "nir @ red", "~nir", "not nir", "f(nir)", "(nir)(red)", "sqrt(nir, red)", "sqrt()",
        "sqrt(x=nir)", "sqrt(*nir)", "(y := nir)", "True * nir", "1j * nir", "1e999 * nir",
        "9" * 400 + " * nir", "nir ** red", "nir ** 11", "nir ** -11", "9 ** 9 ** 9 * nir",
        "nir ** (2 + 2)", "5", "", "nir +", "`nir", "`` + nir", "nir\0", "nir; red", "nir = red",
        "(" * 240 + "nir" + ")" * 240, "-" * 400 + "nir", "nir+" * 60 + "nir",
        "nir" + " " * MAX_LENGTH + "+red", "f'{nir}'", "nir.__class__", "1if nir else 2",
    ],
)  # fmt: skip
def test_formula_refuses_anything_else_in_a_sentence(formula):
    with pytest.raises(ValueError, match="The formula of x cannot be used: "):
        parse_index(f"x={formula}")


@given(st.text("nirabe019.+-*/() `,=[]'_\n#:", max_size=60))
@settings(max_examples=150, derandomize=True, deadline=None)
def test_formula_of_any_text_is_parsed_or_refused(text):
    try:
        index = parse_index(f"x={text}")
    except ValueError:
        return
    values = index.of({band: np.array([1.0, 0.0]) for band in index.bands})
    assert (values.shape, values.dtype) == ((2,), np.float64)
    assert not np.isinf(values).any()


def test_index_needs_a_known_name_and_one_that_can_be_a_column():
    with pytest.raises(ValueError, match="There is no index 'ndv'; give one of ndvi, "):
        parse_index("ndv")
    for name in ("", "1a", "a b", "a" * 41, "a,b"):
        with pytest.raises(ValueError, match="cannot be the name of an index"):
            parse_index(f"{name}=nir")
    with pytest.raises(ValueError, match="ndvi is chosen twice"):
        parse_indices(["ndvi", "ndvi=nir"])


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("red", "nir"), (1, 0)),
        (("B2", "B3", "B4", "B8", "B8A"), (3, 2)),
        (("490 nm", "560 nm", "665 nm", "842 nm"), (3, 2)),
        (("field red", "field nir1", "field nir2"), (1, 0)),
        (("Red", "NIR"), (1, 0)),
    ],
)
def test_bands_are_found_by_what_their_names_mean(names, found):
    assert bands_of(parse_index("ndvi"), names, "a.tif") == dict(
        zip(("nir", "red"), found, strict=True)
    )


def test_bands_note_says_what_was_taken_as_what():
    index, names = parse_index("ndvi"), ("B2", "B3", "B4", "B8", "B8A")
    assert (
        bands_note(index, bands_of(index, names, "a.tif"), names) == "ndvi: nir is B8, red is B4."
    )
    assert bands_note(index, {"nir": 0, "red": 1}, ("NIR", "red")) == ""


def test_bands_of_refuses_what_is_missing_or_taken():
    with pytest.raises(ValueError, match=r"ndre needs rededge, which is not .* a.tif \(red, nir\)"):
        bands_of(parse_index("ndre"), ("red", "nir"), "a.tif")
    with pytest.raises(ValueError, match="has the name of a channel"):
        bands_of(parse_index("ndvi"), ("red", "nir", "NDVI"), "a.tif")
    assert bands_of(parse_index("x=`CD3+`/CD3"), ("CD3", "CD3+"), "a.tif") == {"CD3+": 1, "CD3": 0}


def test_placed_index_reads_its_rows():
    placed = PlacedIndex(parse_index("ndvi"), {"nir": 2, "red": 0})
    values = np.array([[1, 2], [9, 9], [3, 2]], np.uint16)
    assert placed.of(values).tolist() == [0.5, 0.0]
