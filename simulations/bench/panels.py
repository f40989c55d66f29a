"""Small curves as SVG text: hundreds fit into one page, where a plotting library's pictures would not."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 190.0, 118.0
LEFT, RIGHT, TOP, BOTTOM = 34.0, 6.0, 8.0, 20.0
"""Size of a panel, and the space around its axes [pixels]."""


@dataclass(frozen=True)
class Line:
    """One curve: x -> y, a colour of the page's style sheet, and whether it is a mean or one of what it is made of."""

    points: Mapping[float, float]
    colour: str
    faint: bool = False


def panel(
    lines: Sequence[Line], top: float, label: str, *, bottom: float = 0.0, ordinal: bool = False, percent: bool = True
) -> str:
    """One panel, y from `bottom` to `top`.

    Args:
        lines: curves over common x values; those without a point are left out.
        top: the upper end of the y axis, > `bottom`; points beyond it are drawn at its edge.
        label: what a screen reader says in its place.
        bottom: the lower end, likewise.
        ordinal: whether x values stand at equal distances, as numbers of adaptation steps do.
        percent: whether y is a fraction, printed in per cent.
    """
    xs = sorted({x for line in lines for x in line.points})
    if not xs:
        return ""
    place = _positions(xs, ordinal)

    def point(x: float, y: float) -> str:
        down = 1 - min(1.0, max(0.0, (y - bottom) / (top - bottom)))
        return f"{place[x]:.1f},{TOP + down * (HEIGHT - TOP - BOTTOM):.1f}"

    drawn = [_curve([point(x, line.points[x]) for x in sorted(line.points)], line) for line in lines if line.points]
    ticks = [xs[0]] if len(xs) == 1 else [xs[0], xs[-1]]
    marks = [_text(place[x], HEIGHT - 6, f"{x:g}", "middle") for x in (xs if ordinal else ticks)]
    for share in (0.0, 0.5, 1.0):
        y = TOP + (1 - share) * (HEIGHT - TOP - BOTTOM)
        value = bottom + share * (top - bottom)
        words = f"{100 * value:.0f} %" if percent else f"{value:.3g}"
        marks.append(_text(LEFT - 4, y + 3, words, "end"))
        marks.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" style="stroke:var(--line)" '
            'stroke-width="1"/>'
        )
    return (
        f'<svg class="panel" role="img" aria-label="{html.escape(label, quote=True)}" viewBox="0 0 {WIDTH:g} '
        f'{HEIGHT:g}">' + "".join(marks + drawn) + "</svg>"
    )


def _positions(xs: Sequence[float], ordinal: bool) -> dict[float, float]:
    width = WIDTH - LEFT - RIGHT - 8
    if len(xs) == 1:
        return {xs[0]: LEFT + 4 + width / 2}
    if ordinal:
        return {x: LEFT + 4 + width * i / (len(xs) - 1) for i, x in enumerate(xs)}
    return {x: LEFT + 4 + width * (x - xs[0]) / (xs[-1] - xs[0]) for x in xs}


def _curve(points: Sequence[str], line: Line) -> str:
    style = f"stroke:var(--{line.colour})"
    opacity, width = (0.3, 1) if line.faint else (1, 2)
    if len(points) == 1:
        x, y = points[0].split(",")
        return f'<circle cx="{x}" cy="{y}" r="{width + 0.5}" style="fill:var(--{line.colour})" opacity="{opacity}"/>'
    return (
        f'<polyline points="{" ".join(points)}" style="{style}" fill="none" stroke-width="{width}" opacity="{opacity}"'
        ' stroke-linejoin="round"/>'
    )


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" style="fill:var(--muted)" font-size="9">{words}</text>'
    )
