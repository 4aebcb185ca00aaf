"""Atomic writes: a file is either the old one or the new one."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO


def stream_of(path: str | os.PathLike[str]) -> int | None:
    """The descriptor of standard output or standard error if the path leads to the file that it writes to."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # closed, of a notebook or a test, no such file
            if os.path.samestat(os.stat(path), os.fstat(stream.fileno())):
                return stream.fileno()
    return None


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a file for binary writing that replaces `path` only if the block ends without an error.

    Links are followed, and the mode of the replaced file is kept. Pipes, devices and what standard output or standard
    error writes to, under whatever name, are written directly, behind what is there.
    """
    # Of the path itself: where /dev/stdout is a pipe or a deleted file, its real path is a name without a file.
    old_mode = os.stat(path).st_mode if os.path.exists(path) else None
    target = Path(os.path.realpath(path))
    if old_mode is not None:
        stream = stream_of(path)
        if stream is not None or not stat.S_ISREG(old_mode) or not target.exists():
            with open(path if stream is None else os.dup(stream), "wb") as direct:
                yield direct
            return
    # Written beside the real file, not beside a link to it: a rename works within one file system only.
    aside = target.with_name(f".offsim-{os.urandom(8).hex()}.part")
    unnamed = _unnamed(target.parent)
    try:
        with open(aside, "xb") if unnamed is None else open(unnamed, "wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
            if old_mode is not None:
                os.fchmod(handle.fileno(), stat.S_IMODE(old_mode))
            if unnamed is not None:
                _give_name(unnamed, aside)
        os.replace(aside, target)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def _unnamed(folder: Path) -> int | None:
    """A new file without a name, which is gone with a process that is killed; None where there are no such files."""
    with suppress(AttributeError, OSError):
        return os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o666)
    return None


def _give_name(unnamed: int, path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.link(f"/proc/self/fd/{unnamed}", path.name, dst_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write files that belong together: none takes its place before all are written, the first one takes it last."""
    with ExitStack() as stack:
        for path, data in files.items():
            file = stack.enter_context(atomic_write(path))
            file.write(data)
            file.flush()
