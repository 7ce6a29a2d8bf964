"""From the prior to the posterior in steps: moments, modes and evidence of posteriors that are known in closed form."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats
from scipy.special import logsumexp
from standard_normal import StandardNormal

from cevjax.errors import InvalidValueError
from cevjax.inference.mixture import fit_mixture
from cevjax.inference.tempering import Pilot, draw, log_likelihood, log_prior, mixture_of, pilot

PARTICLES = 4096


class Known(StandardNormal):
    """What the steps need of a posterior, with a likelihood that is a mixture of normal densities in z, not normalised.

    Args:
        heights, means, sigmas: of the likelihood: one entry, one row and one row for each mode.
        lead: number of coordinates of interest.
    """

    heights: jax.Array
    means: jax.Array
    sigmas: jax.Array
    names: tuple[str, ...] = eqx.field(static=True)
    lead: int = eqx.field(static=True)

    def __init__(self, heights, means, sigmas, lead=None):
        self.means = jnp.asarray(means, float)
        self.heights, self.sigmas = jnp.asarray(heights, float), jnp.asarray(sigmas) + 0 * self.means
        d = self.means.shape[1]
        self.names, self.lead = tuple(f"x{i}" for i in range(d)), d if lead is None else lead

    def log_likelihood(self, z):
        square = jnp.sum(((z - self.means) / self.sigmas) ** 2, axis=1)
        return jax.nn.logsumexp(jnp.log(self.heights) - 0.5 * square)

    def truth(self):
        """ln Z, and weight, mean and standard deviations of each mode of the posterior."""
        heights, means, sigmas = (np.asarray(x) for x in (self.heights, self.means, self.sigmas))
        norm = stats.norm.logpdf(means, 0, np.sqrt(1 + sigmas**2)) + np.log(sigmas * np.sqrt(2 * np.pi))
        each = np.log(heights) + np.sum(norm, axis=1)
        shrunk = 1 / (1 + sigmas**2)
        return logsumexp(each), np.exp(each - logsumexp(each)), means * shrunk, sigmas * np.sqrt(shrunk)


class Ring(StandardNormal):
    """A likelihood that is a narrow ring."""

    names = ("x", "y")
    lead = 2
    radius: float = 2.0
    sigma: float = 0.05

    def log_likelihood(self, z):
        return -0.5 * ((jnp.sqrt(jnp.sum(z**2)) - self.radius) / self.sigma) ** 2


class Cut(StandardNormal):
    """A flat likelihood that is ``value`` in a part of the range: where x is below ``edge``."""

    names = ("x", "y")
    lead = 1
    edge: float
    value: float

    def log_likelihood(self, z):
        return jnp.where(z[0] < self.edge, self.value, 0.0 * z[1])


def evidence(points):
    """ln Z by importance sampling, and its error: all points count the same."""
    ratio = np.exp(points.log_weight - np.max(points.log_weight))
    error = np.std(ratio) / np.mean(ratio) / np.sqrt(len(ratio))
    return float(np.max(points.log_weight) + np.log(np.mean(ratio))), float(error)


def mean_of(points, f):
    """Posterior mean of a function of points, and its error."""
    weights, values = points.weights, f(points.z)
    mean = np.sum(weights * values)
    return float(mean), float(np.sqrt(np.sum(weights**2 * (values - mean) ** 2)))


CONJUGATE = Known([1.0], [[1.5, -0.5, 0.0]], [[0.3, 0.5, 2.0]], lead=1)
FAR_MODES = Known([1.0, 20.0, 3.0], [[-2.5, 1.0], [2.0, -1.5], [2.0, 2.0]], [[0.05, 0.1], [0.02, 0.05], [0.1, 0.03]])
NARROW = Known([1.0], [[2.0, 1.0, -1.0, 0.5]], 3e-3, lead=2)
NEAR_MODES = Known([1.0, 3.0], [[-1.5, 0.5], [1.5, -0.5]], [[0.2, 0.4], [0.3, 0.15]])
KNOWN = {"conjugate": CONJUGATE, "far modes": FAR_MODES, "near modes": NEAR_MODES, "narrow": NARROW}


@pytest.fixture(scope="module", params=KNOWN)
def known(request):
    """A posterior, and points that represent it."""
    return KNOWN[request.param], pilot(KNOWN[request.param], 1, PARTICLES)


# -------------------------------------------------------------------------------------------------- known distributions


def test_the_points_have_the_evidence(known):
    posterior, points = known
    found, error = evidence(points)
    assert error < 0.03 and abs(found - posterior.truth()[0]) < 4 * error


def test_the_points_have_the_moments(known):
    posterior, points = known
    _, weights, means, sigmas = posterior.truth()
    for i in range(means.shape[1]):
        found, error = mean_of(points, lambda z, i=i: z[:, i])
        assert abs(found - weights @ means[:, i]) < 4 * error
        for j in range(i + 1):
            truth = weights @ (means[:, i] * means[:, j] + (i == j) * sigmas[:, i] ** 2)
            found, error = mean_of(points, lambda z, i=i, j=j: z[:, i] * z[:, j])
            assert abs(found - truth) < 4 * error


def test_the_points_have_the_variances(known):
    """In units of what they are: those of a narrow posterior are small."""
    posterior, points = known
    _, weights, means, sigmas = posterior.truth()
    nearest = np.argmin(np.sum(((points.z[:, None] - means) / sigmas) ** 2, axis=2), axis=1)
    for k in range(len(means)):
        for i in range(means.shape[1]):
            square, error = mean_of(
                points, lambda z, k=k, i=i: (nearest == k) * ((z - means[k]) / sigmas[k])[:, i] ** 2
            )
            assert error < 0.1 and abs(square - weights[k]) < 4 * error


def test_every_mode_has_its_weight(known):
    """Those of 0.02 to 0.1, five units from one another, as well."""
    posterior, points = known
    _, weights, means, sigmas = posterior.truth()
    assert np.min(weights) > 0.01
    for weight, mean, sigma in zip(weights, means, sigmas, strict=True):
        near = lambda z, mean=mean, sigma=sigma: 1.0 * np.all(np.abs(z - mean) < 8 * sigma, axis=1)  # noqa: E731
        found, error = mean_of(points, near)
        assert error < 0.02 and abs(found - weight) < 4 * error + 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_two_narrow_modes_with_nuisances(seed):
    """Equal ones of 0.01, four units apart, in five coordinates of which two differ between components."""
    posterior = Known([1.0, 1.0], [[-2.0, 0.0, 0.0, 0.0, 0.0], [2.0, 0.0, 0.0, 0.0, 0.0]], 0.01, lead=2)
    points = pilot(posterior, seed, PARTICLES)
    found, error = evidence(points)
    assert abs(found - posterior.truth()[0]) < 4 * error
    part, error = mean_of(points, lambda z: 1.0 * (z[:, 0] > 0))
    assert error < 0.05 and abs(part - 0.5) < 4 * error


def test_errors_of_the_evidence_are_realistic():
    """Over independent seeds, the spread is what each of them tells."""
    found, errors = np.array([evidence(pilot(NEAR_MODES, seed, 1024)) for seed in range(20)]).T
    pulls = (found - NEAR_MODES.truth()[0]) / errors
    assert 0.5 < np.std(found) / np.mean(errors) < 2
    assert abs(np.mean(pulls)) < 4 / np.sqrt(20)


def test_a_ring():
    ring = Ring()

    def along(r):
        return r * np.exp(-(r**2) / 2 - 0.5 * ((r - ring.radius) / ring.sigma) ** 2)

    truth = np.log(integrate.quad(along, 1.0, 3.0, points=[ring.radius], epsrel=1e-10)[0])
    points = pilot(ring, 1, PARTICLES)
    found, error = evidence(points)
    assert error < 0.03 and abs(found - truth) < 4 * error
    for k in range(8):  # the same all around
        sector = lambda z, k=k: 1.0 * (np.floor(np.arctan2(z[:, 1], z[:, 0]) / np.pi * 4) + 4 == k)  # noqa: E731
        part, error = mean_of(points, sector)
        assert error < 0.02 and abs(part - 1 / 8) < 4 * error


def test_a_flat_likelihood_leaves_the_prior():
    points = pilot(Cut(-np.inf, 0.0), 1, PARTICLES)
    found, error = evidence(points)
    assert error < 0.02 and abs(found) < 4 * error
    for i in range(2):
        square, error = mean_of(points, lambda z, i=i: z[:, i] ** 2)
        assert abs(square - 1) < 4 * error


# -------------------------------------------------------------------------------------- likelihoods that are not finite


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("value", [-np.inf, np.nan, np.inf])
@pytest.mark.parametrize("edge", [0.0, 2.5])
def test_a_region_where_the_likelihood_is_not_finite(value, edge):
    """It has no posterior; and the evidence is the part of the prior that is left."""
    points = pilot(Cut(edge, value), 1, PARTICLES)
    assert np.all(points.log_likelihood[points.z[:, 0] < edge] == -np.inf)
    assert np.sum(points.weights) == pytest.approx(1.0)
    found, error = evidence(points)
    assert error < 0.05 and abs(found - stats.norm.logsf(edge)) < 4 * error
    mean, error = mean_of(points, lambda z: z[:, 0])
    assert abs(mean - np.exp(stats.norm.logpdf(edge) - stats.norm.logsf(edge))) < 4 * error


@pytest.mark.parametrize("value", [-np.inf, np.nan])
def test_a_likelihood_that_is_finite_nowhere(value):
    with pytest.raises(InvalidValueError, match="not finite anywhere in the range of the priors"):
        pilot(Cut(np.inf, value), 1, PARTICLES)


def test_a_posterior_that_cannot_be_reached():
    with pytest.raises(InvalidValueError, match="not reached from the prior in 60 steps"):
        pilot(Known([1.0], [[1.0]], 1e-40), 1, 64)


# --------------------------------------------------------------------------------------------------------------- pieces


def test_points_come_with_their_densities():
    points = pilot(CONJUGATE, 3, 256)
    assert isinstance(points, Pilot) and all(isinstance(part, np.ndarray) for part in points)
    assert points.z.shape == (3 * 256, 3)
    expected = [float(CONJUGATE.log_likelihood(jnp.asarray(z))) for z in points.z[:20]]
    assert points.log_likelihood[:20] == pytest.approx(expected, rel=1e-12)
    assert points.log_weight == pytest.approx(points.log_prior + points.log_likelihood - points.log_proposal)
    assert points.log_prior == pytest.approx(stats.norm.logpdf(points.z).sum(axis=-1), rel=1e-12)
    assert points.weights == pytest.approx(np.exp(points.log_weight) / np.sum(np.exp(points.log_weight)))


def test_the_same_seed_gives_the_same_bits():
    one, again, other = (pilot(NEAR_MODES, seed, 512) for seed in (1, 1, 2))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(one, again, strict=True))
    assert not np.any(one.z == other.z)


def test_log_prior_of_points_in_any_arrangement():
    z = np.random.default_rng(1).normal(size=(4, 5, 3))
    assert log_prior(CONJUGATE, z) == pytest.approx(stats.norm.logpdf(z).sum(axis=-1), rel=1e-13)


@pytest.mark.parametrize("count", [1, 255, 256, 257, 700])
def test_likelihoods_of_any_number_of_points(count):
    z = np.random.default_rng(1).normal(size=(count, 2))
    found = log_likelihood(FAR_MODES, z)
    assert found.shape == (count,)
    assert found == pytest.approx(np.asarray(jax.vmap(FAR_MODES.log_likelihood)(jnp.asarray(z))), rel=1e-12)


def test_drawn_points_have_the_density_of_their_mixture():
    rng = np.random.default_rng(1)
    mixture = fit_mixture(rng.normal(size=(500, 3)), np.ones(500), 1, 1)
    points = draw(CONJUGATE, mixture, jax.random.key(1), 300)
    assert points.log_proposal[:10] == pytest.approx(
        [float(mixture.log_density(jnp.asarray(z))) for z in points.z[:10]]
    )
    assert np.array_equal(points.log_likelihood, log_likelihood(CONJUGATE, points.z))


def test_the_mixture_follows_the_posterior():
    """Its points are nearly all effective."""
    points = draw(FAR_MODES, mixture_of(FAR_MODES, pilot(FAR_MODES, 1, PARTICLES), 1), jax.random.key(1), 4000)
    assert 1 / np.sum(points.weights**2) / 4000 > 0.6
