"""Small sums over measured values."""

from collections.abc import Sequence


def quantile(values: Sequence[float], q: float) -> float:
    """The value below which the share q of the values lies; 0 when there is none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[int(q * (len(ordered) - 1) + 0.5)]


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of both; 0 when there is none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def spread(values: Sequence[float]) -> float:
    """How far the middle half of the values lies apart, relative to the median."""
    m = median(values)
    return (quantile(values, 0.75) - quantile(values, 0.25)) / m if m else 0.0
