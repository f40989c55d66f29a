"""What a check of a deployment finds: one line a subject, with what to do where it failed."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["ok", "failed", "warning", "not checked"]


@dataclass(frozen=True)
class Finding:
    """One subject.

    Attributes:
        subject: such as `address` or `data`.
        status: whether it is right.
        text: what was found.
        remedy: what to do; empty where nothing is to be done.
    """

    subject: str
    status: Status
    text: str
    remedy: str = ""

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        mark = self.status.upper() if self.status in ("failed", "warning") else self.status
        lines = [f"{mark:<12}{self.subject:<14}{self.text}"]
        return "\n".join(lines + ([f"{'':<26}mend: {self.remedy}"] if self.remedy else []))


class Failed(Exception):
    """A check that did not pass.

    Attributes:
        text: what was found.
        remedy: what to do.
    """

    def __init__(self, text: str, remedy: str) -> None:
        super().__init__(text)
        self.text, self.remedy = text, remedy


def all_well(findings: Iterable[Finding]) -> bool:
    """Whether none failed."""
    return all(finding.status != "failed" for finding in findings)
