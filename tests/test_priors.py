"""Priors: maps from the normal distribution, densities, texts, and what parameters have without being told."""

import math

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from cevjax.errors import InvalidValueError
from cevjax.parameters import Gaussian, Parameter
from cevjax.priors import (
    FAR,
    HALF,
    WALL,
    Flat,
    LogFlat,
    Normal,
    Prior,
    box_log_density,
    check_prior,
    default_prior,
    parse_prior,
)

inf = math.inf


def truncated(mean, sigma, low=-inf, high=inf):
    return stats.truncnorm((low - mean) / sigma, (high - mean) / sigma, mean, sigma)


CASES = [
    (Flat(-1.0, 3.0), stats.uniform(-1.0, 4.0)),
    (Flat(2e-3, 2.1e-3), stats.uniform(2e-3, 1e-4)),
    (LogFlat(1e-3, 2e3), stats.loguniform(1e-3, 2e3)),
    (LogFlat(2.0, 2.5), stats.loguniform(2.0, 2.5)),
    (Normal(0.2386, 0.0004), stats.norm(0.2386, 0.0004)),
    (Normal(1.0, 2.0, -1.0), truncated(1.0, 2.0, -1.0)),
    (Normal(1.0, 2.0, high=0.5), truncated(1.0, 2.0, high=0.5)),
    (Normal(5.0, 0.3, 4.8, 6.0), truncated(5.0, 0.3, 4.8, 6.0)),
    (Normal(0.0, 1.0, 2.0, 2.5), truncated(0.0, 1.0, 2.0, 2.5)),
    (Normal(0.0, 1.0, -9.0, 1.0), truncated(0.0, 1.0, -9.0, 1.0)),
    (Normal(0.0, 1.0, -3.5, -3.0), truncated(0.0, 1.0, -3.5, -3.0)),
]
every = pytest.mark.parametrize(("prior", "truth"), CASES, ids=[str(prior) for prior, _ in CASES])


class Box:
    """The distribution of the coordinate of a flat prior: a uniform and a logistic one, folded numerically."""

    def pdf(self, z):
        return (stats.logistic.cdf((z + HALF) / WALL) - stats.logistic.cdf((z - HALF) / WALL)) / (2 * HALF)

    def logpdf(self, z):
        return np.log(self.pdf(z))

    def cdf(self, z):
        return np.array([integrate.quad(self.pdf, -np.inf, x, epsabs=1e-14)[0] for x in np.atleast_1d(z)])


def of_coordinate(prior):
    """How a coordinate is distributed, and coordinates where it may be."""
    if isinstance(prior, Normal):
        return stats.norm, np.linspace(-5.0, 5.0, 41)
    return Box(), np.linspace(-2.6, 2.6, 41)


# -------------------------------------------------------------------------------------------------------- distributions


@every
def test_values_are_quantiles(prior, truth):
    before, z = of_coordinate(prior)
    assert np.asarray(prior.value(z)) == pytest.approx(truth.ppf(before.cdf(z)), rel=1e-10)


@every
def test_coordinates_are_the_inverse_of_values(prior, truth):
    _, z = of_coordinate(prior)
    found = prior.coordinate(np.asarray(prior.value(z)))
    assert isinstance(found, np.ndarray)
    assert found == pytest.approx(z, abs=1e-6)
    middle = truth.ppf([0.01, 0.3, 0.99])
    assert np.asarray(prior.value(prior.coordinate(middle))) == pytest.approx(middle, rel=1e-12)


@every
def test_densities(prior, truth):
    inside = truth.ppf(np.linspace(1e-6, 1 - 1e-6, 30))
    assert prior.log_density(inside) == pytest.approx(truth.logpdf(inside), rel=1e-10, abs=1e-10)
    low, high = prior.support
    assert (low, high) == pytest.approx(truth.support())
    for end, out in ((low, -inf), (high, inf)):
        if math.isfinite(end):
            assert np.isfinite(prior.log_density(end))
            assert prior.log_density([np.nextafter(end, out), end + np.sign(out)]) == pytest.approx([-inf, -inf])


def test_no_density_of_a_logarithm_at_zero_and_below():
    assert list(LogFlat(1.0, 2.0).log_density([-1.0, 0.0])) == [-inf, -inf]


@every
def test_densities_of_values_are_those_of_coordinates(prior, truth):
    """The change of variables: p(theta) |d theta / d z| is the density of z, normal or that of the box."""
    before, z = of_coordinate(prior)
    slope = np.asarray(jax.vmap(jax.grad(prior.value))(jnp.asarray(z)))
    assert prior.log_density(prior.value(z)) + np.log(slope) == pytest.approx(before.logpdf(z), abs=1e-9)
    if prior.boxed:
        assert np.asarray(box_log_density(z)) == pytest.approx(before.logpdf(z), abs=1e-10)


@every
def test_gradients_are_finite_differences(prior, truth):
    step = 1e-4
    for z in (-2.2, -1.3, 0.0, 0.7, 2.2):
        difference = (prior.value(z + step) - prior.value(z - step)) / (2 * step)
        assert float(jax.grad(prior.value)(z)) == pytest.approx(float(difference), rel=1e-5)


@every
@pytest.mark.parametrize("z", [-40.0, -9.0, 9.0, 40.0])
def test_coordinates_far_out(prior, truth, z):
    """Samplers may try them: values stay within the support, and gradients are finite."""
    low, high = prior.support
    assert low <= float(prior.value(z)) <= high
    assert math.isfinite(float(jax.grad(prior.value)(z)))


@every
def test_numpyro_has_the_same_density(prior, truth):
    distribution = prior.distribution()
    inside = truth.ppf([0.001, 0.2, 0.5, 0.8, 0.999])
    found = [float(distribution.log_prob(x)) for x in inside]
    assert found == pytest.approx(list(prior.log_density(inside)), rel=1e-9, abs=1e-9)
    assert bool(np.all(distribution.support(inside)))
    for end, out in zip(prior.support, (-0.1, 0.1), strict=True):
        if math.isfinite(end):
            assert not bool(distribution.support(end + out))


@every
def test_reach_holds_all_values(prior, truth):
    low, high = prior.reach()
    assert math.isfinite(low) and math.isfinite(high)
    assert prior.support[0] <= low < high <= prior.support[1]
    values = np.asarray(prior.value(np.random.default_rng(1).normal(size=10_000)))
    assert np.all((low <= values) & (values <= high))
    ends = truth.support() if prior.boxed else tuple(truth.ppf(stats.norm.cdf([-FAR, FAR])))
    assert (low, high) == pytest.approx(ends, rel=1e-3)


@given(ends=st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), z=st.floats(-45, 45))
@example(ends=(-4.66, 3.57), z=9.0)
@settings(max_examples=100, deadline=None)
def test_flat_values_stay_within_the_bounds(ends, z):
    low, high = sorted(ends)
    assume(low < high)
    assert low <= float(Flat(low, high).value(z)) <= high


@given(low=st.floats(1e-3, 1e3), factor=st.floats(1.001, 1e6), z=st.floats(-45, 45))
@settings(max_examples=100, deadline=None)
def test_log_flat_values_stay_within_the_bounds(low, factor, z):
    high = low * factor
    assert low <= float(LogFlat(low, high).value(z)) <= high


def test_a_log_flat_prior_over_hundreds_of_decades():
    prior = LogFlat(1e-200, 1e200)
    assert float(prior.value(0.0)) == pytest.approx(1.0)
    assert float(prior.log_density(1.0)) == pytest.approx(-math.log(400 * math.log(10)))


# ---------------------------------------------------------------------------------------------------- normal and bounds


@pytest.mark.parametrize("bounds", [(-inf, inf), (-8.0, inf), (-inf, 8.0), (-8.0, 7.5), (-1e9, 1e9)])
def test_far_bounds_change_nothing(bounds):
    cut, whole = Normal(0.5, 0.2, 0.5 + 0.2 * bounds[0], 0.5 + 0.2 * bounds[1]), Normal(0.5, 0.2)
    z = np.linspace(-6.9, 6.9, 27)
    assert np.array_equal(cut.value(z), whole.value(z)) and np.array_equal(whole.value(z), 0.5 + 0.2 * z)
    value = np.asarray(whole.value(z))
    assert np.array_equal(cut.coordinate(value), whole.coordinate(value))
    assert cut.log_density(value) == pytest.approx(stats.norm.logpdf(value, 0.5, 0.2), abs=1e-11)


def test_far_bounds_still_hold_values():
    assert float(Normal(0.0, 1.0, -8.0, 7.5).value(30.0)) == 7.5
    assert float(Normal(0.0, 1.0, -8.0, 7.5).value(-30.0)) == -8.0


def test_bounds_hardly_beyond_what_is_far_are_continuous():
    """A bound on this side of the limit is treated in full, one on the other side is not: no one can tell."""
    near, far = Normal(0.0, 1.0, -FAR + 1e-9, FAR - 1e-9), Normal(0.0, 1.0, -FAR - 1e-9, FAR + 1e-9)
    z = np.linspace(-5.0, 5.0, 21)
    assert np.asarray(near.value(z)) == pytest.approx(np.asarray(far.value(z)), abs=1e-6)
    assert near.log_density(z) == pytest.approx(far.log_density(z), abs=1e-11)


@pytest.mark.parametrize(("low", "high"), [(4.0, inf), (4.0, 4.5), (-inf, -4.0), (5.0, 9.0), (-9.0, -5.0)])
def test_only_the_tail_is_left(low, high):
    """Against 50 digits."""
    prior = Normal(0.0, 1.0, low, high)
    with mpmath.workdps(50):
        mass = mpmath.ncdf(-low) - mpmath.ncdf(-high) if low > 0 else mpmath.ncdf(high) - mpmath.ncdf(low)
        inside = 0.5 * (max(low, -9.0) + min(high, 9.0))
        expected = float(mpmath.log(mpmath.npdf(inside) / mass))
    assert float(prior.log_density(inside)) == pytest.approx(expected, abs=1e-8)
    with mpmath.workdps(50):
        value = mpmath.mpf(float(prior.value(0.5)))
        part = mpmath.ncdf(-low) - mpmath.ncdf(-value) if low > 0 else mpmath.ncdf(value) - mpmath.ncdf(low)
        assert float(part / mass) == pytest.approx(stats.norm.cdf(0.5), rel=1e-7)


# ---------------------------------------------------------------------------------------------------------------- texts


@given(prior=st.data())
@settings(max_examples=200, deadline=None)
def test_texts_are_read_back(prior):
    finite = st.floats(-1e12, 1e12)
    kind = prior.draw(st.sampled_from([Flat, LogFlat, Normal]))
    low, high = prior.draw(finite if kind is not LogFlat else st.floats(1e-300, 1e12)), prior.draw(finite)
    if kind is Normal:
        sigma = prior.draw(st.floats(1e-6, 1e6))
        ends = prior.draw(st.floats(0.1, 50)), prior.draw(st.floats(0.1, 50))
        below, above = prior.draw(st.sampled_from([(0, 0), (0, 1), (1, 0), (1, 1)]))
        bounds = low - ends[0] * sigma if below else -inf, low + ends[1] * sigma if above else inf
        assume(bounds[0] < bounds[1])
        made = Normal(low, sigma, *bounds)
    else:
        assume(low < high)
        made = kind(low, high)
    assert parse_prior(str(made)) == made


@pytest.mark.parametrize(
    ("prior", "text"),
    [
        (Flat(-1.0, 10.0), "flat:-1:10"),
        (Flat(0.5, 1e20), "flat:0.5:1e+20"),
        (LogFlat(1e-5, 1.05), "log-flat:1e-05:1.05"),
        (Normal(100.0, 0.25), "normal:100:0.25"),
        (Normal(0.0, 1.0, -1.0), "normal:0:1:-1:inf"),
        (Normal(0.0, 1.0, high=2.0), "normal:0:1:-inf:2"),
    ],
    ids=str,
)
def test_texts_are_short(prior, text):
    assert str(prior) == text and parse_prior(f" {text} ") == prior


@pytest.mark.parametrize("kind", [Flat, LogFlat, Normal])
def test_texts_of_numpy_numbers(kind):
    made = kind(np.float64(1.0), np.float64(2.5))
    assert parse_prior(str(made)) == made and str(made).endswith(":1:2.5")


@pytest.mark.parametrize(
    "text",
    ["", "flat", "flat:1", "flat:1:2:3", "flat:a:b", "normal:1", "normal:0:1:2", "cauchy:0:1", "Flat:1:2"],
)
def test_texts_that_are_no_prior(text):
    with pytest.raises(InvalidValueError, match="must read flat:a:b, log-flat:a:b, normal:mean:sigma") as error:
        parse_prior(text)
    assert repr(text) in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flat:3:-2", "A flat prior must be between two finite values, but was from 3 to -2"),
        ("flat:1.5:1.5", "but was from 1.5 to 1.5"),
        ("flat:0:inf", "but was from 0 to inf"),
        ("flat:nan:1", "but was from nan to 1"),
        ("log-flat:5:4", "A log-flat prior must be between two finite values, but was from 5 to 4"),
        ("log-flat:0:4", "A log-flat prior must begin above zero, but begins at 0"),
        ("log-flat:-2:4", "must begin above zero, but begins at -2"),
        ("normal:2:0", "a positive width, but has 2 and 0"),
        ("normal:2:-1", "a positive width, but has 2 and -1"),
        ("normal:2:inf", "a positive width, but has 2 and inf"),
        ("normal:nan:1", "must have a mean and a positive width, but has nan and 1"),
        ("normal:0:1:3:2", r"must overlap with its bounds, but is 0 \+- 1 between 3 and 2"),
        ("normal:0:1:7.5:9", r"must overlap with its bounds, but is 0 \+- 1 between 7.5 and 9"),
        ("normal:1:0.1:-inf:0.2", r"but is 1 \+- 0.1 between -inf and 0.2"),
        ("normal:0:1:nan:1", r"but is 0 \+- 1 between nan and 1"),
    ],
)
def test_priors_that_make_no_sense(text, message):
    with pytest.raises(InvalidValueError, match=message):
        parse_prior(text)


# ----------------------------------------------------------------------------------------------------------- parameters

ANGLE = Parameter("s2w", 0.2386, bounds=(0.0, 1.0), scale=0.01, window=(0.1, 0.4), prior=Normal(0.2386, 0.0004))
PULL = Parameter("norm", 0.0, bounds=(-10.0, inf), constraint=Gaussian(0.0, 0.1), nuisance=True)
MASS = Parameter("m", 10.0, bounds=(0.0, inf), scale=1e-3, window=(1e-3, 1e5), decades=True)


@pytest.mark.parametrize(
    ("parameter", "expected"),
    [
        (ANGLE, Normal(0.2386, 0.0004)),
        (PULL, Normal(0.0, 0.1, -10.0, inf)),
        (MASS, LogFlat(1e-3, 1e5)),
        (Parameter("g", 0.0, scale=1e-6, window=(-1.0, 1.0), decades=True), Flat(-1.0, 1.0)),
        (Parameter("m", 0.0, scale=1e-3, bounds=(0.0, 5.0), decades=True), Flat(0.0, 5.0)),
        (Parameter("R_n", 5.0, bounds=(2.0, 12.0), window=(1.0, 9.0)), Flat(2.0, 9.0)),
        (Parameter("free", 1.0, scale=0.5), Flat(-4.0, 6.0)),
        (Parameter("unknown", 0.0, bounds=(-1.0, 2.0), nuisance=True), Flat(-1.0, 2.0)),
    ],
    ids=str,
)
def test_default_priors(parameter, expected):
    assert default_prior(parameter) == expected


def test_the_result_of_an_auxiliary_measurement_moves_the_prior():
    assert default_prior(PULL, 0.03) == Normal(0.03, 0.1, -10.0, inf)
    assert default_prior(PULL, 0.0) == default_prior(PULL)
    assert default_prior(ANGLE, 0.3) == ANGLE.prior and default_prior(MASS, 0.3) == LogFlat(1e-3, 1e5)


@pytest.mark.parametrize("text", ["flat:0.1:0.9", "log-flat:0.1:1", "flat:0:1"])
def test_priors_of_a_parameter_as_texts(text):
    assert check_prior(ANGLE, text) == check_prior(ANGLE, parse_prior(text)) == parse_prior(text)


@pytest.mark.parametrize("prior", ["flat:-0.1:0.9", "log-flat:0.1:1.1", Flat(2.0, 3.0)], ids=str)
def test_a_prior_outside_of_the_bounds(prior):
    with pytest.raises(InvalidValueError, match="Prior of `s2w` must be between 0 and 1, but was") as error:
        check_prior(ANGLE, prior)
    assert str(prior) in str(error.value)


def test_a_normal_prior_is_cut_at_the_bounds():
    assert check_prior(ANGLE, "normal:0.1:0.2") == Normal(0.1, 0.2, 0.0, 1.0)
    assert check_prior(ANGLE, Normal(0.1, 0.2, 0.05, 3.0)) == Normal(0.1, 0.2, 0.05, 1.0)
    assert check_prior(Parameter("free"), Normal(0.1, 0.2)) == Normal(0.1, 0.2)
    assert isinstance(check_prior(MASS, Normal(0.1, 0.2)), Prior)


@pytest.mark.parametrize("prior", [Normal(30.0, 1.0), Normal(2.0, 0.1, 1.5), "normal:30:1"], ids=str)
def test_a_prior_that_cannot_be_names_its_parameter(prior):
    with pytest.raises(InvalidValueError, match="`s2w`"):
        check_prior(ANGLE, prior)


def test_a_text_that_is_none_names_its_parameter():
    with pytest.raises(InvalidValueError, match=r"Prior of `s2w`: A prior must read .* but was 'wide'"):
        check_prior(ANGLE, "wide")
    with pytest.raises(InvalidValueError, match=r"Prior of `s2w`: A normal prior must .* but has 0 and 0"):
        check_prior(ANGLE, "normal:0:0")


@pytest.mark.parametrize(
    "prior", [None, 0.3, (0.0, 1.0), Flat, stats.uniform(0, 1)], ids=["None", "number", "pair", "class", "scipy"]
)
def test_a_prior_of_another_type(prior):
    with pytest.raises(InvalidValueError, match="Prior of `s2w` must be cevjax.Flat, LogFlat or Normal, or a text"):
        check_prior(ANGLE, prior)
