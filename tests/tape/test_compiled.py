"""The loop's machine code is kept where it can be written, and found again."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("numba")

from offsim.tape import compiled


def test_it_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(compiled, "_FOLDERS", (tmp_path / "file" / "below", tmp_path / "kept"))
    monkeypatch.setattr(compiled, "_compile", lambda: b"code")
    assert compiled.kept() is None
    assert compiled.code() == b"code"
    monkeypatch.setattr(compiled, "_compile", lambda: b"other")
    assert compiled.code() == b"code"
    assert compiled.kept() == next((tmp_path / "kept").iterdir())


def test_how_often_it_is_wanted_adds_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_FOLDERS", (tmp_path / "below", tmp_path / "kept"))
    assert compiled.wanted() == 0
    compiled.want(2)
    compiled.want(50)
    assert compiled.wanted() == 52
    assert compiled.kept() is None
