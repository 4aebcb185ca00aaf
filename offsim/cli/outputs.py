"""The files that a command is asked to write: checked before anything is simulated, then written in one step each."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offsim.inputs.document import flat
from offsim.inputs.errors import InputError, nearest, one_line
from offsim.inputs.files import atomic_write, stream_of, write_together

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from offsim.views.console import Style
    from offsim.views.figure import Picture

STDOUT = "-"
YAML = (".yaml", ".yml")
SUFFIXES = {
    "--plot": (".png", ".pdf", ".svg"),
    "--trace": (".json", ".json.gz"),
    "--report": (".md", ".markdown"),
    "--html": (".html", ".htm"),
    "--emit-scenario": YAML,
}
ALONE = ("--json", "--csv")
"""Options for which - stands for standard output, where nothing else is then shown."""
REPORT_PICTURES = ("scatter", "timeline")


def check_outputs(
    outputs: Mapping[str, str | None],
    *,
    suffixes: Mapping[str, Sequence[str]] = SUFFIXES,
    inputs: Sequence[str | Path] = (),
) -> None:
    """Raise InputError for the first of the files, option -> path, that could not be written or would do damage."""
    taken = {os.path.realpath(path): "that is read" for path in inputs if "\0" not in str(path)}
    for option, path in outputs.items():
        if path is None:
            continue
        if path == STDOUT and option in ALONE:
            if STDOUT in taken:
                raise InputError(f"found standard output, which is {taken[STDOUT]}, expected a file", option)
            taken[STDOUT] = f"of {option}"
            continue
        where = f"{option} '{path}'"
        _check_suffix(path, suffixes.get(option, ()), where)
        _check_place(path, where)
        real = os.path.realpath(path)
        if real in taken and not _is_special(path):
            raise InputError(f"found the file {taken[real]}, expected another one", where)
        taken[real] = f"of {option}"


def _check_suffix(path: str, suffixes: Sequence[str], where: str) -> None:
    if not suffixes or path.lower().endswith(tuple(suffixes)) or _is_special(path):
        return
    found = os.path.splitext(path)[1]
    near = nearest(found, suffixes) if found else None
    hint = f"; did you mean '{near}'?" if near else ""
    expected = " or ".join([", ".join(suffixes[:-1]), suffixes[-1]])
    shown = f"the suffix '{found}'" if found else "no suffix"
    raise InputError(f"found {shown}, expected {expected}{hint}", where)


def _check_place(path: str, where: str) -> None:
    try:
        folder = os.path.dirname(os.path.realpath(path))
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        if not os.path.isdir(folder):
            kind = "file" if os.path.exists(folder) else "missing folder"
            raise InputError(f"found the {kind} '{os.path.dirname(path)}', expected a folder", where) from None
        if not os.path.basename(path):
            raise InputError(f"found {'a folder' if path else 'an empty'} name, expected a file's", where) from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be written: {getattr(error, 'strerror', None) or error}", where) from None
    else:
        if stat.S_ISDIR(mode):
            raise InputError("found a folder, expected a file", where)
        if not os.access(path, os.W_OK):
            raise InputError("found a file that may not be written, expected one that may", where)
        if _is_special(path):
            return
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"found the folder '{folder}', in which nothing may be written, expected another one", where)


def _is_special(path: str) -> bool:
    """Whether it is there and no plain file, or standard output: a pipe, a terminal, /dev/null."""
    try:
        return stream_of(path) is not None or not stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def neighbours(path: str, names: Iterable[str]) -> dict[str, str]:
    """Name -> path of a picture beside a report, named after it: report.md has report-scatter.png."""
    return {name: f"{os.path.splitext(path)[0]}-{name}.png" for name in names}


def check_has_neighbours(option: str, path: str) -> None:
    """Raise InputError where nothing can be written beside a file: a pipe, /dev/stdout."""
    if _is_special(path) and not os.path.isdir(path):
        problem = "found no plain file, expected one, with pictures written beside it"
        raise InputError(problem, f"{option} '{path}'")


@contextmanager
def writing(option: str, path: str) -> Iterator[None]:
    """Say which file was written; make what goes wrong meanwhile (a full disk) one message."""
    from offsim.cli.terminal import note

    try:
        yield
    except BrokenPipeError:
        pass
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror or error}", f"{option} '{path}'") from error
    else:
        if not _is_special(path):
            note(f"wrote {one_line(path)}")


def give(
    json: str | None,
    text: Callable[[Style], str],
    document: Callable[[], Mapping[str, Any]],
    csv: str | None = None,
    rows: Callable[[], Sequence[Mapping[str, Any]]] = list,
) -> None:
    """Show a result as text, and write it as JSON and its table as CSV where that is asked for.

    What goes to standard output, where the path is "-", stands there alone.
    """
    from offsim.cli.terminal import show, style_of

    if STDOUT not in (json, csv):
        show(text(style_of(sys.stdout)))
    if json is not None:
        import orjson

        _write("--json", json, orjson.dumps(document(), option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE))
    if csv is not None:
        _write("--csv", csv, csv_text(rows()).encode())


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV under the names of their columns; sections within become columns with dotted names.

    An empty cell is a value that there is not. Lists are JSON.
    """
    import csv
    import io

    import orjson

    def cell(value: Any) -> Any:
        if isinstance(value, bool):
            return str(value).lower()
        return orjson.dumps(value).decode() if isinstance(value, list | tuple) else value

    flattened = [flat(row) for row in rows]
    file = io.StringIO()
    table = csv.DictWriter(file, dict.fromkeys(name for row in flattened for name in row), lineterminator="\n")
    table.writeheader()
    table.writerows({name: cell(value) for name, value in row.items()} for row in flattened)
    return file.getvalue()


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table by column, None for what a row has not."""
    cells = table.astype(object).where(table.notna(), None)
    return [dict(zip(table.columns, row, strict=True)) for row in cells.itertuples(index=False, name=None)]


def _write(option: str, path: str, data: bytes) -> None:
    from offsim.cli.terminal import show_bytes

    if path == STDOUT:
        show_bytes(data)
        return
    with writing(option, path), atomic_write(path) as file:
        file.write(data)


def write_picture(path: str, picture: Figure) -> None:
    """Write a picture in the format that the path's suffix says."""
    from offsim.views.figure import save_picture

    with writing("--plot", path):
        save_picture(picture, path)


def write_report(path: str, text: str, pictures: Mapping[str, Picture]) -> None:
    """Write a report and its pictures, name -> picture, beside it: all of them or, but for a crash, none."""
    places = neighbours(path, pictures)
    files = {path: text.encode(), **{places[name]: picture.to_png() for name, picture in pictures.items()}}
    with writing("--report", path):
        write_together({Path(place): data for place, data in files.items()})
