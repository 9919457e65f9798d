"""`python -m napari_simmat`: the command line, where `simmat` is not on the path."""

from __future__ import annotations

import sys

from napari_simmat.cli import main

if __name__ == "__main__":
    sys.exit(main())
