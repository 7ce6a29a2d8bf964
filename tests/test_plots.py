"""Figures show the numbers they were given, and are written complete or not at all."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from scipy import stats

import cevjax
from cevjax import plots
from cevjax.errors import InvalidValueError
from cevjax.parameters import Parameter
from cevjax.results import IntervalResult, ProfileResult

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
        assert plots.check_format(str(tmp_path / name)) == tmp_path / name


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
