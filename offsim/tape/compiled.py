"""The loop as machine code: compiled by numba once, then kept in a file, from which it is there in milliseconds.

To import numba and to load what it keeps itself take most of a second.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from ctypes import CFUNCTYPE, byref, c_int32, c_void_p
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from offsim.engine.sharing import TOLERANCE
from offsim.engine.tier import ROUNDING
from offsim.inputs.files import atomic_write
from offsim.tape.records import STATE

_FOLDERS = Path(__file__).parent / "__pycache__", Path("~/.cache/offsim").expanduser()
"""Where it is kept: the second where the first cannot be written."""
_NAME = "run_tape"


def available() -> bool:
    """Whether numba is installed. The loop uncompiled would be slower than the engine."""
    return find_spec("numba") is not None


def kept() -> Path | None:
    """The file of the loop for this machine, if it has been compiled already."""
    return next((file for folder in _FOLDERS if (file := folder / _file_name()).is_file()), None)


@cache
def ready() -> bool:
    """Load the loop, compiled where need be; false where numba does not go with the NumPy here."""
    try:
        _function()
    except ImportError:
        return False
    return True


def run(state: Any) -> None:
    """Run a state (a `records.STATE` array of one record), whose tables are written to."""
    value, error = c_void_p(), c_void_p()
    if _function()[1](byref(value), byref(error), state.ctypes.data):
        raise RuntimeError("the compiled loop has failed")


def code() -> bytes:
    """The object file, which is compiled and kept if there is none yet."""
    if file := kept():
        return file.read_bytes()
    made = _compile()
    _keep(lambda folder: atomic_write(folder / _file_name()), made)
    return made


def wanted() -> int:
    """How often processes of this machine have wanted the loop: the size of a file that all add to."""
    files = [folder / _tally_name() for folder in _FOLDERS]
    return sum(file.stat().st_size for file in files if file.is_file())


def want(times: int) -> None:
    """Add to how often the loop has been wanted."""
    _keep(lambda folder: (folder / _tally_name()).open("ab"), bytes(times))


def _tally_name() -> str:
    return f"{_file_name()}.wanted"


def _keep(opened: Callable[[Path], AbstractContextManager[IO[bytes]]], data: bytes) -> None:
    """Write to a file in the first folder where that is possible."""
    for folder in _FOLDERS:
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            with opened(folder) as file:
                file.write(data)
            return


@cache
def _file_name() -> str:
    """Of the source, what compiles it, and the processor."""
    import llvmlite.binding as llvm

    names = "compiled", "loop", "records", "rows", "walk"
    sources = [(Path(__file__).parent / f"{name}.py").read_bytes() for name in names]
    tools = version("numba"), version("llvmlite"), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
    what = repr((TOLERANCE, ROUNDING, *tools)).encode()
    return f"loop-{sha256(b''.join([*sources, what])).hexdigest()[:32]}.o"


@cache
def _function() -> tuple[Any, Callable[[Any, Any, int], int]]:
    """What holds the machine code, and its function: of places for a value and for an error, and a state."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code()))
    engine.finalize_object()
    return engine, CFUNCTYPE(c_int32, c_void_p, c_void_p, c_void_p)(engine.get_function_address(_NAME))


def _machine() -> Any:
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features().flatten()
    target = llvm.Target.from_default_triple()
    return target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=features, opt=3, jit=True)


def _compile() -> bytes:
    import llvmlite.binding as llvm
    from numba import from_dtype

    from offsim.tape import loop

    signature = (from_dtype(STATE),)
    loop.run.compile(signature)
    name = loop.run.overloads[signature].fndesc.llvm_func_name
    module = llvm.parse_assembly(loop.run.inspect_llvm(signature).replace(name, _NAME))
    made: bytes = _machine().emit_object(module)
    return made
