"""What an examination of a dataset comes to: findings, each a sentence with its figures and what to do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Severity = Literal["error", "warn", "ok"]
SEVERITIES: tuple[Severity, ...] = ("error", "warn", "ok")


@dataclass(frozen=True)
class Finding:
    """One line of the examination.

    severity: `error`: numbers of this dataset are not to be believed; `warn`: they need a second thought; `ok`.
    check: what was looked at. text: what was found. advice: what to do, empty where nothing is. fields: the names
    that it is about. figures: the numbers behind it.
    """

    severity: Severity
    check: str
    text: str
    advice: str = ""
    fields: tuple[str, ...] = ()
    figures: Mapping[str, float | None] = field(default_factory=dict)

    def line(self) -> str:
        """The finding on one line."""
        return f"{self.severity:<5}  {self.check}: {self.text}" + (f"; {self.advice}" if self.advice else "")
