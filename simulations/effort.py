"""Bounds of how much an examination may be asked to look at: a count that could never end is refused in words."""

from fedmeta.errors import ConfigurationError
from fedmeta.parameters import require_number

MOST_EPISODES = 100_000
"""Frozen episodes: they are drawn before the first is looked at, and lie in memory."""
MOST_STEPS = 1_000_000
"""Steps, noisy copies, orders: of what is repeated for every input."""


def check_counts(least: int = 1, most: int = MOST_EPISODES, **counts: int) -> None:
    """Refuse counts below one or beyond what could end.

    Raises:
        ConfigurationError: names the count and its bounds.

    >>> check_counts(episodes=40)
    """
    for name, count in counts.items():
        require_number(name, count, whole=True)
        if not least <= count <= most:
            raise ConfigurationError(f"{name} = {count} must be from {least} to {most:,}")
