"""Scans against MIGRAD and MINOS on likelihoods that share no code with cevjax, to 1e-3 in chi2.

The references know everything but the scan: quadrature, minimiser and all. Where an interaction has none, MIGRAD
minimises the likelihood of cevjax itself.
"""

from functools import cache

import jax
import numpy as np
import pytest
import reference_reactor as reactor
from reference_csi import ReferenceCsI
from reference_lar import DefaultLAr
from reference_new_physics import ReferenceNewPhysics
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq

import cevjax
from cevjax.datasets import coherent_lar_2020
from cevjax.tables import data_dir

iminuit = pytest.importorskip("iminuit")
pytestmark = pytest.mark.slow

CSI, LAR, DRESDEN, CONUS = "coherent-csi-2021", "coherent-lar-2020", "dresden-ii-2022", "conus-plus-2025"
ATOL = 1e-3
HEIGHT = 50.0  # above the minimum: there is nothing to see further up


def random_points(result, count=50, seed=1):
    """Indices of points of the grid that are not hopeless."""
    near = np.flatnonzero(result.delta_chi2.ravel() < HEIGHT)
    assert len(near) >= count
    return np.random.default_rng(seed).choice(near, count, replace=False)


def at(result, i):
    """The parameters of the grid at a point, and the fitted ones."""
    where = np.unravel_index(i, result.chi2.shape)
    held = {name: float(x[k]) for (name, x), k in zip(result.axes.items(), where, strict=True)}
    return held, {name: float(x[where]) for name, x in result.values.items()}


def migrad(chi2, names, limits, held, free=(), steps=None, start=None):
    """chi2 of the reference at ``held``, minimised over ``names`` and ``free``."""
    every = (*free, *names)
    first = dict.fromkeys(every, 0.0) | (start or {})
    fitted = iminuit.Minuit(
        lambda x: chi2({**held, **dict(zip(every, x, strict=True))}), [first[n] for n in every], name=every
    )
    fitted.errordef, fitted.strategy, fitted.tol = 1, 1, 1e-3
    for name in every:
        fitted.errors[name] = (steps or {}).get(name, 0.5)
        fitted.limits[name] = limits.get(name, (-np.inf, np.inf))
    fitted.migrad(ncall=20_000)
    return fitted


def assert_same_profile(result, chi2, names, limits, count=50):
    """From nominal, and not from where the scan ended."""
    assert not np.any(result.status == 2)
    for i in random_points(result, count):
        held, _ = at(result, i)
        truth = migrad(chi2, names, limits, held)
        assert truth.valid
        assert result.chi2.ravel()[i] == pytest.approx(truth.fval, abs=ATOL), held


def likelihood(name, *beyond, **choices):
    couplings = choices.pop("couplings", None)
    return cevjax.Likelihood(cevjax.load(name, **choices), sum(beyond, cevjax.StandardModel(couplings=couplings)))


@cache
def csi(statistic):
    return ReferenceCsI(statistic)


@cache
def new_physics(statistic):
    return ReferenceNewPhysics(statistic)


# --- planes


def test_nsi_plane():
    grid = {"eps_uV_ee": np.linspace(-0.5, 0.5, 33), "eps_dV_ee": np.linspace(-0.5, 0.5, 41)}
    result = cevjax.scan(likelihood(CSI, cevjax.NSI(), es=False), grid)
    ref = csi("default")
    assert set(result.values) == set(ref.names[1:])
    assert_same_profile(result, ref.chi2, ref.names[1:], ref.limits)


def test_charge_radii_plane():
    like = likelihood(CSI, cevjax.ChargeRadius(), statistic="2211.11905", es=True)
    grid = {"r2_nu_ee": np.linspace(-7e-31, 3e-31, 33), "r2_nu_mumu": np.linspace(-7e-31, 3e-31, 33)}
    ref = new_physics("2211.11905")
    assert_same_profile(cevjax.scan(like, grid), ref.chi2, ref.names[1:], ref.limits)


def test_reactor_plane():
    """CONUS+, whose one nuisance has its minimum in closed form."""
    tables = {n: _table("reactor-flux", n) for n in ("vogel_engel", "kopeikin", "neutron_capture", "estienne_fallot")}
    energy, value = reactor.spectrum(tables, "hmk", reactor.LEIBSTADT_FRACTIONS)
    moments = reactor.Moments(energy, value, 1.5e13 / np.trapezoid(value, energy))
    ref = reactor.Conus(_table(CONUS, "excess"), 0.0272)
    grid = {"eps_uV_ee": np.linspace(-0.5, 0.5, 33), "eps_dV_ee": np.linspace(-0.5, 0.5, 41)}
    result = cevjax.scan(likelihood(CONUS, cevjax.NSI(), couplings="tree"), grid)
    for i in random_points(result):
        held, _ = at(result, i)
        signal = ref.signal(moments, couplings=reactor.TREE, eps_u=held["eps_uV_ee"], eps_d=held["eps_dV_ee"])
        assert result.chi2.ravel()[i] == pytest.approx(ref.chi2(signal), abs=ATOL), held


def _table(folder, name):
    return np.loadtxt(data_dir(folder) / f"{name}.csv", delimiter=",")


def test_mixing_angle_in_argon():
    tables = coherent_lar_2020.read_embedded()
    templates = {name: tables.template(name) for name in tables.time}
    ref = DefaultLAr(templates | {"data": tables.counts, "efficiency": tables.efficiency})
    grid = {"sin2_theta_w": np.linspace(0.0, 0.9, 61)}
    result = cevjax.scan(likelihood(LAR), grid)
    limits = {"lar2020_brn_delayed": (-1.0, np.inf), "lar2020_brn": (-1 / 0.32, np.inf)}
    for i in random_points(result, 8):
        held, _ = at(result, i)
        truth = migrad(lambda p: ref.chi2(**p), DefaultLAr.nuisances, limits, held)
        assert result.chi2[i] == pytest.approx(truth.fval, abs=ATOL), held


# --- no reference: MIGRAD on the likelihood of cevjax, with its gradient


@pytest.mark.parametrize(
    ("name", "beyond", "grid"),
    [
        (
            LAR,
            cevjax.LightVector(model="b-l"),
            {"m_zprime": np.geomspace(1, 1e3, 17), "g_zprime": np.geomspace(1e-6, 1e-3, 33)},
        ),
        (DRESDEN, cevjax.MagneticMoment(), {"mu_nu_e": np.linspace(0, 8e-10, 64)}),
    ],
    ids=["argon", "dresden"],
)
def test_own_likelihood(name, beyond, grid):
    like = likelihood(name, beyond)
    result = cevjax.scan(like, grid)
    names = tuple(result.values)
    slope = jax.jit(jax.grad(lambda p: like.chi2(p)))
    for i in random_points(result, 20):
        held, _ = at(result, i)
        fixed = {**like.nominal(), **held}

        def chi2(x, fixed=fixed):
            return float(like.chi2({**fixed, **dict(zip(names, map(float, x), strict=True))}))

        def gradient(x, fixed=fixed):
            found = slope({**fixed, **dict(zip(names, map(float, x), strict=True))})
            return np.array([found[n] for n in names])

        fitted = iminuit.Minuit(chi2, [like.parameters[n].nominal for n in names], grad=gradient, name=names)
        fitted.errordef, fitted.strategy, fitted.tol = 1, 1, 1e-3
        for n in names:
            fitted.errors[n], fitted.limits[n] = 0.5 * like.parameters[n].scale, like.parameters[n].bounds
        fitted.migrad(ncall=20_000)
        fitted.migrad()
        assert result.chi2.ravel()[i] == pytest.approx(fitted.fval, abs=ATOL), held


# --- ends of intervals


def crossings(result):
    """chi2 above the minimum as a function, and where it is one, of a scan in one parameter."""
    ((_, x),) = result.axes.items()
    curve = CubicSpline(x, result.delta_chi2)
    above = result.delta_chi2 - 1
    roots = [
        brentq(lambda y: curve(y) - 1, a, b)
        for a, b, fa, fb in zip(x[:-1], x[1:], above[:-1], above[1:], strict=True)
        if fa * fb < 0
    ]
    return curve, roots


@pytest.mark.parametrize(
    ("statistic", "poi", "grid"),
    [
        ("default", "sin2_theta_w", np.linspace(0.15, 0.35, 65)),
        ("2303.09360", "R_n_CsI", np.linspace(3.5, 8.0, 97)),
    ],
)
def test_ends_are_those_of_minos(statistic, poi, grid):
    ref = csi(statistic)
    nuisances = [n for n in ref.names[1:] if not (poi == "R_n_CsI" and n == "csi2021_radius")]
    rest = {name: 0.0 for name in ref.names[1:] if name not in nuisances}
    limits = ref.limits | {poi: (2.0, 12.0) if poi == "R_n_CsI" else (0.0, 1.0)}
    start = {poi: float(grid[len(grid) // 2])}
    fitted = migrad(ref.chi2, nuisances, limits, rest, (poi,), {poi: 0.02 if poi == "sin2_theta_w" else 0.3}, start)
    assert fitted.valid
    result = cevjax.scan(likelihood(CSI, statistic=statistic, es=False), {poi: grid})
    assert result.chi2_min == pytest.approx(fitted.fval, abs=ATOL)
    curve, roots = crossings(result)
    assert len(roots) == 2
    fitted.minos(poi)
    ends = fitted.values[poi] + np.array([fitted.merrors[poi].lower, fitted.merrors[poi].upper])
    for end, root in zip(ends, roots, strict=True):
        assert curve(end) == pytest.approx(1.0, abs=2 * ATOL)  # MINOS itself is no better than that
        there = migrad(ref.chi2, nuisances, limits, {**rest, poi: root})
        assert there.fval - fitted.fval == pytest.approx(1.0, abs=ATOL)
    np.testing.assert_allclose(roots, ends, atol=2e-3 * np.ptp(ends))
