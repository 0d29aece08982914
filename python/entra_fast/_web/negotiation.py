"""Which of the offered media types a caller prefers (RFC 9110, section 12.5.1). Text in, text out."""

from __future__ import annotations

from collections.abc import Sequence

_MAX_RANGES = 32  # a longer header does not come from a genuine client


def preferred(accept: str | None, offers: Sequence[str]) -> str:
    """The offer that `accept` ranks highest.

    Ties go to the type that the caller names first, then to the one that is offered first. A caller that
    accepts none of the offers gets the first one: a response in another type helps more than 406.
    """
    ranges = [_parse(part) for part in (accept or "*/*").split(",")[:_MAX_RANGES]]
    best, best_rank = offers[0], (0.0, 0)
    for offer in offers:
        # The most specific range that matches an offer decides its quality.
        matches = [
            (specificity, quality, -position)
            for position, (media_range, quality) in enumerate(ranges)
            if (specificity := _specificity(media_range, offer))
        ]
        _, quality, position = max(matches, default=(0, 0.0, 0))
        if quality > best_rank[0] or (quality == best_rank[0] > 0.0 and position > best_rank[1]):
            best, best_rank = offer, (quality, position)
    return best


def _parse(part: str) -> tuple[str, float]:
    media_range, *parameters = part.split(";")
    quality = 1.0
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            try:
                quality = float(value)
            except ValueError:
                quality = 0.0
            if not 0.0 <= quality <= 1.0:  # also NaN
                quality = 0.0
    return media_range.strip().lower(), quality


def _specificity(media_range: str, offer: str) -> int:
    if media_range == offer:
        return 3
    if media_range == offer.partition("/")[0] + "/*":
        return 2
    return 1 if media_range in {"*/*", "*"} else 0
