"""The catalog of published weights: complete, described as stock SAM, known by content."""

from dataclasses import replace

import pytest

from napari_simmat.checkpoints.catalog import (
    PUBLISHED_WEIGHTS,
    SAM_ARCHITECTURES,
    identify_job,
    likely_architecture,
    published_spec,
)
from napari_simmat.checkpoints.checkpoint import read_description
from napari_simmat.io.files import hash_job, sha256_of
from napari_simmat.progress import finish


def test_sam_spec_is_that_of_stock_sam():
    from napari_simmat.models.tuning import build_network

    stock = build_network("vit_b", initialize=False)  # segment_anything's, without its numbers
    spec = published_spec(PUBLISHED_WEIGHTS["vit_b"])
    assert [each.mean for each in spec.channels] == pytest.approx(stock.pixel_mean.flatten())
    assert [each.std for each in spec.channels] == pytest.approx(stock.pixel_std.flatten())
    assert spec.channel_names == ("red", "green", "blue")
    assert spec.input_size.size == stock.image_encoder.img_size
    assert (spec.input_size.method, spec.mask_choice) == ("longest", "stock")
    assert spec.normalization.keep_uint8
    assert spec.is_rgb
    assert read_description(spec.to_json()) == spec


@pytest.mark.parametrize("name", [*SAM_ARCHITECTURES, "vit_t"])
def test_likely_architecture_follows_the_size(name):
    assert likely_architecture(int(PUBLISHED_WEIGHTS[name].size * 1.003)) == name


@pytest.mark.parametrize("name", PUBLISHED_WEIGHTS)
def test_published_weights_are_complete(name):
    row = PUBLISHED_WEIGHTS[name]
    algorithm, _, digest = row.checksum.partition(":")
    assert len(bytes.fromhex(digest)) == {"sha256": 32, "xxh128": 16, "md5": 16}[algorithm]
    assert row.url.startswith("https://")
    assert row.file.endswith((".pth", ".pt"))
    assert len({each.file for each in PUBLISHED_WEIGHTS.values()}) == len(PUBLISHED_WEIGHTS)
    assert all((row.license, row.author, row.citation, row.homepage, row.purpose))
    spec = published_spec(row)
    assert spec.is_rgb
    assert read_description(spec.to_json()) == spec


@pytest.mark.parametrize("algorithm", ["sha256", "xxh128", "md5"])
def test_identify_job_knows_a_published_file(algorithm, tmp_path, monkeypatch):
    path = tmp_path / "renamed.pt"
    path.write_bytes(b"PK and so on")
    name = {"sha256": "vit_t", "xxh128": "vit_t_lm", "md5": "medsam_vit_b"}[algorithm]
    checksum = f"{algorithm}:{finish(hash_job(path, algorithm))}"
    row = replace(PUBLISHED_WEIGHTS[name], checksum=checksum, architecture="vit_t")
    assert finish(identify_job(path, sha256_of(path))) is None
    monkeypatch.setitem(PUBLISHED_WEIGHTS, name, row)
    assert finish(identify_job(path, sha256_of(path))) == row
