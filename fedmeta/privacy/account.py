"""The account of a run: what each round reserves in the ledger, what was spent, and when the budget ends it."""

from collections.abc import Sequence
from dataclasses import dataclass

from fedmeta.errors import ConfigurationError
from fedmeta.privacy.accounting import Bound, tightest
from fedmeta.privacy.events import Event
from fedmeta.privacy.ledger import Budget, Entry, Ledger
from fedmeta.privacy.plan import Plan


@dataclass(frozen=True)
class Account:
    """The ledger of a run under a plan.

    Attributes:
        plan: what a round releases.
        ledger: where it is written down before.
        budget: the most that may be spent; None for no bound.
    """

    plan: Plan
    ledger: Ledger
    budget: float | None = None

    def reserve(self, round: int, clients: Sequence[int]) -> list[int]:
        """Write a round down before it is released: once for all, empty rounds too, or for each client that takes part.

        Returns:
            Numbers for `Ledger.release`.
        """
        accounts: list[int | None] = [*clients] if self.plan.local else [None]
        return self.ledger.reserve([Entry(round, self.plan.unit, self.plan.event, each) for each in accounts])

    def available(self, clients: Sequence[int]) -> list[int]:
        """The clients whose budget allows another round; with one account for all, all or none."""
        if self.budget is None:
            return list(clients)
        budget = Budget(self.budget, self.plan.delta, self.plan.accountant)
        if not self.plan.local:
            return [] if budget.exceeded_by(self._spent(None), [self.plan.event]) else list(clients)
        answers: dict[tuple[Event, ...], bool] = {}
        for client in clients:
            spent = self._spent(client)
            if spent not in answers:
                answers[spent] = not budget.exceeded_by(spent, [self.plan.event])
        return [client for client in clients if answers[self._spent(client)]]

    def spent(self, accountant: str | None = None) -> tuple[Bound, int | None]:
        """What was spent by the account that spent most, and whose it is (None: all clients share one).

        Args:
            accountant: whose bound; None for the plan's.
        """
        name = self.plan.accountant if accountant is None else accountant
        owners: list[int | None] = [*self.ledger.clients(self.plan.unit)] if self.plan.local else []
        found: dict[tuple[Event, ...], int | None] = {}
        for owner in owners or [None]:
            found.setdefault(self._spent(owner), owner)
        known = {events: tightest(events, self.plan.delta, name) for events in found}
        events, bound = max(known.items(), key=lambda item: item[1].epsilon)
        return bound, found[events]

    def quick_epsilon(self) -> float | None:
        """An epsilon for the record of a round, by RDP, which takes no time; None where it has none."""
        try:
            return self.spent("rdp")[0].epsilon
        except ConfigurationError:
            return None

    def _spent(self, client: int | None) -> tuple[Event, ...]:
        return self.ledger.events(self.plan.unit, client)
