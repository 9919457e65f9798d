"""Words to numbers by the user's file."""

import sys

import pytest

from napari_simmat.models.vocabulary import MAX_BYTES, pieces_of
from tests.sam3_models import SMALL, write_vocabulary

pytest.importorskip("tokenizers")
FIRST, LAST = SMALL.vocabulary - 2, SMALL.vocabulary - 1
LEAF = 54  # after 26 letters, each twice, "le" and "lea"


@pytest.fixture
def vocabulary(tmp_path):
    path = tmp_path / "tokenizer.json"
    write_vocabulary(path)
    return path


def test_words_become_pieces_between_start_and_end(vocabulary):
    assert pieces_of("leaf", vocabulary, 32, 300) == [FIRST, LEAF, LAST]
    found = pieces_of(" A  Leaf ", vocabulary, 32, 300)
    assert found == [FIRST, 1, LEAF, LAST]  # "a" that ends a word


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("   ", "holds no word"),
        ("abcdefgh", r"8 pieces of words, the model reads up to 4"),
    ],
)
def test_words_that_cannot_be_read_are_refused(words, said, vocabulary):
    with pytest.raises(ValueError, match=said):
        pieces_of(words, vocabulary, 6, 300)


def test_vocabulary_of_another_network_is_refused(vocabulary):
    with pytest.raises(ValueError, match=r"piece number 299, the model knows 200"):
        pieces_of("leaf", vocabulary, 32, 200)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{}", "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b'{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}', "it lacks"),
        (b" " * (MAX_BYTES + 1), "it has 20"),
    ],
)
def test_file_that_is_no_vocabulary_is_refused(content, said, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"tokenizer\.json is no vocabulary.*{said}"):
        pieces_of("leaf", path, 32, 300)


def test_missing_tokenizers_are_named(vocabulary, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ValueError, match='pip install "transformers'):
        pieces_of("leaf", vocabulary, 32, 300)
