"""Numbers as the cells of tables show them."""

from __future__ import annotations

from ferbench.evaluation.resampling import Interval
from ferbench.report.entries import Spread

MISSING = "–"


def percent(score: Spread | None) -> str:
    """A score of the 0-1 scale in per cent, with its standard deviation over seeds."""
    return _spread(score, 100, 2)


def unit(score: Spread | None) -> str:
    """A score as it is, with its standard deviation over seeds."""
    return _spread(score, 1, 3)


def _spread(score: Spread | None, scale: float, digits: int) -> str:
    if score is None:
        return MISSING
    mean = f"{scale * score.mean:.{digits}f}"
    return mean if score.sd is None else f"{mean} ± {scale * score.sd:.{digits}f}"


def signed(score: Spread) -> str:
    """A difference, with its standard deviation over seeds."""
    mean = f"{score.mean:+.2f}"
    return mean if score.sd is None else f"{mean} ± {score.sd:.2f}"


def p_value(p: float) -> str:
    """A p value with its sign of relation."""
    return f"= {p:.3f}" if p >= 0.001 else "< 0.001"


def millions(count: int | None) -> str:
    """A count in millions."""
    return MISSING if count is None else f"{count / 1e6:.2f}"


def rate(rate: float | None) -> str:
    """Images a second."""
    return MISSING if rate is None else f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"


def duration(seconds: float | None) -> str:
    """Seconds, minutes or hours."""
    if seconds is None:
        return MISSING
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{seconds / 60:.1f} min"


def limits(interval: Interval | None, scale: float = 1, digits: int = 3) -> str:
    """Both ends of an interval."""
    return MISSING if interval is None else " to ".join(f"{scale * end:.{digits}f}" for end in interval)
