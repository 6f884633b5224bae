"""The complete job on synthetic patients: draw them, then convert, run and report with this package's own commands."""
