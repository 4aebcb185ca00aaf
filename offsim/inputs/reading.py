"""Reading files, gzipped or not, with one message per error."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from offsim.inputs.errors import InputError, nearest

_GZIP = b"\x1f\x8b"


@contextmanager
def reading(path: Path, expected: str) -> Iterator[IO[bytes]]:
    """Open a file for binary reading; InputError if it cannot be read, or unpacked within the block.

    `expected` names the expected kind of file.
    """
    try:
        with path.open("rb") as file:
            yield file
    except FileNotFoundError:
        raise InputError(f"no such file{_nearest_file(path)}", str(path)) from None
    except IsADirectoryError:
        raise InputError(f"found a folder, expected {expected}", str(path)) from None
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise InputError(f"found a damaged gzip file, expected {expected}", str(path)) from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read: {getattr(error, 'strerror', None) or error}", str(path)) from None


def read_at_most(file: IO[bytes], limit: int, expected: str, path: Path) -> bytes:
    """All of an open file; InputError for more than `limit` bytes of what is `expected`."""
    content = file.read(limit + 1)
    if len(content) > limit:
        raise InputError(f"found more than {limit} bytes, expected {expected}", str(path))
    return content


def unpacked(file: IO[bytes]) -> IO[bytes]:
    """The content of a file, unpacked if it is gzipped; InputError for a pipe, whose beginning is read once."""
    if not file.seekable():
        raise InputError("found a pipe, expected a file", str(file.name))
    packed = file.read(len(_GZIP)) == _GZIP
    file.seek(0)
    return cast(IO[bytes], gzip.open(file)) if packed else file


def _nearest_file(path: Path) -> str:
    """Return the end of a "no such file" message: the file of the same suffix with the nearest name, if any."""
    others = sorted(other for other in path.parent.glob("*") if other.suffix == path.suffix)
    stems = {other.stem.lower(): other for other in others}
    near = nearest(path.stem, stems)
    return f"; did you mean '{stems[near]}'?" if near else ""
