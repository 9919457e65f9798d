"""Run a command that opens windows: ``python tests/with_screen.py pytest``.

On Linux the command gets its own virtual screen, so that no window pops up and nobody's mouse
disturbs a test. As root, the script installs the system libraries that Qt needs on a bare Debian or
Ubuntu; otherwise it prints the command. On macOS and Windows it only runs the command. It uses the
standard library alone, so any Python can start it.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# What Qt's xcb plugin and OpenGL load at run time, with the Debian package that brings it.
LIBRARIES = {
    "libGL.so.1": "libgl1",
    "libEGL.so.1": "libegl1",
    "libOpenGL.so.0": "libopengl0",
    "libxkbcommon-x11.so.0": "libxkbcommon-x11-0",
    "libdbus-1.so.3": "libdbus-1-3",
    "libxcb-cursor.so.0": "libxcb-cursor0",
    "libxcb-icccm.so.4": "libxcb-icccm4",
    "libxcb-image.so.0": "libxcb-image0",
    "libxcb-keysyms.so.1": "libxcb-keysyms1",
    "libxcb-randr.so.0": "libxcb-randr0",
    "libxcb-render-util.so.0": "libxcb-render-util0",
    "libxcb-shape.so.0": "libxcb-shape0",
    "libxcb-xinerama.so.0": "libxcb-xinerama0",
    "libxcb-xinput.so.0": "libxcb-xinput0",
    "libxcb-xfixes.so.0": "libxcb-xfixes0",
    "libfontconfig.so.1": "libfontconfig1",
    "libglib-2.0.so.0": "libglib2.0-0",
}


def main(command: list[str]) -> int:
    """Run the command and return its exit status."""
    if not command:
        print(__doc__)
        return 2
    if not sys.platform.startswith("linux"):
        return run(command, dict(os.environ))
    packages = missing_packages()
    if packages and os.geteuid() == 0 and shutil.which("apt-get"):
        install(packages)
        packages = missing_packages()
    if "xvfb" in packages and os.environ.get("DISPLAY"):
        print("with_screen: no Xvfb here, the windows open on your own screen", file=sys.stderr)
        packages.remove("xvfb")
    if packages:
        print(
            "with_screen: a Qt window needs system libraries that are missing here. "
            "On Debian or Ubuntu run\n\n    sudo apt-get update && sudo apt-get install -y "
            f"{' '.join(packages)}\n\n(elsewhere: your system's packages of the same libraries)",
            file=sys.stderr,
        )
        return 1
    if not shutil.which("Xvfb"):
        return run(command, dict(os.environ))
    with virtual_screen() as display:
        # Mesa renders in software here anyway; said openly, it does not look for a graphics card.
        screen = {"DISPLAY": display, "QT_QPA_PLATFORM": "xcb", "LIBGL_ALWAYS_SOFTWARE": "1"}
        return run(command, {**os.environ, **screen})


def missing_packages() -> list[str]:
    """The Debian packages that are missing."""
    missing = [] if shutil.which("Xvfb") else ["xvfb"]
    for library, package in LIBRARIES.items():
        try:
            ctypes.CDLL(library)
        except OSError:
            missing.append(package)
    return missing


def install(packages: list[str]) -> None:
    """Install Debian packages; a failure shows in the packages still missing afterwards."""
    print(f"with_screen: installing {' '.join(packages)}", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]
    for arguments in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        subprocess.run([*apt, *arguments], env=environment, stdin=subprocess.DEVNULL, check=False)


@contextmanager
def virtual_screen() -> Iterator[str]:
    """Start Xvfb on a free display, which it chooses itself, and stop it afterwards."""
    reading, writing = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1400x900x24", "-nolisten", "tcp"],
        pass_fds=[writing],
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl+C ends the command first, the screen after it
    )
    os.close(writing)
    try:
        with os.fdopen(reading) as pipe:
            number = pipe.readline().strip()  # empty once Xvfb has ended without a display
        if not number:
            raise SystemExit(f"with_screen: Xvfb ended at once with status {server.wait()}")
        yield f":{number}"
    finally:
        server.terminate()
        server.wait()


def run(command: list[str], environment: dict[str, str]) -> int:
    """Run the command; Ctrl+C reaches it too, so wait until it ends."""
    with subprocess.Popen(command, env=environment) as process:
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
