"""Line charts as inline SVG: no scripts, and colours that follow the page's light or dark mode.

Invariants: all text is escaped. The page sets the colours of the line classes (`line-1` to `line-3`). A tooltip shows
the value of each point.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 250
"""The size of a chart in its own units. The page scales it."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 92, 12, 34
_Y_TICKS, _X_TICKS = 5, 10
_LABEL_HEIGHT = 15
_MAX_MARKS = 80
_STEPS = (1, 2, 5, 10)
_END = 1.01
"""Axis marks may lie this factor beyond the last point, since intervals are never exactly a second."""


@dataclass(frozen=True, slots=True)
class Series:
    """One line.

    Attributes:
        name: The label at its end.
        points: x and y, in order of x. A y of None interrupts the line.
    """

    name: str
    points: Sequence[tuple[float, float | None]]


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart.

    Attributes:
        title: The page writes it above the chart, with the unit.
        unit: The unit of y.
        x_label: The text below the chart.
        series: The lines, at most three.
        x_ticks: Positions and labels on the x axis. Without any, round numbers are marked.
        limit: The y and the name of a dashed line, or None.
    """

    title: str
    unit: str
    x_label: str
    series: Sequence[Series]
    x_ticks: Sequence[tuple[float, str]] = ()
    limit: tuple[float, str] | None = None

    def to_svg(self) -> str:
        """Draw the chart. Without values, return a sentence instead."""
        points = [(x, y) for series in self.series for x, y in series.points if y is not None]
        if not points:
            return "<p class=note>Nothing was measured.</p>"
        xs = [x for x, _ in points]
        ys = [y for _, y in points] + ([] if self.limit is None else [self.limit[0]])
        y_ticks = round_ticks(max(ys))
        x_ticks = list(self.x_ticks) or [
            (tick, f"{tick:g}") for tick in round_ticks(max(xs), _X_TICKS) if tick <= max(xs) * _END
        ]
        scale = _Scale(min(0.0, *xs), max(*xs, x_ticks[-1][0]), y_ticks[-1])
        parts = [
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role=img aria-label="{escape(self.title)}">',
            *_axes(scale, x_ticks, y_ticks, self.x_label),
        ]
        if self.limit is not None:
            parts += _limit(scale, *self.limit)
        labels = _label_positions([scale.y(_last(series)) for series in self.series])
        for number, (series, label_y) in enumerate(zip(self.series, labels, strict=True), 1):
            parts += _line(scale, series, number, label_y, self.unit)
        return "\n".join([*parts, "</svg>"])


@dataclass(frozen=True, slots=True)
class _Scale:
    """Maps values to positions in the chart; y begins at 0."""

    first_x: float
    last_x: float
    last_y: float

    def x(self, value: float) -> float:
        width = WIDTH - _LEFT - _RIGHT
        return _LEFT + (value - self.first_x) / ((self.last_x - self.first_x) or 1) * width

    def y(self, value: float) -> float:
        height = HEIGHT - _TOP - _BOTTOM
        return _TOP + (1 - value / self.last_y) * height


def round_ticks(highest: float, wanted: int = _Y_TICKS) -> list[float]:
    """Return round numbers from 0 to at least `highest`, in at most `wanted` steps."""
    if highest <= 0:
        return [0.0, 1.0]
    magnitude = 10.0 ** math.floor(math.log10(highest / wanted))
    step = next(factor * magnitude for factor in _STEPS if factor * magnitude * wanted >= highest)
    return [number * step for number in range(math.ceil(highest / step - 1e-9) + 1)]


def _axes(scale: _Scale, x_ticks: Sequence[tuple[float, str]], y_ticks: Sequence[float], x_label: str) -> list[str]:
    bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    parts = []
    for tick in y_ticks:
        y = scale.y(tick)
        kind = "grid" if tick else "axis"
        parts.append(f"<line class={kind} x1={_LEFT} x2={right} y1={y:.1f} y2={y:.1f} />")
        parts.append(f"<text class=tick x={_LEFT - 6} y={y + 4:.1f} text-anchor=end>{tick:,.10g}</text>")
    for tick, label in x_ticks[:: -(-len(x_ticks) // _X_TICKS)]:
        parts.append(
            f"<text class=tick x={scale.x(tick):.1f} y={bottom + 15} text-anchor=middle>{escape(label)}</text>"
        )
    parts.append(
        f"<text class=tick x={(_LEFT + right) / 2:.0f} y={HEIGHT - 4} text-anchor=middle>{escape(x_label)}</text>"
    )
    return parts


def _limit(scale: _Scale, value: float, name: str) -> list[str]:
    y = scale.y(value)
    return [
        f"<line class=limit x1={_LEFT} x2={WIDTH - _RIGHT} y1={y:.1f} y2={y:.1f} />",
        f"<text class=tick x={_LEFT + 4} y={y - 4:.1f}>{escape(name)}</text>",
    ]


def _line(scale: _Scale, series: Series, number: int, label_y: float, unit: str) -> list[str]:
    path, pen_is_up = [], True
    for x, y in series.points:
        if y is None:
            pen_is_up = True
            continue
        path.append(f"{'M' if pen_is_up else 'L'}{scale.x(x):.1f} {scale.y(y):.1f}")
        pen_is_up = False
    marks = [
        f'<circle class="mark line-{number}" cx={scale.x(x):.1f} cy={scale.y(y):.1f} r=8>'
        f"<title>{escape(series.name)}: {y:,.4g} {escape(unit)} at {x:,.4g}</title></circle>"
        for x, y in series.points[:: -(-len(series.points) // _MAX_MARKS)]
        if y is not None
    ]
    label_x = scale.x(series.points[-1][0]) + 8
    return [
        f'<path class="line line-{number}" d="{" ".join(path)}" />',
        *marks,
        f'<text class="label line-{number}" x={label_x:.1f} y={label_y + 4:.1f}>{escape(series.name)}</text>',
    ]


def _last(series: Series) -> float:
    return next((y for _, y in reversed(series.points) if y is not None), 0.0)


def _label_positions(wanted: Sequence[float]) -> list[float]:
    """Move overlapping labels apart, none of them below the chart. They keep the given order."""
    order = sorted(range(len(wanted)), key=lambda index: -wanted[index])
    placed = dict.fromkeys(order, 0.0)
    ceiling = float(HEIGHT - _BOTTOM)
    for index in order:
        placed[index] = min(wanted[index], ceiling)
        ceiling = placed[index] - _LABEL_HEIGHT
    return [placed[index] for index in range(len(wanted))]
