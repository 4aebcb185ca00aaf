"""A results folder: what was swept, the journal of outcomes, and the table made of them at the end.

- `sweep.json`: the sweep and the version of offsim
- `journal.jsonl`: a line per simulated point, {"id": ..., "outcome": {...}}, in the order in which they ended
- `results.parquet`: the table, written when all points are done
- `.lock`: held by the one process that writes here
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from offsim.inputs.errors import InputError
from offsim.inputs.files import atomic_write
from offsim.inputs.packaged import offsim_version

MANIFEST, JOURNAL, TABLE, LOCK = "sweep.json", "journal.jsonl", "results.parquet", ".lock"


@contextmanager
def claim(folder: Path, content: dict[str, Any], *, resume: bool) -> Iterator[None]:
    """Make the folder this sweep's and keep others from writing to it for as long as the block runs.

    Raises InputError where it holds something else, where it holds results and `resume` is not asked for, and where
    another process is writing to it.
    """
    from filelock import FileLock, Timeout

    where = str(folder)
    try:
        folder.mkdir(exist_ok=True)
        _refuse_foreign(folder)
        lock = FileLock(folder / LOCK, timeout=0)
        lock.acquire()
    except Timeout:
        raise InputError("another sweep is writing to this folder", where) from None
    except FileNotFoundError:
        raise InputError(f"found the missing folder '{folder.parent}', expected one", where) from None
    except FileExistsError:
        raise InputError("found a file, expected a folder", where) from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be written: {getattr(error, 'strerror', None) or error}", where) from None
    try:
        _match(folder, content, resume)
        manifest = {"offsim": offsim_version(), "sweep": content}
        with writing(folder), atomic_write(folder / MANIFEST) as file:
            file.write(json.dumps(manifest, indent=1, default=str).encode() + b"\n")
        yield
    finally:
        lock.release()


def _refuse_foreign(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()} - {LOCK}
    if names and MANIFEST not in names:
        problem = f"found files that are no sweep's, such as '{min(names)}', expected an empty or a new folder"
        raise InputError(problem, str(folder))


def _match(folder: Path, content: dict[str, Any], resume: bool) -> None:
    journal = folder / JOURNAL
    if not journal.exists() or not journal.stat().st_size:
        return
    before = read_manifest(folder).get("sweep")
    same = json.loads(json.dumps(content, default=str)) == before
    if not resume:
        which = "this sweep; --resume continues it" if same else "another sweep, expected an empty or a new folder"
        raise InputError(f"found results of {which}", str(folder))
    bases = [_listed(one.get("base") if isinstance(one, dict) else None) for one in (content, before)]
    if not same and not bases[0] & bases[1]:
        problem = f"found results of a sweep of {', '.join(sorted(bases[1]))}, expected those of {min(bases[0])}"
        raise InputError(f"{problem}, which --resume could continue", str(folder))


def _listed(base: Any) -> set[str]:
    """Names of the scenarios that a sweep starts from."""
    listed = base if isinstance(base, list) else [base]
    return {str(one.get("name", "scenario") if isinstance(one, dict) else one) for one in listed}


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return what `sweep.json` holds; InputError where there is none or it is not JSON."""
    path = folder / MANIFEST
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"found no {MANIFEST}, expected the results folder of a sweep", str(folder)) from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read: {getattr(error, 'strerror', None) or error}", str(path)) from None
    if not isinstance(found, dict):
        raise InputError("found something else than a sweep's description", str(path))
    return found


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Make what goes wrong while results are written (a full disk) one message."""
    try:
        yield
    except OSError as error:
        problem = f"cannot be written: {error.strerror or error}; what is finished is kept, --resume continues"
        raise InputError(problem, str(folder)) from error
