"""Arguments and options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Any

import typer


def _completion(module: str, available: str) -> Callable[[str], list[str]]:
    """Complete one of the names that a function of a module lists."""

    def complete(incomplete: str) -> list[str]:
        names = getattr(import_module(f"offsim.{module}"), available)()
        return [name for name in names if name.startswith(incomplete)]

    return complete


scenarios_from = _completion("scenario", "available_scenarios")
profiles_from = _completion("platform.profiles", "available_profiles")
schedulers_from = _completion("schedulers.registry", "available_schedulers")


def option(metavar: str, help: str, *names: str, **more: Any) -> Any:
    """Declare an option that has a value; without names it is called as the parameter is."""
    return typer.Option(*names, metavar=metavar, help=help, **more)


def flag(name: str, help: str) -> Any:
    """Declare an option without a value."""
    return typer.Option(name, help=help)


def argument(metavar: str, help: str, completion: Callable[[str], list[str]] | None = None) -> Any:
    """Declare an argument."""
    return typer.Argument(metavar=metavar, help=help, autocompletion=completion)


def scheduler_option(help: str) -> Any:
    """Declare `--scheduler`, which may have options behind its name."""
    return option("NAME[:OPTION=VALUE,...]", help, "--scheduler", autocompletion=schedulers_from)


def profile_option(help: str) -> Any:
    """Declare an option whose value is a hardware profile."""
    return option("PROFILE", help, autocompletion=profiles_from)


def plot_option(help: str) -> Any:
    """Declare `--plot`, whose help says what is drawn."""
    return option("FILE", f"{help} (.png, .pdf, .svg).")


ScenarioArgument = Annotated[
    str | None, argument("SCENARIO", "A YAML file, or the name of a scenario that comes with offsim.", scenarios_from)
]
SetOption = Annotated[
    list[str] | None,
    option("KEY=VALUE", "Replace a value of the scenario, such as training.micro_batch=2. May be repeated.", "--set"),
]
JsonOption = Annotated[str | None, option("FILE", "Write everything as JSON; - for standard output.")]
CsvOption = Annotated[str | None, option("FILE", "Write the table as CSV; - for standard output.")]
JobsOption = Annotated[int | None, option("N", "Worker processes; by default as many as cores.", min=1)]
AllRanksOption = Annotated[
    bool,
    flag("--all-ranks", "Simulate every rank of a node; otherwise one stands for those that are alike."),
]


def _file(metavar: str, help: str) -> Any:
    return Annotated[str | None, option(metavar, help)]


IMPORT_OPTIONS = {
    "deepspeed": _file("DS_CONFIG.json", "Instead of a scenario: DeepSpeed's configuration, as it is."),
    "fsdp": _file("ACCELERATE.yaml", "Instead of a scenario: accelerate's configuration of PyTorch FSDP, as it is."),
    "trainer": _file(
        "ARGS.json", "Hugging Face's TrainingArguments: batch sizes, and the configuration that they name."
    ),
    "model": _file("CONFIG.json", "With these: the config.json of a Hugging Face model."),
    "hardware": Annotated[str | None, profile_option("With these: what it runs on.")],
    "gpus": Annotated[int | None, option("COUNT", "With these: GPUs of the job; by default one node's.")],
    "sequence": Annotated[int | None, option("TOKENS", "With these: length of a sequence; by default at most 2048.")],
}
"""The options that make a scenario: parameter of `import_scenario` -> how it is declared."""

PriceOption = Annotated[
    float | None,
    option(
        "PRICE",
        "Add costs, in the currency of this price of a GPU; the scenario's key price_per_gpu_hour does too.",
        "--price-per-gpu-hour",
        min=0,
    ),
]
StrictOption = Annotated[bool, flag("--strict", "Exit with 1 where it does not fit in memory; without it that is 0.")]


def end_strictly(strict: bool, fits: bool) -> None:
    """Leave the command with status 1 where it is strict and something does not fit."""
    if strict and not fits:
        raise typer.Exit(1)
