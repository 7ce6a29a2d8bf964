"""Figures show the numbers they were given, and are written complete or not at all."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, StepPatch
from scipy import stats

import cevjax
from cevjax import contours, plots
from cevjax.errors import InvalidValueError, UnknownNameError
from cevjax.parameters import Parameter
from cevjax.results import IntervalResult, ProfileResult
from cevjax.scans import assemble

EDGES = ((0.0, 1.0, 3.0, 4.0), (0.0, 0.5, 2.0))
OBSERVED = np.array([[3.0, 0.0], [7.0, 5.0], [1.0, 4.0]])
COMPONENTS = {
    "cevns": np.array([[1.0, 0.5], [2.0, 1.5], [0.2, 3.0]]),
    "ssb": np.array([[0.5, 0.25], [4.0, 4.0], [1.0, 1.0]]),
    "brn": np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]),
}


def measurement(observed=OBSERVED, edges=EDGES, names=("PE", "t_us")):
    return cevjax.Measurement(
        name="toy",
        statistic="default",
        axes=tuple(zip(names, edges, strict=True)),
        observed=jnp.asarray(observed),
        components=(),
        nuisances=(),
    )


def steps(ax):
    """{label: (heights, edges, baseline)} of the histograms of a panel, in drawing order."""
    return {p.get_label(): p.get_data() for p in ax.patches if isinstance(p, StepPatch)}


def points(ax):
    """Values, lower and upper ends of the error bars of the only points of a panel."""
    (container,) = ax.containers
    line, _, (bars,) = container.lines
    x, y = line.get_data()
    ends = np.array(bars.get_segments())[:, :, 1]
    return np.asarray(x), np.asarray(y), ends[:, 0], ends[:, 1]


@pytest.fixture(scope="module")
def figure():
    return plots.spectra(measurement(), COMPONENTS, "a title")


def test_panels(figure):
    assert len(figure.axes) == 4
    assert figure.get_suptitle() == "a title"
    assert [ax.get_xlabel() for ax in figure.axes[2:]] == ["photo-electrons", r"recoil time [$\mu$s]"]
    assert all(ax.get_ylabel() for ax in figure.axes[:3])
    assert plots.spectra(measurement(), COMPONENTS).get_suptitle() == ""


@pytest.mark.parametrize("axis", [0, 1])
def test_stack_shows_the_components(figure, axis):
    drawn = steps(figure.axes[axis])
    width = np.diff(EDGES[axis])
    order = ["ssb", "brn", "cevns"]  # the signal lies on top
    assert [plots.LABELS[name] for name in order] == list(drawn)[:3]
    below = np.zeros(len(width))
    for name in order:
        heights, edges, baseline = drawn[plots.LABELS[name]]
        np.testing.assert_allclose(edges, EDGES[axis])
        np.testing.assert_allclose(np.multiply(heights - baseline, width), COMPONENTS[name].sum(axis=1 - axis))
        np.testing.assert_allclose(baseline, below / width)
        below += COMPONENTS[name].sum(axis=1 - axis)
    np.testing.assert_allclose(drawn["sum"][0] * width, sum(COMPONENTS.values()).sum(axis=1 - axis))


@pytest.mark.parametrize("axis", [0, 1])
def test_points_show_the_data(figure, axis):
    observed, width = OBSERVED.sum(axis=1 - axis), np.diff(EDGES[axis])
    x, y, low, high = points(figure.axes[axis])
    np.testing.assert_allclose(x, (np.array(EDGES[axis][1:]) + EDGES[axis][:-1]) / 2)
    np.testing.assert_allclose(y * width, observed)
    down, up = plots.poisson_errors(observed)
    np.testing.assert_allclose((y - low) * width, down, atol=1e-12)
    np.testing.assert_allclose((high - y) * width, up)


@pytest.mark.parametrize("axis", [0, 1])
def test_residuals_are_in_standard_deviations_of_the_expectation(figure, axis):
    observed = OBSERVED.sum(axis=1 - axis)
    expected = sum(COMPONENTS.values()).sum(axis=1 - axis)
    _, y, low, high = points(figure.axes[2 + axis])
    np.testing.assert_allclose(y, (observed - expected) / np.sqrt(expected))
    down, up = plots.poisson_errors(observed)
    np.testing.assert_allclose(y - low, down / np.sqrt(expected), atol=1e-12)
    np.testing.assert_allclose(high - y, up / np.sqrt(expected))


def test_residuals_are_in_view():
    """However large they are."""
    figure = plots.spectra(measurement(observed=100 * OBSERVED + 50), COMPONENTS)
    for ax in figure.axes[2:]:
        _, y, _, _ = points(ax)
        low, high = ax.get_ylim()
        assert np.all((low <= y) & (y <= high))


def test_legend_names_what_is_drawn(figure):
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert set(labels) == {"CEvNS", "beam-related neutrons", "steady-state background", "sum", "data"}


@pytest.mark.parametrize("n_axes", [1, 3])
def test_any_number_of_axes(n_axes):
    shape = (3, 2, 4)[:n_axes]
    observed = np.arange(np.prod(shape), dtype=float).reshape(shape)
    edges = tuple(tuple(map(float, range(n + 1))) for n in shape)
    m = measurement(observed, edges, ("recoil", "t_us", "energy")[:n_axes])
    figure = plots.spectra(m, {"cevns": observed + 1})
    assert len(figure.axes) == 2 * n_axes
    for i in range(n_axes):
        others = tuple(k for k in range(n_axes) if k != i)
        np.testing.assert_allclose(points(figure.axes[i])[1], observed.sum(axis=others))
        np.testing.assert_allclose(steps(figure.axes[i])["CEvNS"][0], (observed + 1).sum(axis=others))
    assert figure.axes[n_axes].get_xlabel() == "recoil"


def test_unknown_components_have_their_own_colours():
    figure = plots.spectra(measurement(), {"cevns": OBSERVED, "dark": OBSERVED, "muons": OBSERVED})
    filled = [p for p in figure.axes[0].patches if isinstance(p, StepPatch) and p.get_fill()]
    assert {p.get_label() for p in filled} == {"CEvNS", "dark", "muons"}
    assert len({p.get_facecolor() for p in filled}) == 3


def test_empty_bins_can_be_drawn(tmp_path):
    zero = np.zeros_like(OBSERVED)
    figure = plots.spectra(measurement(zero), {"cevns": zero})
    assert np.all(np.isfinite(points(figure.axes[2])[1]))
    plots.save(figure, tmp_path / "empty.png")


def test_spectra_of_a_real_fit(csi_likelihood):
    like = csi_likelihood("2303.09360")
    (m,) = like.measurements
    expected = like.expected(like.nominal())[m.name]
    figure = plots.spectra(m, expected)
    for axis in (0, 1):
        width = np.diff(m.axes[axis][1])
        total = sum(np.asarray(counts) for counts in expected.values()).sum()
        assert np.sum(steps(figure.axes[axis])["sum"][0] * width) == pytest.approx(total)
        assert np.sum(points(figure.axes[axis])[1] * width) == pytest.approx(1578)


# ------------------------------------------------------------------------------------------------------ Poisson errors


@pytest.mark.parametrize("cl", [0.6827, 0.9, 0.95])
@given(st.lists(st.integers(0, 10**6) | st.floats(0.01, 1e4), min_size=1, max_size=5))
@settings(max_examples=50, deadline=None)
def test_poisson_errors_are_those_of_garwood(cl, counts):
    n = np.array(counts, float)
    low, high = plots.poisson_errors(n, cl)
    tail = (1 - cl) / 2
    with np.errstate(invalid="ignore"):
        expected = np.where(n > 0, stats.chi2.ppf(tail, 2 * n) / 2, 0.0)
    np.testing.assert_allclose(n - low, expected, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(n + high, stats.chi2.isf(tail, 2 * n + 2) / 2, rtol=1e-9)
    assert np.all(high > 0) and np.all((low > 0) == (n > 0))


def test_poisson_errors_approach_the_square_root():
    low, high = plots.poisson_errors(np.array([1e6]))
    assert low[0] == pytest.approx(1e3, rel=2e-3) and high[0] == pytest.approx(1e3, rel=2e-3)


# ------------------------------------------------------------------------------------------------------------ profiles


def interval_result(intervals, chi2, x=None, cl=0.9, unit="", latex=""):
    x = np.linspace(-1, 1, 81) if x is None else x
    chi2 = chi2(x) if callable(chi2) else chi2
    parameter = Parameter("eps", unit=unit, latex=latex)
    fit = SimpleNamespace(likelihood=SimpleNamespace(parameters={"eps": parameter}, measurements=()))
    profile = ProfileResult({"eps": x}, 80 + chi2, {"eps": x}, np.ones(len(x), bool))
    return IntervalResult("eps", cl, 0.5, 80.0, intervals, fit, profile)


def spans(ax):
    """Left and right ends of the shaded pieces, in data."""
    inverse = ax.transData.inverted()
    boxes = [patch.get_extents().transformed(inverse) for patch in ax.patches]
    return sorted((box.x0, box.x1) for box in boxes)


def double_well(x):
    return 400 * (x**2 - 0.25) ** 2


def crossings(cl):
    level = np.sqrt(stats.chi2.ppf(cl, 1) / 400)
    return np.sqrt(0.25 - level), np.sqrt(0.25 + level)


@pytest.mark.parametrize("cl", [0.6827, 0.9, 0.99])
def test_two_pieces_are_shaded(cl):
    low, high = crossings(cl)
    pieces = [[-high, -low], [low, high]]
    (ax,) = plots.profile_curve(interval_result(pieces, double_well, cl=cl)).axes
    np.testing.assert_allclose(spans(ax), pieces)
    threshold = ax.lines[1].get_ydata()[0]
    assert threshold == pytest.approx(stats.chi2.ppf(cl, 1))
    left, right = ax.get_xlim()
    assert left <= -high and high <= right
    assert ax.get_ylim()[0] == 0 and ax.get_ylim()[1] > threshold
    assert f"{100 * cl:.4g} %" in [text.get_text() for text in ax.texts]


def test_profile_shows_the_scan_in_order():
    x = np.array([0.3, -0.4, 0.0, 0.5, -0.5])
    (ax,) = plots.profile_curve(interval_result([[-0.6, 0.6]], double_well, x)).axes
    np.testing.assert_allclose(ax.lines[0].get_xdata(), np.sort(x))
    np.testing.assert_allclose(ax.lines[0].get_ydata(), double_well(np.sort(x)))


@pytest.mark.parametrize("piece", [[None, 0.25], [-0.25, None], [None, None]])
def test_open_ends_are_shaded_to_the_edge(piece):
    (ax,) = plots.profile_curve(interval_result([piece], lambda x: 0 * x)).axes
    left, right = ax.get_xlim()
    expected = left if piece[0] is None else piece[0], right if piece[1] is None else piece[1]
    np.testing.assert_allclose(spans(ax), [expected])
    assert (left, right) == (-1, 1)


@pytest.mark.parametrize(
    ("unit", "latex", "label"),
    [("", "", "eps"), ("fm", "", "eps [fm]"), ("", r"$\epsilon$", r"$\epsilon$"), ("fm", r"$R$", "$R$ [fm]")],
)
def test_profile_names_the_parameter(unit, latex, label):
    (ax,) = plots.profile_curve(interval_result([[-0.7, 0.7]], double_well, unit=unit, latex=latex)).axes
    assert ax.get_xlabel() == label


def test_profile_of_a_real_interval(csi_likelihood):
    result = cevjax.interval(csi_likelihood("2303.09360"), "sin2_theta_w", cl=0.9)
    (ax,) = plots.profile_curve(result).axes
    np.testing.assert_allclose(spans(ax), result.intervals)
    assert np.min(ax.lines[0].get_ydata()) == pytest.approx(0, abs=1e-6)


# ------------------------------------------------------------------------------------------------- intervals of many


def drawn(ax):
    """The lines of a panel: {place: [(left, right, width)]}."""
    found = {}
    for line in ax.lines:
        x, y = line.get_data()
        if y[0] == y[1]:
            found.setdefault(float(y[0]), []).append((float(x[0]), float(x[1]), line.get_linewidth()))
    return found


def test_forest():
    intervals = {
        "eps": {"A": {0.68: [[-0.1, 0.1]], 0.9: [[-0.2, 0.2]]}, "B": {0.68: [[-1.0, 1.0]], 0.9: [[-9.0, 9.0]]}},
        "mu [mu_B]": {"B": {0.9: [[None, 3e-9]]}, "A": {0.9: [[None, 2e-9]]}},
        "two": {"A": {0.9: [[1.0, 1.2], [1.8, 2.0]]}},
        "none": {"A": {0.9: [[None, None]]}},
    }
    figure = plots.forest(intervals, columns=3)
    first, second, third, fourth, *rest = figure.axes
    assert [ax.get_title() for ax in figure.axes[:4]] == list(intervals) and len(rest) == 2
    assert not any(ax.axison for ax in rest)
    # three times the tightest; wider ones run out of it
    assert first.get_xlim() == pytest.approx((-0.6, 0.6))
    assert drawn(first)[0.0] == [(-0.1, 0.1, 4.0), (-0.2, 0.2, 1.4)]
    np.testing.assert_allclose(drawn(first)[-1.0], [(-0.6, 0.6, 4.0), (-0.6, 0.6, 1.4)])
    # a limit starts at the bound, and data keep their place and colour
    assert second.get_xlim() == pytest.approx((0.0, 4e-9))
    assert drawn(second)[-1.0] == [(pytest.approx(0.0), pytest.approx(3e-9), 4.0)]
    assert {line.get_color() for line in second.lines if line.get_ydata()[0] == -1} == {
        line.get_color() for line in first.lines if line.get_ydata()[0] == -1
    }
    assert [piece[:2] for piece in drawn(third)[0.0]] == [(1.0, 1.2), (1.8, 2.0)]
    assert drawn(fourth)[0.0][0][:2] == fourth.get_xlim()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["A", "B"]
    assert figure.legends[0].get_title().get_text() == "68 % and 90 %, profile likelihood"


# -------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("ending", "signature"), [("png", b"\x89PNG\r\n\x1a\n"), ("pdf", b"%PDF"), ("svg", b"<?xml"), ("PNG", b"\x89PNG")]
)
def test_figures_are_saved(tmp_path, figure, ending, signature):
    path = plots.save(figure, tmp_path / f"a.{ending}")
    assert path == tmp_path / f"a.{ending}" and path.read_bytes().startswith(signature)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["a.xyz", "a", "a.", "png", ".png"])
def test_unknown_formats_are_refused(tmp_path, figure, name):
    for function in (lambda path: plots.save(figure, path), plots.check_format):
        with pytest.raises(InvalidValueError, match="pdf.*png.*svg") as caught:
            function(tmp_path / name)
        assert name in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_known_formats_pass(tmp_path):
    for name in ("a.png", "a.b.pdf", "A.SVG"):
        assert plots.check_format(str(tmp_path / name)) == [tmp_path / name]
    assert plots.check_format("a.b.png,pdf") == [Path("a.b.png"), Path("a.b.pdf")]


def test_one_figure_in_several_formats(tmp_path, figure):
    assert plots.save(figure, tmp_path / "a.png,pdf") == tmp_path / "a.png"
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF") and (tmp_path / "a.png").stat().st_size > 0
    with pytest.raises(InvalidValueError, match=r"a\.png,bmp"):
        plots.save(figure, tmp_path / "a.png,bmp")


def test_a_figure_is_the_same_file_at_any_time(tmp_path, figure, monkeypatch):
    plots.save(figure, tmp_path / "a.pdf")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    plots.save(figure, tmp_path / "b.pdf")
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()


def test_several_levels_in_one_profile():
    result = interval_result([[-1.0, 1.0]], double_well, cl=0.6827)
    several = {0.6827: [[-0.7, -0.3], [0.3, 0.7]], 0.9: [[-0.8, 0.8]]}
    (ax,) = plots.profile_curve(dataclasses.replace(result, levels=several)).axes
    np.testing.assert_allclose(spans(ax), [[-0.8, 0.8], [-0.7, -0.3], [0.3, 0.7]])
    heights = [line.get_ydata()[0] for line in ax.lines[1:]]
    np.testing.assert_allclose(heights, stats.chi2.ppf([0.6827, 0.9], 1))
    assert [text.get_text() for text in ax.texts] == ["68.27 %", "90 %"]


def test_a_failing_figure_leaves_the_old_file(tmp_path, figure, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def fail(self, file, **options):
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        plots.save(figure, path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_figures_do_not_pile_up(figure):
    """They are no pyplot figures, which stay until they are closed."""
    import matplotlib.pyplot as plt

    assert plt.get_fignums() == []


def test_what_must_be_known_of_the_data_is_on_every_figure():
    measurement = cevjax.load("conus-plus-2025")
    like = cevjax.Likelihood([measurement], cevjax.StandardModel())
    expected = like.expected(like.nominal())[measurement.name]
    title = plots.spectra(measurement, expected, "a title").get_suptitle().replace("\n", " ")
    assert title.startswith("a title") and "digitised by a third party" in title
    curve = plots.profile_curve(cevjax.interval(like, "sin2_theta_w", cl=0.6827))
    assert "digitised by a third party" in curve.axes[0].get_title().replace("\n", " ")


def test_three_axes_have_three_projections():
    measurement = cevjax.load("coherent-lar-2020")
    counts = np.ones(measurement.shape)
    figure = plots.spectra(measurement, {"cevns": counts})
    assert len(figure.axes) == 6
    assert [axes.get_xlabel() for axes in figure.axes[3:]] == ["energy [keVee]", "$F_{90}$", r"recoil time [$\mu$s]"]


# --------------------------------------------------------------------------------------------------------------- scans


def scan_of(chi2, name="toy", best_fit=None, labels=None, **axes):
    mesh = np.meshgrid(*axes.values(), indexing="ij")
    values = chi2(*mesh)
    if best_fit is None:
        best_fit = {n: float(grid.ravel()[np.nanargmin(values)]) for n, grid in zip(axes, mesh, strict=True)}
    columns = {"chi2": 9 + values.ravel(), "status": np.zeros(values.size)}
    return assemble(axes, columns, chi2_min=9.0, best_fit=best_fit, facts={"datasets": [name]}, labels=labels or {})


X = np.linspace(-3, 3, 31)
MASS, COUPLING = np.geomspace(1, 1e3, 13), np.geomspace(1e-4, 1e-1, 31)


def bowl(x, y):
    return 2 * x**2 + y**2


def ring(x, y):
    return 30 * (x**2 / 4 + y**2 / 4 - 1) ** 2


def coupling(m, g):
    return (1e7 * g**2 / (m**2 + 100)) ** 2


@pytest.fixture(scope="module")
def bowls():
    return [scan_of(bowl, "first", a=X, b=X), scan_of(lambda x, y: 3 * bowl(x - 0.5, y), "second", a=X, b=X)]


def fills(ax):
    """Filled paths of a panel, those drawn first first."""
    return [patch for patch in ax.patches if isinstance(patch, PathPatch)]


def curves(ax):
    """Lines of more than one point, without straight rules."""
    return [line for line in ax.lines if len(line.get_xdata()) > 2]


def marks(ax):
    return {(line.get_marker(), *map(float, line.get_xydata()[0])) for line in ax.lines if line.get_marker() != "None"}


def words(figure):
    (legend,) = figure.legends
    return legend.get_title().get_text(), [text.get_text().strip() for text in legend.get_texts()]


def test_plane_of_one_scan(bowls):
    figure = plots.plane(bowls[0], cl=(0.9, 0.6827), points={"SM": (1.0, 2.0)})
    (ax,) = figure.axes
    wide, narrow = fills(ax)
    light, dark = (np.mean(patch.get_facecolor()[:3]) for patch in (wide, narrow))
    assert dark < light < 1
    for patch, cl in ((wide, 0.9), (narrow, 0.6827)):
        vertices = patch.get_path().vertices
        np.testing.assert_allclose(bowl(*vertices.T), stats.chi2.ppf(cl, 2), rtol=1e-3)
    assert len(curves(ax)) == 2 and {line.get_linestyle() for line in curves(ax)} == {"-"}
    assert marks(ax) == {("*", 0.0, 0.0), ("P", 1.0, 2.0)}
    assert (ax.get_xlim(), ax.get_ylim()) == ((-3, 3), (-3, 3)) and (ax.get_xlabel(), ax.get_ylabel()) == ("a", "b")
    title, entries = words(figure)
    assert title == "first, profile likelihood"
    assert entries == ["68.27 % (Δχ² < 2.30)", "90 % (Δχ² < 4.61)", "best fit", "SM"]


def test_plane_of_several_scans(bowls):
    """The last is filled, the others are lines; levels differ by the style of lines, scans by colour."""
    figure = plots.plane(bowls, labels=["A", "joint"])
    (ax,) = figure.axes
    assert len(fills(ax)) == 2 and len(curves(ax)) == 4
    styles = {(line.get_color(), line.get_linestyle()) for line in curves(ax)}
    assert styles == {(colour, style) for colour in plots.PALETTE[:2] for style in ("-", "--")}
    for line in curves(ax):
        first = line.get_color() == plots.PALETTE[0]
        chi2 = bowl(*line.get_xydata().T) if first else 3 * bowl(line.get_xdata() - 0.5, line.get_ydata())
        expected = stats.chi2.ppf(0.6827 if line.get_linestyle() == "-" else 0.9, 2)
        np.testing.assert_allclose(chi2, expected, rtol=1e-3)
    title, entries = words(figure)
    assert title == "profile likelihood" and set(entries) >= {"A", "joint", "best fit"} and "SM" not in entries
    assert set(words(plots.plane(bowls))[1]) >= {"first", "second"}


def test_hole_of_a_region_is_not_filled():
    figure = plots.plane(scan_of(ring, a=X, b=X), cl=0.9)
    (ax,), canvas = figure.axes, FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[::-1, :, :3]
    for at, inside in (((0, 0), False), ((2, 0), True), ((0, 2), True), ((1.4, -1.4), True), ((2.9, 0), False)):
        x, y = ax.transData.transform(at).astype(int)
        assert np.all(pixels[y, x] == 255) != inside


def test_edges_of_the_grid_are_no_contours():
    scan = scan_of(lambda x, y: 9 * (y - 0.3 * x) ** 2, a=X, b=X, best_fit={"a": 0.0, "b": 0.0})
    (ax,) = plots.plane(scan, cl=0.9).axes
    assert len(curves(ax)) == 2
    for line in curves(ax):
        x, y = line.get_xydata().T
        np.testing.assert_allclose(9 * (y - 0.3 * x) ** 2, stats.chi2.ppf(0.9, 2), rtol=1e-6)


def test_nothing_to_draw():
    """Regions between the points, or of a scan that failed everywhere."""
    thin = scan_of(lambda x, y: 1e3 * bowl(x - 0.1, y - 0.1), a=X, b=X, best_fit={"a": 0.1, "b": 0.1})
    (ax,) = plots.plane(thin).axes
    assert fills(ax) == [] and curves(ax) == [] and marks(ax) == {("*", 0.1, 0.1)}
    empty = scan_of(lambda x, y: np.nan * x, a=X, b=X, best_fit={"a": 0.0, "b": 0.0})
    for function in (plots.plane, plots.exclusions, plots.projections, plots.surface):
        function(empty).draw_without_rendering()


def test_best_fit_off_the_grid_is_not_marked():
    figure = plots.plane(scan_of(bowl, a=X, b=X, best_fit={"a": 7.0, "b": 0.0}), points={"SM": (9.0, 9.0)})
    assert marks(figure.axes[0]) == set() and "best fit" not in words(figure)[1]


def test_plane_with_projections(bowls):
    figure = plots.plane(bowls, projections=True)
    top, ax, right = figure.axes
    assert len(fills(ax)) == 2
    for panel, k in ((top, 0), (right, 1)):
        for line, scan in zip(curves(panel), bowls, strict=True):
            expected = contours.projection(scan, "ab"[k]).curve()
            np.testing.assert_allclose(line.get_xydata(), np.column_stack(expected if k == 0 else expected[::-1]))
    assert top.get_xlim() == ax.get_xlim() and right.get_ylim() == ax.get_ylim()
    assert top.get_ylim() == right.get_xlim() == (0, 10)


def test_plane_evaluates_on_request():
    def quartic(x, y):
        return x**4 + y**2

    scan = scan_of(quartic, a=X, b=X)
    asked = []

    def chi2(points):
        asked.append(len(points["a"]))
        return 9 + quartic(points["a"], points["b"])

    figures = plots.plane(scan, cl=0.9), plots.plane(scan, cl=0.9, chi2=[chi2])
    rough, exact = (np.max(np.abs(quartic(*curves(f.axes[0])[0].get_xydata().T) - 4.60517)) for f in figures)
    assert exact < 1e-3 < rough and sum(asked) > 100
    with pytest.raises(InvalidValueError, match="`chi2` must hold 1 functions, but has 2"):
        plots.plane(scan, chi2=[chi2, chi2])


@pytest.mark.parametrize("function", [plots.plane, plots.exclusions, plots.surface])
def test_logarithmic_axes(function):
    (ax, *_) = function(scan_of(coupling, m=MASS, g=COUPLING, labels={"m": ("$m$", "MeV")})).axes
    assert ax.get_xscale() == ax.get_yscale() == "log"
    assert ax.get_xlabel() == "$m$ [MeV]" and ax.get_ylabel() == "g"
    np.testing.assert_allclose([ax.get_xlim(), ax.get_ylim()], [(1, 1e3), (1e-4, 1e-1)])


@pytest.mark.parametrize(
    ("values", "unit", "label", "ticks"),
    [
        (np.linspace(0, 8e-11, 9), "mu_B", r"$x$ [$10^{-11}$ $\mu_B$]", {"0", "2", "4", "6", "8"}),
        (np.linspace(-6e-32, 2e-32, 9), "cm2", r"$x$ [$10^{-32}$ cm$^2$]", {"−6", "−4", "−2", "0", "2"}),
        (np.linspace(0, 5e4, 6), "", r"$x$ [$10^{4}$]", {"0", "1", "2", "3", "4", "5"}),
        (np.linspace(-0.4, 0.4, 9), "", "$x$", {"−0.4", "−0.2", "0", "0.2", "0.4"}),
        (np.linspace(0, 20, 9), "fm", "$x$ [fm]", {"0", "5", "10", "15", "20"}),
    ],
)
def test_powers_of_ten_are_in_the_label(values, unit, label, ticks):
    """And not at every tick."""
    scan = scan_of(lambda x: (x / values[-1]) ** 2, x=values, labels={"x": ("$x$", unit)})
    figure = plots.projections(scan)
    figure.draw_without_rendering()
    (ax,) = figure.axes
    assert ax.get_xlabel() == label
    assert {tick.get_text() for tick in ax.get_xticklabels()} >= ticks


def test_exclusions_shade_what_is_excluded():
    def gap(m, g):
        return (g > 5e-2) & (m < 3)

    scan = scan_of(lambda m, g: np.where(gap(m, g), np.nan, coupling(m, g)), "data", m=MASS, g=COUPLING)
    figure = plots.exclusions([scan], cl=0.9, dof=1)
    (ax,) = figure.axes
    (patch,) = fills(ax)
    assert patch.get_facecolor()[3] < 0.3
    for at, inside in (((10, 1e-2), True), ((10, 1.5e-4), False), ((1.2, 9e-2), False), ((900, 9e-2), False)):
        assert patch.contains_point(ax.transData.transform(at)) == inside
    (line,) = curves(ax)
    m, g = line.get_xydata().T
    np.testing.assert_allclose(coupling(m, g), stats.chi2.ppf(0.9, 1), rtol=0.1)
    assert words(figure) == ("excluded at 90 % (Δχ² > 2.71), profile likelihood", ["data"])
    own = plots.exclusions(scan, per_mass=True)
    assert words(own)[0].replace("\n", " ") == "excluded at 90 % (Δχ² > 2.71) at each mass, profile likelihood"


def test_exclusions_of_several_scans():
    scans = [scan_of(lambda m, g, k=k: k * coupling(m, g), m=MASS, g=COUPLING) for k in (1, 5)]
    figure = plots.exclusions(scans, labels=["weak", "strong"])
    (ax,) = figure.axes
    assert len(fills(ax)) == 2 and {line.get_color() for line in curves(ax)} == set(plots.PALETTE[:2])
    assert words(figure)[1] == ["weak", "strong"]


def test_projections_of_one_parameter(bowls):
    figure = plots.projections(bowls, "a", labels=["A", "B"])
    (ax,) = figure.axes
    for line, scan in zip(curves(ax), bowls, strict=True):
        np.testing.assert_allclose(line.get_xydata().T, contours.projection(scan, "a").curve())
    rules = [line.get_ydata()[0] for line in ax.lines if line not in curves(ax)]
    assert rules == [1, 4, 9]
    assert [text.get_text() for text in ax.texts] == [rf"{n}$\sigma$" for n in (1, 2, 3)]
    assert words(figure) == ("profile likelihood", ["A", "B"])


def test_projections_of_all_parameters(bowls):
    figure = plots.projections(bowls[0])
    assert [ax.get_xlabel() for ax in figure.axes] == ["a", "b"]
    assert figure.get_figwidth() == plots.DOUBLE_COLUMN
    one = scan_of(lambda x: x**2, a=X)
    assert plots.projections([bowls[0], one], "a").get_figwidth() == plots.SINGLE_COLUMN


def test_surface_shows_the_values():
    def field(x, y):
        return np.where(x > 2.7, np.nan, bowl(x, y))

    ax, bar = plots.surface(scan_of(field, a=X, b=X)).axes
    (mesh,) = ax.collections
    shown = np.ma.asarray(mesh.get_array()).reshape(31, 31)
    np.testing.assert_allclose(shown.filled(np.nan), field(*np.meshgrid(X, X, indexing="ij")).T, atol=1e-9)
    assert bar.get_ylabel() == r"$\Delta\chi^2$" and len(curves(ax)) == 2


def test_scans_that_do_not_go_together(bowls):
    other = scan_of(bowl, a=X, c=X)
    for function in (plots.plane, plots.exclusions, plots.projections):
        with pytest.raises(InvalidValueError, match="at least one scan"):
            function([])
        with pytest.raises(InvalidValueError, match="same parameters, in one order, but were of a, b and a, c"):
            function([bowls[0], other])
        with pytest.raises(InvalidValueError, match="`labels` must hold 2 words, but has 1"):
            function(bowls, labels=["A"])
    for function in (plots.plane, plots.surface):
        with pytest.raises(InvalidValueError, match="`cl` must hold 1 to 4 levels, but has 5"):
            function(bowls[0], cl=(0.5, 0.6, 0.7, 0.8, 0.9))
        with pytest.raises(InvalidValueError, match="2 parameters on its grid"):
            function(scan_of(lambda x: x**2, a=X))
    with pytest.raises(UnknownNameError, match="parameter of the grid 'c'"):
        plots.projections(bowls, "c")


@pytest.mark.parametrize("ending", ["pdf", "png", "svg"])
def test_figures_of_scans_are_saved(tmp_path, bowls, ending):
    """Without the fonts that journals refuse."""
    path = plots.save(plots.plane(bowls, projections=True, points={"SM": (0, 0)}), tmp_path / f"a.{ending}")
    assert ending != "pdf" or (b"/Type3" not in path.read_bytes() and b"/FontFile2" in path.read_bytes())


def test_nothing_is_drawn_over_the_panels(bowls):
    """The legend stands above them, however many scans there are and however long their names."""
    for labels in (["A", "B"], ["a name that is long enough for a line", "another such name, and not any shorter"]):
        figure = plots.plane(bowls, labels=labels, points={"standard model": (0, 0)}, projections=True)
        figure.draw_without_rendering()
        (legend,) = figure.legends
        box = legend.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
        assert all(not box.overlaps(ax.get_tightbbox()) for ax in figure.axes)
