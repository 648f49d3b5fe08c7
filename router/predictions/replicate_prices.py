"""What Replicate asks for a second, to estimate what the same runs would have cost there."""

from __future__ import annotations

from collections.abc import Mapping

# US dollars a second, by a part of the hardware's name, for one GPU.
# Source: https://replicate.com/pricing, read in November 2026.
PRICES: Mapping[str, float] = {
    "CPU": 0.0001,
    "T4": 0.000225,
    "A40": 0.000575,
    "L40S": 0.000975,
    "A100": 0.0014,
    "H100": 0.001525,
}


def price_per_s(hardware: str, own: Mapping[str, float]) -> float | None:
    """US dollars a second for that hardware: the price whose name is a word of it, the longest
    name first; None when there is none. Prices in `own` replace the others.

    >>> price_per_s("NVIDIA H100 80GB HBM3", {}), price_per_s("NVIDIA H200", {"h200": 0.002})
    (0.001525, 0.002)
    """
    text = f" {hardware.lower()} ".replace("-", " ")
    prices = {name.lower(): price for name, price in (*PRICES.items(), *own.items())}
    for name in sorted(prices, key=len, reverse=True):
        if f" {name.replace('-', ' ')} " in text:
            return prices[name]
    return None
