"""Figures: points where they belong, colours and fonts left to the page."""

import math
import re

import pytest

from cai.report.figures import COLOURS, Labels, Series, bars, plot

TEXTS = Labels("key", "x", "y")


def lines(drawing, css):
    """Return the ends of the lines of a class."""
    groups = re.findall(rf'<g class="{css}">.*?</g>', drawing, re.DOTALL)
    return [re.findall(r"[ML] ([\d.-]+) ([\d.-]+)", group) for group in groups]


def test_intervals_stay_with_their_points():
    low, high = [4.0, 0.5], [6.0, 1.5]
    whole = plot([Series("s", [0, 1], [5.0, 1.0], low, high)], TEXTS)
    part = plot([Series("s", [0, 1], [None, 1.0], low, high)], TEXTS)
    [first, second], [left] = lines(whole, "c0 bound"), lines(part, "c0 bound")
    for (x0, _), (x1, _) in (first, second, left):
        assert x0 == x1, "upright"
    assert second == left
    assert (whole.count("<use"), part.count("<use")) == (2, 1)
    assert plot([Series("s", [0], [math.nan])], TEXTS) == ""


def test_no_colour_no_font_and_no_style_of_its_own():
    drawing = plot([Series("s", [0, 1], [1, 2])], TEXTS)
    drawing += bars([("a", [0.25, 0.75])], ("left", "right"), "bars")
    assert not re.search(r"style=|font|<style|<metadata|#[0-9a-f]{6}\b", drawing)
    paints = set(re.findall(r'(?:fill|stroke)="([^"]*)"', drawing))
    assert paints <= {"none", "currentColor"}
    assert ">x</text>" in drawing, "texts are texts"
    assert 'role="img" aria-label="y against x: s"' in drawing


def test_a_share_is_as_wide_as_it_is_large():
    drawing = bars([("a", [0.25, 0.75]), ("b", [1.0, 0.0])], ("left", "right"), "key")
    widths = []
    bar = r'<g class="c\d+"><title>[^<]*</title><path d="([^"]*)"'
    for path in re.findall(bar, drawing.replace("\n", "")):
        xs = [float(x) for x in re.findall(r"[ML] ?([\d.]+)", path)]
        widths.append(max(xs) - min(xs))
    assert len(widths) == 3, "none for a share of 0"
    assert widths[1] / widths[0] == pytest.approx(3)
    assert widths[2] == pytest.approx(widths[0] + widths[1])
    for title in ("left: 25%", "right: 75%", "left: 100%"):
        assert f"<title>{title}</title>" in drawing


def test_series_beyond_the_colours_have_numbers():
    many = [Series(f"s{n}", [n], [n], line=False) for n in range(COLOURS + 1)]
    assert f">{COLOURS + 1}</text>" in plot(many, Labels("key", "", ""))
    assert f">{COLOURS}</text>" not in plot(many[:2], Labels("key", "", ""))


def test_ids_of_two_drawings_differ_and_the_bytes_of_one_do_not():
    series = [Series("s", [0, 1], [1, 2])]
    one, again, other = (plot(series, Labels(key, "x", "y")) for key in ("a", "a", "b"))
    assert one == again
    assert not set(re.findall(' id="([^"]+)"', one)) & set(re.findall(' id="([^"]+)"', other))


def test_names_are_neither_formulas_nor_markup():
    name = "$x^2$ <b> & $\\frac{1}$"
    drawing = bars([(name, [1.0])], ("all",), "key")
    escaped = "$x^2$ &lt;b&gt; &amp; $\\frac{1}$"
    assert f">{escaped}</text>" in drawing
    assert f"<title>{escaped}</title>" in drawing
    drawing = plot([Series("s", [0, 1], [1, 2])], Labels("key", name, name))
    assert drawing.count(f">{escaped}</text>") == 2
