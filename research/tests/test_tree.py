"""The tree of research's tests mirrors its modules and scripts, as the product's does."""

from pathlib import Path

from tests.test_tree import long_names, strangers

TESTS = Path(__file__).resolve().parent
SOURCE = TESTS.parent / "src/simmat_research"
OF_THE_WHOLE = ("test_tree.py", "test_architecture.py")


def test_file_of_tests_is_named_after_a_module():
    found = strangers(TESTS, SOURCE, ("golden", "benchmarks", "scripts"))
    assert sorted(found) == sorted(OF_THE_WHOLE)


def test_file_of_tests_is_named_after_a_script():
    assert not strangers(TESTS / "scripts", TESTS.parent / "scripts", ())


def test_name_of_a_test_fits_a_line():
    assert not long_names(TESTS)
