"""Effective draws a second, beside emcee on the NumPy likelihood: the same posterior, the same machine, the same run.

    pytest tests/benchmarks/test_sample.py -n 0 -s -m benchmark --benchmark-enable --benchmark-columns=median,iqr,rounds

Compilation is not timed; all else is: folding, pilot, warm-up, draws, evidence, predictions. Effective draws are the
lowest bulk effective size of all parameters (ArviZ).
"""

import arviz as az
import emcee
import numpy as np
import pytest
from reference_csi import ReferenceCsI

import cevjax
from cevjax.inference.posterior import folded_posterior, make_posterior
from cevjax.inference.sample import SampleJob

pytestmark = pytest.mark.benchmark
CSI, BOTH = ("coherent-csi-2021",), ("coherent-csi-2021", "coherent-lar-2020")
ANGLE = ("sin2_theta_w",)
NSI = ("eps_uV_ee", "eps_dV_ee")


def likelihood(names, interaction=None):
    interaction = interaction or cevjax.StandardModel()
    return cevjax.Likelihood([cevjax.load(name) for name in names], interaction)


def lowest_ess(draws):
    """Of {parameter: shape (chains, draws)}."""
    found = az.ess(az.from_dict(posterior=draws), method="bulk")
    return min(float(x) for x in found.data_vars.values())


def report(benchmark, effective):
    seconds = benchmark.stats.stats.median if benchmark.stats else np.nan
    benchmark.extra_info["effective"] = round(effective)
    benchmark.extra_info["effective_a_second"] = effective / seconds
    print(f"\n{benchmark.name}: {effective:.0f} effective draws in {seconds:.1f} s, {effective / seconds:.1f} a second")


def values(result):
    return {str(name): x.values for name, x in result.posterior.data_vars.items()}


@pytest.mark.benchmark(group="posterior of the weak mixing angle and nine nuisances, CsI")
@pytest.mark.parametrize(
    ("chains", "draws", "exact"), [(4, 5000, True), (4, 5000, False), (64, 500, False)], ids=["exact", "folded", "many"]
)
def test_sample(benchmark, chains, draws, exact):
    like = likelihood(CSI)

    def run():
        return cevjax.sample(like, ANGLE, chains=chains, draws=draws, seed=1, exact=exact)

    run()
    result = benchmark.pedantic(run, rounds=3)
    report(benchmark, lowest_ess(values(result)))


@pytest.mark.benchmark(group="posterior of the weak mixing angle and nine nuisances, CsI")
def test_emcee(benchmark):
    """32 walkers from around the mode; what precedes twice the autocorrelation time is thrown away, untimed."""
    like, reference = likelihood(CSI), ReferenceCsI("default")
    posterior = make_posterior(like, ANGLE)
    names, supports = posterior.names, np.array([prior.support for prior in posterior.priors])

    def log_density(theta):
        if np.any(theta <= supports[:, 0]) or np.any(theta >= supports[:, 1]):
            return -np.inf
        return -0.5 * reference.chi2(dict(zip(names, theta, strict=True)))

    best = cevjax.fit(like, ANGLE)
    centre, error = (np.array([x[name] for name in names]) for x in (best.values, best.errors))
    rng = np.random.default_rng(1)
    sampler = emcee.EnsembleSampler(32, len(names), log_density)
    start = sampler.run_mcmc(np.clip(centre + 0.3 * error * rng.normal(size=(32, len(names))), -0.9, 5), 200)
    sampler.reset()
    benchmark.pedantic(lambda: sampler.run_mcmc(start, 1500), rounds=1)
    chain = sampler.get_chain()  # steps, walkers, parameters
    effective = chain.shape[0] * chain.shape[1] / float(np.max(sampler.get_autocorr_time(tol=0)))
    report(benchmark, effective)


@pytest.mark.benchmark(group="two bands of NSI, all nuisances")
@pytest.mark.parametrize("names", [CSI, BOTH], ids=["csi", "csi+lar"])
def test_two_bands(benchmark, names):
    """4 x 5000 draws."""
    like = likelihood(names, cevjax.StandardModel() + cevjax.NSI())

    def run():
        return cevjax.sample(like, NSI, chains=4, draws=5000, seed=1)

    run()
    result = benchmark.pedantic(run, rounds=1)
    report(benchmark, lowest_ess(values(result)))


@pytest.mark.benchmark(group="pilot: from the prior to the posterior, two bands of NSI, CsI")
def test_pilot(benchmark):
    like = likelihood(CSI, cevjax.StandardModel() + cevjax.NSI())
    posterior = folded_posterior(make_posterior(like, NSI))
    benchmark.pedantic(lambda: SampleJob(posterior, 4, 1, 1, True).follow(0, []), rounds=3, warmup_rounds=1)
