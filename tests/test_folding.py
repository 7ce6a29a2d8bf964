"""Folded likelihoods against the exact ones: values, gradients, and what is left as it was."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cevjax
from cevjax import folding, scattering
from cevjax.exposure import scaled
from cevjax.inference.fit import problem
from cevjax.inference.minimize import reach
from cevjax.likelihood import nll
from cevjax.measurement import Background, Component, FoldedTime, Folding, Norm, Precision, Spread, fold_time
from cevjax.response import BinnedTime
from cevjax.scattering import FoldedScattering, Scattering
from cevjax.series import KNOTS, Variable

CSI, CSI17, LAR, DRESDEN, CONUS = (
    "coherent-csi-2021", "coherent-csi-2017", "coherent-lar-2020", "dresden-ii-2022", "conus-plus-2025"
)  # fmt: skip
# the points of grids
PLANE = {"eps_uV_ee": np.linspace(-0.4, 0.4, 17), "eps_dV_ee": np.linspace(-0.4, 0.4, 21)}
ANGLE = {"sin2_theta_w": np.linspace(0.05, 0.5, 41)}
RADII = {"r2_nu_ee": np.linspace(-1e-31, 1e-31, 21), "r2_nu_mumu": np.linspace(-1e-31, 1e-31, 21)}


def interaction(name):
    beyond = {
        "nsi": cevjax.NSI,
        "vector": lambda: cevjax.LightVector(model="b-l"),
        "radius": cevjax.ChargeRadius,
        "magnetic": cevjax.MagneticMoment,
        "sterile": cevjax.Sterile,
    }
    return cevjax.StandardModel() + beyond[name]() if name in beyond else cevjax.StandardModel()


@pytest.fixture(scope="module")
def likelihood():
    """Built once: ``likelihood(CSI, "nsi", statistic=...)``; data sets are joined by +."""
    built = {}

    def make(names, of="sm", **choices):
        key = names, of, tuple(choices.items())
        if key not in built:
            built[key] = cevjax.Likelihood([cevjax.load(n, **choices) for n in names.split("+")], interaction(of))
        return built[key]

    return make


def folded(like, held, free=(), values=None, tolerance=folding.TOLERANCE):
    """A folded likelihood with the ranges, or points, that it is made for, and the values of all that stays."""
    task = problem(like, (*held, *free), values)
    fitted = [name for name in task.where.names if name not in held]
    points = {name: where for name, where in held.items() if len(where) > 2}
    between = {name: where for name, where in held.items() if name not in points}
    made = folding.fold(like, fitted, between, task.fixed, tolerance, points)
    return made, {**folding.ranges(like, fitted, between), **points}, task.fixed


def sample(like, where, count, seed=1, size=1.0):
    """Nuisances scattered about their means, all else evenly in its coordinate, all within the ranges or on points."""
    rng, columns = np.random.default_rng(seed), {}
    for name, ends in where.items():
        parameter = like.parameters[name]
        if len(ends) > 2:
            columns[name] = rng.choice(np.asarray(ends), count)
            continue
        t = parameter.encode(ends)
        if parameter.nuisance:
            mean, sigma = parameter.constraint or (parameter.nominal, parameter.scale)
            u = parameter.encode(mean + size * sigma * rng.normal(size=count))
        else:
            u = rng.uniform(*t, size=count)
        columns[name] = parameter.decode(np.clip(u, *(t + 1e-4 * np.ptp(t) * np.array([1, -1]))))
    return columns


@jax.jit
def _each(like, columns, fixed):
    return jax.lax.map(jax.value_and_grad(lambda point: 2 * nll(like, {**fixed, **point})), columns)


def chi2_and_gradient(like, columns, fixed):
    """At many points, one after the other, which compiles faster than all at once."""
    return jax.tree.map(np.asarray, _each(like, columns, fixed))


def chi2(like, columns, fixed):
    return chi2_and_gradient(like, columns, fixed)[0]


def natural(like, columns, gradient):
    """Derivatives by the coordinates, shape (parameters, points)."""
    rows = []
    for name, slope in gradient.items():
        p = like.parameters[name]
        rows.append(np.asarray(slope) * (np.hypot(p.scale, columns[name]) if p.decades else p.scale))
    return np.array(rows)


CASES = {
    "csi nsi": (CSI, "nsi", PLANE, (), {}),
    "conus angle": (CONUS, "sm", ANGLE, (), {}),
}
SLOW = {
    "csi charge radii": (CSI, "radius", RADII, (), {}),
    "csi nsi, one free": (CSI, "nsi", {"eps_uV_ee": np.linspace(-0.5, 0.5, 41)}, ("eps_dV_ee",), {}),
    "dresden fissions": (DRESDEN, "sm", ANGLE, ("dresden_fission_U235",), {}),
}


@pytest.mark.parametrize("case", [*CASES, *(pytest.param(case, marks=pytest.mark.slow) for case in SLOW)])
def test_values_and_gradients(likelihood, case):
    """1e-3 in chi2 where anything is near the minimum, and not much more further out."""
    names, of, held, free, choices = (CASES | SLOW)[case]
    like = likelihood(names, of, **choices)
    made, where, fixed = folded(like, held, free)
    assert any(isinstance(c, FoldedScattering) for c in leaves(made))
    columns = sample(like, where, 300, size=0.6)
    exact, exact_gradient = chi2_and_gradient(like, columns, fixed)
    found, gradient = chi2_and_gradient(made, columns, fixed)
    excess = exact - min(exact.min(), cevjax.fit(like, (*held, *free)).chi2_min)
    near = excess < 100
    assert near.sum() >= 10
    allowed = 1e-3 * (1 + excess / 10)
    worst = np.argmax(np.abs(found - exact)[near] / allowed[near])
    assert np.all((np.abs(found - exact) < allowed)[near]), (found[near][worst], exact[near][worst])
    moving = {name: slope for name, slope in gradient.items() if len(where[name]) == 2}
    slopes = natural(like, columns, moving), natural(like, columns, {name: exact_gradient[name] for name in moving})
    difference, steepness = np.abs(slopes[1] - slopes[0]), np.abs(slopes[1])
    worst = dict(zip(moving, np.max((difference / (allowed * 20 + 1e-3 * steepness))[:, near], axis=1), strict=True))
    assert max(worst.values()) < 1, worst


def leaves(like):
    """All components, those within others too."""
    return jax.tree.leaves(like.measurements, is_leaf=lambda x: isinstance(x, Component) and not isinstance(x, Spread))


@pytest.mark.slow
def test_a_smaller_tolerance_is_more_accurate(likelihood):
    like = likelihood(CSI, "nsi", statistic="2211.11905")
    errors = []
    for tolerance in (1e-1, 1e-3, 1e-5):
        made, where, fixed = folded(like, PLANE, tolerance=tolerance)
        columns = sample(like, where, 60)
        errors.append(np.median(np.abs(chi2(made, columns, fixed) - chi2(like, columns, fixed))))
    assert errors[0] > errors[1] >= errors[2] and errors[2] < 1e-6


# --- at the ends of the ranges


@pytest.mark.parametrize("pull", [-1.0, 0.999999999999, 1.0])
def test_gradients_at_a_bound_are_not_cut(likelihood, pull):
    """A minimiser that is at a bound must see whether to leave it."""
    like = likelihood(CSI, "nsi")
    made, _, fixed = folded(like, PLANE)
    rest = {name: p.nominal for name, p in like.parameters.items() if name not in fixed and not p.members}
    for other in (0.2, 0.4):
        point = {**rest, **dict.fromkeys(PLANE, other), "csi2021_timing": pull}
        slopes = [float(_slope(li, point, fixed)["csi2021_timing"]) for li in (like, made)]
        assert abs(slopes[0]) > 0.1
        assert slopes[1] == pytest.approx(slopes[0], rel=1e-3)


_slope = jax.jit(lambda like, point, fixed: jax.grad(lambda p: nll(like, {**fixed, **p}))(point))


def test_ranges(likelihood):
    like = likelihood(CSI, "nsi", statistic="2211.11905-shape")
    fitted = ("csi2021_timing", "csi2021_radius", "eps_dV_ee", "csi2021_signal")
    found = folding.ranges(like, fitted, {"eps_uV_ee": (0.1, 0.2)})
    assert found["eps_uV_ee"] == (0.1, 0.2)
    assert found["eps_dV_ee"] == like.parameters["eps_dV_ee"].fit_range()
    assert found["csi2021_timing"] == (-1.0, 1.0)  # free within bounds
    assert found["csi2021_radius"] == (-3.5, 3.5)  # constrained
    assert found["csi2021_signal"] == (-3.5, 3.5)
    broad = folding.ranges(likelihood(CSI17), ("csi2017_ssb",), {})["csi2017_ssb"]
    bounds = likelihood(CSI17).parameters["csi2017_ssb"].bounds
    assert bounds[0] <= broad[0] < broad[1] <= bounds[1]


def test_tabulated_ranges_are_those_of_what_became_curves(likelihood):
    """Normalisations are exact at any value; a bound is no end; and points that are held never leave their range."""
    like = likelihood(CSI, "nsi")
    made, where, _ = folded(like, {"eps_uV_ee": (-0.5, 0.5)}, ("eps_dV_ee",))
    found = folding.tabulated(made, tuple(n for n in where if n != "eps_uV_ee"))
    curves = {"csi2021_qf0", "csi2021_qf1", "csi2021_efficiency", "csi2021_radius", "csi2021_timing", "eps_dV_ee"}
    assert set(found) == curves
    for name in curves - {"csi2021_timing"}:
        (low, high), (inner, outer) = where[name], found[name]
        at_bound = low <= like.parameters[name].bounds[0]
        assert inner == -np.inf if at_bound else low < inner < low + 0.01 * (high - low), name
        at_bound = high >= like.parameters[name].bounds[1]
        assert outer == np.inf if at_bound else high - 0.01 * (high - low) < outer < high, name
    assert where["csi2021_radius"] == (-3.5, 3.5) and np.isfinite(found["csi2021_radius"]).all()
    assert found["csi2021_timing"] == (-np.inf, np.inf)
    assert folding.tabulated(like, like.nuisances) == {}


def test_margins_of_decades_are_those_of_the_coordinate(likelihood):
    like = likelihood(CONUS, "vector")
    free = {"m_zprime": (1e-3, 1e6), "g_zprime": (1e-7, 1e-5)}
    fixed = {n: v for n, v in like.nominal().items() if n not in (*free, *like.nuisances)}
    low, high = folding.tabulated(folding.fold(like, like.nuisances, free, fixed), tuple(free))["m_zprime"]
    assert 1e-3 < low < 1.1e-3 and 0.9e6 < high < 1e6


# --- what becomes of the parts


def test_the_folded_likelihood_has_the_same_parameters_and_data(likelihood):
    for names, held in ((CSI, PLANE), (f"{CSI}+{LAR}+{DRESDEN}", PLANE)):
        like = likelihood(names, "nsi")
        made, _, _ = folded(like, held)
        assert made.parameters == like.parameters and list(made.parameters) == list(like.parameters)
        assert made.nuisances == like.nuisances and made.constrained == like.constrained
        assert made.n_bins == like.n_bins
        assert eqx.tree_equal(made.data, like.data) and eqx.tree_equal(made.interaction, like.interaction)
        for new, old in zip(made.measurements, like.measurements, strict=True):
            assert [c.name for c in new.components] == [c.name for c in old.components]
            assert (new.name, new.axes, new.statistic) == (old.name, old.axes, old.statistic)


def test_the_note_stays(likelihood):
    like = likelihood(CONUS)
    other = like.asimov(like.nominal(sin2_theta_w=0.3))
    made, _, _ = folded(other, {"sin2_theta_w": (0.1, 0.4)})
    assert made.note == other.note and "sin2_theta_w = 0.3" in made.note


def test_what_each_component_becomes(likelihood):
    made, _, _ = folded(likelihood(f"{CSI}+{LAR}+{DRESDEN}", "nsi"), PLANE)
    csi, lar, dresden = ({c.name: c for c in m.components} for m in made.measurements)
    assert isinstance(csi["cevns"], FoldedScattering) and isinstance(lar["cevns"].inner, FoldedScattering)
    assert isinstance(dresden["cevns"], FoldedScattering)
    assert csi["cevns"].spectra.outer.names == tuple(PLANE)
    # the nuisances of others are none of its own
    assert dresden["cevns"].spectra.inner.names == ()
    assert lar["cevns"].inner.spectra.inner.names == ("lar2020_radius",)
    assert isinstance(csi["brn"], Background) and isinstance(csi["brn"].time, FoldedTime)
    same = likelihood(f"{CSI}+{LAR}+{DRESDEN}", "nsi").measurements[2].components[-1]
    assert eqx.tree_equal(dresden["activation"], same)  # nothing is known of it


def test_flux_components_that_arrive_alike_are_one(likelihood):
    """Both spectra from muon decay are: two groups of three. Without times all are; with times for each, none."""
    csi, _, _ = folded(likelihood(CSI, "nsi"), PLANE)
    assert csi.measurements[0].components[0].spectra.coefficients.shape[2:] == (9, 2)
    assert csi.measurements[0].components[0].time.shape == (2, 11)
    lar, _, _ = folded(likelihood(LAR, "nsi"), PLANE)
    assert lar.measurements[0].components[0].inner.spectra.coefficients.shape[3] == 2
    conus, _, _ = folded(likelihood(CONUS), {"sin2_theta_w": (0.1, 0.4)})
    assert conus.measurements[0].components[0].spectra.coefficients.shape[2:] == (19, 1)
    fixed, _, _ = folded(likelihood(CSI, "sm", statistic="2211.11905"), {"sin2_theta_w": (0.1, 0.4)})
    times = fixed.measurements[0].components[0].time
    assert times.shape == (2, 11) and not np.allclose(times[0], times[1])

    like = likelihood(CSI, "nsi")
    signal = like.measurements[0].components[0]
    apart = np.arange(33.0).reshape(3, 11)
    other = eqx.tree_at(lambda c: c.time, signal, jnp.asarray(apart))
    found = scattering.fold(other, _nothing_moves(like), Precision(np.full((9, 11), 10.0), np.full((9, 11), np.inf)))
    np.testing.assert_allclose(found.time, apart)
    point = like.nominal()
    np.testing.assert_allclose(found(point, like.interaction), other(point, like.interaction), rtol=1e-10)


def _nothing_moves(like, tolerance=1e-3):
    return Folding(like.interaction, like.nominal(), (), (), tolerance)


def test_nothing_that_moves_is_a_table(likelihood):
    like = likelihood(CSI, "sm", statistic="2303.09360")
    made, _, _ = folded(like, {}, values={"sin2_theta_w": 0.3})
    signal = made.measurements[0].components[0]
    assert isinstance(signal, FoldedScattering) and signal.spectra.names == ()
    point = like.nominal(sin2_theta_w=0.3, csi2021_signal=0.7)
    assert float(2 * nll(made, point)) == pytest.approx(float(like.chi2(point)), abs=1e-9)


def test_a_fixed_nuisance_is_fixed_at_its_value(likelihood):
    like = likelihood(CSI)
    held = {"sin2_theta_w": (0.1, 0.4)}
    values = {"csi2021_timing": 0.6, "csi2021_qf0": -1.2, "csi2021_radius": 0.8}
    made, where, _ = folded(like, held, values=values)
    assert not set(values) & set(where)
    signal = made.measurements[0].components[0]
    assert not set(values) & set(signal.spectra.names) and isinstance(signal.time, jax.Array)
    point = {**like.nominal(**values), "sin2_theta_w": 0.31, "csi2021_brn": 1.0, "csi2021_qf1": 0.4}
    assert float(2 * nll(made, point)) == pytest.approx(float(like.chi2(point)), abs=5e-4)


def test_a_time_offset_in_the_grid_moves(likelihood):
    like = likelihood(CSI)
    made, _, _ = folded(like, {"csi2021_timing": (-0.9, 0.9)})
    columns = {"csi2021_timing": np.array([-0.8, 0.1, 0.7])}
    rest = {name: value for name, value in like.nominal().items() if name not in columns}
    exact = chi2(like, columns, rest)
    assert np.ptp(exact) > 1
    np.testing.assert_allclose(chi2(made, columns, rest), exact, atol=5e-4)


@pytest.mark.slow
@pytest.mark.parametrize("component", [2])
def test_times_as_splines(likelihood, component):
    """Pulse and templates, all rows or some, over the whole range of the offset."""
    like = likelihood(CSI)
    free = _nothing_moves(like)._replace(inner=(Variable(like.parameters["csi2021_timing"], -1.0, 1.0),))
    exact = like.measurements[0].components[component].time
    assert isinstance(exact, BinnedTime)
    made = fold_time(exact, free)
    assert isinstance(made, FoldedTime) and KNOTS > 100
    pulls = np.append(np.random.default_rng(1).uniform(-1, 1, 40), [-1.0, 1.0])

    def at(time, differentiate=lambda f: f):
        return np.asarray(jax.vmap(differentiate(lambda a: time({"csi2021_timing": a})))(pulls))

    np.testing.assert_allclose(at(made), at(exact), atol=1e-7)
    np.testing.assert_allclose(at(made, jax.jacfwd), at(exact, jax.jacfwd), atol=2e-4)
    last = made.shape[0] - 1
    np.testing.assert_allclose(at(made.some(np.array([last]))), at(made)[:, [last]], rtol=1e-13)
    assert len(made.rows) == made.shape[0]
    still = fold_time(exact, _nothing_moves(like))
    np.testing.assert_allclose(still, exact({"csi2021_timing": 0.0}), rtol=1e-12, atol=1e-15)
    assert fold_time(None, free) is None


def test_holding_does_what_it_says(likelihood):
    """Held at parameters of interest, the likelihood is the same function of the nuisances, and without the others."""
    like = likelihood(f"{CSI}+{LAR}+{DRESDEN}", "nsi")
    made, where, fixed = folded(like, PLANE)
    value = jax.jit(nll)
    point = {**fixed, **{name: column[0] for name, column in sample(like, where, 1).items()}}
    outer = {**fixed, **{name: point[name] for name in PLANE}}
    held = made.hold(outer)
    assert all(not c.spectra.outer.names for c in leaves(held) if isinstance(c, FoldedScattering))
    for pull in (0.0, 1.3):
        at = {**point, "csi2021_radius": pull, "lar2020_radius": pull}
        assert float(value(held, at)) == pytest.approx(float(value(made, at)), rel=1e-12)
        assert float(value(held, {**at, "eps_uV_ee": point["eps_uV_ee"] + 0.1})) == float(value(held, at))
    partly = made.hold({name: x for name, x in outer.items() if name != "eps_uV_ee"})
    assert float(value(partly, point)) == float(value(made, point))
    csi = likelihood(CSI, "nsi")
    assert csi.hold(outer).measurements[0] is csi.measurements[0]


class Wiggle(Component):
    """Counts of an unknown dependence, which has no form to fold to."""

    name: str = eqx.field(static=True, default="wiggle")

    def __call__(self, params, interaction):
        return 3 + jnp.sin(params["conus_signal"] + jnp.arange(19.0))


def test_components_that_cannot_be_folded_stay(likelihood, monkeypatch):
    measurement = cevjax.load(CONUS)
    own = Wiggle()
    more = eqx.tree_at(lambda m: m.components, measurement, (*measurement.components, own))
    like = cevjax.Likelihood(more, cevjax.StandardModel())
    made, _, _ = folded(like, {"sin2_theta_w": (0.1, 0.4)})
    assert eqx.tree_equal(made.measurements[0].components[-1], like.measurements[0].components[-1])
    point = like.nominal(sin2_theta_w=0.3, conus_signal=0.4)
    # what is left out of the series, below 1e-3 standard deviations, may change chi2 by 2 sqrt(chi2) times that
    assert float(2 * nll(made, point)) == pytest.approx(float(like.chi2(point)), abs=1e-5)
    assert reach(made.measurements[0], like.interaction, ("conus_signal", "sin2_theta_w")) == [[0, 1], [0, 1]]

    monkeypatch.setattr(scattering, "LARGEST_FOLD", 10)
    large, _, _ = folded(like, {"sin2_theta_w": (0.1, 0.4)})
    assert eqx.tree_equal(large.measurements, like.measurements)


def test_more_exposure_folds_too():
    measurement = scaled(cevjax.load(CSI, statistic="2211.11905"), 9.0, sideband=("csi2021_ssb",))
    like = cevjax.Likelihood(measurement, cevjax.StandardModel() + cevjax.NSI())
    made, where, fixed = folded(like, PLANE)
    columns = sample(like, where, 50)
    exact = chi2(like, columns, fixed)
    near = exact < 200
    assert near.sum() >= 5
    np.testing.assert_allclose(chi2(made, columns, fixed)[near], exact[near], atol=5e-3)
    assert isinstance(made.measurements[0].components[0].inner, FoldedScattering)


# --- which parameters each component depends on

EVERY = {
    "csi": (CSI, {"es": True}),
    "csi 2211.11905-shape": (CSI, {"statistic": "2211.11905-shape", "es": True}),
    "csi17": (CSI17, {}),
    "lar": (LAR, {}),
    **{f"lar {s}": (LAR, {"statistic": s}) for s in ("2211.11905", "2005.01645", "2003.10630")},
    "dresden": (DRESDEN, {"es": True}),
    "dresden 2205": (DRESDEN, {"statistic": "2205.09484", "es": True}),
    "conus": (CONUS, {"es": True}),
}


def everything():
    """An interaction in which every kind of term acts, at values where all of them matter."""
    beyond = cevjax.NSI() + cevjax.MagneticMoment() + cevjax.Millicharge() + cevjax.ChargeRadius() + cevjax.Axial()
    beyond += cevjax.LightVector(model="b-l") + cevjax.LightScalar() + cevjax.Sterile() + cevjax.DipolePortal()
    values = {"mu_nu_e": 3e-9, "mu_nu_mu": 2e-9, "m_zprime": 30.0, "g_zprime": 5e-5, "m_phi": 10.0, "g_phi": 3e-5}
    values |= {"dm2_41": 3.0, "sin2_2theta_ee": 0.3, "sin2_2theta_mumu": 0.2, "m_4": 5.0, "mu_nu4_e": 3e-9}
    values |= {"eps_uV_emu": 0.1, "eps_dV_ee": 0.1, "q_nu_mumu": 1e-9, "r2_nu_emu": 1e-32, "mu_nu4_mu": 3e-9}
    return cevjax.StandardModel() + beyond, values


def assert_names_are_complete(like, values):
    """Move each parameter and see which components change."""
    rng, seen = np.random.default_rng(3), {}
    base = like.nominal(**values)
    for name in like.nuisances:
        p = like.parameters[name]
        base[name] = float(np.clip(p.nominal + 0.3 * p.scale * rng.normal(), *p.bounds))
    before = like.expected(base)
    for name in base:
        p = like.parameters[name]
        step = 0.1 * max(p.scale, abs(base[name]))
        value = base[name] + step if base[name] + step <= p.bounds[1] else base[name] - step
        seen[name] = like.expected({**base, name: value})
    for m in like.measurements:
        known = {p.name for p in (*like.interaction.parameters, *m.parameters)}
        for component in m.components:
            own = component.moved_by(like.interaction)
            own = known if own is None else own
            moving = {
                name
                for name, after in seen.items()
                if not np.array_equal(after[m.name][component.name], before[m.name][component.name])
            }
            assert moving <= own, (m.name, component.name, moving - own)
            unused = own & set(like.nuisances) - moving
            assert not unused, (m.name, component.name, unused)
            if isinstance(component, Scattering):
                assert {p.name for p in component.parameters} <= own


@pytest.mark.parametrize("case", ["csi", "csi17", "lar", "dresden", "conus"])
def test_components_depend_on_nothing_that_they_do_not_name(likelihood, case):
    """Fits leave out derivatives by all other parameters: a name that is missing would be a wrong fit."""
    assert_names_are_complete(likelihood(EVERY[case][0]), {"sin2_theta_w": 0.25})


@pytest.mark.slow
@pytest.mark.parametrize("case", ["csi17", "lar"])
def test_components_depend_on_nothing_that_they_do_not_name_whatever_acts(case):
    """Germanium at one reactor stands for that at the other."""
    (names, choices), (acting, values) = EVERY[case], everything()
    assert_names_are_complete(cevjax.Likelihood([cevjax.load(n, **choices) for n in names.split("+")], acting), values)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["csi", "lar", "dresden"])
def test_common_radii_move_what_they_stand_for(case):
    """A parameter for several is in the point only where it is given."""
    like = cevjax.Likelihood(cevjax.load(EVERY[case][0]), cevjax.StandardModel())
    for parameter in like.parameters.values():
        if parameter.name.startswith("R_n"):
            points = [like.nominal(**{parameter.name: parameter.nominal + x}) for x in (0.0, 0.3)]
            (before,), (after,) = (like.expected(point).values() for point in points)
            for component in like.measurements[0].components:
                if not np.array_equal(before[component.name], after[component.name]):
                    assert parameter.name in component.moved_by(like.interaction)


@pytest.mark.parametrize(
    "case", [pytest.param(CSI, id="csi"), pytest.param(f"{LAR}+{CONUS}", id="lar and conus", marks=pytest.mark.slow)]
)
def test_folded_components_depend_on_nothing_that_they_do_not_name(likelihood, case):
    like = likelihood(case, "nsi")
    made, where, fixed = folded(like, {"eps_uV_ee": PLANE["eps_uV_ee"]}, ("eps_dV_ee",))
    counts = jax.jit(lambda p: {m.name: m.expected(p, like.interaction) for m in made.measurements})
    base = {**fixed, **{name: column[0] for name, column in sample(like, where, 1, size=0.5).items()}}
    before = counts(base)
    for name in base:
        after = counts({**base, name: base[name] + 0.1 * like.parameters[name].scale})
        for m in made.measurements:
            for component in m.components:
                if not np.array_equal(after[m.name][component.name], before[m.name][component.name]):
                    assert name in component.moved_by(like.interaction), (component.name, name)


def test_norms_name_their_pulls():
    assert Norm((("a", 0.1), ("b", 0.2))).names == {"a", "b"}
