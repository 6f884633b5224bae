"""Made-up results of the study on real data."""

from __future__ import annotations

from typing import Any

from benchmarks.real_data.data import DATA_SETS
from benchmarks.real_data.pieces import ITERATIONS, SHORT, Piece

BRATS, ACDC = DATA_SETS["brats_2mm"], DATA_SETS["acdc"]
COST = {
    **{"default": 1.5, "unet": 4.5, "unet_ours": 4.4, "everywhere": 2.25, "no_nmf": 1.5, "resenc": 4.0, "swin": 3.0},
    **{"plain": 1.5, "plain_everywhere": 2.25, "plain_no_nmf": 1.5},
}
SETUP = {
    "source": "made up",
    "note": "",
    "patient": r"(p\d)_",
    "tolerance_mm": 1.0,
    "memory_target_gb": 0.1,
    "iterations": 150,
    "device": "cpu",
    "patch_size": [8, 8, 8],
    "batch_size": 2,
    "spacing": [1.0, 1.0, 1.0],
    "cases": 10,
    "seconds": COST,
}


def brats(arm: str, equal: str = ITERATIONS, fold: int = 0, **others: Any) -> Piece:
    values = {"data": "brats_2mm", "configuration": "3d_fullres", "budget": SHORT, "arm": arm, "equal": equal}
    return Piece(**{**values, "fold": fold, **others})


def made_up(piece: Piece) -> dict[str, Any]:
    """Scores of two patients of a fold, two cases each, that depend on the arm and the fold."""
    gain = list(COST).index(piece.arm) / 100
    cases = {
        f"p{2 * piece.fold + patient}_{case}": {
            "whole": [round(0.5 + gain + patient / 10 + case / 50, 4), 0.25],
            "core": [None if case else 0.4, None],
        }
        for patient in range(2)
        for case in range(2)
    }
    cost = {"iterations": 150, "parameters": 1_000_000, "seconds": 60.0, "command_seconds": 80.0}
    if piece.corrupted:
        return {"scores": {"noise_1": cases, "noise_2": cases, "blur_3": cases}, "command_seconds": 9.0}
    return {**cost, "scores": cases}


def content_of(*planned: Piece) -> dict[str, Any]:
    return {"setups": {"brats_2mm/3d_fullres": {**SETUP}}, "pieces": {piece.key: made_up(piece) for piece in planned}}
