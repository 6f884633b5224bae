"""Check the installation and say how to fix it.

Check the installation: packages and their versions, GPU, torch.compile, nnU-Net's folders, the trainer as nnU-Net
itself finds it, and the network. One line per check, with advice if it is not ok. Takes up to a minute and changes
nothing. Exit status 1 if a check failed; warnings and what is still to do are not failures.
"""

from __future__ import annotations

import argparse


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""


def run(args: argparse.Namespace) -> int:
    """Print every check as it is done; return 1 if one failed."""
    from factorizer_nnunet.doctor import Status, all_probes, run_checks

    probes = all_probes()
    width = max(len(probe.name) for probe in probes)
    checks = []
    for check in run_checks(probes):
        fix = f" -> {check.fix}" if check.fix else ""
        print(f"{check.status.value:<4}  {check.name:<{width}}  {check.detail}{fix}", flush=True)
        checks.append(check)
    failed = sum(check.status is Status.FAIL for check in checks)
    to_do = next((check for check in checks if check.status is Status.TO_DO), None)
    if failed:
        print(f"\n{failed} of {len(probes)} checks failed; see the advice after -> above.")
    elif to_do is not None:
        print(f"\nThe installation works. To do next: {to_do.fix}")
    else:
        print("\nAll is well.")
    return 1 if failed else 0
