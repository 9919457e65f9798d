import pytest

from napari_simmat.engine.table_settings import (
    DEFAULT_STATISTICS,
    TableSettings,
    parse_statistics,
    percentile_of,
)


def test_parse_statistics_reads_a_list_in_its_order():
    assert parse_statistics("mean,median,std,sum,p5,p95") == DEFAULT_STATISTICS
    assert parse_statistics(" P99.5, Min ,max,") == ("p99.5", "min", "max")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mean,mode", "no statistic 'mode'"),
        ("p101", "no statistic 'p101'"),
        ("p-5", "no statistic 'p-5'"),
        ("p", "no statistic 'p'"),
        ("mean,std,mean", "mean is chosen twice"),
        (" , ", "No statistic is chosen"),
    ],
)
def test_parse_statistics_refuses_in_a_sentence(text, words):
    with pytest.raises(ValueError, match=words):
        parse_statistics(text)


def test_table_settings_check_their_statistics():
    with pytest.raises(ValueError, match="no statistic 'mea'"):
        TableSettings(statistics=("mea",))
    with pytest.raises(ValueError, match="An index has no sum"):
        TableSettings(statistics=("sum",), indices=("ndvi",))


def test_percentile_of_the_median_is_50():
    ranks = [percentile_of(name) for name in ("median", "p5", "p100", "p12.5", "mean", "p100.5")]
    assert ranks == [50, 5, 100, 12.5, None, None]
