"""Posteriors of two parameters on a grid: nuisances integrated over by importance sampling, cell by cell.

    python tests/validation/reference_posterior.py

writes ``posterior_grids.json``, which the tests read: logarithms of the masses of bins, and their relative errors.

It shares the likelihood with the sampler and nothing else: no folding, no mixture, no chain. Each cell is an integral
over its two sides and all nuisances, with points around the profile (from a scan) that follow a Student distribution.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from scipy import stats
from scipy.special import logsumexp

import cevjax
from cevjax.inference.posterior import make_posterior
from cevjax.likelihood import bins, expected_flat

DOF = 8
POINTS = 400
BATCH = 200
FINE = 4  # cells along each side of a bin
STORED = Path(__file__).with_name("posterior_grids.json")


def csi(interaction):
    return cevjax.Likelihood([cevjax.load("coherent-csi-2021")], cevjax.StandardModel() + interaction)


class Case(NamedTuple):
    likelihood: Callable
    priors: dict
    edges: dict
    fine: int = FINE


CASES = {
    "two bands": Case(
        lambda: csi(cevjax.NSI()),
        {"eps_dV_ee": "flat:-1:1", "eps_uV_ee": "flat:-1:1"},
        {"eps_dV_ee": np.linspace(-1, 1, 13), "eps_uV_ee": np.linspace(-1, 1, 13)},
    ),
    "a ring": Case(
        lambda: csi(cevjax.ChargeRadius()),
        {"r2_nu_ee": "flat:-1.5e-30:1.5e-30", "r2_nu_mumu": "flat:-1.5e-30:1.5e-30"},
        {"r2_nu_ee": np.linspace(-1e-30, 1e-30, 17), "r2_nu_mumu": np.linspace(-1e-30, 1e-30, 17)},
    ),
    "a plateau with a ridge": Case(
        lambda: csi(cevjax.LightVector(model="universal")),
        {"m_zprime": "log-flat:1:1e4", "g_zprime": "log-flat:1e-6:1e-2"},
        {"m_zprime": np.geomspace(1, 1e4, 11), "g_zprime": np.geomspace(1e-6, 1e-2, 11)},
    ),
}
# the second parameter is held, within nothing
ONE_RADIUS = Case(
    lambda: csi(cevjax.ChargeRadius()),
    {"r2_nu_mumu": "flat:-1.5e-30:1.5e-30", "sin2_theta_w": "flat:0.2385:0.2387"},
    {"r2_nu_mumu": np.linspace(-1.5e-30, 1.5e-30, 121), "sin2_theta_w": np.array([0.2385, 0.2387])},
    1,
)


class Grid(NamedTuple):
    """Of the bins: logarithms of their masses, and the relative errors of these."""

    logs: np.ndarray
    errors: np.ndarray


def stored(name):
    entry = json.loads(STORED.read_text())[name]
    return Grid(np.array(entry["logs"]), np.array(entry["errors"]))


def grid(case, edges=None, seed=0):
    """Of all bins of a case, or of those between other edges."""
    like, edges = case.likelihood(), edges or case.edges
    posterior = make_posterior(like, tuple(case.priors), case.priors)
    densities = dict(zip(case.priors, (p.log_density for p in posterior.priors), strict=False))
    fine = {name: divided(x, case.fine) for name, x in edges.items()}
    logs, errors = log_masses(like, fine, densities, seed)
    n, m = (len(x) - 1 for x in edges.values())
    cells = logs.reshape(n, case.fine, m, case.fine)
    joined = logsumexp(cells, axis=(1, 3))
    with np.errstate(invalid="ignore"):  # bins without likelihood
        part = np.exp(cells - joined[:, None, :, None]) * errors.reshape(cells.shape)
    return Grid(joined, np.sqrt(np.nansum(part**2, axis=(1, 3))))


def bin_mass(case, index, seed=1):
    """Of one bin, by other random numbers."""
    edges = {name: x[i : i + 2] for (name, x), i in zip(case.edges.items(), index, strict=True)}
    found = grid(case, edges, seed)
    return found.logs[0, 0], found.errors[0, 0]


def divided(edges, count):
    count = count * (len(edges) - 1) + 1
    return np.geomspace(edges[0], edges[-1], count) if edges[0] > 0 else np.linspace(edges[0], edges[-1], count)


@jax.jit
def _log_likelihood(like, columns):
    return jax.vmap(lambda params: -jax.numpy.sum(bins(like, expected_flat(like, params)).nll))(columns)


def log_masses(like, edges, log_priors, seed=0, points=POINTS, values=None, spread=1.1):
    """ln of the integral of likelihood times prior over each cell, and its relative error.

    Args:
        like: likelihood.
        edges: {parameter: edges of the cells}, of two parameters, increasing.
        log_priors: {parameter: function of values}, normalised log densities of the two.
        seed, points: random points of each cell.
        values: further parameters that are fixed.
        spread: width of the Student distribution in units of the posterior's, at the profile.
    """
    rng = np.random.default_rng(seed)
    names = list(edges)
    steps = {name: np.all(np.array(e) > 0) and e[-1] / e[0] > 50 for name, e in edges.items()}
    inner = {n: np.log(np.array(e)) if steps[n] else np.array(e) for n, e in edges.items()}
    centres = {n: (e[1:] + e[:-1]) / 2 for n, e in inner.items()}
    grid = {n: np.exp(c) if steps[n] else c for n, c in centres.items()}
    profile = cevjax.scan(like, grid, values=values)
    nuisances = [p for p in like.parameters.values() if p.nuisance and p.name in profile.values]
    sigma = np.array([p.constraint.sigma for p in nuisances])
    mean = np.array([p.constraint.mean for p in nuisances])
    low, high = (np.array([p.bounds[k] for p in nuisances]) for k in (0, 1))
    inside = stats.norm.cdf((high - mean) / sigma) - stats.norm.cdf((low - mean) / sigma)
    best = np.unravel_index(np.argmin(profile.chi2), profile.chi2.shape)
    at = {**like.nominal(**(values or {})), **{n: grid[n][i] for n, i in zip(names, best, strict=True)}}
    at |= {p.name: float(profile.values[p.name][best]) for p in nuisances}
    hessian = jax.hessian(lambda x: like.nll({**at, **dict(zip((p.name for p in nuisances), x, strict=True))}))(
        np.array([at[p.name] for p in nuisances])
    )
    root = spread * np.linalg.cholesky(np.linalg.inv(np.asarray(hessian)))
    student = stats.multivariate_t(np.zeros(len(nuisances)), root @ root.T, df=DOF)
    fixed = {n: v for n, v in at.items() if n not in names and n not in profile.values}
    found, error = np.full(profile.chi2.shape, -np.inf), np.zeros(profile.chi2.shape)
    for i, j in np.ndindex(*found.shape):
        if profile.delta_chi2[i, j] > 30:  # a part of 1e-5 of the rest
            continue
        columns, log_weight = {}, np.zeros(points)
        for name, k in zip(names, (i, j), strict=True):
            a, b = inner[name][k : k + 2]
            x = rng.uniform(a, b, points)
            columns[name] = np.exp(x) if steps[name] else x
            log_weight += log_priors[name](columns[name]) + np.log(b - a) + (x if steps[name] else 0.0)
        centre = np.array([profile.values[p.name][i, j] for p in nuisances])
        away = np.atleast_2d(student.rvs(points, random_state=rng))
        theta = centre + away
        log_weight += np.sum(stats.norm.logpdf(theta, mean, sigma) - np.log(inside), axis=1) - student.logpdf(away)
        log_weight[np.any((theta < low) | (theta > high), axis=1)] = -np.inf
        columns |= {p.name: np.clip(theta[:, q], low[q], high[q]) for q, p in enumerate(nuisances)}
        columns |= {n: np.full(points, v) for n, v in fixed.items()}
        parts = [
            np.asarray(_log_likelihood(like, {n: x[s : s + BATCH] for n, x in columns.items()}))
            for s in range(0, points, BATCH)
        ]
        log_weight += np.concatenate(parts)
        top = np.max(log_weight)
        weights = np.exp(log_weight - top)
        found[i, j] = top + np.log(np.mean(weights))
        error[i, j] = np.std(weights) / np.mean(weights) / np.sqrt(points)
    return found, error


def total_variation(draws, edges, masses, effective, occupied=1e-3):
    """Total variation distance of binned draws from masses, what sampling alone makes of it, and the occupied bins.

    Args:
        draws: {parameter: values}.
        edges: {parameter: edges}.
        masses: probability of each cell.
        effective: independent draws that they are worth.
    """
    counts = np.histogram2d(*(np.ravel(draws[n]) for n in edges), bins=[np.asarray(e) for e in edges.values()])[0]
    seen, p = counts / np.size(draws[next(iter(edges))]), masses / np.sum(masses)
    noise = 0.5 * np.sum(np.sqrt(2 * p * (1 - p) / (np.pi * effective)))
    return 0.5 * np.sum(np.abs(seen - p)), noise, int(np.sum(p > occupied))


def main():
    cevjax.enable_compilation_cache()
    found = {name: grid(case) for name, case in {**CASES, "two minima": ONE_RADIUS}.items()}
    lines = (
        f'"{name}": {{"logs": {np.maximum(logs, -1e9).round(5).tolist()}, "errors": {errors.round(5).tolist()}}}'
        for name, (logs, errors) in found.items()
    )
    STORED.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
