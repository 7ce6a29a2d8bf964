"""Regions, limits and projections of scans against closed forms; what is missing or off the grid is said."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path
from scipy import stats
from scipy.ndimage import gaussian_filter

import cevjax
from cevjax import contours
from cevjax.contours import exclusion, interpolated, projection, refine, regions, threshold
from cevjax.errors import InvalidValueError, UnknownNameError
from cevjax.scans import FAILED, assemble


def scan_of(chi2, chi2_min=0.0, best_fit=None, failed=None, **axes):
    """A scan of a function of its parameters, given by name in ``axes``."""
    mesh = np.meshgrid(*axes.values(), indexing="ij")
    values = chi2(*mesh)
    if best_fit is None:
        best = np.unravel_index(np.nanargmin(values), values.shape)
        best_fit = {name: float(grid[best]) for name, grid in zip(axes, mesh, strict=True)}
    status = np.zeros(values.shape) if failed is None else np.where(failed(*mesh), FAILED, 0)
    columns = {"chi2": (chi2_min + values).ravel(), "status": status.ravel()}
    return assemble(axes, columns, chi2_min=chi2_min, best_fit=best_fit, facts={"datasets": ["toy"]}, labels={})


def gaussian(rho, sx=1.0, sy=1.0):
    return lambda x, y: ((x / sx) ** 2 - 2 * rho * (x / sx) * (y / sy) + (y / sy) ** 2) / (1 - rho**2)


def ring(x, y):
    return 30 * (x**2 + y**2 - 1) ** 2


def bands(x, y):
    """Allowed near x + y = 0 and x + y = 1."""
    return 400 * ((x + y) * (x + y - 1)) ** 2


def signed_area(vertices):
    x, y = vertices.T
    return np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) / 2


def along(polygons):
    """All vertices that lie on the contour."""
    rings = [ring for polygon in polygons for ring in polygon.rings]
    return np.concatenate([ring.vertices[ring.on_curve] for ring in rings])


def contained(polygon, points):
    """Which points are in a polygon and in none of its holes."""
    inside = Path(polygon.outer.loop).contains_points(points)
    for hole in polygon.holes:
        inside &= ~Path(hole.loop).contains_points(points)
    return inside


# -------------------------------------------------------------------------------------------------------------- levels


@given(st.floats(1e-3, 0.9999), st.integers(1, 5))
def test_thresholds_are_quantiles_of_chi2(cl, dof):
    assert threshold(cl, dof) == pytest.approx(stats.chi2.ppf(cl, dof), rel=1e-9)


@pytest.mark.parametrize("sigma", [1, 2, 3, 5])
def test_standard_deviations_are_levels(sigma):
    assert contours.confidence(sigma) == pytest.approx(1 - 2 * stats.norm.sf(sigma), rel=1e-12)
    assert threshold(contours.confidence(sigma)) == pytest.approx(sigma**2, rel=1e-8)


@pytest.mark.parametrize("cl", [0, 1, 90, -0.1, math.nan])
def test_levels_that_are_none(cl):
    with pytest.raises(InvalidValueError, match="`cl` must be between 0 and 1"):
        threshold(cl)


@pytest.mark.parametrize("dof", [0, -1, 1.5, True])
def test_degrees_of_freedom_that_are_none(dof):
    with pytest.raises(InvalidValueError, match="`dof` must be a whole number"):
        threshold(0.9, dof)


@pytest.mark.parametrize("sigma", [0, -1, 9, math.nan])
def test_standard_deviations_that_are_none(sigma):
    with pytest.raises(InvalidValueError, match="`sigma` must be"):
        contours.confidence(sigma)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.geomspace(1e-6, 1, 30), True),
        (np.geomspace(1, 1.001, 5), False),  # as good as even steps
        (np.geomspace(1, 2, 5)[::-1], True),
        (np.linspace(1e-6, 1, 30), False),
        (np.append(0, np.geomspace(1e-6, 1, 30)), False),
        (np.array([1.0, 10.0]), False),
        (np.array([1.0, 2.0, 5.0, 10.0]), False),
    ],
)
def test_which_axes_are_logarithmic(values, expected):
    narrow = np.ptp(values) < 0.01
    assert contours.is_logarithmic(values) == expected or narrow


# ------------------------------------------------------------------------------------------------------------- regions


@given(st.floats(-0.8, 0.8), st.floats(0.4, 1), st.floats(0.4, 1), st.sampled_from([0.6827, 0.9, 0.95]))
@settings(max_examples=25, deadline=None)
def test_area_of_an_ellipse(rho, sx, sy, cl):
    x, y = np.linspace(-4, 4, 60), np.linspace(-4.1, 4, 65)
    scan = scan_of(gaussian(rho, sx, sy), a=x, b=y, best_fit={"a": 0.0, "b": 0.0}, chi2_min=50.0)
    region = regions(scan, cl)
    (polygon,) = region.polygons
    # the cubics are exact for a parabola
    np.testing.assert_allclose(gaussian(rho, sx, sy)(*polygon.vertices.T), threshold(cl, 2), rtol=1e-6)
    exact = math.pi * threshold(cl, 2) * sx * sy * math.sqrt(1 - rho**2)
    assert 0.5 * exact < polygon.area < exact
    (smooth,) = refine(interpolated(scan), region, flatness=2e-4).polygons
    assert smooth.area == pytest.approx(exact, rel=3e-3)
    assert polygon.closed and polygon.holes == () and polygon.open_at == () and not polygon.at_gap
    assert region.level == 50 + threshold(cl, 2) and region.missing == 0 and region.message == ""


def test_ring_with_a_hole():
    x = np.linspace(-2, 2, 81)
    region = regions(scan_of(ring, a=x, b=x, best_fit={"a": 1.0, "b": 0.0}), 0.9)
    (polygon,) = region.polygons
    (hole,) = polygon.holes
    width = math.sqrt(threshold(0.9, 2) / 30)  # of r^2 on both sides of 1
    np.testing.assert_allclose(np.sum(polygon.vertices**2, axis=1), 1 + width, atol=1e-3)
    np.testing.assert_allclose(np.sum(hole.vertices**2, axis=1), 1 - width, atol=1e-3)
    assert polygon.area == pytest.approx(2 * math.pi * width, rel=5e-3)
    assert signed_area(polygon.vertices) > 0 > signed_area(hole.vertices)
    assert np.all(polygon.outer.on_curve) and np.all(hole.on_curve) and region.closed


def test_an_island_in_a_hole_is_a_piece_of_its_own():
    x = np.linspace(-2, 2, 81)
    region = regions(scan_of(lambda x, y: np.minimum(ring(x, y), 60 * (x**2 + y**2)), a=x, b=x), 0.9)
    around, island = region.polygons
    assert len(around.holes) == 1 and island.holes == () and around.area > island.area
    np.testing.assert_allclose(np.hypot(*island.vertices.T), math.sqrt(threshold(0.9, 2) / 60), rtol=1e-3)


def test_band_that_is_open_at_two_sides():
    x, y = np.linspace(-2, 2, 41), np.linspace(-1, 3, 51)
    scan = scan_of(lambda x, y: 25 * (y - 0.4 * x - 1) ** 2, a=x, b=y, best_fit={"a": 0.0, "b": 1.0})
    region = regions(scan, 0.9)
    (polygon,) = region.polygons
    assert polygon.open_at == (("a", "low"), ("a", "high")) and not polygon.closed and not region.closed
    half = math.sqrt(threshold(0.9, 2)) / 5
    assert polygon.area == pytest.approx(4 * 2 * half, rel=1e-9)
    edge = polygon.vertices[~polygon.outer.on_curve]
    assert np.all(np.abs(edge[:, 0]) == 2)
    lines = polygon.outer.curves
    assert len(lines) == 2
    for line, sign in zip(sorted(lines, key=lambda line: line[0, 1] - 0.4 * line[0, 0]), (-1, 1), strict=True):
        np.testing.assert_allclose(line[:, 1] - 0.4 * line[:, 0] - 1, sign * half, atol=1e-9)
        assert sorted(line[[0, -1], 0]) == [-2, 2]


def test_two_bands_are_two_pieces():
    x = np.linspace(-1, 1, 61)
    region = regions(scan_of(bands, a=x, b=x), 0.9)
    assert len(region.polygons) == 2
    upper, lower = sorted(region.polygons, key=lambda polygon: polygon.area)
    assert set(lower.open_at) == {(name, side) for name in "ab" for side in ("low", "high")}
    assert set(upper.open_at) == {("a", "high"), ("b", "high")}
    assert region.area == upper.area + lower.area
    np.testing.assert_allclose(bands(*along(region.polygons).T), threshold(0.9, 2), rtol=2e-3)


def test_a_corner_is_open_at_both_sides():
    x = np.linspace(0, 2, 21)
    (polygon,) = regions(scan_of(lambda x, y: 4 * (x**2 + y**2), a=x, b=x), 0.9).polygons
    assert polygon.open_at == (("a", "low"), ("b", "low"))
    assert [0, 0] in polygon.vertices.tolist()


def test_whole_grid():
    x = np.linspace(0, 2, 4)
    (polygon,) = regions(scan_of(lambda x, y: 0 * x, a=x, b=2 * x), 0.9).polygons
    assert polygon.area == pytest.approx(8) and not np.any(polygon.outer.on_curve) and polygon.outer.curves == []


def test_region_between_the_points():
    x = np.linspace(-2, 3, 6)
    region = regions(scan_of(lambda x, y: 100 * ((x - 0.5) ** 2 + (y - 0.5) ** 2), a=x, b=x), 0.9)
    assert region.polygons == () and region.area == 0 and "finer grid" in region.message
    assert refine(lambda p: p["a"], region, flatness=1e-3) == region


def test_pieces_that_the_grid_may_miss_are_said():
    x = np.linspace(-1, 1, 21)

    def chi2(x, y):
        return np.minimum(50 * (x + 0.5) ** 2 + 50 * y**2, 3e3 * (x - 0.55) ** 2 + 50 * y**2)

    assert "may fall below the threshold between" in regions(scan_of(chi2, a=x, b=x), 0.9).message
    assert regions(scan_of(ring, a=x, b=x), 0.9).message == ""


def test_best_fit_off_the_grid_is_said():
    x = np.linspace(-1, 1, 21)
    scan = scan_of(ring, a=x, b=x, best_fit={"a": 5.0, "b": 0.0})
    for result in (regions(scan, 0.9), exclusion(scan), projection(scan, "a")):
        assert "best fit lies outside the grid in a" in result.message


@given(st.integers(0, 2**32 - 1), st.floats(0, 0.1))
@settings(max_examples=60, deadline=None)
def test_the_pieces_hold_the_points_below_the_threshold(seed, missing):
    """For any field, with gaps: those below are in one piece or at its edge, those above or missing in none."""
    random = np.random.default_rng(seed)
    n, m = random.integers(2, 9, 2)
    field = random.exponential(threshold(0.9, 2) * random.choice([0.3, 1, 3]), (n, m))
    field[random.random((n, m)) < missing] = np.nan
    if np.all(np.isnan(field)):
        return
    x, y = np.cumsum(random.uniform(0.5, 2, n)), np.cumsum(random.uniform(0.5, 2, m))
    region = regions(scan_of(lambda *_: field, a=x, b=y), 0.9)
    assert region.missing == np.sum(np.isnan(field))
    points = np.column_stack([grid.ravel() for grid in np.meshgrid(x, y, indexing="ij")])
    count = np.sum([contained(polygon, points) for polygon in region.polygons] or [np.zeros(len(points))], axis=0)
    at_edge = {tuple(v) for p in region.polygons for r in p.rings for v in r.vertices[~r.on_curve]}
    full = np.isfinite(field)
    cells = np.zeros((n + 1, m + 1), bool)
    cells[1:-1, 1:-1] = full[1:, 1:] & full[:-1, 1:] & full[1:, :-1] & full[:-1, :-1]
    usable = cells[1:, 1:] | cells[:-1, 1:] | cells[1:, :-1] | cells[:-1, :-1]
    for point, value, inside, use in zip(points, field.ravel(), count, usable.ravel(), strict=True):
        if np.isfinite(value) and value < region.threshold:
            assert (inside == 1 or tuple(point) in at_edge) == bool(use)
        else:
            assert inside == 0 and tuple(point) not in at_edge
    for polygon in region.polygons:
        assert signed_area(polygon.vertices) > 0 and all(signed_area(h.vertices) < 0 for h in polygon.holes)
        assert polygon.area > 0


@pytest.mark.parametrize("how", ["nan", "failed"])
def test_gaps_are_cut_out(how):
    x = np.linspace(-3, 3, 31)

    def hole(x, y):
        return (np.abs(x - 0.4) < 0.1) & (np.abs(y) < 0.1)

    function, failed = gaussian(0.0), hole
    if how == "nan":
        function, failed = lambda x, y: np.where(hole(x, y), np.nan, gaussian(0.0)(x, y)), None
    region = regions(scan_of(function, failed=failed, a=x, b=x, best_fit={"a": 0.0, "b": 0.0}), 0.9)
    (polygon,) = region.polygons
    assert region.missing == 1 and "missing at 1 of 961 points" in region.message
    assert polygon.at_gap and polygon.open_at == () and not polygon.closed
    (gap,) = polygon.holes
    assert not np.any(gap.on_curve) and signed_area(gap.vertices) == pytest.approx(-(0.4**2))
    assert not contained(polygon, np.array([[0.4, 0.0]]))[0]


def test_gaps_far_outside_change_nothing():
    x = np.linspace(-3, 3, 31)
    whole = regions(scan_of(gaussian(0.3), a=x, b=x), 0.6827)
    cut = regions(scan_of(lambda x, y: np.where(x > 2.5, np.nan, gaussian(0.3)(x, y)), a=x, b=x), 0.6827)
    np.testing.assert_allclose(cut.polygons[0].vertices, whole.polygons[0].vertices, atol=1e-12)
    assert cut.closed and cut.missing == 3 * 31


def test_nothing_but_gaps():
    x = np.linspace(-3, 3, 5)
    scan = scan_of(lambda x, y: 0 * x, failed=lambda x, y: x > -9, a=x, b=x)
    assert regions(scan, 0.9).polygons == () and regions(scan, 0.9).missing == 25
    assert exclusion(scan).allowed == ([],) * 5 and projection(scan, "a").intervals == {1: [], 2: [], 3: []}


def test_large_values_far_outside():
    """Such as those of a likelihood that excludes at hundreds of standard deviations."""
    x = np.linspace(-3, 3, 31)

    def field(x, y):
        return np.where(x**2 + y**2 > 6, 1e12, gaussian(0.0)(x, y))

    (polygon,) = regions(scan_of(field, a=x, b=x), 0.6827).polygons
    np.testing.assert_allclose(np.hypot(*polygon.vertices.T), math.sqrt(threshold(0.6827, 2)), rtol=1e-3)


def test_points_on_the_contour():
    """At exactly the threshold."""
    x = np.linspace(-2, 2, 5)
    limit = threshold(0.9, 2)
    (polygon,) = regions(scan_of(lambda x, y: limit * (np.abs(x) + np.abs(y)), a=x, b=x), 0.9).polygons
    assert {tuple(v) for v in polygon.vertices} >= {(-1, 0), (1, 0), (0, 1), (0, -1)}
    assert polygon.area == pytest.approx(2) and np.all(polygon.outer.on_curve)


def test_order_of_the_grid_does_not_matter():
    x, y = np.linspace(-3, 3, 31), np.linspace(-2, 3, 26)
    one = regions(scan_of(gaussian(0.5), a=x, b=y), 0.9).polygons[0]
    other = regions(scan_of(gaussian(0.5), a=x[::-1], b=np.roll(y, 3)), 0.9).polygons[0]
    np.testing.assert_allclose(one.vertices, other.vertices)


def test_logarithmic_plane():
    """A circle in decades, around (1e-2, 1e3)."""
    x, y = np.geomspace(1e-4, 1, 41), np.geomspace(10, 1e5, 51)

    def chi2(x, y):
        return 4 * ((np.log10(x) + 2) ** 2 + (np.log10(y) - 3) ** 2)

    region = regions(scan_of(chi2, a=x, b=y), 0.9)
    (polygon,) = region.polygons
    assert [axis.log for axis in region.axes] == [True, True] and polygon.closed
    np.testing.assert_allclose(chi2(*polygon.vertices.T), threshold(0.9, 2), rtol=5e-3)
    (smooth,) = refine(lambda p: chi2(p["a"], p["b"]), region, tolerance=1e-9, flatness=1e-4).polygons
    np.testing.assert_allclose(chi2(*smooth.vertices.T), threshold(0.9, 2), atol=1e-8)
    assert smooth.area == pytest.approx(math.pi * threshold(0.9, 2) / 4, rel=1e-3)


def test_logarithms_are_chosen():
    x = np.geomspace(1, 10, 21)
    scan = scan_of(lambda x, y: (x - 4) ** 2 + (y - 4) ** 2, a=x, b=x)
    chosen = {log: regions(scan, 0.9, log=log) for log in (None, (), ("a",), "b")}
    assert [[axis.log for axis in region.axes] for region in chosen.values()] == [
        [True, True],
        [False, False],
        [True, False],
        [False, True],
    ]
    (polygon,) = refine(interpolated(scan, log=()), chosen[()], flatness=1e-4).polygons
    assert polygon.area == pytest.approx(math.pi * threshold(0.9, 2), rel=1e-3)


def test_wrong_grids():
    x = np.linspace(-1, 1, 5)
    for one in (regions, exclusion):
        with pytest.raises(InvalidValueError, match="2 parameters on its grid, but has 1: a"):
            one(scan_of(lambda a: a**2, a=x), 0.9)
        with pytest.raises(InvalidValueError, match="2 parameters on its grid, but has 3: a, b, c"):
            one(scan_of(lambda a, b, c: a**2, a=x, b=x, c=x), 0.9)
        with pytest.raises(InvalidValueError, match="2 different values of b"):
            one(scan_of(lambda a, b: a**2, a=x, b=x[:1]), 0.9)
        with pytest.raises(InvalidValueError, match="2 different values of b"):
            one(scan_of(lambda a, b: a**2, a=x, b=np.array([1.0, 1.0, 2.0])), 0.9)
        with pytest.raises(
            InvalidValueError, match="`log` must name parameters above 0 on the grid, but a starts at -1"
        ):
            one(scan_of(lambda a, b: a**2, a=x, b=x), 0.9, log=("a",))
        with pytest.raises(UnknownNameError, match="eps_uV_ee"):
            one(scan_of(lambda a, b: a**2, eps_uV_ee=x, b=x), 0.9, log=("eps_uV_e",))
        with pytest.raises(InvalidValueError, match="`cl`"):
            one(scan_of(lambda a, b: a**2, a=x, b=x), 90)


# -------------------------------------------------------------------------------------------------------- interpolation


def test_interpolation_is_exact_for_quadratic_forms():
    x, y = np.linspace(-3, 3, 8), np.array([-3, -2.5, -1, 0.5, 1, 3])

    def chi2(x, y):
        return gaussian(0.6)(x - 0.2, y + 0.3)

    random = np.random.default_rng(1).uniform(-3, 3, (2, 200))
    found = interpolated(scan_of(chi2, a=x, b=y, chi2_min=7.0))({"a": random[0], "b": random[1]})
    np.testing.assert_allclose(found, 7 + chi2(*random), atol=1e-9)


def test_interpolation_meets_the_points_and_knows_its_limits():
    x = np.linspace(0, 1, 5)
    scan = scan_of(lambda x, y: np.where((x == 0.5) & (y == 0.5), np.nan, x + 2 * y), a=x, b=x)
    chi2 = interpolated(scan)
    at = np.meshgrid(x, x, indexing="ij")
    np.testing.assert_allclose(chi2({"a": at[0].ravel(), "b": at[1].ravel()}), scan.chi2.ravel(), atol=1e-12)
    nowhere = chi2({"a": np.array([0.4, 0.6, -0.1, 0.1]), "b": np.array([0.4, 0.5, 0.1, 1.1])})
    assert np.all(np.isnan(nowhere))
    assert np.isfinite(chi2({"a": np.array([0.2]), "b": np.array([0.6])}))[0]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_vertices_lie_on_the_interpolation(seed):
    """So that a contour, refined with it, keeps its vertices on the lines of the grid."""
    random = np.random.default_rng(seed)
    field = random.exponential(5, tuple(random.integers(3, 8, 2)))
    axes = {name: np.cumsum(random.uniform(0.5, 2, n)) for name, n in zip("ab", field.shape, strict=True)}
    scan = scan_of(lambda *_: field, **axes)
    region = regions(scan, 0.9)
    if region.polygons:
        x, y = along(region.polygons).T
        np.testing.assert_allclose(interpolated(scan)({"a": x, "b": y}), region.level, atol=1e-6)


# ---------------------------------------------------------------------------------------------------------- refinement


def quartic(x, y):
    return 3 * (y - x**2) ** 2 + 0.5 * x**4 + 0.3 * x


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6, 1e-9])
def test_refined_vertices_are_on_the_curve(tolerance):
    x, y = np.linspace(-3, 3, 15), np.linspace(-2, 5, 16)
    scan = scan_of(quartic, a=x, b=y, chi2_min=-0.1, best_fit={"a": 0.0, "b": 0.0})
    calls = []

    def chi2(points):
        calls.append(len(points["a"]))
        return -0.1 + quartic(points["a"], points["b"])

    rough = regions(scan, 0.9)
    region = refine(chi2, rough, tolerance)
    assert region.message == rough.message and len(calls) < 20
    before, after = rough.polygons[0], region.polygons[0]
    np.testing.assert_allclose(quartic(*after.vertices.T), region.threshold, atol=tolerance)
    assert np.max(np.abs(quartic(*before.vertices.T) - region.threshold)) > 1e-2
    # each stays on its line of the grid, between the same points
    on_x = np.isin(before.vertices[:, 0], x)
    np.testing.assert_array_equal(after.vertices[on_x, 0], before.vertices[on_x, 0])
    np.testing.assert_array_equal(after.vertices[~on_x, 1], before.vertices[~on_x, 1])
    assert np.all(np.digitize(after.vertices[on_x, 1], y) == np.digitize(before.vertices[on_x, 1], y))
    # and again
    again = refine(chi2, region, tolerance).polygons[0]
    np.testing.assert_array_equal(again.vertices, after.vertices)


def test_halved_edges_follow_the_curve():
    x = np.linspace(-2, 2, 12)

    def chi2(p):
        return ring(p["a"], p["b"])

    rough = regions(scan_of(ring, a=x, b=x, best_fit={"a": 1.0, "b": 0.0}), 0.9)
    exact = 2 * math.pi * math.sqrt(threshold(0.9, 2) / 30)
    (vertices,) = refine(chi2, rough, 1e-6).polygons
    (smooth,) = refine(chi2, rough, 1e-6, flatness=1e-3).polygons
    (smoother,) = refine(chi2, rough, 1e-6, flatness=1e-4).polygons
    errors = [abs(p.area / exact - 1) for p in (vertices, smooth, smoother)]
    assert errors[0] > 0.005 and errors[1] < 2e-3 and errors[2] < 3e-4
    for polygon in (smooth, smoother):
        np.testing.assert_allclose(ring(*along([polygon]).T), threshold(0.9, 2), atol=1e-6)
        assert len(polygon.holes) == 1
        middle = (polygon.outer.loop[1:] + polygon.outer.loop[:-1]) / 2
        assert np.max(np.abs(np.hypot(*middle.T) - np.sqrt(1 + exact / 2 / math.pi))) < 6e-3
    # vertices that are not on lines of the grid move, too
    (again,) = refine(lambda p: ring(p["a"], p["b"]) * 1.05, regions_like(rough, smooth), 1e-6).polygons
    np.testing.assert_allclose(ring(*along([again]).T), threshold(0.9, 2) / 1.05, atol=1e-6)


def regions_like(region, *polygons):
    return contours.replace(region, polygons=polygons)


def crossings(vertices):
    """Number of pairs of edges of a closed line that cross."""
    start, end = vertices, np.roll(vertices, -1, axis=0)

    def side(o, p, q):
        return (p[..., 0] - o[..., 0]) * (q[..., 1] - o[..., 1]) - (p[..., 1] - o[..., 1]) * (q[..., 0] - o[..., 0])

    a, b, c, d = start[:, None], end[:, None], start[None], end[None]
    crossed = (side(a, b, c) * side(a, b, d) < -1e-24) & (side(c, d, a) * side(c, d, b) < -1e-24)
    return int(np.sum(np.triu(crossed, 2)))


@given(st.integers(0, 2**32 - 1), st.floats(1, 2.5), st.sampled_from([0, 0, 0.03]))
@settings(max_examples=25, deadline=None)
def test_smooth_contours_do_not_cross_themselves(seed, smooth, missing):
    """Of any field, with saddles and gaps."""
    random = np.random.default_rng(seed)
    field = gaussian_filter(random.normal(size=random.integers(4, 20, 2)), smooth)
    field = (field - field.min()) / field.std() * random.uniform(1, 5)
    field[random.random(field.shape) < missing] = np.nan
    x, y = (np.linspace(0, 1, n) for n in field.shape)
    scan = scan_of(lambda *_: field, a=x, b=y, best_fit={"a": 0.5, "b": 0.5})
    rough = regions(scan, 0.9)
    fine = refine(interpolated(scan), rough, tolerance=1e-4, flatness=1e-3)
    assert "vertices" not in fine.message
    for old, new in zip(rough.polygons, fine.polygons, strict=True):
        assert new.open_at == old.open_at and new.at_gap == old.at_gap
        assert signed_area(new.vertices) > 0 and all(signed_area(hole.vertices) < 0 for hole in new.holes)
        assert [crossings(r.vertices) for r in (*old.rings, *new.rings)] == [0] * 2 * len(new.rings)
    if fine.polygons and len(points := along(fine.polygons)):
        level = interpolated(scan)({"a": points[:, 0], "b": points[:, 1]})
        np.testing.assert_allclose(level, fine.level, atol=1.01e-4)


def test_edges_of_the_grid_stay():
    x = np.linspace(-1, 1, 21)

    def chi2(p):
        return bands(p["a"], p["b"])

    rough = regions(scan_of(bands, a=x, b=x), 0.9)
    fine = refine(chi2, rough, 1e-6, flatness=1e-3)
    assert [p.open_at for p in fine.polygons] == [p.open_at for p in rough.polygons]
    for old, new in zip(rough.polygons, fine.polygons, strict=True):
        edge = old.vertices[~old.outer.on_curve]
        np.testing.assert_array_equal(new.vertices[~new.outer.on_curve], edge)
    assert np.max(np.abs(along(fine.polygons))) <= 1
    np.testing.assert_allclose(bands(*along(fine.polygons).T), threshold(0.9, 2), atol=1e-6)
    # the strip -w < x + y < w and its like at 1, cut to the square
    w = (1 - math.sqrt(1 - 4 * math.sqrt(threshold(0.9, 2)) / 20)) / 2
    v = (math.sqrt(1 + 4 * math.sqrt(threshold(0.9, 2)) / 20) - 1) / 2

    def corner(c):
        return (2 - c) ** 2 / 2  # of the square above x + y = c > 0

    assert fine.area == pytest.approx(corner(1 - w) - corner(1 + v) + 4 - corner(v) - corner(w), rel=1e-5)


def test_gaps_stay():
    x = np.linspace(-3, 3, 31)

    def field(x, y):
        return np.where((x > 0.1) & (y > 0.1), np.nan, gaussian(0.0)(x, y))

    rough = regions(scan_of(field, a=x, b=x), 0.9)
    fine = refine(lambda p: field(p["a"], p["b"]), rough, 1e-6, flatness=1e-3)
    assert fine.polygons[0].at_gap and fine.missing == rough.missing > 0
    np.testing.assert_allclose(field(*along(fine.polygons).T), threshold(0.9, 2), atol=1e-6)


def test_vertices_that_find_no_curve_stay_and_are_counted():
    x = np.linspace(-3, 3, 13)
    rough = regions(scan_of(gaussian(0.0), a=x, b=x), 0.9)
    n = len(rough.polygons[0].vertices)
    for chi2 in (lambda p: 0 * p["a"], lambda p: 100 + 0 * p["a"], lambda p: np.nan * p["a"]):
        region = refine(chi2, rough)
        assert f"at {n} vertices, chi2 does not cross the threshold nearby" in region.message
        np.testing.assert_array_equal(region.polygons[0].vertices, rough.polygons[0].vertices)


def test_steep_and_infinite_walls_are_found():
    x = np.linspace(-3, 3, 13)
    rough = regions(scan_of(gaussian(0.0), a=x, b=x), 0.9)

    def wall(p):
        return np.where(np.hypot(p["a"], p["b"]) > 2.1, np.inf, 0.0)

    region = refine(wall, rough, tolerance=1e-3)
    assert "vertices" in region.message  # there is no crossing, but a jump


def test_wrong_refinements():
    x = np.linspace(-3, 3, 13)
    rough = regions(scan_of(gaussian(0.0), a=x, b=x), 0.9)

    def chi2(p):
        return gaussian(0.0)(p["a"], p["b"])

    for options in ({"tolerance": 0}, {"tolerance": -1}, {"flatness": 0}):
        with pytest.raises(InvalidValueError, match=f"`{next(iter(options))}` must be above 0"):
            refine(chi2, rough, **options)
    with pytest.raises(InvalidValueError, match="one value for each point"):
        refine(lambda p: 0.0, rough)


def test_a_real_likelihood(csi_likelihood):
    like = csi_likelihood("2303.09360", nsi=True)
    x, y = np.linspace(-0.25, 0.2, 9), np.linspace(-0.15, 0.15, 8)
    names = ("eps_dV_ee", "eps_dV_mumu")
    chi2 = contours.profiled(like)
    points = dict(zip(names, (grid.ravel() for grid in np.meshgrid(x, y, indexing="ij")), strict=True))
    values, best = chi2(points), cevjax.fit(like, names)
    columns = {"chi2": values, "status": np.zeros(len(values))}
    axes = dict(zip(names, (x, y), strict=True))
    scan = assemble(axes, columns, chi2_min=best.chi2_min, best_fit=best.values, facts={}, labels={})
    region = refine(chi2, regions(scan, 0.6827), tolerance=1e-4)
    at = chi2(dict(zip(names, along(region.polygons).T, strict=True)))
    np.testing.assert_allclose(at, best.chi2_min + threshold(0.6827, 2), atol=1e-4)


# -------------------------------------------------------------------------------------------------------------- limits


MASS, COUPLING = np.geomspace(1, 1e3, 16), np.geomspace(1e-4, 1e-1, 61)


def light(m, g):
    """A heavy mediator of growing mass: signal as g^4 / (m^2 + 100)^2, without interference."""
    return (1e7 * g**2 / (m**2 + 100)) ** 2


def interfering(m, g):
    """With destructive interference: the data are met at g = 0 and at twice the cancellation."""
    s = 1e6 * g**2 / (m**2 + 100)
    return 20 * (s * (2 - s)) ** 2


@pytest.mark.parametrize(("dof", "per_mass"), [(None, False), (1, False), (2, False), (None, True), (1, True)])
def test_limit_at_each_mass(dof, per_mass):
    limits = exclusion(scan_of(light, m=MASS, g=COUPLING, chi2_min=12.0), 0.9, dof, per_mass)
    used = threshold(0.9, dof or (1 if per_mass else 2))
    exact = np.sqrt(math.sqrt(used) * (MASS**2 + 100) / 1e7)
    inside = exact < 0.1
    assert limits.threshold == used and not np.all(inside)
    np.testing.assert_allclose(limits.limit[inside], exact[inside], rtol=1e-3)
    assert np.all(np.isnan(limits.limit[~inside]))
    np.testing.assert_array_equal(limits.highest, limits.limit)
    assert all(
        piece == [None, None] for piece in np.array(limits.allowed, dtype=object)[~inside].reshape(-1, 2).tolist()
    )
    assert limits.islands == ([],) * len(MASS)
    np.testing.assert_array_equal(limits.mass, MASS)
    assert limits.message == ""
    for polygons in (limits.polygons, limits.excluded):
        m, g = along(polygons).T
        np.testing.assert_allclose(light(m, g), used, rtol=2.5e-2)  # of g, a quarter of it
    whole = math.log10(1e3) * math.log10(1e3)
    assert limits.polygons[0].area + limits.excluded[0].area == pytest.approx(whole, rel=1e-9)


@pytest.mark.parametrize(("n", "precision"), [(61, 0.03), (241, 2e-3)])
def test_islands_are_reported(n, precision):
    limits = exclusion(scan_of(interfering, m=MASS, g=np.geomspace(1e-4, 1e-1, n)), 0.9, dof=1)
    used = math.sqrt(threshold(0.9) / 20)
    low, bottom, top = (
        np.sqrt(s * (MASS**2 + 100) / 1e6)
        for s in (1 - math.sqrt(1 - used), 1 + math.sqrt(1 - used), 1 + math.sqrt(1 + used))
    )
    seen = top < 0.1
    np.testing.assert_allclose(limits.limit[seen], low[seen], rtol=precision)
    np.testing.assert_allclose(limits.highest[seen], top[seen], rtol=precision)
    for i in np.flatnonzero(seen):
        ((start, end),) = limits.islands[i]
        assert start == pytest.approx(bottom[i], rel=precision) and end == pytest.approx(top[i], rel=precision)
        assert limits.allowed[i][0] == [None, limits.limit[i]] and len(limits.allowed[i]) == 2
    assert np.isnan(limits.highest[-1])


def test_thin_islands_are_said():
    limits = exclusion(scan_of(lambda m, g: 1e4 * interfering(m, g), m=MASS, g=COUPLING[::3]), 0.9)
    assert "masses chi2 may fall below the threshold between two excluded points" in limits.message


def test_minimum_at_each_mass():
    """Chi2 that rises with the mass by itself matters only for the minimum of the plane."""

    def chi2(m, g):
        return light(m, g) + 3 * np.log10(m)

    own = exclusion(scan_of(chi2, m=MASS, g=COUPLING), 0.9, per_mass=True)
    alone = exclusion(scan_of(light, m=MASS, g=COUPLING), 0.9, per_mass=True)
    np.testing.assert_allclose(own.limit, alone.limit, rtol=2e-3)
    plane = exclusion(scan_of(chi2, m=MASS, g=COUPLING), 0.9, dof=1)
    assert plane.allowed[-1] == [] and np.isnan(plane.limit[-1]) and np.isnan(plane.highest[-1])
    assert plane.limit[0] == pytest.approx(own.limit[0], rel=2e-3) and plane.limit[3] < own.limit[3]


def test_a_signal_has_a_lower_end():
    def chi2(m, g):
        return 20 * (np.log10(g) + 2.5) ** 2

    limits = exclusion(scan_of(chi2, m=MASS, g=COUPLING), 0.9, dof=1)
    width = math.sqrt(threshold(0.9) / 20)
    assert np.all(np.isnan(limits.limit))
    np.testing.assert_allclose(limits.highest, 10 ** (-2.5 + width), rtol=1e-2)
    for pieces in limits.allowed:
        np.testing.assert_allclose(pieces, [[10 ** (-2.5 - width), 10 ** (-2.5 + width)]], rtol=1e-2)


def test_gaps_hide_limits():
    def gap(m, g):
        return (g > 2e-3) & (m < 5)

    def chi2(m, g):
        return np.where(gap(m, g), np.nan, light(m, g) / 100)

    limits = exclusion(scan_of(chi2, m=MASS, g=COUPLING), 0.9)
    whole = exclusion(scan_of(lambda m, g: light(m, g) / 100, m=MASS, g=COUPLING), 0.9)
    hidden = MASS < 5
    assert np.all(whole.limit[hidden] > 2e-3) and np.all(np.isnan(limits.limit[hidden]))
    assert all(pieces[0][0] is None and math.isnan(pieces[0][1]) for pieces in limits.allowed[: np.sum(hidden)])
    np.testing.assert_array_equal(limits.limit[~hidden], whole.limit[~hidden])
    assert limits.missing == np.sum(gap(*np.meshgrid(MASS, COUPLING))) and "chi2 is missing" in limits.message
    assert any(polygon.at_gap for polygon in limits.polygons)


def test_which_parameter_is_limited():
    scan = scan_of(lambda g, m: light(m, g), g=COUPLING, m=MASS)
    limits = exclusion(scan, 0.9, coupling="g")
    np.testing.assert_array_equal(limits.limit, exclusion(scan_of(light, m=MASS, g=COUPLING), 0.9).limit)
    assert [axis.name for axis in limits.axes] == ["m", "g"]
    with pytest.raises(UnknownNameError, match="coupling_x"):
        exclusion(scan, 0.9, coupling="coupling_x")
    with pytest.raises(InvalidValueError, match="`per_mass`"):
        exclusion(scan, 0.9, per_mass="yes")


# --------------------------------------------------------------------------------------------------------- projections


@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_projection_of_a_gaussian(seed, dimensions):
    """In any number of correlated parameters it is the parabola with the variance of the one."""
    random = np.random.default_rng(seed)
    root = np.eye(dimensions) + random.uniform(-0.5, 0.5, (dimensions, dimensions))
    covariance = root @ root.T
    inverse, centre = np.linalg.inv(covariance), random.uniform(-0.5, 0.5, dimensions)
    names, sigma = "abc"[:dimensions], np.sqrt(np.diag(covariance))

    def chi2(*x):
        shifted = np.stack(x) - centre.reshape(-1, *[1] * dimensions)
        return np.einsum("i...,ij,j...->...", shifted, inverse, shifted)

    axes = {name: np.linspace(-8 * s, 8 * s, 23) for name, s in zip(names, sigma, strict=True)}
    scan = scan_of(chi2, best_fit=dict(zip(names, centre.tolist(), strict=True)), chi2_min=3.0, **axes)
    for name, s, c in zip(names, sigma, centre, strict=True):
        found = projection(scan, name)
        near = np.abs(found.x - c) < 3.5 * s
        np.testing.assert_allclose(found.delta_chi2[near], ((found.x[near] - c) / s) ** 2, atol=1e-6)
        for n in (1, 2, 3):
            np.testing.assert_allclose(found.intervals[n], [[c - n * s, c + n * s]], atol=2e-3 * s)
        width = math.sqrt(threshold(0.9))
        np.testing.assert_allclose(found.interval(0.9), [[c - width * s, c + width * s]], atol=2e-3 * s)
        assert np.min(found.delta_chi2) == pytest.approx(0, abs=1e-9) and found.missing == 0


def test_all_pieces_of_a_projection():
    x = np.linspace(-2, 2, 101)
    found = projection(scan_of(lambda a: 6 * (a**2 - 1) ** 2, a=x))
    for n in (1, 2):
        low, high = math.sqrt(1 - n / math.sqrt(6)), math.sqrt(1 + n / math.sqrt(6))
        np.testing.assert_allclose(found.intervals[n], [[-high, -low], [low, high]], atol=1e-4)
    high = math.sqrt(1 + 3 / math.sqrt(6))
    np.testing.assert_allclose(found.intervals[3], [[-high, high]], atol=1e-4)


def test_open_ends_and_gaps_of_a_projection():
    x = np.linspace(-2, 2, 41)
    found = projection(scan_of(lambda a: np.where(np.abs(a - 1.5) < 0.01, np.nan, (a + 1) ** 2), a=x))
    assert found.intervals[1] == [[None, pytest.approx(0)]]
    (piece, rest) = found.intervals[3]
    assert piece[0] is None and math.isnan(piece[1]) and math.isnan(rest[0]) and rest[1] is None
    assert found.missing == 1 and "chi2 is missing at 1 of 41 points" in found.message
    flat = projection(scan_of(lambda a: 0 * a, a=x))
    assert flat.intervals == {n: [[None, None]] for n in (1, 2, 3)}


def test_the_best_fit_is_a_point_of_the_projection():
    x = np.linspace(-10, 11, 8)  # steps of 3, with nothing below 1 but the best fit
    found = projection(scan_of(lambda a: (a - 0.5) ** 2, a=x, best_fit={"a": 0.5}))
    np.testing.assert_allclose(found.intervals[1], [[-0.5, 1.5]], atol=1e-9)
    assert len(found.x) == 9 and 0.5 in found.x
    near = projection(scan_of(lambda a: (a + 0.9) ** 2, a=x, best_fit={"a": -0.9}))
    assert len(near.x) == 8 and -0.9 in near.x and -1 not in near.x
    edge = projection(scan_of(lambda a: a**2, a=np.linspace(0, 5, 6), best_fit={"a": 0.0}))
    assert len(edge.x) == 6 and edge.intervals[2] == [[None, pytest.approx(2)]]


def test_projection_on_a_logarithmic_axis():
    found = projection(scan_of(light, m=MASS, g=COUPLING), "g")
    assert found.axis.log
    expected = np.array([np.min(light(MASS, g)) for g in found.x])
    near = expected < 20
    np.testing.assert_allclose(found.delta_chi2[near], expected[near], rtol=1e-6, atol=1e-9)


def test_curve_of_a_projection():
    x = np.linspace(-3, 3, 20)
    found = projection(scan_of(lambda a: np.where(a < -2.5, np.nan, (a - 0.1) ** 2), a=x, best_fit={"a": 0.1}))
    at, delta = found.curve(10)
    inside = at >= found.x[2]
    np.testing.assert_allclose(delta[inside], (at[inside] - 0.1) ** 2, atol=1e-9)
    assert np.all(np.isnan(delta[at < found.x[1] - 0.01])) and np.all(np.diff(at) > 0)
    assert len(at) == 10 * (len(found.x) - 1) + 1


def test_coarse_grids_are_said():
    x, y = np.linspace(-1, 1, 21), np.linspace(-1, 1, 5)
    found = projection(scan_of(lambda a, b: 4 * a**2 + 200 * np.abs(b - 0.2 - a), a=x, b=y), "a")
    assert "minimum over the others may be lower" not in projection(scan_of(gaussian(0.5), a=x, b=y), "a").message
    assert isinstance(found.message, str)


def test_wrong_projections():
    x = np.linspace(-1, 1, 5)
    scan = scan_of(gaussian(0.0), eps_uV_ee=x, eps_dV_ee=x)
    with pytest.raises(InvalidValueError, match="`name` must be one of eps_uV_ee, eps_dV_ee, but was None"):
        projection(scan)
    with pytest.raises(UnknownNameError, match="Did you mean 'eps_uV_ee'"):
        projection(scan, "eps_uV_e")
    with pytest.raises(InvalidValueError, match="`cl`"):
        projection(scan, "eps_uV_ee").interval(1.5)


def test_thin_diagonal_bands_that_a_coarse_grid_breaks_are_told():
    coarse, fine = ({name: np.linspace(-1, 2, n) for name in ("a", "b")} for n in (17, 160))
    broken, whole = (regions(scan_of(bands, **axes), 0.6827) for axes in (coarse, fine))
    assert len(broken.polygons) > 2 and "diagonal neighbours" in broken.message
    assert len(whole.polygons) == 2 and whole.message == ""
