# SPDX-License-Identifier: GPL-2.0-or-later
"""Pictures: mosaic for terminal, SVG, PNG; timeline; notebook HTML."""

import io
import time
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from physmem.lib.errors import BadStateError
from physmem.mm.state import TYPE_NAMES_CMA, State, ZoneState
from physmem.views.axis import spread, ticks, time_unit
from physmem.views.blocks import all_blocks
from physmem.views.grid import fit_grid
from physmem.views.html import state_html
from physmem.views.mosaic import mosaic_png, mosaic_svg, terminal_mosaic
from physmem.views.palette import HOLE, colours, hex_colour, ramp
from physmem.views.sample import small_state
from physmem.views.timeline import WIDTH, Timeline, timeline_png, timeline_svg

SVG = "{http://www.w3.org/2000/svg}"


def large_state(blocks=524288, seed=1):
    """1 TiB by default: two zones, random free chunks."""
    rng = np.random.default_rng(seed)
    zones = []
    for name, first, count in (("DMA32", 8, 2040), ("Normal", 2048, blocks - 2048)):
        kind = rng.random(count)
        free = [[[] for _ in range(5)] for _ in range(11)]
        free[0][0] = (((first + np.flatnonzero(kind < 0.1)) << 9) + 1).tolist()
        free[3][2] = (((first + np.flatnonzero(kind < 0.2)) << 9) + 8).tolist()
        free[8][1] = (((first + np.flatnonzero(kind < 0.4)) << 9) + 256).tolist()
        free[9][1] = ((first + np.flatnonzero(kind > 0.7)) << 9).tolist()
        letters = np.array(list("UMRHI"))[rng.choice(5, count, p=[0.2, 0.7, 0.09, 0.005, 0.005])]
        frames = count << 9
        zones.append(
            ZoneState(
                node=0,
                name=name,
                start=first << 9,
                spanned=frames,
                managed=frames,
                present=frames,
                wmark=[1, 2, 3, 4],
                free=free,
                pcp=[],
                pageblocks="".join(letters),
            )
        )
    return State(zones=zones)


def rendered(text, **options):
    out = io.StringIO()
    Console(file=out, width=120, legacy_windows=False, **options).print(text)
    return out.getvalue()


def png(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def has_colour(pixels, rgb):
    return bool((pixels == np.asarray(rgb)).all(axis=2).any())


# ---- colours ----


def test_ramps_get_lighter_with_free_share():
    weights = np.array([0.2126, 0.7152, 0.0722])
    for name in TYPE_NAMES_CMA:
        light = ramp(name) @ weights
        assert (np.diff(light[:255]) > -0.6).all()
        assert light[255] > light[254] + 8, "wholly free must stand out"


def test_types_have_distinct_colours():
    table = colours(TYPE_NAMES_CMA)
    for share in (0, 128):
        assert len({hex_colour(table[mt, share]) for mt in range(6)}) == 6
    assert hex_colour(table[255, 7]) == hex_colour(table[255, 200])
    assert len(set(map(tuple, ramp("Strange")[0:1]))) == 1


# ---- mosaic in a terminal ----


def test_terminal_without_colour_keeps_the_letters():
    text = rendered(terminal_mosaic(small_state(), 80), no_color=True)
    assert "\x1b" not in text
    lines = text.splitlines()
    assert lines[0] == "Node 0, zone DMA     8 MiB, 4 pageblocks, 76.6 % free"
    assert lines[1].split() == ["0", "U___"]
    assert lines[3].split() == ["0", "UUM_MrMH"]
    assert lines[3].index("U") == lines[1].index("U") + 4, "columns are physical offsets"
    assert "HighAtomic" in text
    assert "CMA" not in text
    assert "one cell = one pageblock of 2 MiB, one row = 128 MiB" in text


def test_terminal_in_colour():
    text = rendered(terminal_mosaic(small_state()), force_terminal=True, color_system="truecolor")
    full = ";".join(map(str, ramp("Unmovable")[0].tolist()))
    free = ";".join(map(str, ramp("Movable")[255].tolist()))
    assert f"48;2;{full}m" in text
    assert f"48;2;{free}m" in text


@pytest.mark.parametrize("width", [1, 20, 40, 80, 200])
def test_terminal_keeps_to_width_and_rows(width):
    text = terminal_mosaic(large_state(20000), width, max_rows=10).plain
    cells = [line for line in text.splitlines() if line[:11].endswith(" ") and "zone" not in line]
    rows = [line for line in cells if set(line[11:]) <= set(" UMRHIumrhi_.")]
    assert max(map(len, rows)) <= max(width, 19)
    assert len([row for row in rows if row.strip()]) <= 10
    assert "pageblocks of 2 MiB (commonest type, mean free share)" in text


def test_holes_are_shown():
    state = small_state()
    state.zones[1].pageblocks = "UUMM.RMH"
    assert "UUM_.rMH" in terminal_mosaic(state).plain
    assert "no memory" in mosaic_svg(state)


# ---- mosaic as SVG and PNG ----


def test_svg_tells_every_block():
    root = ET.fromstring(mosaic_svg(small_state()))  # noqa: S314 - our own text
    titles = [title.text for title in root.iter(f"{SVG}title")]
    assert titles[0] == "Mosaic of pageblocks"
    assert titles[1] == "0 (frame 0): Unmovable, 32 of 511 frames free"
    assert "8 MiB (frame 2048): Unmovable, 10 of 512 frames free, 2 on per-CPU lists" in titles
    assert len(titles) == 1 + 12
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert "Node 0, zone Normal" in texts
    assert "Reclaimable" in texts
    fills = [path.get("fill") for path in root.iter(f"{SVG}path")]
    assert hex_colour(ramp("Movable")[255]) in fills


def test_svg_escapes_names():
    state = small_state()
    state.zones[0].name = "<&>"
    ET.fromstring(mosaic_svg(state))  # noqa: S314
    assert "<&>" not in state_html(state)


def test_svg_groups_when_there_are_too_many():
    text = mosaic_svg(large_state(40000), max_cells=1000)
    assert text.count("frames free") <= 1000
    assert "One cell = 64 pageblocks" in text


def test_png_has_the_colours_of_the_blocks(tmp_path):
    path = tmp_path / "mosaic.png"
    mosaic_png(small_state(), path)
    pixels = png(path)
    assert pixels.shape[1] == 1920
    assert has_colour(pixels, ramp("Movable")[255])
    assert has_colour(pixels, ramp("HighAtomic")[128 * 255 // 512])
    mosaic_png(small_state(), path, scale=1)
    assert png(path).shape[1] == 960


def test_png_is_the_same_every_time(tmp_path):
    for name in ("a.png", "b.png"):
        mosaic_png(small_state(), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_small_cells_are_one_image(tmp_path):
    path = tmp_path / "mosaic.png"
    mosaic_png(large_state(60000), path)
    assert has_colour(png(path), ramp("Movable")[255])


def test_grid_ends_at_one_cell_per_zone():
    grid = fit_grid(small_state(), (8,), lambda _cells, _rows, _columns: False)
    assert [len(zone.types) for zone in grid.zones] == [1, 1]


def test_blocks_of_a_tebibyte_take_less_than_a_fifth_of_a_second():
    state = large_state()
    best = 1e9
    for _ in range(5):
        begin = time.perf_counter()
        zones = all_blocks(state)
        best = min(best, time.perf_counter() - begin)
    assert sum(len(zone.types) for zone in zones) == 524288 - 8
    assert best < 0.2


# ---- timeline ----


def demo(blocks=64, moments=40, seed=2):
    """Synthetic input: memory fills from below and drains again."""
    rng = np.random.default_rng(seed)
    level = (np.sin(np.linspace(0, np.pi, moments)) * blocks)[:, None]
    used = np.clip(level - np.arange(blocks) + rng.random((moments, blocks)), 0, 1)
    samples = np.floor((1 - used) * 255).astype(np.uint8)
    types = np.ones((moments, blocks), np.uint8)
    types[:, : blocks // 4] = 0
    types[moments // 2 :, blocks // 2] = 2
    times = np.cumsum(rng.integers(1, 40, moments)) * 1_000_000
    return samples, types, times


def demo_timeline(**fields):
    samples, types, times = demo()
    return Timeline(samples, types, times, [("DMA", 0, 4), ("Normal", 4, 60)], **fields)


def test_timeline_png(tmp_path):
    path = tmp_path / "time.png"
    timeline_png(demo_timeline(title="Demo"), path)
    pixels = png(path)
    assert pixels.shape[1] == 2 * WIDTH
    for name, share in (("Movable", 255), ("Movable", 0), ("Unmovable", 0)):
        assert has_colour(pixels, ramp(name)[share])


def test_timeline_svg_is_text_around_a_picture():
    text = timeline_svg(demo_timeline(title="A < B"))
    root = ET.fromstring(text)  # noqa: S314
    words = [word.text for word in root.iter(f"{SVG}text")]
    assert "A < B" in words
    assert "time since the first sample (ms)" in words
    assert "Share of free memory in chunks of 2 MiB and larger" in words
    assert {"DMA", "Normal", "8 MiB", "120 MiB", "100 %"} <= set(words)
    assert "HighAtomic" not in words
    assert "data:image/png;base64," in text


def test_timeline_shows_the_sample_nearest_in_time(tmp_path):
    samples = np.array([[0], [255], [0]], np.uint8)
    types = np.ones_like(samples)
    line = Timeline(samples, types, np.array([0, 900, 1000]), [("Normal", 0, 1)])
    timeline_png(line, tmp_path / "t.png", scale=1)
    pixels = png(tmp_path / "t.png")
    row = pixels[150, 92 : WIDTH - 148]
    free = (row == ramp("Movable")[255]).all(axis=1)
    begin, end = np.flatnonzero(free)[[0, -1]] / len(free)
    assert begin == pytest.approx(0.45, abs=0.01)
    assert end == pytest.approx(0.95, abs=0.01)


def test_low_addresses_are_at_the_bottom(tmp_path):
    samples = np.zeros((2, 2), np.uint8)
    types = np.array([[0, 1], [0, 1]], np.uint8)
    timeline_png(Timeline(samples, types, np.arange(2), [("Z", 0, 2)]), tmp_path / "t.png", 1)
    column = png(tmp_path / "t.png")[:, 500]
    upper = np.flatnonzero((column == ramp("Movable")[0]).all(axis=1))
    lower = np.flatnonzero((column == ramp("Unmovable")[0]).all(axis=1))
    assert upper.max() < lower.min()


def test_groups_of_pageblocks_keep_to_the_colours_of_the_legend(tmp_path):
    samples = np.zeros((3, 4000), np.uint8)
    types = np.ones((3, 4000), np.uint8)
    types[:, ::3] = 0
    types[:, 2000:2100] = 255
    timeline_png(Timeline(samples, types, np.arange(3), [("Z", 0, 4000)]), tmp_path / "t.png")
    pixels = png(tmp_path / "t.png")[320:1140, 1000].tolist()
    known = {tuple(ramp(name)[0]) for name in ("Movable", "Unmovable")} | {HOLE}
    assert set(map(tuple, pixels)) <= known


def test_usable_share():
    line = demo_timeline()
    share = line.usable_share()
    free = line.samples.sum(axis=1, dtype=np.int64)
    whole = (line.samples == 255).sum(axis=1) * 255
    np.testing.assert_allclose(share, whole / np.maximum(free, 1))
    given = np.linspace(0, 1, len(share))
    assert demo_timeline(usable=given).usable_share() is given
    words = timeline_svg(demo_timeline(usable=given, usable_order=10, base_block=512))
    assert "chunks of 4 MiB and larger" in words
    assert "1 GiB" in words
    nothing = Timeline(
        np.zeros((1, 1), np.uint8), np.zeros((1, 1), np.uint8), np.arange(1), [("Z", 0, 1)]
    )
    assert nothing.usable_share().tolist() == [0.0]


@pytest.mark.parametrize("moments", [1, 2, 5000])
def test_few_and_many_moments(tmp_path, moments):
    samples, types, times = demo(8, moments)
    types[:, 5] = 255
    line = Timeline(samples, types, times, [("Node 0 DMA", 0, 1), ("Node 1 Normal", 3, 5)])
    timeline_png(line, tmp_path / "t.png", scale=1)
    assert png(tmp_path / "t.png").shape[1] == WIDTH
    assert "no memory" in timeline_svg(line)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"types": np.zeros((2, 2), np.uint8)}, "types has shape"),
        ({"times_ns": np.arange(3)}, "times_ns has shape"),
        ({"times_ns": np.arange(40)[::-1]}, "back in time"),
        ({"samples": np.zeros((0, 4), np.uint8)}, "samples has shape"),
        ({"zones": []}, "no zone"),
        ({"zones": [("High", 60, 10)]}, "zone High"),
        ({"usable": np.zeros(3)}, "usable has shape"),
    ],
)
def test_timeline_refuses(change, reason):
    samples, types, times = demo()
    fields = {"samples": samples, "types": types, "times_ns": times, "zones": [("Z", 0, 64)]}
    with pytest.raises(BadStateError, match=reason):
        timeline_svg(Timeline(**{**fields, **change}))


# ---- axes ----


def test_ticks_and_units():
    assert ticks(12.0, 10)[-1] == (12.0, "12")
    assert [label for _, label in ticks(0.35, 10)][:3] == ["0", "0.05", "0.1"]
    assert time_unit(0)[1] == "ns"
    assert time_unit(5 * 3600 * 10**9)[1] == "h"


def test_names_are_moved_apart():
    places = spread([10.0, 11.0, 12.0, 99.0], 10, 0, 100)
    assert min(np.diff(places)) >= 10
    assert places[-1] <= 100


# ---- notebooks ----


def test_html():
    text = state_html(small_state())
    assert text.startswith("<div")
    assert text.endswith("</div>")
    assert "<td" in text
    assert "Node 0, Normal" in text
    assert "43.6 %" in text  # of Normal is unusable at order 9


def test_html_stays_small():
    assert len(state_html(large_state())) < 200_000
