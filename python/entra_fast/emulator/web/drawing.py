"""Where the boxes and arrows of the access map go: numbers from a picture. No HTTP, no colours, no text.

Places stand in columns, those of a group in a common frame. An arrow leaves the side of its box that faces
its target; between boxes of one column it goes around their right side. The same picture always gives the
same drawing.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Final

from entra_fast.emulator.model.calls import Call, Picture, Place

BOX_WIDTH: Final = 180
BOX_HEIGHT: Final = 26
ROW: Final = 34
HEADING: Final = 24
PADDING: Final = 10
PORT: Final = 4
"""Arrows leave a box this much above its middle and arrive below it: those of two directions do not meet."""
GAP: Final = 18
"""Between the frames of a column."""
CORRIDOR: Final = 104
"""Between columns, for the arrows."""
MARGIN: Final = 64
"""Right of the last column, for arrows between its boxes."""
LABEL_CHARACTERS: Final = 24


@dataclass(frozen=True, slots=True)
class Frame:
    """The frame of a group, or of a part of one."""

    title: str
    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Box:
    """A place, its upper left corner, and the text that fits in it."""

    place: Place
    x: int
    y: int
    text: str


@dataclass(frozen=True, slots=True)
class Arrow:
    """A call, the path of its arrow (SVG 2, section 9.3), and a point in its middle."""

    call: Call
    path: str
    x: int
    y: int


@dataclass(frozen=True, slots=True)
class Drawing:
    """Everything, in units of a pixel at full size."""

    width: int
    height: int
    frames: tuple[Frame, ...]
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]


def draw(picture: Picture) -> Drawing:
    """The drawing of a picture."""
    frames: list[Frame] = []
    boxes: dict[str, Box] = {}
    column_of: dict[str, int] = {}
    heights = [_height(column) for column in picture.columns]
    total = max(heights, default=0)
    for number, column in enumerate(picture.columns):
        x = PADDING + number * (BOX_WIDTH + 2 * PADDING + CORRIDOR)
        y = (total - heights[number]) // 2 + PADDING
        for title, places in itertools.groupby(column, key=lambda place: place.group):
            top = y
            y += HEADING
            for place in places:
                boxes[place.key] = Box(place, x + PADDING, y, _shortened(place.label))
                column_of[place.key] = number
                y += ROW
            frames.append(Frame(title, x, top, BOX_WIDTH + 2 * PADDING, y - top))
            y += GAP
    arrows = tuple(
        _arrow(call, boxes[call.consumer.key], boxes[call.target.key], column_of) for call in picture.calls
    )
    columns = len(picture.columns)
    width = 2 * PADDING + columns * (BOX_WIDTH + 2 * PADDING) + max(0, columns - 1) * CORRIDOR + MARGIN
    return Drawing(width, total + 2 * PADDING, tuple(frames), tuple(boxes.values()), arrows)


def _height(column: tuple[Place, ...]) -> int:
    groups = len(list(itertools.groupby(column, key=lambda place: place.group)))
    return groups * (HEADING + GAP) + len(column) * ROW - GAP


def _arrow(call: Call, start: Box, end: Box, column_of: dict[str, int]) -> Arrow:
    y1, y2 = start.y + BOX_HEIGHT // 2 - PORT, end.y + BOX_HEIGHT // 2 + PORT
    first, second = column_of[start.place.key], column_of[end.place.key]
    right = BOX_WIDTH
    if first == second:
        # Around the right side: the further apart, the wider.
        x = start.x + right
        bow = x + min(MARGIN + 24, 28 + abs(y2 - y1) // 5)
        return Arrow(
            call, f"M{x} {y1}C{bow} {y1} {bow} {y2} {x + 2} {y2}", x + (bow - x) * 3 // 4, (y1 + y2) // 2
        )
    x1, x2 = (start.x + right, end.x - 2) if first < second else (start.x, end.x + right + 2)
    bend = (CORRIDOR // 2 + 20) * (1 if first < second else -1)
    path = f"M{x1} {y1}C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}"
    return Arrow(call, path, (x1 + x2) // 2, (y1 + y2) // 2)


def _shortened(label: str) -> str:
    return label if len(label) <= LABEL_CHARACTERS else f"{label[: LABEL_CHARACTERS - 1]}…"
