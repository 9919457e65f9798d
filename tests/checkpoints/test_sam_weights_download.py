"""Downloads through pooch: checked by hash, with progress, canceled, refused in words."""

import gc
import hashlib
import os
import random
import socket
import threading
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import xxhash

from napari_simmat.checkpoints import catalog
from napari_simmat.checkpoints.registry import list_models
from napari_simmat.checkpoints.sam_weights import download_job, fetch_job
from napari_simmat.io.files import DISK_FULL
from napari_simmat.progress import finish

CONTENT = random.Random(0).randbytes(1_000_000)
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # pooch leaves one
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


@dataclass
class Server:
    """A file server that can be told to misbehave."""

    url: str = ""
    content: bytes = CONTENT
    cut: bool = False  # breaks the connection half-way
    status: int = 200
    announced: bool = True  # tells the length
    moved: str = ""  # redirects there
    gate: threading.Event | None = None  # half the content waits for it
    requests: int = 0

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        self.requests += 1
        if self.moved:
            handler.send_response(302)
            handler.send_header("Location", self.moved)
            handler.end_headers()
            return
        if self.status != 200:
            handler.send_error(self.status)
            return
        handler.send_response(200)
        if self.announced:
            handler.send_header("Content-Length", str(len(self.content)))
        handler.end_headers()
        half = len(self.content) // 2
        handler.wfile.write(self.content[:half])
        if self.gate is not None:
            handler.wfile.flush()
            self.gate.wait(10)
        if self.cut:
            handler.connection.shutdown(socket.SHUT_RDWR)
        else:
            handler.wfile.write(self.content[half:])


@pytest.fixture
def server(monkeypatch):
    told = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            told.serve(self)

        def log_message(self, *_):
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *_):
            """A client that leaves breaks the pipe."""

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Quiet(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        told.url = f"http://127.0.0.1:{http.server_port}/file.pth"
        yield told
        gc.collect()
        http.shutdown()
        thread.join()


@pytest.fixture
def target(tmp_path):
    return tmp_path / "bases" / "file.pth"


def download(
    server: Server, target: Path, checksum: str = SHA256, size: int = len(CONTENT)
) -> Path:
    return finish(download_job(server.url, target, checksum, size=size))


def test_download_is_whole_and_says_its_progress_in_bytes(server, target):
    server.gate = threading.Event()
    job = download_job(server.url, target, SHA256, size=len(CONTENT))
    while (seen := next(job)).done < 400_000:
        assert (seen.total, seen.message) == (len(CONTENT), "Downloading file.pth")
    server.gate.set()
    assert finish(job) == target
    assert target.read_bytes() == CONTENT
    assert os.listdir(target.parent) == ["file.pth"]


@pytest.mark.parametrize(("before", "requests"), [(CONTENT, 0), (b"something else", 1)])
def test_download_replaces_a_file_of_other_content_only(before, requests, server, target):
    target.parent.mkdir()
    target.write_bytes(before)
    assert download(server, target) == target
    assert target.read_bytes() == CONTENT
    assert server.requests == requests


def test_download_that_is_closed_stops_and_leaves_nothing(server, target):
    server.gate = threading.Event()
    before = set(threading.enumerate())
    job = download_job(server.url, target, SHA256, size=len(CONTENT))
    while next(job).done < 400_000:
        pass
    job.close()
    server.gate.set()
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith("ThreadPoolExecutor"):
            thread.join(10)
    assert os.listdir(target.parent) == []


def test_download_without_announced_length_is_whole(server, target):
    server.announced = False
    download(server, target, size=990_000)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("changes", "size", "error", "words"),
    [
        ({"content": CONTENT[:-1] + b"?"}, 1_000_000, ValueError, "SHA-256 mismatch: .* deleted"),
        ({}, 100_000, ValueError, "holds more than .* not what was published"),
        ({"announced": False}, 100_000, ValueError, "holds more than .* not what was published"),
        ({"status": 404}, 1_000_000, ConnectionError, "the server answered 404 Not Found"),
        ({"status": 503}, 1_000_000, ConnectionError, "the server answered 503"),
        ({"cut": True}, 1_000_000, ConnectionError, "no connection, or it broke"),
        ({"moved": "/file.pth"}, 1_000_000, ConnectionError, "the server answered 302"),
        ({"moved": "file:///etc/passwd"}, 1_000_000, ConnectionError, "no connection, or it"),
    ],
)
def test_download_that_fails_is_a_sentence_and_leaves_nothing(
    changes, size, error, words, server, target
):
    for name, value in changes.items():
        setattr(server, name, value)
    with pytest.raises(error, match=words) as caught:
        download(server, target, size=size)
    assert server.url in str(caught.value)
    assert f"`simmat models import file.pth`, or put it into {target.parent}." in str(caught.value)
    assert os.listdir(target.parent) == []


def test_download_offline_names_another_way(target):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/file.pth"
    with pytest.raises(ConnectionError, match=f"from {url}: no connection"):
        finish(download_job(url, target, SHA256, size=len(CONTENT)))


def test_download_to_a_full_disk_is_a_sentence(server, target, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pooch.retrieve", full)
    with pytest.raises(OSError, match="disk") as caught:
        download(server, target)
    assert str(caught.value) == DISK_FULL.format(target.name, target.parent)


@pytest.mark.parametrize("algorithm", ["xxh128", "md5"])
def test_download_is_checked_by_the_publishers_checksum(algorithm, server, target):
    digest = {"xxh128": xxhash.xxh128(CONTENT), "md5": hashlib.md5(CONTENT)}[algorithm].hexdigest()
    download(server, target, f"{algorithm}:{digest}")
    assert target.read_bytes() == CONTENT
    target.unlink()
    with pytest.raises(ValueError, match=f"{algorithm.upper()} mismatch"):
        download(server, target, f"{algorithm}:{'0' * 32}")
    assert os.listdir(target.parent) == []


@pytest.mark.parametrize(
    ("name", "checksum", "size"),
    [
        ("vit_b", SHA256, len(CONTENT)),
        # Where a size is not published, the checksum decides.
        ("medsam_vit_b", f"md5:{hashlib.md5(CONTENT).hexdigest()}", 700_000),
    ],
)
def test_fetch_of_a_published_name_lists_it_as_downloaded(
    name, checksum, size, server, user_folder, monkeypatch
):
    row = replace(catalog.PUBLISHED_WEIGHTS[name], size=size, checksum=checksum, url=server.url)
    monkeypatch.setitem(catalog.PUBLISHED_WEIGHTS, name, row)
    path = finish(fetch_job(name))
    assert path == user_folder / "bases" / row.file
    assert path.read_bytes() == CONTENT
    [entry] = [entry for entry in list_models() if entry.kind == "downloaded"]
    assert (entry.name, entry.path, entry.problem) == (name, path, None)


def test_fetch_brings_the_decoder_beside_the_weights(server, user_folder, monkeypatch):
    row = catalog.PUBLISHED_WEIGHTS["vit_b_lm"]
    checksum = f"xxh128:{xxhash.xxh128(CONTENT).hexdigest()}"
    beside = row.decoder._replace(url=server.url, checksum=checksum)
    row = replace(row, size=700_000, checksum=checksum, url=server.url, decoder=beside)
    monkeypatch.setitem(catalog.PUBLISHED_WEIGHTS, "vit_b_lm", row)
    assert finish(fetch_job("vit_b_lm")) == user_folder / "bases" / "vit_b_lm.pt"
    assert sorted(os.listdir(user_folder / "bases")) == ["vit_b_lm.pt", "vit_b_lm_decoder.pt"]
    [entry] = [entry for entry in list_models() if entry.kind in ("downloaded", "own")]
    assert (entry.name, entry.spec.instance_decoder) == ("vit_b_lm", "here")

    os.remove(user_folder / "bases" / "vit_b_lm_decoder.pt")  # as a version without it left it
    [entry] = [entry for entry in list_models() if entry.kind == "downloaded"]
    assert entry.spec.instance_decoder == "elsewhere"
    before = server.requests
    finish(fetch_job("vit_b_lm"))
    assert server.requests == before + 1  # the weights are here
    beside = beside._replace(checksum=f"xxh128:{'0' * 32}")
    monkeypatch.setitem(catalog.PUBLISHED_WEIGHTS, "vit_b_lm", replace(row, decoder=beside))
    with pytest.raises(ValueError, match="XXH128 mismatch"):
        finish(fetch_job("vit_b_lm"))


@pytest.mark.parametrize("name", ["tiny", "sam_vit_b_01ec64.pth", "../vit_b"])
def test_fetch_of_an_unknown_name_lists_what_can_be(name):
    with pytest.raises(ValueError, match="cannot be downloaded; vit_b, vit_l, vit_h, vit_t, "):
        finish(fetch_job(name))
