"""Whose presence is hidden, and what it means that two data sets are neighbours."""

from enum import Enum


class Unit(Enum):
    """What one change of the data is: the thing whose influence the guarantee bounds. Units never mix silently."""

    EXAMPLE = "example"
    TASK = "task"
    CLIENT = "client"


class Adjacency(Enum):
    """How neighbouring data sets differ by one unit.

    ADD_REMOVE: one has a unit more. REPLACE_ONE: a unit has other contents. REPLACE_SPECIAL: a unit's contribution is
    taken out, and all else, sizes included, stays (zero-out).
    """

    ADD_REMOVE = "add-remove"
    REPLACE_ONE = "replace-one"
    REPLACE_SPECIAL = "replace-special"

    @property
    def sensitivity(self) -> int:
        """By how many clip norms the sum of clipped contributions may differ: 2 where a contribution is exchanged."""
        return 2 if self is Adjacency.REPLACE_ONE else 1
