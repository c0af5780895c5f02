"""Text of values for people: one function for each kind of quantity. Pure, and imports nothing of the project."""

DASH = "–"


def format_value(value: float | None, unit: str, *, missing: str = DASH) -> str:
    """Return a value with its unit: ``2.31 ms``, ``312.0 MiB``, ``410/s``, ``$0.061``, ``0.9120``."""
    match unit:
        case _ if value is None:
            return missing
        case "s":
            return f"{value * 1e3:.3g} ms" if abs(value) < 1 else f"{value:.3g} s"
        case "B":
            for size, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
                if abs(value) >= size:
                    return f"{value / size:.1f} {name}"
            return f"{value:.0f} B"
        case "B/1k":
            return f"{format_value(value, 'B')} per 1,000 requests"
        case "J":
            return f"{value * 1e3:.3g} mJ" if abs(value) < 1 else f"{value:.3g} J"
        case "1/s":
            return f"{value:.0f}/s" if abs(value) >= 100 else f"{value:.3g}/s"
        case "$/1M":
            return f"${value:.3g}"
        case "share":
            return f"{value:.2%}"
    return f"{value:.4f}"


def format_range(low: float, high: float, unit: str, *, between: str = " … ") -> str:
    """Return both ends of an interval with their unit."""
    return f"{format_value(low, unit)}{between}{format_value(high, unit)}"


def format_duration(seconds: float) -> str:
    """Return how long something takes: ``40 s``, ``2.5 min``, ``1.2 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def format_milliseconds(seconds: float | None, digits: int = 2) -> str:
    """Return ``1.53 ms``: a column of them is aligned at the point; a hyphen for None."""
    return "-" if seconds is None else f"{seconds * 1e3:.{digits}f} ms"


def format_span(seconds: float, *, signed: bool = False) -> str:
    """Return a part of a latency: in microseconds where milliseconds would need many zeros."""
    text = f"{1e6 * seconds:.3g} µs" if 0 < abs(seconds) < 1e-4 else format_value(seconds, "s")
    return f"+{text}" if signed and seconds > 0 else text


def format_change(ratio: float | None, *, missing: str = "") -> str:
    """Return a ratio as the change that it is: ``+3.1%`` for 1.031."""
    return missing if ratio is None else f"{ratio - 1:+.1%}"


def format_count(count: int) -> str:
    """Return a forecast's count with two digits: ``99``, ``120``, ``18k``."""
    if count < 100:
        return str(count)
    digits = 10 ** (len(str(count)) - 2)
    rounded = round(count / digits) * digits
    return f"{rounded / 1000:g}k" if rounded >= 1000 else str(rounded)


def short_digest(digest: str | None) -> str:
    """Return the first twelve digits of a digest, without its algorithm."""
    return (digest or "").removeprefix("sha256:")[:12]
