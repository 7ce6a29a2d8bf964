"""Arrival-time spectra against scipy distributions and explicit convolution integrals."""

import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.integrate import quad
from scipy.stats import exponnorm, norm

from cevjax.response import BinnedTime, ExponentialTimeEfficiency, Pulse, TimeTemplate, emg_cdf

MEAN, SIGMA, TAU_PI, TAU_MU = 0.4715, 0.148, 0.026033, 2.1969811
RATE, START = 0.0494, 0.52
PULSE = Pulse(MEAN, SIGMA, [(TAU_PI,), (TAU_PI, TAU_MU)])
EDGES = (0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1, 2, 4, 6)
cdf = jax.jit(emg_cdf)


# emg_cdf


def mp_emg_cdf(t, sigma, tau):
    """Integral over the pulse: sum of what has decayed by t."""

    def arrived(s):
        return mp.npdf(s, 0, sigma) * (1 - mp.exp(-(t - s) / tau))

    cuts = [x for x in (-12 * sigma, -4 * sigma, 0, 4 * sigma, t - 5 * tau) if x < t]
    return mp.quad(arrived, [*sorted(cuts), t])


@pytest.mark.parametrize("sigma", [0.01, 0.148, 0.7])
@pytest.mark.parametrize("ratio", [0.03, 0.18, 1.0, 3.0, 15.0, 300.0])
def test_emg_is_scipys_exponnorm(sigma, ratio):
    tau = ratio * sigma
    t = np.concatenate([np.linspace(-12, 12, 97) * sigma, np.linspace(0, 40, 41) * tau])
    truth = exponnorm.cdf(t, ratio, scale=sigma)
    np.testing.assert_allclose(cdf(t + 0.3, 0.3, sigma, tau), truth, rtol=0, atol=1e-12)


@pytest.mark.parametrize("ratio", [1e-3, 1e-2, 0.05, 1.0, 100.0])
def test_emg_by_convolution(ratio):
    sigma, t = 0.148, np.array([-1.0, -0.6, -0.2, 0.0, 0.1, 0.37, 0.9, 2.0])
    with mp.workdps(25):
        truth = [float(mp_emg_cdf(mp.mpf(float(x)), mp.mpf(sigma), mp.mpf(ratio * sigma))) for x in t]
    np.testing.assert_allclose(cdf(t, 0.0, sigma, ratio * sigma), truth, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("ratio", [1e-3, 1e-4, 1e-6])
def test_short_lifetimes_leave_a_delayed_gaussian(ratio):
    # to second order in tau/sigma: mean + tau, variance + tau^2
    sigma, tau = 0.148, 0.148 * ratio
    t = np.linspace(-8, 8, 81) * sigma
    truth = norm.cdf(t, tau, math.hypot(sigma, tau))
    np.testing.assert_allclose(cdf(t, 0.0, sigma, tau), truth, rtol=0, atol=0.3 * ratio**3 + 1e-14)


def test_long_lifetimes_leave_an_exponential():
    t = np.array([0.5, 1.0, 5.0, 20.0])
    np.testing.assert_allclose(cdf(t, 0.0, 1e-5, 2.2), 1 - np.exp(-t / 2.2), rtol=1e-5)
    np.testing.assert_allclose(cdf(-t, 0.0, 1e-5, 2.2), 0, atol=1e-300)


@given(
    t=hnp.arrays(float, 60, elements=st.floats(-30, 30)),
    sigma=st.floats(0.01, 2.0),
    tau=st.floats(1e-5, 20.0),
)
@settings(max_examples=50, deadline=None)
def test_emg_is_a_distribution(t, sigma, tau):
    t = np.sort(t)
    values, slope = np.asarray(cdf(t, 0.1, sigma, tau)), np.asarray(slopes(t, 0.1, sigma, tau))
    assert np.all(values > -1e-15) and np.all(values < 1 + 1e-15)
    assert np.all(np.diff(values) > -1e-14)
    assert np.all(np.isfinite(slope))
    assert np.all(slope > -1e-12 / sigma)


slopes = jax.jit(jax.vmap(jax.grad(emg_cdf), (0, None, None, None)))


@pytest.mark.parametrize("ratio", [1e-3, 0.03, 0.18, 1.0, 15.0])
def test_emg_density(ratio):
    t = np.linspace(-0.6, 1.5, 43)
    if ratio > 0.02:
        truth = exponnorm.pdf(t, ratio, scale=SIGMA)
        atol = 1e-10
    else:
        truth = norm.pdf(t, ratio * SIGMA, SIGMA * math.hypot(1, ratio))
        atol = 10 * ratio**3
    np.testing.assert_allclose(slopes(t, 0.0, SIGMA, ratio * SIGMA), truth, rtol=0, atol=atol)


@pytest.mark.parametrize("argument", [1, 2, 3])
def test_emg_derivatives_in_its_parameters(argument):
    t, point, h = np.linspace(-0.2, 3.0, 30), [0.05, 0.148, 0.5], 1e-5
    found = jax.jit(jax.vmap(jax.grad(emg_cdf, argument), (0, None, None, None)))(t, *point)
    up, down = ([*point[: argument - 1], point[argument - 1] + s * h, *point[argument:]] for s in (1, -1))
    np.testing.assert_allclose(found, (cdf(t, *up) - cdf(t, *down)) / (2 * h), rtol=1e-6, atol=1e-9)


# pulse with decay chains


def chain_density(t, source, mean=MEAN):
    """Gaussian pulse (x) decays: integral over the time at which the proton arrived."""

    def decayed(u):
        if source == 0:
            return math.exp(-u / TAU_PI) / TAU_PI
        return (math.exp(-u / TAU_MU) - math.exp(-u / TAU_PI)) / (TAU_MU - TAU_PI)

    def arrival(s):
        return math.exp(-((s - mean) ** 2) / (2 * SIGMA**2)) / (SIGMA * math.sqrt(2 * math.pi)) * decayed(t - s)

    low, high = mean - 9 * SIGMA, min(t, mean + 9 * SIGMA)
    if high <= low:
        return 0.0
    middle = min(max(low, t - 8 * TAU_PI), high)
    return sum(quad(arrival, a, b, epsabs=1e-13, epsrel=1e-11)[0] for a, b in ((low, middle), (middle, high)) if a < b)


def chain_integral(low, high, source, weight=lambda t: 1.0, mean=MEAN):
    cuts = [x for x in (mean - 3 * SIGMA, mean, mean + 3 * SIGMA, mean + 1.5) if low < x < high]
    parts = [low, *cuts, high]
    return sum(
        quad(lambda t: chain_density(t, source, mean) * weight(t), a, b, epsabs=1e-11, epsrel=1e-9)[0]
        for a, b in zip(parts[:-1], parts[1:], strict=True)
    )


BEGINNING = MEAN - 9 * SIGMA


integrals = eqx.filter_jit(lambda source, early, late, offset, rate: source.integrals(early, late, offset, rate))


@pytest.mark.parametrize("offset", [0.0, 0.25])
@pytest.mark.parametrize("rate", [RATE, 0.7])
def test_pulse_integrals(offset, rate):
    early, late = jnp.array([0.2, 0.52]), jnp.array([0.6, 3.0])
    plain, tilted = integrals(PULSE, early, late, offset, rate)
    assert plain.shape == tilted.shape == (2, 2)
    for source in range(2):
        start = BEGINNING + offset
        expected = [chain_integral(start, t, source, mean=MEAN + offset) for t in early]
        np.testing.assert_allclose(plain[source], expected, rtol=1e-9, atol=1e-10)
        expected = [chain_integral(start, t, source, lambda x: math.exp(-rate * x), MEAN + offset) for t in late]
        np.testing.assert_allclose(tilted[source], expected, rtol=1e-9, atol=1e-10)


def test_everything_arrives_in_the_end():
    pulse = Pulse(MEAN, SIGMA, [(TAU_PI,), (TAU_PI, TAU_MU), (TAU_MU, TAU_PI), (TAU_MU,)])
    plain, _ = integrals(pulse, jnp.array([-2.0, 80.0]), jnp.array([1.0]), 0.0, 0.0)
    np.testing.assert_allclose(plain, [[0.0, 1.0]] * 4, atol=1e-14)
    # the order of two decays does not matter
    plain, _ = integrals(pulse, jnp.linspace(0, 5, 9), jnp.array([1.0]), 0.1, 0.0)
    np.testing.assert_allclose(plain[1], plain[2], rtol=1e-12)


def test_mean_times_add():
    # <t> = integral of 1 - F from 0 (F(0) is negligible): pulse + pion + muon
    t = np.linspace(0, 90, 90_001)
    wide = Pulse(2.0, SIGMA, [(TAU_PI,), (TAU_PI, TAU_MU)])
    plain, _ = integrals(wide, jnp.asarray(t), jnp.array([1.0]), 0.0, 0.0)
    means = np.trapezoid(1 - np.asarray(plain), t, axis=1)
    np.testing.assert_allclose(means, [2 + TAU_PI, 2 + TAU_PI + TAU_MU], rtol=1e-7)


# templates


def smooth(t):
    """Cumulative of a prompt bump with a tail, inside the knots."""
    return 0.7 * norm.cdf(t, 0.6, 0.25) + 0.3 * norm.cdf(t, 2.5, 0.8)


def smooth_density(t):
    return 0.7 * norm.pdf(t, 0.6, 0.25) + 0.3 * norm.pdf(t, 2.5, 0.8)


STEP = 0.01
MAX_SLOPE = 0.2420 * (0.7 / 0.25**2 + 0.3 / 0.8**2)  # of the density: that of a Gaussian at one sigma
KNOTS = np.round(np.arange(-1.5, 7.001, STEP), 10)
TEMPLATE = TimeTemplate(KNOTS, smooth(KNOTS), RATE)


@pytest.mark.parametrize("offset", [0.0, 0.013, -0.25])
def test_template_integrals(offset):
    times = np.array([-0.3, 0.31, 0.52, 0.777, 1.9, 6.0])
    plain, tilted = integrals(TEMPLATE, jnp.asarray(times), jnp.asarray(times), offset, RATE)
    assert plain.shape == tilted.shape == (1, 6)
    # the interval and its spline add (1/12 + 1/3) step^2 to the variance: half of it times the slope of the density
    allowed = 5 / 24 * STEP**2 * 1.1 * MAX_SLOPE
    np.testing.assert_allclose(plain[0], smooth(times - offset), rtol=0, atol=allowed)
    truth = [
        sum(
            quad(lambda t: smooth_density(t - offset) * math.exp(-RATE * t), a, min(b, x), epsabs=1e-12)[0]
            for a, b in ((-1.5 + offset, 0.5), (0.5, 2.0), (2.0, 7.0))
            if a < x
        )
        for x in times
    ]
    np.testing.assert_allclose(tilted[0], truth, rtol=0, atol=allowed)


def test_template_spreads_each_interval_by_a_cubic_spline():
    """One interval: four uniform distributions of its width on top of each other, times their exponential moment."""
    step, rate = 0.25, 0.3
    template = TimeTemplate(np.arange(0, 1.1, step), [0, 0, 1, 1, 1], rate)
    t = np.linspace(-0.4, 1.2, 33)
    plain, tilted = integrals(template, jnp.asarray(t), jnp.asarray(t), 0.0, rate)

    def density(x):
        u = abs(x - 0.375) / step
        return (2 / 3 - u**2 + u**3 / 2 if u < 1 else max(2 - u, 0) ** 3 / 6) / step

    breaks = 0.375 + step * np.arange(-2, 3)

    def truth(x, k):
        cuts = [*breaks[breaks < x], x]
        pairs = zip(cuts[:-1], cuts[1:], strict=True)
        return sum(quad(lambda s: density(s) * math.exp(-k * s), a, b, epsabs=1e-13)[0] for a, b in pairs)

    np.testing.assert_allclose(plain[0], [truth(x, 0.0) for x in t], rtol=0, atol=1e-12)
    np.testing.assert_allclose(tilted[0], [truth(x, rate) for x in t], rtol=0, atol=1e-6)


def test_template_converges_with_the_square_of_the_step():
    times = jnp.asarray(np.linspace(0.1, 3.0, 50))
    errors = []
    for step in (0.1, 0.05, 0.025):
        knots = np.arange(-1.5, 7.001, step)
        plain, _ = integrals(TimeTemplate(knots, smooth(knots), RATE), times, times, 0.0, RATE)
        errors.append(np.abs(np.asarray(plain[0]) - smooth(np.asarray(times))).max())
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.1)


def test_template_outside_its_knots():
    outside = jnp.array([-100.0, -1.6, 7.1, 100.0])
    plain, tilted = integrals(TEMPLATE, outside, outside, 0.0, RATE)
    total = smooth(KNOTS[-1]) - smooth(KNOTS[0])
    np.testing.assert_allclose(plain[0], [0, 0, total, total], rtol=0, atol=1e-12)
    assert tilted[0, 2] == tilted[0, 3]


@given(content=hnp.arrays(float, 20, elements=st.floats(0, 1)), offset=st.floats(-0.5, 0.5))
@settings(max_examples=50, deadline=None)
def test_template_is_never_negative_and_keeps_its_content(content, offset):
    knots = np.linspace(0, 2, 21)
    template = TimeTemplate(knots, np.concatenate([[0], np.cumsum(content)]), RATE)
    times = jnp.asarray(np.linspace(-1, 3, 300))
    for values in integrals(template, times, times, offset, RATE):
        assert np.diff(np.asarray(values[0])).min() > -1e-12
    plain, _ = integrals(template, times, times, offset, RATE)
    assert plain[0, -1] == pytest.approx(content.sum(), abs=1e-12)


def test_density_and_its_slope_are_continuous_across_knots():
    def cumulative(t):
        return TEMPLATE.integrals(t[None], t[None], 0.0, RATE)[0][0, 0]

    density = jax.grad(cumulative)
    t = np.concatenate([KNOTS[200:240] - 1e-9, KNOTS[200:240] + 1e-9])
    for function, truth in ((density, smooth_density(t)), (jax.grad(density), None)):
        below, above = np.split(np.asarray(jax.jit(jax.vmap(function))(t)), 2)
        np.testing.assert_allclose(below, above, rtol=0, atol=1e-6)
        if truth is not None:
            np.testing.assert_allclose(np.concatenate([below, above]), truth, rtol=0, atol=2e-3)


# time bins with efficiency


def recorded(t):
    return math.exp(-RATE * (t - START)) if t > START else 1.0


def binned(source):
    return BinnedTime(source, ExponentialTimeEfficiency(RATE, START), EDGES, "timing", 0.25)


@functools.cache
def compiled(kind):
    time = binned(PULSE if kind == "pulse" else TEMPLATE)
    return jax.jit(lambda pull: time({"timing": pull}))


@pytest.mark.parametrize("pull", [0.0, 0.6])
def test_pulse_in_bins(pull):
    found = np.asarray(compiled("pulse")(pull))
    assert found.shape == (2, 11)
    mean = MEAN + 0.25 * pull
    # one bin before the efficiency falls, the bin in which it starts to, and two after it
    for i in (2, 4, 7, 9):
        low, high = EDGES[i : i + 2]
        parts = ((low, START), (START, high)) if low < START < high else ((low, high),)
        truth = [sum(chain_integral(a, b, source, recorded, mean) for a, b in parts) for source in range(2)]
        np.testing.assert_allclose(found[:, i], truth, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("pull", [0.0, -0.7])
def test_template_in_bins(pull):
    found = np.asarray(compiled("template")(pull))
    truth = [
        quad(lambda t: smooth_density(t - 0.25 * pull) * recorded(t), a, b, points=[START], epsabs=1e-12)[0]
        for a, b in zip(EDGES[:-1], EDGES[1:], strict=True)
    ]
    np.testing.assert_allclose(found[0], truth, rtol=0, atol=2 * 5 / 24 * STEP**2 * MAX_SLOPE)


def test_bins_sum_to_the_window_without_losses():
    flat = BinnedTime(PULSE, ExponentialTimeEfficiency(0.0, START), EDGES)
    assert flat.nuisances == ()
    assert binned(PULSE).nuisances == ("timing",)
    total = np.asarray(flat({})).sum(1)
    np.testing.assert_allclose(total[0], exponnorm.cdf(6, TAU_PI / SIGMA, MEAN, SIGMA), atol=1e-3)
    window = [chain_integral(0.0, 6.0, source) for source in range(2)]
    np.testing.assert_allclose(total, window, rtol=1e-9)


@pytest.mark.parametrize("kind", ["pulse", "template"])
@pytest.mark.parametrize("pull", [0.0, 0.37, -0.8])
def test_derivative_in_the_offset(kind, pull):
    h = 1e-5
    found = np.asarray(jax.jacfwd(compiled(kind))(pull))
    numeric = np.asarray(compiled(kind)(pull + h) - compiled(kind)(pull - h)) / (2 * h)
    np.testing.assert_allclose(found, numeric, rtol=1e-6, atol=2e-8)


def test_derivative_in_the_offset_is_minus_the_flow_through_the_edges():
    # without losses each bin gains what enters below and loses what leaves above
    flat = BinnedTime(PULSE, ExponentialTimeEfficiency(0.0, START), EDGES, "timing", 1.0)
    found = np.asarray(jax.jit(jax.jacfwd(lambda x: flat({"timing": x})))(0.0))
    density = np.array([[chain_density(t, source) for t in EDGES] for source in range(2)])
    np.testing.assert_allclose(found, -np.diff(density), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("kind", ["pulse", "template"])
def test_jit_equals_eager_equals_vmap(kind):
    pulls = np.array([-0.5, 0.0, 0.8])
    time = binned(PULSE if kind == "pulse" else TEMPLATE)
    eager = np.stack([time({"timing": p}) for p in pulls])
    np.testing.assert_allclose(np.stack([compiled(kind)(p) for p in pulls]), eager, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(jax.vmap(compiled(kind))(pulls), eager, rtol=1e-12, atol=1e-15)


# fractions of what comes within some time


@pytest.mark.parametrize("kind", ["pulse", "template"])
@pytest.mark.parametrize("pull", [0.0, 0.6])
def test_fractions_of_the_events_until_a_time(kind, pull):
    source = PULSE if kind == "pulse" else TEMPLATE
    known = (ExponentialTimeEfficiency(RATE, START), EDGES, "timing", 0.25)
    all_, some = (np.asarray(BinnedTime(source, *known, until=end)({"timing": pull})) for end in (None, 6.0))
    # all that happens, recorded or not: with full efficiency the bins sum to 1, because the last edge is that time
    plain = (ExponentialTimeEfficiency(0.0, START), EDGES, "timing", 0.25)
    source = PULSE if kind == "pulse" else TimeTemplate(KNOTS, smooth(KNOTS))
    happened = np.asarray(BinnedTime(source, *plain)({"timing": pull})).sum(1, keepdims=True)
    np.testing.assert_allclose(some, all_ / happened, rtol=1e-11)
    full = np.asarray(BinnedTime(source, *plain, until=6.0)({"timing": pull}))
    np.testing.assert_allclose(full.sum(1), 1, rtol=1e-12)


def test_fractions_until_a_time_that_is_no_edge():
    edges, end = (0.25, 0.5, 1.0, 2.0), 4.5
    time = BinnedTime(PULSE, ExponentialTimeEfficiency(RATE, START), edges, "timing", 0.25, until=end)
    found = np.asarray(time({"timing": 0.4}))
    for source in range(2):
        mean = MEAN + 0.1

        def between(a, b, efficiency=recorded, source=source, mean=mean):
            cuts = [a, START, b] if a < START < b else [a, b]
            pairs = zip(cuts[:-1], cuts[1:], strict=True)
            return sum(chain_integral(x, y, source, efficiency, mean) for x, y in pairs)

        bins = [between(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)]
        truth = np.array(bins) / between(edges[0], end, lambda t: 1.0)
        np.testing.assert_allclose(found[source], truth, rtol=1e-8)
    assert found[1].sum() < 0.6 < found[0].sum() <= 1 + 1e-12  # the muon lives 2.2 us


def test_derivative_of_fractions_until_a_time():
    time = BinnedTime(PULSE, ExponentialTimeEfficiency(RATE, START), (0.0, 0.5, 1.0, 6.0), "timing", 0.25, until=6.0)
    of_pull = jax.jit(lambda x: time({"timing": x}))
    found, h = np.asarray(jax.jacfwd(of_pull)(0.2)), 1e-5
    numeric = (np.asarray(of_pull(0.2 + h)) - np.asarray(of_pull(0.2 - h))) / (2 * h)
    np.testing.assert_allclose(found, numeric, rtol=1e-6, atol=1e-8)
