"""What a user sees of an error that nobody catches."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
from factorizer_nnunet.core.errors import UserError, print_user_errors_without_traceback
print_user_errors_without_traceback()
print_user_errors_without_traceback()
raise {}
"""


@pytest.mark.parametrize(
    ("error", "expected"),
    [('UserError("plans.json lacks a key")', "error: plans.json lacks a key\n"), ('KeyError("other")', None)],
)
def test_only_the_users_errors_come_without_a_traceback(error: str, expected: str | None) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(error)], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == expected if expected else "Traceback" in done.stderr and "KeyError: 'other'" in done.stderr
