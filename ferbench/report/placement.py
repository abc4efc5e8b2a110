"""Where a name beside a point goes, so that it covers neither another name nor a point; all in pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_NEAR, _FAR, _STEP = 12, 100, 8
"""Distances from the point at which a name is tried."""
_ANGLES = (0, 180, 90, 270, 35, 145, 325, 215)


class Box(NamedTuple):
    """A rectangle, x to the right and y upwards."""

    x0: float
    y0: float
    x1: float
    y1: float

    def padded(self, by: float) -> Box:
        """The box grown on each side."""
        return Box(self.x0 - by, self.y0 - by, self.x1 + by, self.y1 + by)

    def shared(self, other: Box) -> float:
        """Area that two boxes share."""
        wide = min(self.x1, other.x1) - max(self.x0, other.x0)
        high = min(self.y1, other.y1) - max(self.y0, other.y0)
        return wide * high if wide > 0 and high > 0 else 0.0

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        """The point of the box that is nearest to another."""
        return min(max(x, self.x0), self.x1), min(max(y, self.y0), self.y1)


def free_box(spot: tuple[float, float], width: float, height: float, taken: Sequence[Box], inside: Box) -> Box:
    """The nearest place for a name at a point: the first that covers nothing, else the one that covers least."""
    best, least = Box(0, 0, 0, 0), math.inf
    for box in _candidates(spot, width, height):
        cost = sum(box.shared(other) for other in taken) + width * height - box.shared(inside)
        if cost < least - 1e-6:
            best, least = box, cost
        if least <= 1e-6:
            break
    return best


def _candidates(spot: tuple[float, float], width: float, height: float) -> Iterator[Box]:
    for radius in range(_NEAR, _FAR, _STEP):
        for angle in _ANGLES:
            across, up = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            x, y = spot[0] + radius * across, spot[1] + radius * up
            left = x - width * _share(across)
            low = y - height * _share(up)
            yield Box(left, low, left + width, low + height)


def _share(direction: float) -> float:
    """How much of the name lies before its anchor: none when it points forwards, all when backwards, half between."""
    return 0.0 if direction > 0.3 else 1.0 if direction < -0.3 else 0.5
