"""What a client demands of a group before it takes part; no server can set it."""

from dataclasses import dataclass

from fedmeta.errors import ConfigurationError
from fedmeta.parameters import require_number
from fedmeta.privacy.secagg.failures import Refused
from fedmeta.privacy.secagg.messages import MAX_LENGTH, KeysRequest
from fedmeta.privacy.secagg.plan import SMALLEST, Plan, least_degree, least_threshold


@dataclass(frozen=True)
class Policy:
    """A client's own conditions.

    Args:
        smallest_group: members that a group must have, >= 3.
        corrupt: share of the members that may collude with the server, 0 <= corrupt < 1; the threshold, and the degree
            of a graph that is not complete, must be as high as that demands. 0 leaves the bare minimum: at least half
            of the holders of a share must help to rebuild a secret.
        active: whether the server itself may lie; it must then have chosen a threshold at which nobody's two secrets
            can both be asked for.
        trusted: public identities (`identities.public_bytes`) of the nodes whose keys are masked with, learnt from
            somebody else than the server; None masks with any keys the server hands over.
    """

    smallest_group: int = SMALLEST
    corrupt: float = 0.0
    active: bool = False
    trusted: frozenset[bytes] | None = None

    def __post_init__(self) -> None:
        require_number("smallest_group", self.smallest_group, whole=True)
        require_number("corrupt", self.corrupt)
        if self.smallest_group < SMALLEST or not 0 <= self.corrupt < 1:
            raise ConfigurationError(
                f"secure aggregation: smallest_group = {self.smallest_group} must be >= {SMALLEST} and corrupt = "
                f"{self.corrupt} within [0, 1)"
            )

    def check(self, request: KeysRequest) -> None:
        """Judge an invitation.

        Raises:
            Refused: a group that is too small, or whose degree or threshold is below what the policy demands.
        """
        count = len(request.context.members)
        if count < self.smallest_group:
            raise Refused(f"a group of {count}, where this node asks for at least {self.smallest_group} members")
        try:
            Plan(count, request.degree, request.threshold)
        except ConfigurationError as error:
            raise Refused(str(error)) from error
        if (self.corrupt or self.active) and request.degree < least_degree(count, self.corrupt, 0.0):
            raise Refused(
                f"{request.degree} neighbours of {count} members, where this node asks for at least "
                f"{least_degree(count, self.corrupt, 0.0)} against {self.corrupt:g} corrupt ones"
                f"{' and an active server' if self.active else ''}"
            )
        least = least_threshold(count, request.degree, self.corrupt, self.active)
        if request.threshold < least:
            raise Refused(
                f"a threshold of {request.threshold} of {request.degree + 1} shares, where this node asks for at least "
                f"{least} against {self.corrupt:g} corrupt members{' and an active server' if self.active else ''}"
            )
        if request.bits not in (32, 64) or not 0 < request.length <= MAX_LENGTH:
            raise Refused(f"vectors of {request.length} words of {request.bits} bits: words have 32 or 64 bits")
