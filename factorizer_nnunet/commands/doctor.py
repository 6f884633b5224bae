"""Check the installation and say how to fix it.

Check the installation: packages and their versions, GPU, torch.compile, nnU-Net's folders, the trainer as nnU-Net
itself finds it, and the network. One line per check, with advice if it is not ok. Takes up to a minute and changes
nothing. Exit status 1 if a check failed; warnings are not failures.
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
    failed = 0
    for check in run_checks(probes):
        fix = f" -> {check.fix}" if check.fix else ""
        print(f"{check.status.value:<4}  {check.name:<{width}}  {check.detail}{fix}", flush=True)
        failed += check.status is Status.FAIL
    print(
        "\nAll is well." if not failed else f"\n{failed} of {len(probes)} checks failed; see the advice after -> above."
    )
    return 1 if failed else 0
