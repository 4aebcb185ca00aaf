import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from offsim.inputs.files import atomic_write

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}


def write_half(path: Path, error: BaseException) -> None:
    with atomic_write(path) as handle:
        handle.write(b"half of the n")
        raise error


def test_replaces_a_file_only_at_the_end_of_the_block(tmp_path: Path) -> None:
    path = tmp_path / "out.bin"
    path.write_bytes(b"old")
    with atomic_write(path) as handle:
        handle.write(b"new")
        handle.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["out.bin"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "out.bin"
    path.write_bytes(b"old")
    with pytest.raises(error):
        write_half(path, error())
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["out.bin"]


def test_an_interrupted_write_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        write_half(tmp_path / "out.bin", RuntimeError())
    assert os.listdir(tmp_path) == []


def test_keeps_the_mode_and_follows_a_link(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.write_bytes(b"old")
    real.chmod(0o640)
    link = tmp_path / "link"
    link.symlink_to(real)
    with atomic_write(link) as handle:
        handle.write(b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640


def test_a_device_is_written_not_replaced() -> None:
    with atomic_write(os.devnull) as handle:
        handle.write(b"gone")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_a_missing_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "no" / "such" / "file"):
        pass


def test_a_process_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from offsim.inputs.files import atomic_write\n"
        "with atomic_write(sys.argv[1]) as file:\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    (tmp_path / "out.bin").write_bytes(b"old")
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path / "out.bin")], env=ENVIRONMENT, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert os.listdir(tmp_path) == ["out.bin"]
    assert (tmp_path / "out.bin").read_bytes() == b"old"


def test_where_files_have_names_from_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "O_TMPFILE")
    test_replaces_a_file_only_at_the_end_of_the_block(tmp_path)
    test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, RuntimeError)


def test_a_new_file_has_the_mode_that_others_have(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "new"):
        pass
    (tmp_path / "other").touch()
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "other").stat().st_mode


WRITES = (
    "import sys; from offsim.inputs.files import atomic_write; print('text', flush=True)\n"
    "with atomic_write(sys.argv[1]) as file: file.write(b'bytes')"
)


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "out"])
def test_what_standard_output_writes_to_is_kept(tmp_path: Path, name: str) -> None:
    with (tmp_path / "out").open("wb") as out:
        subprocess.run([sys.executable, "-c", WRITES, name], stdout=out, cwd=tmp_path, env=ENVIRONMENT, check=True)
    assert os.listdir(tmp_path) == ["out"]
    assert (tmp_path / "out").read_bytes() == b"text\nbytes"


def test_a_deleted_file_is_not_made_again(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w+b") as out:
        (tmp_path / "out").unlink()
        subprocess.run([sys.executable, "-c", WRITES, "/dev/stdout"], stdout=out, env=ENVIRONMENT, check=True)
        out.seek(0)
        assert out.read() == b"text\nbytes"
    assert os.listdir(tmp_path) == []
