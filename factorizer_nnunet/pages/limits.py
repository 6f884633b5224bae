"""How much of the images a page may store to look at."""

from __future__ import annotations

from dataclasses import dataclass

from factorizer_nnunet.core.errors import UserError


@dataclass(frozen=True)
class ViewerLimits:
    """Limits of the viewer of cases in a page.

    Raises:
        UserError: they are negative, infinite or not a number.
    """

    cases: int = 200  # whose volumes are stored
    mb: float = 30.0  # all volumes together

    def __post_init__(self) -> None:
        if self.cases < 0 or not 0 <= self.mb < float("inf"):
            raise UserError(f"invalid limits of the viewer: {self.cases} cases, {self.mb:g} MB; give numbers from 0")
