"""The command: `python harness.pyz --out DIR [--quick] [--model-params 1e9] [--threads N]`."""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import torch

from .device import Device
from .everything import measure_everything
from .folder import HarnessError, ResultFolder
from .machine import available_host_bytes, describe_machine, usable_cores
from .measurement import Bench
from .training import choose_plan

PROGRAM = "harness.pyz"
OLDEST_TORCH = (2, 4)  # the first with a fused AdamW on the CPU


def check_fit(parameters: int, device: Device) -> None:
    """Raise HarnessError where training would run out of memory."""
    # Host: state and gradients, which pinning may round up to powers of two, and the reference with its temporaries.
    needs = [("host", 56 * parameters + 1e9, available_host_bytes(), 56)]
    if device.cuda:  # bf16 parameters, half of the state, buckets, activations
        needs.append(("GPU", 16 * parameters + 4e9, device.free_bytes(), 16))
    for name, needed, free, each in needs:
        if needed > free:
            most = max(0.0, parameters - (needed - free) / each)
            raise HarnessError(
                f"a model of {parameters:.3g} parameters needs about {needed / 1e9:.0f} GB of {name} memory and "
                f"{free / 1e9:.0f} GB are free: give --model-params {most:.1g} or less"
            )


def parameter_count(text: str) -> float:
    """Read --model-params."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 1e5 <= value <= 1e12:
        raise argparse.ArgumentTypeError(f"found '{text}', expected a number of parameters from 1e5 to 1e12")
    return value


def thread_count(text: str) -> int:
    """Read --threads."""
    most = usable_cores()
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"found '{text}', expected 1 to {most}, the cores of this machine")
    return int(text)


class Parser(argparse.ArgumentParser):
    """Answers bad arguments with one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and end with status 2."""
        self.exit(2, f"{self.prog}: {message} (--help lists the arguments)\n")


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(prog=PROGRAM, description="Measure a machine for offsim.", allow_abbrev=False)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--quick", action="store_true", help="small sizes, about a minute: to see that it works")
    parser.add_argument(
        "--model-params", type=parameter_count, metavar="P", help="size of the trained model (1e9; 2e7 without a GPU)"
    )
    parser.add_argument(
        "--threads", type=thread_count, metavar="N", help="threads of CPU work (as many as physical cores)"
    )
    return parser.parse_args(arguments)


def run(arguments: Sequence[str] | None) -> int:
    """Measure as the command line says; return the exit status."""
    given = read_arguments(arguments)
    version = tuple(int(number) for number in re.findall(r"\d+", torch.__version__)[:2])
    if version < OLDEST_TORCH:
        raise HarnessError(f"found PyTorch {torch.__version__}, expected {'.'.join(map(str, OLDEST_TORCH))} or newer")
    device = Device()
    threads = given.threads or torch.get_num_threads()
    parameters = given.model_params or (1e6 if given.quick else 1e9 if device.cuda else 2e7)
    plan = choose_plan(parameters, device.cuda, given.quick)
    check_fit(plan.shape.parameters, device)
    settings = {"quick": given.quick, "model_params": parameters, "threads": threads}
    machine = describe_machine(device.cuda, settings)
    folder = ResultFolder(given.out, machine)
    gpu = machine["gpus"][0]["name"] if device.cuda else "no GPU: what runs on one is left out or done by the CPU"
    print(f"{machine['cpu']['model']}, {threads} threads; {gpu}; results in {given.out}")
    if (machine["load_average"] or 0) > 0.5:
        print(f"note: other work runs here (load average {machine['load_average']:.1f}): times will be too long")
    well = measure_everything(folder, Bench(device, threads, given.quick), plan)
    print("done" if well else "done, but for what was left out above: the same command tries it again")
    return 0 if well else 1


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run and exit: errors of the user end with status 2 and Ctrl-C with 130."""
    try:
        status = run(arguments)
    except HarnessError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print(f"\n{PROGRAM}: stopped; the same command goes on with what is missing", file=sys.stderr)
        status = 130
    sys.exit(status)
