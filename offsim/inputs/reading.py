"""Files to read, gzipped or not: what is wrong with one is said in one message."""

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
    """Open a file for binary reading; InputError for one that cannot be read, or not be unpacked within the block.

    `expected` says what kind of file it should be.
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


def unpacked(file: IO[bytes]) -> IO[bytes]:
    """The content of a file at its beginning: unpacked where it is gzipped, else the file itself."""
    packed = file.read(len(_GZIP)) == _GZIP
    file.seek(0)
    return cast(IO[bytes], gzip.open(file)) if packed else file


def _nearest_file(path: Path) -> str:
    """Return what to append to "no such file": the file of that kind with the nearest name, if any comes close."""
    others = sorted(other for other in path.parent.glob("*") if other.suffix == path.suffix)
    stems = {other.stem.lower(): other for other in others}
    near = nearest(path.stem, stems)
    return f"; did you mean '{stems[near]}'?" if near else ""
