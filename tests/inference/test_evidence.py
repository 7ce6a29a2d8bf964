"""The evidence and ratios of it, of posteriors that are known in closed form."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats
from scipy.special import logsumexp
from standard_normal import StandardNormal

from cevjax.errors import InvalidValueError
from cevjax.inference.evidence import Evidence, bridge, importance, log_density
from cevjax.inference.mixture import fit_mixture
from cevjax.inference.tempering import log_likelihood


class Known(StandardNormal):
    """What the evidence needs of a posterior, with a likelihood that is a mixture of normal densities in z.

    Args:
        heights, means, precisions: of the likelihood, not normalised: one entry, row and matrix for each mode.
    """

    heights: np.ndarray
    means: np.ndarray
    precisions: np.ndarray
    lead: int = eqx.field(static=True, default=2)

    @property
    def names(self):
        return tuple(f"x{i}" for i in range(self.means.shape[1]))

    def log_likelihood(self, z):
        away = z - self.means
        return jax.nn.logsumexp(jnp.log(self.heights) - 0.5 * jnp.einsum("ki,kij,kj->k", away, self.precisions, away))

    def modes(self):
        """ln of the integral over each mode of the posterior, its mean and covariance."""
        logs, means, covariances = [], [], []
        for height, mean, precision in zip(self.heights, self.means, self.precisions, strict=True):
            spread = np.linalg.inv(precision)
            whole = stats.multivariate_normal(np.zeros(len(mean)), spread + np.eye(len(mean)))
            logs.append(np.log(height) + whole.logpdf(mean) + 0.5 * np.linalg.slogdet(2 * np.pi * spread)[1])
            covariances.append(np.linalg.inv(precision + np.eye(len(mean))))
            means.append(covariances[-1] @ precision @ mean)
        return np.array(logs), np.array(means), np.array(covariances)

    def log_evidence(self):
        return float(logsumexp(self.modes()[0]))

    def log_posterior_density(self, at):
        """Of some coordinates, {place: coordinate}."""
        held, where = list(at), list(at.values())
        logs, means, covariances = self.modes()
        each = [
            stats.multivariate_normal(mean[held], covariance[np.ix_(held, held)]).logpdf(where)
            for mean, covariance in zip(means, covariances, strict=True)
        ]
        return float(logsumexp(logs - logsumexp(logs) + each))

    def draws(self, seed, chains=4, n=500):
        """Exact, independent draws of the posterior."""
        rng = np.random.default_rng(seed)
        logs, means, covariances = self.modes()
        k = rng.choice(len(logs), size=chains * n, p=np.exp(logs - logsumexp(logs)))
        y = rng.normal(size=(chains * n, means.shape[1]))
        return (means[k] + np.einsum("nij,nj->ni", np.linalg.cholesky(covariances)[k], y)).reshape(chains, n, -1)


def correlated(seed, d, sigma=0.3):
    """A precision of normal distributions about so wide, with correlations."""
    root = sigma * (np.eye(d) + 0.5 * np.random.default_rng(seed).normal(size=(d, d)))
    return np.linalg.inv(root @ root.T)


ONE = Known(np.array([2.0]), np.array([[1.0, -0.5, 0.3]]), correlated(1, 3)[None])
TWO = Known(
    np.array([1.0, 30.0]),
    np.array([[-2.0, 1.0], [2.0, -1.0]]),
    np.array([correlated(2, 2, 0.1), correlated(3, 2, 0.03)]),
)
KNOWN = {"one mode": ONE, "two modes": TWO}


class Ring(StandardNormal):
    """A likelihood that is a narrow ring."""

    radius: float = 2.0
    sigma: float = 0.05
    names = ("x", "y")
    lead = 2

    def log_evidence(self):
        return np.log(integrate.quad(self.along, 1.0, 3.0, points=[self.radius], epsrel=1e-10)[0])

    def log_likelihood(self, z):
        return -0.5 * ((jnp.sqrt(jnp.sum(z**2)) - self.radius) / self.sigma) ** 2

    def along(self, r):
        return r * np.exp(-(r**2) / 2 - 0.5 * ((r - self.radius) / self.sigma) ** 2)

    def draws(self, seed, chains=4, n=500):
        rng = np.random.default_rng(seed)
        grid = np.linspace(self.radius - 8 * self.sigma, self.radius + 8 * self.sigma, 4001)
        below = integrate.cumulative_trapezoid(self.along(grid), grid, initial=0)
        r, angle = np.interp(rng.random(chains * n), below / below[-1], grid), 2 * np.pi * rng.random(chains * n)
        return np.stack([r * np.cos(angle), r * np.sin(angle)], axis=1).reshape(chains, n, 2)


def described(posterior, seed, lead=2, n=3000, **options):
    """A mixture that follows draws other than those of the tests."""
    points = posterior.draws(seed + 1000, 1, n)[0]
    return fit_mixture(points, np.ones(n), lead, seed, **options)


def bridged(posterior, mixture, z, seed=1):
    return bridge(
        posterior, mixture, z, log_likelihood(posterior, z.reshape(-1, z.shape[-1])).reshape(z.shape[:2]), seed
    )


@pytest.fixture(scope="module", params=KNOWN)
def known(request):
    """A posterior, and the mixture that follows it."""
    return KNOWN[request.param], described(KNOWN[request.param], 1)


# --------------------------------------------------------------------------------------------------------------- bridge


def test_the_evidence(known):
    posterior, mixture = known
    found = bridged(posterior, mixture, posterior.draws(1))
    assert isinstance(found, Evidence) and isinstance(found.log_evidence, float)
    assert 1e-4 < found.log_evidence_error < 0.03
    assert abs(found.log_evidence - posterior.log_evidence()) < 4 * found.log_evidence_error


def test_errors_are_realistic(known):
    """Over independent draws of both, the spread is what each error tells, and there is no bias."""
    posterior, mixture = known
    found, errors = np.array([bridged(posterior, mixture, posterior.draws(seed, n=300), seed) for seed in range(24)]).T
    assert 0.5 < np.std(found) / np.mean(errors) < 2
    assert abs(np.mean(found) - posterior.log_evidence()) < 4 * np.std(found) / np.sqrt(24)


def beside(mixture, away):
    """A mixture whose components are so many standard deviations off, in every coordinate."""
    return mixture._replace(mean=mixture.mean + away * jnp.sqrt(jnp.sum(mixture.root**2, axis=2)))


def sticky(posterior, seed):
    """Draws that nearly always repeat the one before them."""
    z, rng = posterior.draws(seed, 4, 400), np.random.default_rng(seed)
    for i in range(1, z.shape[1]):
        z[:, i] = np.where(rng.random((4, 1)) < 0.95, z[:, i - 1], z[:, i])
    return z


def test_errors_know_of_correlations(known):
    """Of draws, with a mixture so poor that they matter: in another order they would seem to tell more."""
    posterior, right = known
    mixture, rng = beside(right, 1.5), np.random.default_rng(1)
    found, errors = np.array([bridged(posterior, mixture, sticky(posterior, seed), seed) for seed in range(24)]).T
    assert 0.5 < np.std(found) / np.mean(errors) < 2
    assert abs(np.mean(found) - posterior.log_evidence()) < 4 * np.std(found) / np.sqrt(24)
    shuffled = rng.permutation(sticky(posterior, 0).reshape(1600, -1)).reshape(4, 400, -1)
    assert errors[0] > 1.5 * bridged(posterior, mixture, shuffled, 0).log_evidence_error


def test_the_evidence_of_a_ring():
    ring = Ring()
    found = bridged(ring, described(ring, 1), ring.draws(1))
    assert (
        found.log_evidence_error < 0.03 and abs(found.log_evidence - ring.log_evidence()) < 4 * found.log_evidence_error
    )


@pytest.mark.parametrize("away", [0.3, 1.0])
def test_a_mixture_that_is_beside_the_posterior(away):
    """The evidence stays, its error grows."""
    right = described(ONE, 1)
    good, found = (bridged(ONE, mixture, ONE.draws(2)) for mixture in (right, beside(right, away)))
    assert found.log_evidence_error > good.log_evidence_error
    assert abs(found.log_evidence - ONE.log_evidence()) < 4 * found.log_evidence_error


def test_a_likelihood_times_a_constant(known):
    """ln Z moves by its logarithm and nothing else changes, even where exp of it is no number."""
    posterior, mixture = known
    z = posterior.draws(1)
    for factor in (-2000.0, 2000.0):
        shifted = Shifted(posterior, factor)
        found, expected = bridged(shifted, mixture, z), bridged(posterior, mixture, z)
        assert found.log_evidence - factor == pytest.approx(expected.log_evidence, abs=1e-6)
        assert found.log_evidence_error == pytest.approx(expected.log_evidence_error, rel=1e-5)


class Shifted(StandardNormal):
    """A posterior with another normalisation of the likelihood."""

    posterior: eqx.Module
    by: float

    @property
    def names(self):
        return self.posterior.names

    @property
    def lead(self):
        return self.posterior.lead

    def log_likelihood(self, z):
        return self.posterior.log_likelihood(z) + self.by


class Half(StandardNormal):
    """The likelihood of a normal distribution around zero that is not a number below it."""

    value: float
    names = ("x",)
    lead = 1

    def log_likelihood(self, z):
        return jnp.where(z[0] < 0, self.value, -0.5 * z[0] ** 2 / 0.01)


@pytest.mark.parametrize("value", [-np.inf, np.nan])
def test_a_region_where_the_likelihood_is_not_finite(value):
    """Half of the mixture is there."""
    sigma = np.sqrt(0.01 / 1.01)
    mixture = fit_mixture(np.random.default_rng(1).normal(0, sigma, (2000, 1)), np.ones(2000), 1, 1)
    z = np.abs(np.random.default_rng(2).normal(0, sigma, (4, 500, 1)))
    found = bridged(Half(value), mixture, z)
    assert abs(found.log_evidence - np.log(0.5 * sigma)) < 4 * found.log_evidence_error < 0.2


def test_many_draws_are_thinned(known):
    """More than there are points of the mixture."""
    posterior, mixture = known
    z = posterior.draws(1, 4, 5000)
    found = bridged(posterior, mixture, z)
    assert found == bridged(posterior, mixture, z[:, ::3])
    assert abs(found.log_evidence - posterior.log_evidence()) < 4 * found.log_evidence_error


def test_the_same_seed_gives_the_same_bits(known):
    posterior, mixture = known
    z = posterior.draws(1)
    assert bridged(posterior, mixture, z) == bridged(posterior, mixture, z)
    assert bridged(posterior, mixture, z, 2) != bridged(posterior, mixture, z)


def test_the_density_of_a_mixture_at_points(known):
    posterior, mixture = known
    z = posterior.draws(1, 1, 20)[0]
    assert log_density(mixture, z) == pytest.approx([float(mixture.log_density(x)) for x in z], rel=1e-12)


# ------------------------------------------------------------------------------------------------------- without chains


class Held(StandardNormal):
    """A posterior with its first coordinates held."""

    whole: eqx.Module
    at: np.ndarray
    names: tuple[str, ...] = eqx.field(static=True)
    lead: int = eqx.field(static=True)

    def log_likelihood(self, z):
        return self.whole.log_likelihood(jnp.concatenate([self.at, z]))


def held(whole, *at):
    return Held(whole, np.array(at), whole.names[len(at) :], max(whole.lead - len(at), 0))


def test_the_evidence_without_chains(known):
    posterior, _ = known
    found = importance(posterior, 1)
    assert isinstance(found, Evidence) and all(isinstance(x, float) for x in found)
    assert 1e-4 < found.log_evidence_error < 0.05
    assert abs(found.log_evidence - posterior.log_evidence()) < 4 * found.log_evidence_error


def test_the_evidence_of_a_ring_without_chains():
    found = importance(Ring(), 1)
    assert found.log_evidence_error < 0.05
    assert abs(found.log_evidence - Ring().log_evidence()) < 4 * found.log_evidence_error


def test_errors_without_chains_are_realistic():
    found, errors = np.array([importance(ONE, seed) for seed in range(20)]).T
    assert 0.5 < np.std(found) / np.mean(errors) < 2
    assert abs(np.mean(found) - ONE.log_evidence()) < 4 * np.std(found) / np.sqrt(20)


@pytest.mark.parametrize("sigmas", [-30.0, -8.0, -3.0, 0.0, 5.0, 30.0])
def test_densities_of_one_coordinate(sigmas):
    """Posterior over prior density is a ratio of evidences; also far in the tail, where no draw has ever been."""
    _, means, covariances = ONE.modes()
    at = float(means[0, 0] + sigmas * np.sqrt(covariances[0, 0, 0]))
    found = importance(held(ONE, at), 1)
    expected = ONE.log_posterior_density({0: at}) - stats.norm.logpdf(at)
    assert 0 < found.log_evidence_error < 0.05
    assert abs(found.log_evidence - ONE.log_evidence() - expected) < 4 * found.log_evidence_error


@pytest.mark.parametrize("at", [-2.1, -0.5, 0.0, 2.0, 2.1])
def test_densities_between_and_at_modes(at):
    found = importance(held(TWO, at), 1)
    expected = TWO.log_posterior_density({0: at}) - stats.norm.logpdf(at)
    assert found.log_evidence_error < 0.05
    assert abs(found.log_evidence - TWO.log_evidence() - expected) < 4 * found.log_evidence_error


def test_densities_of_two_coordinates():
    found = importance(held(ONE, 1.0, -0.4), 1)
    expected = ONE.log_posterior_density({0: 1.0, 1: -0.4}) - np.sum(stats.norm.logpdf([1.0, -0.4]))
    assert abs(found.log_evidence - ONE.log_evidence() - expected) < 4 * found.log_evidence_error < 0.2


@pytest.mark.parametrize("value", [-np.inf, np.nan])
def test_without_chains_where_the_likelihood_is_not_finite(value):
    found = importance(Half(value), 1)
    assert abs(found.log_evidence - np.log(0.5 * np.sqrt(0.01 / 1.01))) < 4 * found.log_evidence_error < 0.2


def test_a_likelihood_that_is_finite_nowhere():
    with pytest.raises(InvalidValueError, match="not finite anywhere"):
        importance(Shifted(ONE, np.nan), 1)


def test_the_same_seed_gives_the_same_bits_without_chains():
    assert importance(ONE, 1) == importance(ONE, 1) != importance(ONE, 2)
