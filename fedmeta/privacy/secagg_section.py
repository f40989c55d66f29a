"""The `[secagg]` section of an experiment."""

from typing import Literal

from pydantic import ConfigDict, Field

from fedmeta.section import Section


class DropoutSection(Section):
    """In a simulation: shares of the clients that fall silent before an exchange of secure aggregation, and stay so."""

    keys: float = Field(0.0, ge=0, le=1, description="before they send keys, each by its own coin")
    shares: float = Field(0.0, ge=0, le=1, description="of the rest, before they send shares of their secrets")
    masked: float = Field(0.0, ge=0, le=1, description="of the rest, before they train and send a masked update")
    unmask: float = Field(0.0, ge=0, le=1, description="of the rest, before they help to take the masks off the sum")


class SecaggSection(Section):
    """Secure aggregation: the server learns one sum for each group of clients, and no single update."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, strict=True, allow_inf_nan=False)

    enabled: bool = Field(False, description="whether updates are masked")
    group_size: int | None = Field(
        None, ge=3, description="clients a group, drawn anew every round; none: all of a round in one [clients]"
    )
    bits: Literal[32, 64] = Field(32, description="of a masked entry; 64 for more than 1,000 clients a group")
    bound: float = Field(
        4.0, gt=0, description="largest absolute entry of an update; what exceeds it is clipped, and the share is told"
    )
    metric_bound: float = Field(100.0, gt=0, description="largest absolute value of a training metric; clipped, too")
    weight_bound: int | None = Field(
        None, ge=1, description="largest weight of a client; none: steps * tasks_per_step, the weight of all [tasks]"
    )
    adversary: Literal["semi-honest", "active"] = Field(
        "active", description="what threshold and neighbours hold against: a server that listens, or one that deviates"
    )
    corrupt: float = Field(
        0.1, ge=0, lt=0.5, description="share of the clients assumed to collude, for threshold, neighbours and rules"
    )
    dropouts: float = Field(0.1, ge=0, lt=0.5, description="share of the clients assumed to fall silent in a round")
    neighbours: int | None = Field(
        None, ge=2, description="clients that each one shares its secrets with; none: by the protocol's rule [clients]"
    )
    threshold: int | None = Field(
        None, ge=2, description="shares that rebuild a secret; none: by the protocol's rule [clients]"
    )
    seconds: float | None = Field(
        None, gt=0, description="for all four exchanges of a round together; none: server.timeout [seconds]"
    )
    risk: float = Field(
        0.01, gt=0, lt=1, description="accepted probability of a round with more bad groups than the rule tolerates"
    )
    allow_unsafe_groups: bool = Field(
        False, description="play with groups that are too small to hide, or too large for the robust rule; said in full"
    )
    dropout: DropoutSection = Field(DropoutSection(), description=DropoutSection.__doc__)
