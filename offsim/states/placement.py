"""Where states live: what a scenario asks for, and the tier of each sub-group that comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from offsim.inputs.errors import Expected, UnknownKey
from offsim.inputs.fields import Number, Section


class Share(Section):
    """A share of the sub-groups, in their order, and its tier."""

    tier: str = Field(min_length=1, description="gpu, host, or a tier of the profile")
    share: Number | Literal["rest"] = Field(default="rest", description="share of the sub-groups, from 0 to 1; or rest")


class Activations(Section):
    """What layers keep for backward; beside its name, a rule's options, which its `Options` model checks."""

    model_config = ConfigDict(extra="allow")
    recompute: int | None = Field(default=None, ge=0, description="layers recomputed in backward, from the first; all")
    tier: str | None = Field(default=None, min_length=1, description="where it waits for backward: gpu, host")
    rule: str | None = Field(default=None, min_length=1, description="who moves it and when; one layer ahead")

    def recomputed(self, layers: int) -> int:
        """How many layers are recomputed, of so many that may be."""
        return layers if self.recompute is None else min(self.recompute, layers)

    @property
    def options(self) -> dict[str, Any]:
        """The options of the rule as given, unchecked."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _options_have_a_rule(self) -> Activations:
        if self.rule is None and self.options:
            raise UnknownKey(next(iter(self.options)), type(self).model_fields)
        return self


def _one_tier_for_all(value: Any) -> Any:
    return [{"tier": value}] if isinstance(value, str) else value


class Placement(Section):
    """Tiers of states; what is not given is the scheduler's default.

    parameters: host
    optimizer: [{tier: gpu, share: 0.2}, {tier: nvme, share: rest}]     # or one tier for all
    activations: {recompute: 12, tier: host, rule: torchtune}
    """

    parameters: str | None = Field(default=None, min_length=1, description="their tier; none: the scheduler's default")
    optimizer: Annotated[
        list[Share] | None, BeforeValidator(_one_tier_for_all, json_schema_input_type=str | list[Share] | None)
    ] = Field(
        default=None,
        description="tiers of sub-groups in their order, or one tier for all; none: the scheduler's default",
    )
    activations: Activations = Activations()

    @model_validator(mode="after")
    def _shares_add_up(self) -> Placement:
        shares = [entry.share for entry in self.optimizer or []]
        numbers = [share for share in shares if not isinstance(share, str)]
        if self.optimizer is not None and (not shares or "rest" in shares[:-1]):
            raise Expected("tiers with shares, 'rest' as the last one", at=("optimizer",))
        if any(not 0 <= share <= 1 for share in numbers) or sum(numbers) > 1 + 1e-9:
            raise Expected("shares between 0 and 1 that add up to at most 1", at=("optimizer",))
        if shares and "rest" not in shares and abs(sum(numbers) - 1) > 1e-9:
            raise Expected("shares that add up to 1, or 'rest' as the last one", at=("optimizer",))
        return self


@dataclass(frozen=True, slots=True)
class Rule:
    """The class of a rule by which activations move, and its checked options."""

    chosen: type[Any]
    options: Any


@dataclass(frozen=True, slots=True)
class Placed:
    """Where the states of a rank are."""

    parameters: str
    optimizer: tuple[str, ...]
    """Tier of each sub-group's optimizer state."""
    activations: str
    recomputed: int
    """Layers whose forward backward repeats: the first ones."""
    rule: Rule | None = None
    """How activations move; None for one layer ahead."""


def tiers_of(shares: Sequence[tuple[str, float | str]], subgroups: int) -> tuple[str, ...]:
    """Tier of each of so many sub-groups: the first int(share x n) to the first tier, and so on; the rest to the last.

    As DeepSpeed's TwinFlow counts its `ratio` (blogs/deepspeed-offloadpp).
    """
    tiers: list[str] = []
    total = 0.0
    for position, (tier, share) in enumerate(shares):
        last = position == len(shares) - 1 or isinstance(share, str)
        total += 0.0 if isinstance(share, str) else share
        tiers += [tier] * ((subgroups if last else int(total * subgroups)) - len(tiers))
    return tuple(tiers)


def shares_of(tiers: Sequence[str]) -> list[dict[str, Any]]:
    """Shares of which `tiers_of` makes these tiers again: of half a sub-group more than the first has, for rounding."""
    shares: list[dict[str, Any]] = [
        {"tier": tier, "share": len([*alike]) / len(tiers)} for tier, alike in groupby(tiers)
    ]
    shares[0]["share"] += 0.5 / len(tiers)
    shares[-1]["share"] = "rest"
    return shares
