"""Atomic writes: a file is either the old one or the new one."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a file for binary writing that replaces `path` only if the block ends without an error.

    Links are followed, and the mode of the replaced file is kept. Pipes and devices such as /dev/stdout are written
    directly.
    """
    # Of the path itself: where /dev/stdout is a pipe, its real path is a name without a file.
    old_mode = os.stat(path).st_mode if os.path.exists(path) else None
    if old_mode is not None and not stat.S_ISREG(old_mode):
        with open(path, "wb") as direct:
            yield direct
        return
    # Written beside the real file, not beside a link to it: a rename works within one file system only.
    target = Path(os.path.realpath(path))
    aside = target.with_name(f".offsim-{secrets.token_hex(8)}.part")
    try:
        with open(aside, "xb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        if old_mode is not None:
            os.chmod(aside, stat.S_IMODE(old_mode))
        os.replace(aside, target)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write files that belong together: none takes its place before all are written, the first one takes it last."""
    with ExitStack() as stack:
        for path, data in files.items():
            file = stack.enter_context(atomic_write(path))
            file.write(data)
            file.flush()
