"""The command line that the benchmarks on the Hippocampus data share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def benchmark_parser(description: str) -> argparse.ArgumentParser:
    """DATA, where to work, where the page goes, and whether only to write it."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="Hippocampus in nnU-Net raw layout (holds dataset.json)")
    parser.add_argument("--root", type=Path, required=True, help="working folder")
    parser.add_argument(
        "--docs", type=Path, default=Path("docs/measured"), help="where page and figure go (default %(default)s)"
    )
    parser.add_argument("--report-only", action="store_true", help="write the page from what is there")
    return parser


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; ends with a message if DATA is no data set."""
    options = parser.parse_args(arguments)
    if not (options.data / "dataset.json").is_file():
        sys.exit(f"error: no dataset.json in {options.data}; DATA must be in nnU-Net raw layout")
    return options
