from __future__ import annotations

import hashlib
import os
import random
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import xxhash

from napari_simmat.checkpoints import catalog
from napari_simmat.checkpoints import sam_weights as sam_weights_module
from napari_simmat.checkpoints.registry import list_models
from napari_simmat.checkpoints.sam_weights import download_job, fetch_job
from napari_simmat.io.files import disk_full_message
from napari_simmat.progress import finish

CONTENT = random.Random(0).randbytes(1_000_000)
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


@dataclass
class Server:
    """A file server that can be told to misbehave, and remembers what it was asked for."""

    url: str = ""
    content: bytes = CONTENT
    ranges: bool = True  # answers Range requests
    cut_after: list[int] = field(default_factory=list)  # bytes per request, then all
    status: int = 200
    announced: bool = True  # tells the length
    shift: int = 0  # answers another stretch than asked for
    asked: list[str] = field(default_factory=list)  # the Range header of each request

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        wanted = handler.headers.get("Range", "")
        self.asked.append(wanted)
        assert handler.headers["Accept-Encoding"] == "identity"
        if self.status != 200:
            handler.send_error(self.status)
            return
        start = int(wanted[len("bytes=") : -1]) if wanted and self.ranges else 0
        total = len(self.content)
        if start >= total:
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{total}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        handler.send_response(206 if start else 200)
        if start:
            start += self.shift
            handler.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        body = self.content[start:]
        if self.announced:
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        cut = self.cut_after.pop(0) if self.cut_after else len(body)
        handler.wfile.write(body[:cut])
        handler.wfile.flush()
        if cut < len(body):
            handler.connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    told = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.serve(self)

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        told.url = f"http://127.0.0.1:{http.server_port}/file.pth"
        yield told
        http.shutdown()
        thread.join()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "bases" / "file.pth"


def part_of(target: Path) -> Path:
    return target.with_name("file.pth.part")


def files(target: Path) -> list[str]:
    """What is in the folder, but for the lock, which stays."""
    return sorted(name for name in os.listdir(target.parent) if not name.endswith(".lock"))


def test_a_download_arrives_whole_with_progress_in_bytes(server: Server, target: Path) -> None:
    seen = []
    path = finish(download_job(server.url, target, SHA256, size=len(CONTENT)), seen.append)
    assert path == target
    assert target.read_bytes() == CONTENT
    assert files(target) == ["file.pth"]
    received = [each.done for each in seen if each.message.startswith("Downloading")]
    assert len(received) > 3
    assert received == sorted(received)
    assert received[-1] == len(CONTENT)
    assert {each.total for each in seen} == {len(CONTENT)}


def test_what_is_there_is_not_downloaded_again(server: Server, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(CONTENT)
    finish(download_job(server.url, target, SHA256, size=len(CONTENT)))
    assert server.asked == []


def test_another_file_of_that_name_is_replaced(server: Server, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(b"something else")
    finish(download_job(server.url, target, SHA256, size=len(CONTENT)))
    assert target.read_bytes() == CONTENT


def test_a_cut_connection_goes_on_where_it_broke(server: Server, target: Path) -> None:
    server.cut_after = [300_000, 400_000]
    finish(download_job(server.url, target, SHA256, size=len(CONTENT)))
    assert target.read_bytes() == CONTENT
    assert len(server.asked) == 3
    starts = [int(each[len("bytes=") : -1]) for each in server.asked[1:]]
    assert 200_000 < starts[0] <= 300_000
    assert 500_000 < starts[1] <= 700_000


def test_without_ranges_it_starts_again(server: Server, target: Path) -> None:
    server.ranges = False
    server.cut_after = [600_000]
    finish(download_job(server.url, target, SHA256, size=len(CONTENT)))
    assert target.read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_a_stopped_download_is_resumed_by_the_next(server: Server, target: Path) -> None:
    job = download_job(server.url, target, SHA256, size=len(CONTENT))
    while next(job).done < 500_000:
        pass
    job.close()
    assert files(target) == ["file.pth.part"]
    kept = part_of(target).stat().st_size
    assert 500_000 <= kept < len(CONTENT)
    assert part_of(target).read_bytes() == CONTENT[:kept]
    finish(download_job(server.url, target, SHA256, size=len(CONTENT)))
    assert server.asked == ["", f"bytes={kept}-"]
    assert target.read_bytes() == CONTENT


def test_a_connection_that_brings_nothing_more_is_a_sentence(server: Server, target: Path) -> None:
    server.cut_after = [300_000, 0]
    with pytest.raises(ConnectionError, match="the connection broke") as caught:
        finish(download_job(server.url, target, SHA256, size=len(CONTENT)))
    assert server.url in str(caught.value)
    assert "kB are kept for the next try. Check the network, or get file.pth" in str(caught.value)
    assert files(target) == ["file.pth.part"]
    finish(download_job(server.url, target, SHA256, size=len(CONTENT)))
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("extra", [0, 5])
def test_a_part_that_is_whole_or_too_long(extra: int, server: Server, target: Path) -> None:
    target.parent.mkdir()
    part_of(target).write_bytes(CONTENT + bytes(extra))
    finish(download_job(server.url, target, SHA256, size=len(CONTENT)))
    assert target.read_bytes() == CONTENT
    assert len(server.asked) == (2 if extra else 1)


def test_another_stretch_than_asked_for_is_not_appended(server: Server, target: Path) -> None:
    target.parent.mkdir()
    part_of(target).write_bytes(CONTENT[:1000])
    server.shift = 7
    finish(download_job(server.url, target, SHA256, size=len(CONTENT)))
    assert server.asked == ["bytes=1000-", ""]
    assert target.read_bytes() == CONTENT


def test_a_length_that_is_not_told_is_no_obstacle(server: Server, target: Path) -> None:
    server.announced = False
    finish(download_job(server.url, target, SHA256, size=990_000))
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("start", [0, 1000])
def test_another_content_is_deleted_in_words(start: int, server: Server, target: Path) -> None:
    server.content = CONTENT[:-1] + b"?" + b""
    target.parent.mkdir()
    if start:
        part_of(target).write_bytes(CONTENT[:start])
    with pytest.raises(ValueError, match=r"mismatch: the download from .* was deleted"):
        finish(download_job(server.url, target, SHA256, size=len(CONTENT)))
    assert files(target) == []


@pytest.mark.parametrize("announced", [True, False])
def test_much_more_than_published_does_not_fill_the_disk(
    announced: bool, server: Server, target: Path
) -> None:
    server.announced = announced
    with pytest.raises(ValueError, match=r"not what was published|SHA-256 mismatch"):
        finish(download_job(server.url, target, SHA256, size=100_000))
    assert files(target) == []


@pytest.mark.parametrize(("status", "words"), [(404, "answered 404 Not Found"), (503, "503")])
def test_a_refusal_of_the_server_is_a_sentence(
    status: int, words: str, server: Server, target: Path
) -> None:
    server.status = status
    with pytest.raises(ConnectionError, match=words):
        finish(download_job(server.url, target, SHA256, size=len(CONTENT)))
    assert len(server.asked) == 1


def test_offline_is_a_sentence_with_another_way(target: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/file.pth"
    with pytest.raises(ConnectionError, match="no connection") as caught:
        finish(download_job(url, target, SHA256, size=len(CONTENT)))
    sentence = str(caught.value)
    assert url in sentence
    assert "`simmat models import file.pth`" in sentence
    assert f"put it into {target.parent}" in sentence
    assert files(target) == []


def test_too_little_room_is_said_before_the_disk_is_full(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = type("Usage", (), {"free": 999_999})
    monkeypatch.setattr(sam_weights_module.shutil, "disk_usage", lambda _: room)
    with pytest.raises(OSError, match=re.escape(disk_full_message(target))):
        finish(download_job(server.url, target, SHA256, size=len(CONTENT)))
    assert files(target) == []


def test_two_processes_download_once(server: Server, target: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from napari_simmat.progress import finish; "
        "from napari_simmat.checkpoints.sam_weights import download_job; "
        "finish(download_job(sys.argv[1], Path(sys.argv[2]), sys.argv[3], size=int(sys.argv[4])))"
    )
    command = [sys.executable, "-c", program, server.url, str(target), SHA256, str(len(CONTENT))]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(2)]
    for each in both:
        _, errors = each.communicate(timeout=60)
        assert each.returncode == 0, errors
    assert target.read_bytes() == CONTENT
    assert server.asked == [""]


def test_the_second_waits_and_can_be_stopped(server: Server, target: Path) -> None:
    first = download_job(server.url, target, SHA256, size=len(CONTENT))
    while next(first).done < 500_000:
        pass
    second = download_job(server.url, target, SHA256, size=len(CONTENT))
    assert next(second).message == "Another process is downloading file.pth"
    second.close()
    finish(first)
    assert target.read_bytes() == CONTENT
    third = download_job(server.url, target, SHA256, size=len(CONTENT))
    assert finish(third) == target  # the lock is free again


@pytest.fixture
def small_base(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """`vit_b` is the test's file at the test's server."""
    row = catalog.PUBLISHED_WEIGHTS["vit_b"]
    row = replace(row, size=len(CONTENT), checksum=SHA256, url=server.url)
    monkeypatch.setitem(catalog.PUBLISHED_WEIGHTS, "vit_b", row)


@pytest.mark.usefixtures("small_base")
def test_a_base_is_fetched_by_its_name(user_folder: Path) -> None:
    path = finish(fetch_job("vit_b"))
    assert path == user_folder / "bases" / "sam_vit_b_01ec64.pth"
    assert path.read_bytes() == CONTENT
    assert [(e.name, e.path) for e in list_models() if e.kind == "downloaded"] == [("vit_b", path)]


@pytest.mark.parametrize("name", ["tiny", "sam_vit_b_01ec64.pth", "../vit_b"])
def test_what_cannot_be_fetched_is_a_sentence(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be downloaded; vit_b, vit_l, vit_h, vit_t, "):
        finish(fetch_job(name))


@pytest.mark.parametrize("algorithm", ["xxh128", "md5"])
def test_a_file_is_checked_by_the_checksum_that_its_publisher_gives(
    algorithm: str, server: Server, target: Path
) -> None:
    digest = {"xxh128": xxhash.xxh128(CONTENT), "md5": hashlib.md5(CONTENT)}[algorithm].hexdigest()
    finish(download_job(server.url, target, f"{algorithm}:{digest}", size=len(CONTENT)))
    assert target.read_bytes() == CONTENT
    target.unlink()
    name = {"xxh128": "XXH128", "md5": "MD5"}[algorithm]
    with pytest.raises(ValueError, match=f"{name} mismatch: .* was deleted"):
        finish(download_job(server.url, target, f"{algorithm}:{'0' * 32}", size=len(CONTENT)))
    assert files(target) == []


def test_a_size_that_nobody_published_may_be_exceeded(
    server: Server, user_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some publishers add a decoder to SAM's tensors; the checksum decides."""
    row = catalog.PUBLISHED_WEIGHTS["vit_b_lm"]
    digest = xxhash.xxh128(CONTENT).hexdigest()
    row = replace(row, size=700_000, checksum=f"xxh128:{digest}", url=server.url)
    monkeypatch.setitem(catalog.PUBLISHED_WEIGHTS, "vit_b_lm", row)
    path = finish(fetch_job("vit_b_lm"))
    assert path == user_folder / "bases" / "vit_b_lm.pt"
    entry = next(entry for entry in list_models() if entry.name == "vit_b_lm")
    assert (entry.kind, entry.problem, entry.size_bytes) == ("downloaded", None, len(CONTENT))
