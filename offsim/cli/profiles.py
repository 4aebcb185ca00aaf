"""`offsim profiles`: hardware profiles listed, shown, and made of parts."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from offsim.cli.arguments import CsvOption, JsonOption, argument, flag, option, profiles_from
from offsim.cli.outputs import check_outputs, give, writing
from offsim.cli.terminal import show
from offsim.inputs.errors import InputError, KeyPath


class _OrShow(TyperGroup):
    """Takes what is no command for a profile to show: `offsim profiles NAME`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = {*self.commands, *ctx.help_option_names}
        return super().parse_args(ctx, args if args and args[0] in known else ["show", *args])


profiles = typer.Typer(
    name="profiles",
    cls=_OrShow,
    help="List hardware profiles, show one, or make one of parts.\n\noffsim profiles NAME shows one.",
    rich_markup_mode=None,
)


@profiles.command("show")
def show_profile(
    name: Annotated[str | None, argument("NAME", "Show this one, or a file's.", profiles_from)] = None,
    yaml: Annotated[bool, flag("--yaml", "As a complete YAML file, to start from.")] = False,
    json: JsonOption = None,
    csv: CsvOption = None,
) -> None:
    """List profiles, or show one, as `offsim profiles` does.

    Shows each value with its unit, where it comes from and what is known of its error.
    """
    from offsim.cli.listings import profile_report, profile_rows, profiles_report, profiles_rows
    from offsim.platform.profile_yaml import profile_yaml
    from offsim.platform.profiles import load_profile

    if name is None and yaml:
        raise InputError("found no profile to print, expected its name", "--yaml")
    check_outputs({"--json": json, "--csv": csv}, inputs=[name] if name else [])
    if name is None:
        give(json, profiles_report, lambda: {"profiles": profiles_rows()}, csv, profiles_rows)
        return
    profile = load_profile(name)
    rows = partial(profile_rows, profile)
    text = (lambda _: profile_yaml(profile).rstrip()) if yaml else partial(profile_report, profile)
    give(json, text, lambda: {"name": profile.name, "values": rows()}, csv, rows)


@profiles.command()
def parts(json: JsonOption = None, csv: CsvOption = None) -> None:
    """List the parts that `offsim profiles new` knows."""
    from offsim.cli.listings import parts_report, parts_rows

    check_outputs({"--json": json, "--csv": csv})
    give(json, parts_report, lambda: {"parts": parts_rows()}, csv, parts_rows)


@profiles.command()
def new(
    name: Annotated[str, argument("NAME", "Write NAME.yaml.")],
    gpu: Annotated[str, option("GPU", "The GPU, such as a100-80g; see offsim profiles parts.")],
    cpu: Annotated[str, option("CPU", 'Sockets, such as "2 x EPYC 7742" or "2 x 48 cores, 8 x DDR5-4800".')],
    memory: Annotated[str, option("BYTES", "Host memory of the node, such as 1TiB.")],
    count: Annotated[int, option("N", "GPUs of the node.", min=1)] = 1,
    link: Annotated[str | None, option("LINK", "Of a GPU to the host, such as pcie4x16; by default the GPU's.")] = None,
    gpus_per_uplink: Annotated[
        int, option("N", "GPUs behind one PCIe switch, which share a port of that width.", min=1)
    ] = 1,
    nvlink: Annotated[
        str | None, option("RATE", "Of a GPU in one direction, such as 56GB/s; 0 for none; else the GPU's.")
    ] = None,
    nvme: Annotated[str | None, option("SSDS", 'Such as "4 x gen4" or "2 x gen5 7.68TB".')] = None,
    network: Annotated[str | None, option("RATE", "Of the node in one direction, such as 3.2Tb/s.")] = None,
) -> None:
    """Make a complete profile of parts.

    Each value says where it comes from: a datasheet, a measurement of such a part, or a rule, which takes it from
    machines that were fitted to runs. docs/your_machine.md says how far predictions are to be trusted.
    """
    import shlex
    from collections import Counter

    from offsim.inputs.document import Document, Mark
    from offsim.inputs.files import atomic_write
    from offsim.inputs.packaged import is_path
    from offsim.platform.parts import assembled
    from offsim.platform.profile_yaml import profile_yaml

    path = Path(name if is_path(name) else f"{name}.yaml")
    check_outputs({"NAME": str(path)})
    if path.exists():
        raise InputError("found a file of this name, expected a new one", f"NAME '{path}'")
    options = {"gpu": ("gpu", gpu), "cpu": ("cpu", cpu), "memory": ("memory_bytes", memory), "count": ("count", count)}
    options |= {
        "link": ("link", link),
        "gpus-per-uplink": ("gpus_per_uplink", gpus_per_uplink if gpus_per_uplink > 1 else None),
        "nvme": ("nvme", nvme),
    }
    options |= {"nvlink": ("nvlink_bytes_per_s", nvlink), "network": ("network_bytes_per_s", network)}
    given = {option: part for option, part in options.items() if part[1] is not None}
    marks: dict[KeyPath, Mark] = {(field,): Mark(f"--{option} '{value}'") for option, (field, value) in given.items()}
    profile = assembled(path.stem, Document(dict(given.values()), marks))
    command = ["offsim", "profiles", "new", path.stem]
    command += [word for option, (_, value) in given.items() for word in (f"--{option}", str(value))]
    with writing("NAME", str(path)), atomic_write(path) as file:
        file.write(profile_yaml(profile, shlex.join(command)).encode())
    sources = Counter(origin.source for origin in profile.provenance.values())
    counts = ", ".join(f"{count} {source}" for source, count in sources.most_common())
    show(f"{profile.description}\n{counts}. Scenarios use it with hardware: ./{path}")
