"""Plots are SVG that a parser reads, show what they are given, and refer to nothing outside."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree as ET

import pytest

from converters.reports.bar_chart import Bar, bar_chart
from converters.reports.drawing import GREEN, RED
from converters.reports.network_plot import network_svg
from regnet import RegNetConfig
from regnet.design_space import NETWORKS, REGNETZ, complexity

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "<script>alert(1)</script>\"'&\x00\x1b[31m"


def parsed(svg: str) -> ET.Element:
    root = ET.fromstring(svg)  # noqa: S314 -- our own
    assert root.tag == f"{SVG}svg"
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
        *("svg", "title", "style", "text", "line", "rect", "circle", "polyline", "g")
    }
    assert not re.search(r"url\(|@import|href|javascript", svg)
    return root


def texts(root: ET.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def titles(root: ET.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}title")]


@pytest.mark.parametrize("name", [*NETWORKS, *REGNETZ])
def test_a_network_is_drawn_block_by_block_with_the_cost_of_its_parts(name: str) -> None:
    config = (NETWORKS | REGNETZ)[name].config()
    svg = network_svg(config, name, 224)
    assert svg == network_svg(config, name, 224)
    shown = parsed(svg)
    words = texts(shown)
    assert words[0] == name
    assert [w for w in words if re.fullmatch(r"stem|stage \d|head", w)] == [
        *("stem", "stage 1", "stage 2", "stage 3", "stage 4", "head")
    ]
    for depth, width in zip(config.depths, config.hidden_sizes, strict=True):
        assert f"{depth} block{'s' * (depth > 1)}" in words
        assert f"{width:,} channels" in words
    blocks = [title for title in titles(shown) if re.match(r"stage \d, \d+ of ", title)]
    assert len(blocks) == sum(config.depths)

    cost = complexity(config)
    for what, total in (("parameters", cost.parameters), ("FLOPs", cost.flops)):
        parts = [m[1] for t in titles(shown) if (m := re.match(rf".*: ([\d,]+) {what}, ", t))]
        assert sum(int(part.replace(",", "")) for part in parts) == total


def test_a_bar_is_as_high_as_the_root_of_its_width() -> None:
    config = RegNetConfig(depths=[1, 1], hidden_sizes=[16, 64], groups_width=8, embedding_size=16)
    shown = parsed(network_svg(config, "small", 64))
    high = {
        (group.findtext(f"{SVG}title") or ""): float(rectangle.get("height", ""))
        for group in shown.iter(f"{SVG}g")
        if (rectangle := group.find(f"{SVG}rect")) is not None
    }
    assert high["stage 2, 1 of 1: 64 channels"] == pytest.approx(
        2 * high["stage 1, 1 of 1: 16 channels"], abs=0.1
    )


def test_wider_networks_and_trunks_are_drawn_as_they_are() -> None:
    config = RegNetConfig(
        depths=[1, 2, 1],
        hidden_sizes=[16, 32, 48],
        groups_width=[4, 8, 16],
        stem_sizes=[8, 8, 8],
        embedding_size=8,
        strides=[1, 2, 2],
        expansion=2.0,
    )
    words = texts(parsed(network_svg(config, HOSTILE, 64, classifier=False)))
    assert words[0] == r"<script>alert(1)</script>" + "\"'&\\x00\\x1b[31m"
    assert {"3 convolutions", "8 groups of 4", "8 groups of 8", "6 groups of 16"} <= set(words)
    assert "pooled" in words
    assert not any("class" in word for word in words)


def bars(svg: str, colour: str) -> list[float]:
    return [
        float(r.get("width", "")) for r in parsed(svg).iter(f"{SVG}rect") if r.get("fill") == colour
    ]


def test_bars_are_on_one_scale_from_zero() -> None:
    groups = {
        "one": [Bar("a", 1.0, "1 ms", GREEN, (0.5, 1.5)), Bar("b", 3.0, "3 ms", GREEN)],
        "two": [Bar("c", 2.0, "2 ms", GREEN), Bar("d", None, "cannot run", GREEN)],
    }
    svg = bar_chart("Times", ["on a machine"], groups, "ms")
    a, b, c = bars(svg, GREEN)
    assert [b, c] == pytest.approx([3 * a, 2 * a], abs=0.2)
    assert {"Times", "on a machine", "one", "two", "a", "d", "cannot run"} <= set(
        texts(parsed(svg))
    )


def test_a_bar_far_beyond_the_limit_is_cut_and_still_says_its_number() -> None:
    group = [Bar("right", 1.0, "1", GREEN), Bar("wrong", 8e5, "8e+05", RED)]
    svg = bar_chart("A and B differ", [], {"logits": group}, "RMS", limit=4)
    (right,), (wrong,) = bars(svg, GREEN), bars(svg, RED)
    assert wrong == pytest.approx(8 * right, abs=0.2)
    assert {"limit 4", "8e+05"} <= set(texts(parsed(svg)))
    endless = bar_chart(
        "x", [], {"": [Bar("a", math.inf, "-", RED), Bar("b", math.nan, "-", RED)]}, ""
    )
    assert len(bars(endless, RED)) == 1


def test_a_chart_without_bars_and_with_hostile_names_is_one() -> None:
    assert "only words" in texts(parsed(bar_chart("title", ["only words"], {}, "ms")))
    hostile = bar_chart(HOSTILE, [HOSTILE], {HOSTILE: [Bar(HOSTILE, 1.0, HOSTILE, RED)]}, HOSTILE)
    assert len(set(texts(parsed(hostile)))) > 1
