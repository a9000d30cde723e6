"""Detector bins that cannot be used: found, and filled from their neighbours in the same row and view."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lightning_mbir.errors import InputError

MOST_SHARE, LONGEST_RUN = 0.1, 10
"""Of the bins of a row, and side by side: more than this cannot be filled from neighbours."""


def check_few(path: Path, bad: np.ndarray, what: str) -> None:
    """Raise where ``bad`` ``(..., bins)`` marks more than can be filled, or all of a row.

    Raises:
        InputError: too many bins of a row, or too many side by side, and how many.
    """
    lines = bad.reshape(-1, bad.shape[-1])
    bins = lines.shape[-1]
    total = lines.sum(-1)
    worst = int(total.argmax())
    if total[worst] > MOST_SHARE * bins:
        raise InputError(
            f"{path}: {int(total[worst])} of {bins} bins of a row {what}; up to a tenth can be filled from their "
            "neighbours: correct them first, or leave those rows out (--data.slices)"
        )
    run = np.zeros(len(lines), dtype=int)
    longest = 0
    for column in lines.T:
        run = np.where(column, run + 1, 0)
        longest = max(longest, int(run.max()))
    if longest > LONGEST_RUN:
        raise InputError(
            f"{path}: {longest} bins side by side {what}; up to {LONGEST_RUN} can be filled from their neighbours: "
            "correct them first, or leave those rows out (--data.slices)"
        )


def filled(values: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """``(..., bins)`` with what is ``bad`` on the straight line between its neighbours, of the nearest at an end."""
    out = values.copy()
    lines = np.nonzero(bad.any(-1))
    missing = bad[lines]
    bins = bad.shape[-1]
    index = np.broadcast_to(np.arange(bins), missing.shape)
    left = np.maximum.accumulate(np.where(missing, -1, index), -1)
    right = np.minimum.accumulate(np.where(missing, bins, index)[:, ::-1], -1)[:, ::-1]
    left, right = np.where(left < 0, right, left), np.where(right == bins, left, right)
    share = ((index - left) / np.maximum(right - left, 1)).astype(values.dtype)
    good = values[lines]
    before, after = (np.take_along_axis(good, side, -1) for side in (left, right))
    out[lines] = np.where(missing, (1 - share) * before + share * after, good)
    return out


def stuck(low: np.ndarray, high: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """Bins that show the same in every view while those on both sides change, or nothing in any.

    Args:
        low, high: ``(rows, bins)`` least and largest transmission over all views.
        bad: those that are known to be bad already.

    Returns:
        ``(rows, bins)``. Where nothing is in the beam (transmission 1) a bin may well stay the same.
    """
    spread = high - low
    still = ~bad & (spread == 0) & (np.abs(high - 1) > 1e-3)
    moving = ~bad & (spread > 5e-3)
    # Whether the nearest bin to the left that is not still moves, and to the right.
    beside = np.ones_like(still)
    for turn in (1, -1):
        one, other = still[:, ::turn] | bad[:, ::turn], moving[:, ::turn]
        last = np.maximum.accumulate(np.where(one, -1, np.arange(one.shape[1])), -1)
        known = (last >= 0) & np.take_along_axis(other, np.maximum(last, 0), -1)
        beside &= known[:, ::turn]
    return (still & beside) | (~bad & (high <= 0))
