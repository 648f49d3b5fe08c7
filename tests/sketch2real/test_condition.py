"""condition.py: the control picture shows the drawing whole, unstretched, in one pen."""

import numpy as np
import pytest
from condition import (
    ASPECTS,
    MAX_ASPECT,
    SIDES_PX,
    Plan,
    content_frame,
    draw,
    make_plan,
    nearest_aspect,
    size_for,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

AREAS = (512 * 512, 1024 * 1024, 1536 * 1536)


def box(page: tuple[int, int], top: int, left: int, height: int, width: int) -> np.ndarray:
    """The outline of a box on an empty page."""
    lines = np.zeros(page, bool)
    lines[top : top + height, [left, left + width - 1]] = True
    lines[[top, top + height - 1], left : left + width] = True
    return lines


boxes = st.builds(
    box,
    st.tuples(st.integers(100, 400), st.integers(100, 400)),
    st.integers(0, 40),
    st.integers(0, 40),
    st.integers(2, 60),
    st.integers(2, 60),
)


@settings(deadline=None)
@given(
    lines=boxes, width=st.none() | st.integers(128, 2048), height=st.none() | st.integers(128, 2048)
)
def test_everything_drawn_is_shown_unstretched(
    lines: np.ndarray, width: int | None, height: int | None
) -> None:
    """Whatever size is asked for, the frame holds all lines and has the painted size's shape."""
    plan = make_plan(lines, width, height, areas=AREAS, multiple=64)
    rows, columns = np.nonzero(lines)
    frame = plan.frame
    assert frame.left <= columns.min()
    assert frame.left + frame.width >= columns.max() + 1
    assert frame.top <= rows.min()
    assert frame.top + frame.height >= rows.max() + 1
    aspect = plan.painted.width / plan.painted.height
    assert frame.width / frame.height == pytest.approx(aspect, rel=1e-6)
    assert all(side % 64 == 0 and side > 0 for side in (*plan.painted, *plan.delivered))
    for asked, given_px in ((width, plan.delivered.width), (height, plan.delivered.height)):
        assert asked is None or abs(asked - given_px) <= 32
        assert SIDES_PX[0] <= given_px <= SIDES_PX[1]


@settings(deadline=None)
@given(lines=boxes)
def test_default_size_is_a_megapixel_in_a_common_shape(lines: np.ndarray) -> None:
    """Without a size: about a megapixel, in that of few shapes which is nearest to the page's."""
    plan = make_plan(lines, None, None, areas=AREAS, multiple=64)
    delivered = plan.delivered
    assert delivered.width * delivered.height == pytest.approx(1024 * 1024, rel=0.1)
    page = np.clip(lines.shape[1] / lines.shape[0], 1 / MAX_ASPECT, MAX_ASPECT)
    assert delivered.width / delivered.height == pytest.approx(page, rel=0.16)
    assert delivered in {size_for(aspect, 1024 * 1024, 64) for aspect in ASPECTS}
    assert plan.painted == delivered


def test_common_shapes_are_taken_as_they_are() -> None:
    """A page in a common shape keeps its frame."""
    for aspect in ASPECTS:
        assert nearest_aspect(aspect * 1.01) == nearest_aspect(aspect) == aspect


def test_a_small_drawing_is_brought_close() -> None:
    """A doodle in the corner of a sheet fills most of the picture."""
    frame = content_frame(box((1000, 800), 50, 60, 120, 100))
    assert frame.width * frame.height < 0.05 * 1000 * 800
    assert frame.width / frame.height == pytest.approx(0.8)


def test_a_composed_page_keeps_its_margins() -> None:
    """Drawing that uses its page is not moved."""
    frame = content_frame(box((600, 800), 60, 80, 480, 640))
    assert frame == (0, 0, 800, 600)


@settings(max_examples=30, deadline=None)
@given(scale=st.floats(0.2, 6.0), pen=st.floats(0.004, 0.03))
def test_the_pen_has_one_width(scale: float, pen: float) -> None:
    """However much the sketch is enlarged or reduced, a stroke is as wide as asked."""
    side = int(512 / scale)
    lines = np.zeros((side, side), bool)
    lines[:, side // 2] = True
    plan = make_plan(lines, 512, 512, areas=(512 * 512,) * 3, multiple=64)
    picture = np.asarray(draw(lines, plan, pen=pen, hard=False), dtype=float)
    widths = picture[100:400, :, 0].sum(axis=1) / 255
    assert widths.mean() == pytest.approx(max(1.0, pen * 512), abs=0.6)


def test_hard_lines_are_strictly_black_and_white(pixels: np.ndarray) -> None:
    """Scribble ControlNets get 0 and 255 and nothing between; soft lines have edges between."""
    lines = ndimage.binary_erosion(pixels[..., 0] < 128)
    plan = make_plan(lines, None, None, areas=AREAS, multiple=64)
    hard = np.asarray(draw(lines, plan, pen=0.006, hard=True))
    soft = np.asarray(draw(lines, plan, pen=0.006, hard=False))
    assert set(np.unique(hard)) == {0, 255}
    assert len(np.unique(soft)) > 10
    assert hard.shape == (plan.painted.height, plan.painted.width, 3)


def test_lines_stay_where_they_are() -> None:
    """A point of the page lies at its place in the picture, to half a pixel."""
    lines = box((400, 400), 100, 40, 200, 320)
    plan = Plan(content_frame(lines), size_for(1.0, 800 * 800, 8), size_for(1.0, 800 * 800, 8))
    picture = np.asarray(draw(lines, plan, pen=0.004, hard=True))[..., 0] > 0
    rows, columns = np.nonzero(picture)
    assert (rows.min() + rows.max()) / 2 == pytest.approx(2 * 199.5 + 0.5, abs=1)
    assert (columns.min() + columns.max()) / 2 == pytest.approx(2 * 199.5 + 0.5, abs=1)
    assert rows.max() - rows.min() == pytest.approx(400, abs=5)
