"""Recoil grids and moments of the flux, oscillating and to massive leptons, against scipy quadrature."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.interpolate import BarycentricInterpolator
from scipy.special import erf

from cevjax.fluxes import PionDecayAtRest
from cevjax.interactions import Oscillation
from cevjax.kinematics import Shape
from cevjax.moments import RecoilGrid, electron_grid, moment, recoil_grid, weighted_moment
from cevjax.nuclei import nucleus, target

# QAWO says where it has reached the rounding errors
pytestmark = pytest.mark.filterwarnings("ignore:The occurrence of roundoff error::")

M_MU, M_PI = 105.6583755, 139.57039
LINE, END = (M_PI**2 - M_MU**2) / (2 * M_PI), M_MU / 2
FLUX = PionDecayAtRest()
COMPONENTS = dict(zip(("nu_mu", "nu_e", "nubar_mu"), FLUX.components, strict=True))
M = nucleus("Cs133").mass
SHAPES = {
    "vector": lambda E, T: 1 - M * T / (2 * E * E),
    "axial": lambda E, T: 1 + M * T / (2 * E * E),
    "scalar": lambda E, T: M * T / (E * E),
    "magnetic": lambda E, T: 1 / T - 1 / E,
}


def density(component, E):
    x = 2 * E / M_MU
    return (12 * x**2 * (1 - x) if component == "nu_e" else 2 * x**2 * (3 - 2 * x)) * 2 / M_MU


def end_point(E, mass):
    return E - E * mass / (mass + 2 * E)


def test_grid_is_gauss_legendre_in_each_panel():
    grid = RecoilGrid([(0.0, 1.0, 3), (1.0, 1.5, 2), (2.0, 4.0, 5)])
    assert grid.nodes.shape == grid.weights.shape == (10,)
    for (low, high, order), start in zip(grid.panels, (0, 3, 5), strict=True):
        nodes, weights = (np.asarray(x)[start : start + order] for x in (grid.nodes, grid.weights))
        assert np.all((low < nodes) & (nodes < high))
        for k in range(2 * order):
            np.testing.assert_allclose(weights @ nodes**k, (high ** (k + 1) - low ** (k + 1)) / (k + 1), rtol=1e-13)


@pytest.mark.parametrize("name", ["CsI", "Ar", "Ge"])
@pytest.mark.parametrize("order", [8, 24])
def test_recoil_grid_is_adapted_to_the_end_points(name, order):
    nuclides = target(name).nuclei
    grid = recoil_grid(nuclides, FLUX, order)
    nodes, weights = np.asarray(grid.nodes), np.asarray(grid.weights)
    ends = sorted(end_point(E, n.mass) for E in (LINE, END) for n in nuclides)
    edges = np.array([(low, high) for low, high, _ in grid.panels])
    np.testing.assert_allclose(edges[:, 1], ends, rtol=1e-9)
    np.testing.assert_array_equal(edges[1:, 0], edges[:-1, 1])
    assert edges[0, 0] == 0 and np.all(np.diff(nodes) > 0) and np.all(weights > 0)
    np.testing.assert_allclose(weights.sum(), ends[-1], rtol=1e-9)
    # a polynomial with a step at any end point is integrated exactly
    for end in edges[:, 1]:
        np.testing.assert_allclose(weights @ (nodes**6 * (nodes < end)), end**7 / 7, rtol=1e-12)


@pytest.mark.parametrize(("low", "high"), [(1e-4, 6e-3), (5e-4, 0.05), (2e-6, 1e-3)])
def test_electron_grid_is_adapted_to_the_shells(low, high):
    shells = [35.985, 5.714, 5.359, 5.012, 1.211, 1.071, 1.003, 0.7405, 0.7266, 0.2323, 0.1724, 0.1613, 0.0798, 0.0775]
    shells += [0.0227, 0.0142, 0.0121]
    shells += [33.169, 5.188, 4.852, 4.557, 1.072, 0.931, 0.875, 0.6308, 0.6193, 0.186, 0.123, 0.0506, 0.0489]
    shells = 1e-3 * np.sort(shells)
    inside = shells[(low < shells) & (shells < high)]
    grid = electron_grid(["Cs", "I"], low, high)
    edges = [grid.panels[0][0], *(panel[1] for panel in grid.panels)]
    np.testing.assert_allclose(edges, [low, *inside, high], rtol=1e-14)
    nodes, weights = np.asarray(grid.nodes), np.asarray(grid.weights)
    assert np.all(np.diff(nodes) > 0) and np.all(weights > 0)
    assert np.min(np.abs(nodes[:, None] / shells - 1)) > 1e-5  # never on a shell
    np.testing.assert_allclose(weights.sum(), high - low, rtol=1e-13)
    # steps are integrated exactly, and 1/T^2 well: two nodes at least in the narrowest panel
    assert min(order for *_, order in grid.panels) >= 2
    for shell in inside:
        np.testing.assert_allclose(weights @ (nodes > shell), high - shell, rtol=1e-12)
    np.testing.assert_allclose(weights @ (1 / nodes**2), 1 / low - 1 / high, rtol=1e-6)


def test_electron_grid_with_more_nodes():
    few, many = (len(electron_grid(["Ar"], 1e-3, 0.1, order).nodes) for order in (5, 20))
    assert many > 3 * few
    assert len(electron_grid(["Ar"], 3.3e-3, 0.1).panels) == 1


def least_energy(T, m=0.0):
    """Least neutrino energy for a recoil T: the lepton leaves along the recoil, (E - p)^2 + m^2 = (E - T)^2."""
    p = np.sqrt(T**2 + 2 * M * T)
    return (p**2 - T**2 + m**2) / (2 * (p - T))


def cosine(function, component, lowest, frequency):
    """int dE phi(E) f(E) cos(2 frequency/E) above ``lowest``: QAWO integrals over 1/E."""

    def integrand(x):
        return density(component, 1 / x) * function(1 / x) / x**2

    edges = np.geomspace(1 / END, 1 / lowest, 5)
    options = {"epsabs": 1e-14, "epsrel": 1e-13, "limit": 1000}
    if frequency:
        options |= {"weight": "cos", "wvar": 2 * frequency}
    return sum(quad(integrand, a, b, **options)[0] for a, b in zip(edges[:-1], edges[1:], strict=True))


@pytest.mark.parametrize("width", [2e-5, 1e-4, 7e-4, np.inf])
def test_electron_grid_with_a_largest_width(width):
    shells = 1e-3 * np.array([0.1208, 0.1249, 0.1801, 1.2170, 1.2481, 1.4146])
    low, high = 2.96e-6, 2.3e-3
    grid = electron_grid(["Ge"], low, high, width=width)
    panels = np.array(grid.panels)
    np.testing.assert_array_equal(panels[1:, 0], panels[:-1, 1])
    assert (panels[0, 0], panels[-1, 1]) == (low, high)
    widths = panels[:, 1] - panels[:, 0]
    assert widths.max() <= width * (1 + 1e-12)
    # every shell is an edge still, and between two of them panels are as few as can be, and alike
    inside = np.sort([*shells, 2.92e-5, 2.98e-5])
    edges = np.append(panels[:, 0], high)
    for a, b in zip([low, *inside], [*inside, high], strict=True):
        pieces = widths[(panels[:, 0] >= a * (1 - 1e-12)) & (panels[:, 1] <= b * (1 + 1e-12))]
        assert len(pieces) == max(1, int(np.ceil((b - a) / width - 1e-9)))
        np.testing.assert_allclose(pieces, pieces[0], rtol=1e-9)
        assert np.min(np.abs(edges - a)) < 1e-15
    weights, nodes = np.asarray(grid.weights), np.asarray(grid.nodes)
    np.testing.assert_allclose(weights.sum(), high - low, rtol=1e-13)
    for shell in inside:
        np.testing.assert_allclose(weights @ (nodes > shell), high - shell, rtol=1e-12)
    # what the width is for: a line of the detector's resolution
    if width <= 1e-4:
        truth = 0.5 * (erf((high - 1e-3) / 7e-5 / 2**0.5) - erf((low - 1e-3) / 7e-5 / 2**0.5))
        line = np.exp(-0.5 * ((nodes - 1e-3) / 7e-5) ** 2) / (2 * np.pi) ** 0.5 / 7e-5
        np.testing.assert_allclose(weights @ line, truth, rtol=2e-3)


@pytest.mark.parametrize("lowest", [0.0, 1e-5, 1e-3, 0.03])
def test_recoil_grid_from_a_lowest_recoil(lowest):
    nuclides = target("Ge").nuclei
    grid = recoil_grid(nuclides, FLUX, 24, lowest)
    ends = np.array(sorted(end_point(E, n.mass) for E in (LINE, END) for n in nuclides))
    edges = np.array([(low, high) for low, high, _ in grid.panels])
    assert edges[0, 0] == lowest
    np.testing.assert_allclose(edges[:, 1], ends[ends > lowest], rtol=1e-9)
    nodes, weights = np.asarray(grid.nodes), np.asarray(grid.weights)
    assert nodes.min() > lowest
    np.testing.assert_allclose(weights.sum(), ends[-1] - lowest, rtol=1e-9)
    np.testing.assert_allclose(weights @ nodes**3, (ends[-1] ** 4 - lowest**4) / 4, rtol=1e-9)


FREQUENCIES = [0.0, 0.3, 5.0, 24.0, 700.0, 7e3, 2.4e5]  # 24 is 1 eV^2 at 19 m
RECOILS = np.array([1e-4, 3e-4, 1e-3, 3e-3, 8e-3, 0.0143, 0.0144, 0.03, 0.044])
ACCURACY = 1e-9  # of an average over a continuum, in units of the average without oscillations


@functools.cache
def tabulated(component):
    """Moments of all shapes."""
    return jax.jit(lambda T: {name: moment(COMPONENTS[component], name, M, T, oscillates=True) for name in SHAPES})(
        RECOILS
    )


@jax.jit
def mixed(found, amplitude, frequency):
    return found(Oscillation(amplitude, frequency))


def wave(found, frequency):
    """sin^2 = (1 - cos)/2: with twice the full amplitude the cosine alone is left."""
    return np.asarray(mixed(found, jnp.full(3, 2.0), frequency))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("component", ["nu_e", "nubar_mu"])
@pytest.mark.parametrize("frequency", FREQUENCIES)
def test_waves_of_continua(component, shape, frequency):
    found = tabulated(component)[shape]
    truth = [cosine(lambda E, T=T: SHAPES[shape](E, T), component, least_energy(T), frequency) for T in RECOILS]
    whole = np.asarray(found.whole)
    np.testing.assert_allclose(wave(found, frequency) / whole, truth / whole, rtol=0, atol=ACCURACY)


@pytest.mark.parametrize("i", [0, 2, 4])
@pytest.mark.parametrize("component", ["nu_e", "nubar_mu"])
def test_waves_at_any_frequency(component, i):
    found, T = tabulated(component)["vector"], RECOILS[i]
    frequencies = np.geomspace(1, 2e4, 30)
    truth = [cosine(lambda E: SHAPES["vector"](E, T), component, least_energy(T), f) for f in frequencies]
    waves, whole = np.array([wave(found, f)[i] for f in frequencies]), float(found.whole[i])
    np.testing.assert_allclose(waves / whole, np.array(truth) / whole, rtol=0, atol=ACCURACY)


@pytest.mark.parametrize("frequency", FREQUENCIES)
def test_waves_of_a_line(frequency):
    found = tabulated("nu_mu")["vector"]
    whole = np.where(end_point(LINE, M) > RECOILS, 1 - M * RECOILS / (2 * LINE**2), 0)
    assert 0 < np.count_nonzero(whole) < len(whole)
    np.testing.assert_allclose(found.whole, whole, rtol=1e-12)
    truth = whole * np.cos(2 * frequency / LINE)
    np.testing.assert_allclose(wave(found, frequency), truth, rtol=0, atol=1e-15 * max(1, frequency))


@pytest.mark.parametrize(("component", "flavour"), [("nu_mu", 1), ("nu_e", 0), ("nubar_mu", 1)])
def test_oscillating_moments(component, flavour):
    found, amplitude = tabulated(component)["vector"], jnp.array([0.3, 0.7, 0.1])
    s = float(amplitude[flavour])
    truth = (1 - s / 2) * found.whole + s / 2 * wave(found, 24.0)
    np.testing.assert_allclose(mixed(found, amplitude, 24.0), truth, rtol=0, atol=1e-14)
    np.testing.assert_array_equal(found(None), found.whole)
    weight = 1 + np.arange(len(RECOILS))
    np.testing.assert_allclose(mixed(found * weight, amplitude, 24.0), weight * truth, rtol=0, atol=1e-13)


def test_smooth_survival_is_part_of_whole_and_wave():
    # a survival probability E/END of nu_e: as if it were part of the shape
    def survival(energy):
        return jnp.stack([energy / END, jnp.ones_like(energy), jnp.ones_like(energy)])

    T = 3e-3
    found = jax.jit(lambda t: moment(COMPONENTS["nu_e"], "vector", M, t, survival, oscillates=True))(jnp.array([T]))
    whole, waving = (
        cosine(lambda E: SHAPES["vector"](E, T) * E / END, "nu_e", least_energy(T), frequency)
        for frequency in (0.0, 24.0)
    )
    np.testing.assert_allclose(found.whole, [whole], rtol=1e-12)
    np.testing.assert_allclose(wave(found, 24.0), [waving], rtol=0, atol=ACCURACY)


def upscattering(E, T, m):
    """A dipole to a state of mass m (arXiv:1803.03262), for numpy and jax alike."""
    bracket = 1 / T - 1 / E - m**2 / (2 * E * T * M) * (1 - T / (2 * E) + M / (2 * E))
    return bracket + m**4 * (T - M) / (8 * E**2 * T**2 * M**2)


PORTAL = Shape(lambda E, T, M, m: upscattering(E, T, m), mass="m_4")
GRID = recoil_grid(target("CsI").nuclei, FLUX)
NODES = np.asarray(GRID.nodes)
ENDS = {"nu_mu": LINE, "nu_e": END, "nubar_mu": END}
GAUSS = np.polynomial.legendre.leggauss(40)


def sigmoid(T):
    """A threshold at 6 keV with a width of 1 keV, which is zero at zero."""
    return (1 + erf((T - 6e-3) / (np.sqrt(2) * 1e-3))) / 2


def smooth(T):
    """An entire function on the scale of the spectra, with a fourfold zero at zero."""
    return (T / 6e-3) ** 4 * np.exp(-T / 6e-3)


@functools.cache
def interpolant(function):
    """The function as the polynomials of each panel through its nodes see it: those of 1/T of it."""
    start, pieces = 0, []
    for low, high, order in GRID.panels:
        nodes = NODES[start : start + order]
        pieces.append((low, high, BarycentricInterpolator(nodes, function(nodes) / nodes)))
        start += order

    def evaluate(T):
        for low, high, piece in pieces:
            if low <= T <= high:
                return T * float(piece(T))
        raise ValueError(T)

    return evaluate


def open_recoils(component, m):
    """Ends of the phase space, by a boost from the centre of mass; None below the threshold."""
    E = ENDS[component]
    s = M**2 + 2 * M * E
    if s <= (M + m) ** 2:
        return None
    root_s = np.sqrt(s)
    p = np.sqrt((s - (M - m) ** 2) * (s - (M + m) ** 2)) / (2 * root_s)
    # p sinh of the rapidities: T = M (cosh(y + y0) - 1) = 2 M sinh^2((y + y0)/2)
    y, boost = np.arcsinh(p / M), np.arctanh(E / (E + M))
    return 2 * M * np.sinh((boost - y) / 2) ** 2, 2 * M * np.sinh((boost + y) / 2) ** 2


def flux_moment(component, T, m):
    if component == "nu_mu":
        return upscattering(LINE, T, m)
    x, w = GAUSS
    lowest = least_energy(T, m)
    E = lowest + (END - lowest) * (x + 1) / 2
    return (END - lowest) / 2 * np.sum(w * density(component, E) * upscattering(E, T, m))


def truth(component, m, function):
    """int dT R(T) K(T; m) over the open recoils, in the logarithm of T and in pieces."""
    ends = open_recoils(component, m)
    if ends is None:
        return 0.0
    edges = [ends[0], *(high for _, high, _ in GRID.panels if ends[0] < high < ends[1]), ends[1]]
    total = 0.0
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        total += quad(
            lambda u: np.exp(u) * function(np.exp(u)) * flux_moment(component, np.exp(u), m),
            np.log(low) + 1e-14, np.log(high) - 1e-14, epsabs=0, epsrel=1e-11, limit=400,
        )[0]  # fmt: skip
    return total


@functools.cache
def weights(component):
    """Moment times quadrature weight on the nodes, and its derivative in the mass, forward."""
    row = functools.partial(weighted_moment, COMPONENTS[component], PORTAL, M, GRID)
    return jax.jit(lambda m: jax.jvp(lambda x: row(x)(None), (m,), (1.0,)))


@functools.cache
def backward(component):
    """The derivative of their sum with a response, backward."""
    row = functools.partial(weighted_moment, COMPONENTS[component], PORTAL, M, GRID)
    return jax.jit(jax.grad(lambda m, response: row(m)(None) @ response))


def integral(component, m, function):
    """What the grid makes of a response, and its slope in the mass."""
    row, slopes = map(np.asarray, weights(component)(float(m)))
    return row @ function(NODES), slopes @ function(NODES)


every_mass = pytest.mark.parametrize("m", [1.0, 10.0, 25.0, 40.0])
every_component = pytest.mark.parametrize("component", COMPONENTS)


@every_component
@every_mass
def test_massive_lepton_with_a_smooth_response(component, m):
    np.testing.assert_allclose(integral(component, m, smooth)[0], truth(component, m, smooth), rtol=1e-8)


@every_component
@every_mass
def test_massive_lepton_with_a_threshold(component, m):
    # the panels' polynomials follow the threshold to 1e-4 or so
    np.testing.assert_allclose(integral(component, m, sigmoid)[0], truth(component, m, sigmoid), rtol=2e-4)


@every_component
@pytest.mark.parametrize("m", [25.0, 40.0])
def test_massive_lepton_is_exact_for_the_interpolated_response(component, m):
    # what the threshold costs is its interpolation, not the integral; below, 1/T meets polynomials not zero at zero
    function = interpolant(sigmoid)
    np.testing.assert_allclose(integral(component, m, sigmoid)[0], truth(component, m, function), rtol=5e-7)


def slope(component, m, function):
    """Derivative of the truth, by a five-point formula."""
    h = 1e-2 * min(m, 2.0)
    values = [truth(component, m + k * h, function) for k in (-2, -1, 1, 2)]
    return (8 * (values[2] - values[1]) - (values[3] - values[0])) / (12 * h)


@every_component
@every_mass
@pytest.mark.parametrize(("function", "rtol"), [(smooth, 1e-6), (sigmoid, 1e-3)])
def test_derivative_in_the_mass(component, m, function, rtol):
    found = integral(component, m, function)[1]
    expected = slope(component, m, function)
    np.testing.assert_allclose(found, expected, rtol=rtol)


@pytest.mark.parametrize("component", ["nu_mu", "nu_e"])
@pytest.mark.parametrize("m", [0.0, 1.0, 10.0, 25.0])
def test_backward_derivative(component, m):
    found = backward(component)(m, sigmoid(NODES))
    np.testing.assert_allclose(found, integral(component, m, sigmoid)[1], rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("component", ["nu_mu", "nu_e"])
def test_forward_derivative_above_the_threshold_is_zero_not_nan(component):
    assert integral(component, 60.0, smooth) == (0, 0)


@pytest.mark.parametrize("component", ["nu_mu", "nu_e"])
def test_backward_derivative_above_the_threshold_is_zero_not_nan(component):
    assert float(backward(component)(60.0, smooth(NODES))) == 0


@every_component
def test_a_massless_lepton(component):
    # the magnetic moment, and flat in the mass, whose square enters
    values = moment(COMPONENTS[component], "magnetic", M, GRID.nodes)(None) * GRID.weights * smooth(NODES)
    found, slope_there = integral(component, 0.0, smooth)
    np.testing.assert_allclose(found, values.sum(), rtol=1e-12)
    np.testing.assert_allclose(slope_there, 0, rtol=0, atol=1e-15)


@pytest.mark.parametrize("function", [smooth, sigmoid])
@every_component
def test_no_steps_in_the_mass(component, function):
    # the end of the phase space crosses nodes, and in the continua a panel: nothing jumps, in value or slope
    masses = np.linspace(8.0, 24.0, 321)
    values, slopes = np.array([integral(component, m, function) for m in masses]).T
    last = np.array([open_recoils(component, m)[1] for m in masses])
    assert np.searchsorted(NODES, last[0]) - np.searchsorted(NODES, last[-1]) >= 4
    # values and slopes either side predict what lies between, but for h^4/24 times the fourth derivative
    h = masses[1] - masses[0]
    predicted = (values[:-2] + values[2:]) / 2 + h / 4 * (slopes[:-2] - slopes[2:])
    np.testing.assert_allclose(predicted, values[1:-1], rtol=0, atol=1e-9 * values.max())
    # and slopes differ from step to step by no more than they do over the whole range
    np.testing.assert_array_less(np.abs(np.diff(slopes, 2)), 1e-3 * np.ptp(slopes))


def test_massive_leptons_oscillate_too():
    effect = Oscillation(jnp.array([0.3, 0.7, 0.0]), jnp.asarray(24.0))

    def average(name):
        found = jax.jit(lambda m: weighted_moment(COMPONENTS[name], PORTAL, M, GRID, m, oscillates=True)(effect))(10.0)
        return float(found @ smooth(NODES)) / integral(name, 10.0, smooth)[0]

    np.testing.assert_allclose(average("nu_mu"), 1 - 0.7 * np.sin(24 / LINE) ** 2, rtol=1e-12)

    def waving(T):
        return smooth(T) * cosine(lambda E: upscattering(E, T, 10.0), "nu_e", least_energy(T, 10.0), 24.0)

    x, w = np.polynomial.legendre.leggauss(80)
    low, high = open_recoils("nu_e", 10.0)
    wave = (high - low) / 2 * sum(w * [waving(T) for T in low + (high - low) * (x + 1) / 2])
    truth_of_wave = 1 - 0.3 / 2 + 0.3 / 2 * wave / truth("nu_e", 10.0, smooth)
    np.testing.assert_allclose(average("nu_e"), truth_of_wave, rtol=0, atol=1e-7)
