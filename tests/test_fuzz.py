"""Mutations of good images and models: each opens, or is refused with a documented exception.

Nothing may hang, take more than 500 MB, open a file elsewhere or print. By default each format is
tried for a fixed time. `SIMMAT_FUZZ` is the number of mutations to try instead,
`SIMMAT_FUZZ_SEED` the first seed; a failure names the seed of its mutation, which makes it again.
"""

import gzip
import os
import random
import re
import shutil
import sys
import time
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from tests.good_files import GOOD
from tests.opening import USES, Opener

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="pipes cannot be waited for"),
]

SECONDS = 20
AT_ONCE = 16
"""Files that are written before they are opened: processes that wait for each other are slow."""
# --- mutations

NUMBERS = (
    0, 1, 2, 3, 7, 8, 255, 256, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63,
)  # fmt: skip
WORDS = (
    b"0", b"-1", b"1", b"65536", b"2000000", b"99999999999", b"1e400", b"null", b"true", b'""',
    b"[]", b"{}", b"NaN", b"../../secret", b"&#47;etc&#47;passwd", b"|O", b"<U9", b"float64",
)  # fmt: skip


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Change a few places of a file, most of them in its first and last 600 bytes."""
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        near = min(len(data), 600)
        at = chance.choice((chance.randrange(near + 1), len(data) - chance.randrange(near + 1)))
        if chance.random() < 0.2:
            at = chance.randrange(len(data) + 1)
        data = chance.choice(MUTATIONS)(data, at, chance)
    return data


def change_byte(data: bytes, at: int, chance: random.Random) -> bytes:
    return data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]


def change_number(data: bytes, at: int, chance: random.Random) -> bytes:
    size, order = chance.choice((2, 4, 8)), chance.choice(("little", "big"))
    number = chance.choice(NUMBERS) % 256**size
    return data[:at] + number.to_bytes(size, order) + data[at + size :]  # type: ignore[arg-type]


def change_word(data: bytes, _: int, chance: random.Random) -> bytes:
    """Replace a number or a quoted word of a text; the quotes of JSON in JSON are escaped."""
    words = list(re.finditer(rb'\d+(\.\d+)?|\\?"[^"\n]{0,60}\\?"', data[:20_000]))
    if not words:
        return data
    word = chance.choice(words)
    return data[: word.start()] + chance.choice(WORDS) + data[word.end() :]


def cut(data: bytes, at: int, chance: random.Random) -> bytes:
    return data[:at]


def remove(data: bytes, at: int, chance: random.Random) -> bytes:
    return data[:at] + data[at + chance.choice((1, 2, 4, 12, 100)) :]


def repeat(data: bytes, at: int, chance: random.Random) -> bytes:
    size = chance.choice((1, 2, 4, 12, 100))
    return data[: at + size] + data[at:]


MUTATIONS = (change_byte, change_byte, change_number, change_number, change_word, change_word, cut,
             remove, repeat)  # fmt: skip


def mutate(files: dict[str, bytes], chance: random.Random) -> dict[str, bytes]:
    """The files of an image with one of them mutated, a packed one inside or outside."""
    described = [name for name in files if re.search(r"/(\.z|zarr\.json)", name)]
    name = chance.choice(described if described and chance.random() < 0.8 else [*files])
    data = files[name]
    if name.startswith("d/") and chance.random() < 0.4:  # of a data set also the names
        others = {each: content for each, content in files.items() if each != name}
        if chance.random() < 0.3:
            return others
        new = name.replace(*chance.choice((("_labels", ""), ("a", "b"), ("d/", "d/e/"), (".", ""))))
        return {**others, new: data}
    if name.endswith(".gz") and chance.random() < 0.5:
        data = gzip.compress(mutated(gzip.decompress(data), chance))
    else:
        data = mutated(data, chance)
    if name.endswith(".safetensors") and chance.random() < 0.7:
        data = with_mutated_header(files[name], chance)
    if name.endswith(".png") and chance.random() < 0.8:
        data = with_checksums(data)
    return {**files, name: data}


def with_mutated_header(model: bytes, chance: random.Random) -> bytes:
    """Mutate the header of a model and correct its length, so that a mutation gets further."""
    end = 8 + int.from_bytes(model[:8], "little")
    header = model[8:end]
    for _ in range(chance.choice((1, 1, 2, 4))):
        kind = chance.choice((change_word, change_word, change_word, change_byte, remove))
        header = kind(header, chance.randrange(len(header) + 1), chance)
    return len(header).to_bytes(8, "little") + header + model[end:]


def with_checksums(png: bytes) -> bytes:
    """Correct the checksums of a PNG, so that a mutation gets further."""
    at, parts = 8, [png[:8]]
    while at + 12 <= len(png):
        end = at + 8 + min(int.from_bytes(png[at : at + 4], "big"), len(png))
        parts.append(png[at:end] + zlib.crc32(png[at + 4 : end]).to_bytes(4, "big"))
        at = end + 4
    return b"".join(parts)


def write(files: dict[str, bytes], folder: Path) -> Path:
    """Write the files of an image into an empty folder; returns what to open."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder / next(iter(files)).split("/")[0]


@pytest.mark.parametrize("kind", GOOD)
def test_mutated_file_opens_or_is_refused_without_harm(kind, tmp_path, user_folder):
    wanted = int(os.environ.get("SIMMAT_FUZZ", 0))
    seed = int(os.environ.get("SIMMAT_FUZZ_SEED", 0)) or time.time_ns() % 10**9
    good, faults, counts = GOOD[kind](), [], {"value": 0, "refused": 0}
    slowest, largest, done = 0.0, 0, 0
    with Opener(kind if kind in USES else "image") as opener:
        for files in good:  # unharmed they open
            [found] = opener.open(write(files, tmp_path / "given"))
            assert found.outcome == "value" or "a.pth" in files, found
        until = time.monotonic() + SECONDS
        while done < wanted if wanted else time.monotonic() < until:
            paths = []
            for number in range(done, min(done + AT_ONCE, wanted or sys.maxsize)):
                chance = random.Random(seed + number)
                mutation = mutate(chance.choice(good), chance)
                paths.append(write(mutation, tmp_path / f"given{number % AT_ONCE}"))
            for found in opener.open(*paths):
                if kind == "NRRD, MetaImage":  # SimpleITK prints what it cannot read
                    found = replace(found, noise="")
                if found.fault:
                    faults.append(f"seed {seed + done}: {found.fault}")
                else:
                    counts[found.outcome] += 1
                slowest = max(slowest, found.seconds)
                largest = max(largest, found.megabytes)
                done += 1
    said = (
        f"{kind}: {done} mutations from seed {seed}: {counts}, {len(faults)} faults; at most "
        f"{slowest:.1f} s and {largest} MB"
    )
    sys.stdout.write(said + "\n")
    if "SIMMAT_FUZZ_LOG" in os.environ:
        with Path(os.environ["SIMMAT_FUZZ_LOG"]).open("a") as log:
            log.write("\n".join([said, *faults]) + "\n")
    assert not faults, "\n".join([said, *faults[:20]])
