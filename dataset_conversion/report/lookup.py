"""What several sections of the report's page look up in the facts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Facts = Mapping[str, Any]  # as report_facts gives them, or a part of them


def row_anchors(facts: Facts) -> dict[str, str]:
    """The anchor of each case's row in the table."""
    return {case: f"case-{number}" for number, case in enumerate(facts["cases"])}


def labelled(facts: Facts) -> list[Facts]:
    return [case for case in facts["cases"].values() if case["label"] is not None]


def registrations(facts: Facts) -> list[tuple[str, Facts]]:
    """Case and registration, failed ones first."""
    found = [(name, one) for name, case in facts["cases"].items() for one in case["registrations"]]
    return sorted(found, key=lambda pair: pair[1]["ok"])
