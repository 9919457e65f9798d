"""Going over a folder: which images were looked at.

*Seen* is what the user has looked at, *done* what has a result: after a batch all are done, and
nobody has seen any.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence

from napari_simmat.io.files import atomic_write, user_folder
from napari_simmat.progress import Pace

log = logging.getLogger(__name__)
_MOST = 1 << 22
"""Bytes; a larger list of what was seen is not read."""


class SeenImages:
    """Which images of a list were looked at, remembered from session to session.

    Parameters
    ----------
    names
        The images of the list, as they are named beside their results.
    """

    def __init__(self, names: Sequence[str] = ()) -> None:
        self._names = list(names)
        known = hashlib.sha256("\0".join(sorted(names)).encode()).hexdigest()[:24]
        self._file = user_folder("seen") / f"{known}.json"
        self._seen = self._read() & set(names) if names else set()
        self._pace = Pace()

    def __contains__(self, number: int) -> bool:
        return self._names[number] in self._seen

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, number: int) -> None:
        """An image was looked at."""
        name = self._names[number]
        if name in self._seen:
            return
        self._seen.add(name)
        self._pace.add()
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self._file) as temporary:
                temporary.write_text(json.dumps(sorted(self._seen)), encoding="utf-8")
        except OSError as error:
            log.warning("Which images were seen could not be saved: %s", error)

    def left(self) -> str:
        """How long the rest takes at the pace so far, such as ``about 4 min left``."""
        return self._pace.left(len(self._names) - len(self._seen))

    def _read(self) -> set[str]:
        try:
            if self._file.stat().st_size > _MOST:
                return set()
            return {str(name) for name in json.loads(self._file.read_text(encoding="utf-8"))}
        except FileNotFoundError:
            return set()
        except (OSError, ValueError, TypeError):
            log.warning("%s cannot be read; all images count as not seen.", self._file)
            return set()
