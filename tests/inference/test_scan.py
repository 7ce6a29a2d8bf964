"""Scans against profiles and brute force, and what is left of them when something goes wrong."""

import json
import os
import signal
import subprocess
import sys
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cevjax
from cevjax import folding, jobs
from cevjax.errors import InvalidValueError, UnknownNameError
from cevjax.inference import minimize as minimizer
from cevjax.likelihood import nll
from cevjax.measurement import Component
from cevjax.scans import CONVERGED, FAILED, RETRIED, ScanResult

# the package has functions under these names
module, fit_module = sys.modules["cevjax.inference.scan"], sys.modules["cevjax.inference.fit"]

ATOL = 1e-3  # in chi2
CSI, LAR, DRESDEN, CONUS = "coherent-csi-2021", "coherent-lar-2020", "dresden-ii-2022", "conus-plus-2025"
RADII = np.linspace(-2e-31, 2e-31, 41)
UP, DOWN = np.linspace(-0.4, 0.4, 7), np.linspace(-0.3, 0.6, 34)


@pytest.fixture(scope="module")
def conus():
    return cevjax.Likelihood(cevjax.load(CONUS), cevjax.StandardModel() + cevjax.NSI())


@pytest.fixture(scope="module")
def radii():
    interaction = cevjax.StandardModel() + cevjax.ChargeRadius()
    return cevjax.Likelihood(cevjax.load(CSI, statistic="2303.09360"), interaction)


@pytest.fixture(scope="module")
def plane(conus):
    return cevjax.scan(conus, {"eps_uV_ee": UP, "eps_dV_ee": DOWN})


def mesh(axes):
    """All points, the last axis running fastest."""
    return {n: x.ravel() for n, x in zip(axes, np.meshgrid(*axes.values(), indexing="ij"), strict=True)}


def assert_is_profile(result, like, axes, free=(), values=None, atol=ATOL):
    """chi2, and with it that the fitted parameters are those of these points."""
    profile = cevjax.profile(like, mesh(axes), free, values)
    shape = tuple(len(x) for x in axes.values())
    assert result.chi2.shape == result.status.shape == shape
    assert list(result.axes) == list(axes)
    for name, x in axes.items():
        np.testing.assert_array_equal(result.axes[name], x)
    assert np.all(profile.converged) and np.all(result.status == CONVERGED)
    np.testing.assert_allclose(result.chi2.ravel(), profile.chi2, rtol=0, atol=atol)
    assert set(result.values) == set(profile.values) - set(axes)
    given = {name: np.full(len(profile.chi2), value) for name, value in (values or {}).items()}
    np.testing.assert_allclose(chi2_at(like, {**given, **mesh(axes), **flat(result.values)}), profile.chi2, atol=atol)


# --- grids


@pytest.mark.parametrize(
    "axes",
    [
        pytest.param({"eps_dV_ee": DOWN, "eps_uV_ee": UP}, id="34x7"),
        pytest.param(
            {"sin2_theta_w": np.array([0.1, 0.24]), "eps_uV_ee": UP[::3], "eps_dV_ee": DOWN},
            id="2x3x34",
            marks=pytest.mark.slow,
        ),
        pytest.param({"eps_uV_ee": UP[:1], "eps_dV_ee": DOWN[:1]}, id="1x1"),
        pytest.param({"eps_uV_ee": UP[:1], "eps_dV_ee": DOWN}, id="1x34"),
        pytest.param({"eps_uV_ee": UP[2:4]}, id="2"),
        pytest.param({"sin2_theta_w": np.array([0.0, 0.5, 1.0])}, id="bounds"),
    ],
)
def test_grids_are_profiles(conus, axes):
    assert_is_profile(cevjax.scan(conus, axes), conus, axes, atol=2e-4)


@pytest.mark.slow
def test_a_plane_with_many_nuisances(csi_likelihood):
    like, axes = csi_likelihood("default", nsi=True), {"eps_uV_ee": UP[1::2], "eps_dV_ee": DOWN}
    result = cevjax.scan(like, axes)
    assert_is_profile(result, like, axes)
    assert result.facts["method"] == "folded" and result.facts["accuracy"] < ATOL
    exact = cevjax.scan(like, axes, exact=True)
    assert exact.facts["method"] == "exact"
    np.testing.assert_allclose(exact.chi2, result.chi2, atol=ATOL)


def test_one_number_is_a_grid(conus):
    result = cevjax.scan(conus, {"eps_uV_ee": 0.1, "eps_dV_ee": [0.0, 0.2]})
    assert result.chi2.shape == (1, 2)


@pytest.mark.slow
def test_a_radius_in_the_grid_replaces_its_nuisance(csi_likelihood):
    like = csi_likelihood()
    result = cevjax.scan(like, {"R_n_CsI": [4.0, 5.0, 6.0]})
    assert_is_profile(result, like, {"R_n_CsI": np.array([4.0, 5.0, 6.0])})
    assert "csi2021_radius" not in result.values and result.facts["dropped"] == ["csi2021_radius"]


@pytest.mark.slow
def test_set_values_stay(conus):
    axes, values = {"eps_dV_ee": DOWN[::3]}, {"eps_uV_ee": 0.15, "conus_fission_U235": 0.6}
    result = cevjax.scan(conus, axes, values=values)
    assert_is_profile(result, conus, axes, values=values)
    assert result.facts["fixed"] == values


@pytest.mark.slow
def test_nothing_may_be_left_to_fit(conus):
    grid = {"eps_uV_ee": UP, "eps_dV_ee": DOWN}
    result = cevjax.scan(conus, grid, values={"conus_signal": 0.2})
    points = mesh(grid)
    truth = [conus.chi2(conus.nominal(conus_signal=0.2, **{n: x[i] for n, x in points.items()})) for i in range(34)]
    np.testing.assert_allclose(result.chi2.ravel()[:34], truth, atol=ATOL)
    assert result.values == {} and np.all(result.status == CONVERGED)


def test_the_minimum_is_that_of_the_fit(conus, plane):
    best = cevjax.fit(conus, ("eps_uV_ee", "eps_dV_ee"))
    assert best.chi2_min - ATOL < plane.chi2_min <= best.chi2_min
    assert set(plane.best_fit) == {"eps_uV_ee", "eps_dV_ee", "conus_signal"}
    point = {**conus.nominal(), **plane.best_fit}
    assert float(conus.chi2(point)) == pytest.approx(plane.chi2_min, abs=ATOL)
    np.testing.assert_array_equal(plane.delta_chi2, plane.chi2 - plane.chi2_min)
    assert np.all(plane.delta_chi2 >= 0)


def test_facts(conus, plane):
    facts = plane.facts
    assert facts["grid"] == {"eps_uV_ee": [-0.4, 0.4, 7], "eps_dV_ee": [-0.3, 0.6, 34]}
    assert (facts["n_points"], facts["n_retried"], facts["n_failed"]) == (238, 0, 0)
    assert facts["free"] == [] and facts["fixed"] == {} and facts["dropped"] == []
    assert facts["method"] == "folded" and facts["converged"] is True and facts["seconds"] > 0
    assert 0 < facts["accuracy"] < ATOL
    assert facts["hashes"] == {CONUS: facts["hashes"][CONUS]} and facts["datasets"] == [CONUS]
    assert plane.label("eps_uV_ee").startswith("$")


@pytest.mark.parametrize(
    ("grid", "error", "message"),
    [
        ({}, InvalidValueError, "at least one parameter"),
        ({"eps_dV_e": DOWN}, UnknownNameError, "Did you mean 'eps_dV_ee'"),
        ({"eps_dV_ee": DOWN[::-1]}, InvalidValueError, "`eps_dV_ee` in the grid must increase"),
        ({"eps_dV_ee": [0.1, 0.1]}, InvalidValueError, "must increase"),
        ({"eps_dV_ee": []}, InvalidValueError, "must increase"),
        ({"eps_dV_ee": [[0.1, 0.2]]}, InvalidValueError, "must increase"),
        ({"eps_dV_ee": [0.1, np.nan, 0.3]}, InvalidValueError, "must increase"),
        ({"eps_dV_ee": [np.nan]}, InvalidValueError, "must be finite"),
        ({"eps_dV_ee": [0.0, np.inf]}, InvalidValueError, "must be finite|must increase"),
        ({"eps_dV_ee": [-2.5, 0.0]}, InvalidValueError, "between -2 and 2, but was -2.5"),
        ({"eps_uV_ee": UP, "sin2_theta_w": [0.2, 1.2]}, InvalidValueError, "between 0 and 1, but was 1.2"),
        ({"R_n_Ge": [4.0, 5.0], "R_n_Ge70": [4.0, 5.0]}, InvalidValueError, "stands for R_n_Ge70"),
    ],
)
def test_unusable_grids(conus, grid, error, message):
    with pytest.raises(error, match=message):
        cevjax.scan(conus, grid)


def test_unusable_requests(conus, tmp_path):
    grid = {"eps_dV_ee": DOWN}
    with pytest.raises(InvalidValueError, match="either free or set"):
        cevjax.scan(conus, grid, values={"eps_dV_ee": 0.1})
    with pytest.raises(UnknownNameError, match="Did you mean 'eps_uV_ee'"):
        cevjax.scan(conus, grid, free=("eps_uV_e",))
    with pytest.raises(InvalidValueError, match=r"must end in \.nc or \.zarr"):
        cevjax.scan(conus, grid, out=tmp_path / "scan.txt")
    with pytest.raises(InvalidValueError, match="does not exist|must be in an existing folder"):
        cevjax.scan(conus, grid, out=tmp_path / "nowhere" / "scan.nc")
    with pytest.raises(InvalidValueError, match="`workers`"):
        cevjax.scan(conus, grid, workers=-1)
    assert not list(tmp_path.iterdir())


# --- further parameters of interest, and modes that compete


def lowest_of_dense_grid(like, axes, other, values):
    """The exact profile on the grid and on ``values`` of the other parameter, minimised over that: from there a fit."""
    dense = cevjax.scan(like, {**axes, other: values}, exact=True)
    assert list(dense.axes) == [*axes, other] and not np.any(dense.status == FAILED)
    task = fit_module.problem(like, (*axes, other), None)
    i = np.argmin(dense.chi2, axis=-1)[..., None]
    lowest = {name: np.take_along_axis(x, i, axis=-1).ravel() for name, x in dense.values.items()}
    columns = {**mesh(axes), other: values[i.ravel()], **lowest}
    starts = np.stack([columns[name] for name in task.where.names], axis=1)
    found = minimizer.minimize(like, task.where, starts, task.fixed, tuple(axes))
    assert np.all(found.converged)
    return 2 * found.nll.reshape(dense.chi2.shape[:-1])


def flat(arrays):
    return {name: x.ravel() for name, x in arrays.items()}


def chi2_at(like, columns):
    """The exact chi2 at each of the points."""
    fixed = {name: value for name, value in like.nominal().items() if name not in columns}
    return np.asarray(_each(like, columns, fixed))


@jax.jit
def _each(like, columns, fixed):
    return jax.lax.map(lambda point: 2 * nll(like, {**fixed, **point}), columns)


def assert_is_the_lowest_mode(like, axes, other, values, atol=2 * ATOL):
    result = cevjax.scan(like, axes, free=(other,))
    assert not np.any(result.status == FAILED)
    found = chi2_at(like, mesh(axes) | flat(result.values))
    np.testing.assert_allclose(result.chi2.ravel(), found, rtol=0, atol=5 * ATOL)  # the last step is not evaluated
    above = result.chi2 - lowest_of_dense_grid(like, axes, other, values)
    assert np.max(above) < atol, f"in the higher mode at {np.argwhere(above > atol).tolist()}"
    return result


@pytest.mark.slow
def test_both_minima_of_a_charge_radius(radii):
    held, other = "r2_nu_ee", "r2_nu_mumu"
    axes = {held: np.linspace(-8e-31, 4e-31, 33)}
    result = assert_is_the_lowest_mode(radii, axes, other, np.linspace(-9e-31, 5e-31, 281))
    # the two differ: the mirror image of each point fits too
    point = {**radii.nominal(), held: 1e-31, **{n: float(x[24]) for n, x in result.values.items()}}
    assert axes[held][24] == pytest.approx(1e-31) and abs(point[other]) < 3e-31
    mirrored = cevjax.fit(radii, (other,), values={held: 1e-31}).other_minima
    assert len(mirrored) == 1 and mirrored[0].chi2 > result.chi2[24] + 0.05


@pytest.mark.slow
def test_both_bands_of_nsi_with_all_nuisances(csi_likelihood):
    like, axes = csi_likelihood(nsi=True), {"eps_uV_ee": np.linspace(-0.8, 0.8, 49)}
    assert_is_the_lowest_mode(like, axes, "eps_dV_ee", np.linspace(-1.2, 1.2, 241))


@pytest.mark.slow
def test_a_light_vector_with_its_coupling_free(csi_likelihood):
    """The coupling enters squared and may be switched off: starts over decades."""
    interaction = cevjax.StandardModel() + cevjax.LightVector(model="b-l")
    like = cevjax.Likelihood(cevjax.load(CSI, statistic="2303.09360"), interaction)
    axes = {"m_zprime": np.geomspace(1.0, 1e3, 33)}
    values = np.concatenate([[0.0], np.geomspace(1e-6, 3e-3, 200)])
    result = cevjax.scan(like, axes, free=("g_zprime",))
    dense = cevjax.scan(like, {**axes, "g_zprime": values}, exact=True)
    lowest = np.nanmin(dense.chi2, axis=1)
    assert np.max(result.chi2 - lowest) < ATOL and np.min(result.chi2 - lowest) > -0.1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "of", "axes"),
    [
        (CSI, "charge-radius", {"r2_nu_ee": RADII[::2], "r2_nu_mumu": RADII}),
        (LAR, "nsi", {"eps_uV_ee": np.linspace(-1, 1, 17), "eps_dV_ee": np.linspace(-1, 1, 33)}),
        (DRESDEN, "magnetic-moment", {"mu_nu_e": np.linspace(0, 1e-9, 65)}),
        (CONUS, "sterile", {"dm2_41": np.geomspace(0.1, 20, 33), "sin2_2theta_ee": np.linspace(0, 1, 32)}),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)  # fmt: skip
def test_folded_scans_are_exact_ones(name, of, axes):
    """Whatever spans decades, oscillates or begins somewhere; and nothing that is excluded comes back."""
    like = cevjax.Likelihood(cevjax.load(name), cevjax.StandardModel() + cevjax.interaction(of))
    result, exact = cevjax.scan(like, axes), cevjax.scan(like, axes, exact=True)
    difference, height = np.abs(result.chi2 - exact.chi2), exact.delta_chi2
    assert np.max(difference[height < 12]) < 2e-3
    assert np.max(difference[height < 30]) < 1e-2
    good = exact.status != FAILED
    assert np.all((difference < 0.1 * np.maximum(height, 1.0))[good])
    assert abs(result.chi2_min - exact.chi2_min) < ATOL


# --- points that are done again


@pytest.mark.slow
def test_points_out_of_range_are_done_by_the_exact_likelihood(csi_likelihood, monkeypatch):
    like, grid = csi_likelihood("default"), {"sin2_theta_w": np.linspace(0.1, 0.5, 12)}
    usual = cevjax.scan(like, grid)
    monkeypatch.setattr(folding, "REACH", 0.2)
    result = cevjax.scan(like, grid)
    assert result.facts["method"] == "folded" and result.facts["n_failed"] == 0
    moved = np.max([np.abs(usual.values[n]) for n in ("csi2021_qf0", "csi2021_qf1", "csi2021_efficiency")], axis=0)
    assert np.all(result.status[moved > 0.22] == RETRIED)
    assert 0 < result.facts["n_retried"] == np.sum(result.status == RETRIED)
    np.testing.assert_allclose(result.chi2, usual.chi2, atol=ATOL)


@pytest.mark.slow
def test_points_that_need_more_steps_get_them(csi_likelihood, monkeypatch):
    like, grid = csi_likelihood("2303.09360", nsi=True), {"eps_uV_ee": UP[::3], "eps_dV_ee": DOWN}
    usual = cevjax.scan(like, grid)
    monkeypatch.setattr(module, "FIRST", 1)
    monkeypatch.setattr(module, "STEPS", 1)
    result = cevjax.scan(like, grid)
    assert result.facts["n_failed"] == 0
    np.testing.assert_allclose(result.chi2, usual.chi2, atol=ATOL)


@pytest.mark.slow
def test_quasi_newton_steps_are_the_last_resort(csi_likelihood, monkeypatch):
    """If Fisher scoring got nowhere, L-BFGS-B finds the same minima, and Fisher scoring from there says so."""
    like, grid = csi_likelihood("2303.09360"), {"sin2_theta_w": [0.15, 0.3]}
    usual = cevjax.scan(like, grid)
    whole, calls = minimizer.minimize, []

    def stuck(like, where, starts, *args, **options):
        calls.append(len(starts))
        found = whole(like, where, starts, *args, **options)
        if len(starts) == 1:  # a single point comes from L-BFGS-B
            return found
        return found._replace(converged=np.zeros_like(found.converged), values=starts, nll=np.full(len(starts), 1e4))

    monkeypatch.setattr(module, "minimize", stuck)
    result = cevjax.scan(like, grid)
    assert 1 in calls and np.all(result.status == RETRIED)
    np.testing.assert_allclose(result.chi2, usual.chi2, atol=ATOL)


class Hole(Component):
    """Counts that are no numbers beyond a value of a parameter."""

    name: str = eqx.field(static=True)
    parameter: str = eqx.field(static=True)
    limit: float = eqx.field(static=True)

    def __call__(self, params, interaction):
        return jnp.where(params[self.parameter] > self.limit, jnp.nan, 1.0) * jnp.full(19, 1e-3)


def with_hole(like, parameter, limit):
    m = like.measurements[0]
    other = eqx.tree_at(lambda m: m.components, m, (*m.components, Hole("hole", parameter, limit)))
    return like.with_measurements([other])


@pytest.mark.slow
def test_points_where_there_is_no_likelihood_fail(conus):
    grid = {"eps_uV_ee": UP, "eps_dV_ee": DOWN}
    broken = with_hole(conus, "eps_dV_ee", 0.25)
    result, whole = cevjax.scan(broken, grid), cevjax.scan(with_hole(conus, "eps_dV_ee", 10.0), grid)
    lost = np.broadcast_to(DOWN > 0.25, result.chi2.shape)
    assert np.all(result.status[lost] == FAILED) and np.all(np.isnan(result.chi2[lost]))
    assert np.all(result.status[~lost] == CONVERGED)
    np.testing.assert_allclose(result.chi2[~lost], whole.chi2[~lost], atol=ATOL)
    assert result.facts["n_failed"] == lost.sum() and result.facts["n_points"] == lost.size
    assert np.isfinite(result.chi2_min) and result.best_fit["eps_dV_ee"] <= 0.25
    assert result.chi2_min <= np.min(result.chi2[~lost])


def test_failed_points_are_never_the_minimum(conus, monkeypatch):
    """However low they are."""
    grid = {"eps_uV_ee": UP, "eps_dV_ee": DOWN}
    retry = module.ScanJob._retry

    def spoil(self, points, columns):
        found = retry(self, points, columns)
        found["status"][5:9], found["chi2"][5:9] = FAILED, -100.0
        return found

    monkeypatch.setattr(module.ScanJob, "_retry", spoil)
    result = cevjax.scan(conus, grid)
    assert result.chi2_min > 0 and result.facts["n_failed"] == 4
    best = cevjax.fit(conus, ("eps_uV_ee", "eps_dV_ee"))
    assert result.best_fit == {name: best.values[name] for name in best.names}


def test_a_lower_point_of_the_grid_becomes_the_minimum(conus, monkeypatch):
    fitted = module.fit

    def stuck(*args, **options):
        found = fitted(*args, **options)
        return found.__class__(**{**found.__dict__, "chi2_min": found.chi2_min + 5})

    monkeypatch.setattr(module, "fit", stuck)
    result = cevjax.scan(conus, {"eps_uV_ee": UP, "eps_dV_ee": DOWN})
    i = np.unravel_index(np.argmin(result.chi2), result.chi2.shape)
    assert result.chi2_min == result.chi2[i] and np.min(result.delta_chi2) == 0
    assert result.best_fit["eps_uV_ee"] == UP[i[0]] and result.best_fit["eps_dV_ee"] == DOWN[i[1]]
    assert result.best_fit["conus_signal"] == result.values["conus_signal"][i]


class Steep(cevjax.Interaction):
    """A coupling beyond which there is no cross section."""

    name = "steep"

    @property
    def parameters(self):
        return (cevjax.Parameter("steepness", 0.0, bounds=(-1.0, 1.0), scale=0.1),)

    def weak_charge(self, params, nucleus, q):
        charge = jnp.log(0.5 - jnp.asarray(params["steepness"], float)) + jnp.log(2.0)
        return cevjax.flavour_diagonal(charge * jnp.ones((3, *q.shape)))


@pytest.mark.slow
def test_a_cross_section_that_is_no_number_costs_no_more_than_its_points():
    """The folded likelihood cannot be made there; what else there is must be computed."""
    like = cevjax.Likelihood(cevjax.load(CONUS), cevjax.StandardModel() + Steep())
    grid = np.linspace(-0.9, 0.9, 37)
    result = cevjax.scan(like, {"steepness": grid})
    good = grid < 0.5
    assert np.all(result.status[~good] == FAILED) and not np.any(result.status[good] == FAILED)
    profile = cevjax.profile(like, {"steepness": grid[good]})
    np.testing.assert_allclose(result.chi2[good], profile.chi2, atol=ATOL)


# --- jobs


def test_rows_and_chunks_cover_the_grid(conus):
    """Whatever the shape: each point once, in order, and batches of points of one row."""
    for shape in ((1,), (31,), (32,), (5000,), (7, 34), (200, 5), (2000, 5), (3, 100, 100), (4, 5, 6, 7), (100, 40, 2)):
        names = ("sin2_theta_w", "eps_uV_ee", "eps_dV_ee", "eps_uV_emu")[: len(shape)]
        axes = {name: np.linspace(0.1, 0.3, n) for name, n in zip(names, shape, strict=True)}
        task = fit_module.problem(conus, tuple(axes), None)
        job = module.ScanJob(conus, None, axes, task, np.zeros((2, len(task.where.names))), 0.0)
        rows, columns = job.shape
        assert rows * columns == sum(job.sizes) == np.prod(shape), shape
        assert all(size % columns == 0 for size in job.sizes) or rows == 1
        assert 0 < job.batch <= 128 and max(job.sizes) <= max(4096, 16 * columns)
        found = job.points(0, int(np.prod(shape)))
        for name, values in mesh(axes).items():
            np.testing.assert_array_equal(found[name], values)
        some = job.points(int(np.prod(shape)) - 1, 1)
        assert {name: float(x[0]) for name, x in some.items()} == {name: float(x[-1]) for name, x in axes.items()}


def test_the_same_grid_in_other_pieces_is_the_same(conus, plane, monkeypatch):
    monkeypatch.setattr(module, "ROWS", 2)
    other = cevjax.scan(conus, {"eps_uV_ee": UP, "eps_dV_ee": DOWN})
    np.testing.assert_allclose(other.chi2, plane.chi2, atol=1e-4)


def same(a, b):
    """Whether two scans are equal but for when they were made."""
    facts = [{k: v for k, v in x.facts.items() if k not in ("seconds", "created")} for x in (a, b)]
    arrays = all(np.array_equal(a.dataset[n].values, b.dataset[n].values, equal_nan=True) for n in a.dataset.variables)
    return facts[0] == facts[1] and arrays and set(a.dataset.variables) == set(b.dataset.variables)


@pytest.mark.parametrize("ending", ["nc", "zarr"])
def test_a_file_holds_what_memory_would(conus, plane, tmp_path, ending):
    path = tmp_path / f"scan.{ending}"
    result = cevjax.scan(conus, {"eps_uV_ee": UP, "eps_dV_ee": DOWN}, out=path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert same(result, plane)
    result.dataset.close()
    assert same(ScanResult.load(path), plane)
    again = cevjax.scan(conus, {"eps_uV_ee": UP[:2], "eps_dV_ee": DOWN}, out=path)  # what was there is replaced
    assert again.chi2.shape == (2, 34)
    again.dataset.close()


class Interrupt(Exception):
    pass


@pytest.fixture
def in_pieces(monkeypatch):
    """Chunks of one row; the indices of those that are computed; and what can end the scan at one of them."""
    monkeypatch.setattr(module, "ROWS", 1)
    compute, computed, ends = module.ScanJob.compute, [], []

    def noted(self, index):
        if index in ends:
            raise Interrupt
        computed.append(index)
        return compute(self, index)

    monkeypatch.setattr(module.ScanJob, "compute", noted)
    return computed, ends


def test_an_interrupted_scan_continues(conus, tmp_path, in_pieces):
    (computed, ends), path = in_pieces, tmp_path / "scan.nc"
    grid = {"eps_uV_ee": UP, "eps_dV_ee": DOWN}
    whole = cevjax.scan(conus, grid)
    assert computed == [*range(7)]
    computed.clear()
    ends.append(4)
    with pytest.raises(Interrupt):
        cevjax.scan(conus, grid, out=path)
    assert not path.exists() and (tmp_path / "scan.nc.part").is_dir()
    with pytest.raises(InvalidValueError, match=r"unfinished job: continue it with `resume`"):
        cevjax.scan(conus, grid, out=path)
    other = {"eps_uV_ee": UP, "eps_dV_ee": DOWN + 1e-3}
    with pytest.raises(InvalidValueError, match=r"belongs to another job: .*`grid.eps_dV_ee` was \[-0.3"):
        cevjax.scan(conus, other, out=path, resume=True)
    with pytest.raises(InvalidValueError, match=r"belongs to another job: .*`fixed.*sin2_theta_w"):
        cevjax.scan(conus, grid, values={"sin2_theta_w": 0.25}, out=path, resume=True)
    with pytest.raises(InvalidValueError, match=r"belongs to another job: .*hashes"):
        cevjax.scan(conus.asimov(conus.nominal()), grid, out=path, resume=True)
    with pytest.raises(InvalidValueError, match=r"belongs to another job: .*`method`"):
        cevjax.scan(conus, grid, out=path, resume=True, exact=True)
    assert computed == [0, 1, 2, 3]
    computed.clear()
    ends.clear()
    result = cevjax.scan(conus, grid, out=path, resume=True)
    assert computed == [4, 5, 6]
    assert same(result, whole)
    result.dataset.close()
    assert [p.name for p in tmp_path.iterdir()] == ["scan.nc"]


def test_resuming_what_was_never_begun_begins_it(conus, plane, tmp_path):
    result = cevjax.scan(conus, {"eps_uV_ee": UP, "eps_dV_ee": DOWN}, out=tmp_path / "scan.nc", resume=True)
    assert same(result, plane)
    result.dataset.close()


CODE = """
import json, os, sys, time
import numpy as np
import cevjax
cevjax.enable_compilation_cache()
module = sys.modules["cevjax.inference.scan"]
task = json.loads(sys.argv[1])
module.ROWS = task.get("rows", module.ROWS)
compute = module.ScanJob.compute
def noted(self, index):
    columns = compute(self, index)
    with open(task["log"], "a") as file:
        file.write(f"{index}\\n")
    time.sleep(task.get("seconds", 0.0))
    return columns
if "log" in task:
    module.ScanJob.compute = noted
interaction = cevjax.StandardModel() + cevjax.NSI()
like = cevjax.Likelihood(cevjax.load(task["name"], **task.get("choices", {})), interaction)
grid = {name: np.linspace(*ends) for name, ends in task["grid"].items()}
result = cevjax.scan(like, grid, out=task["out"], **task.get("options", {}))
import jax
with open("/proc/self/status") as file:  # that of getrusage is not below the parent's
    (peak,) = (line.split()[1] for line in file if line.startswith("VmHWM"))
print(json.dumps({"rss": int(peak), "devices": jax.local_device_count(),
                  "seconds": result.facts["seconds"], "failed": result.facts["n_failed"]}))
"""


def process(task, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", CODE, json.dumps(task)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def finish(task, seconds, **environment):
    with process(task, **environment) as running:
        try:
            output, errors = running.communicate(timeout=seconds)
        finally:
            running.kill()
    assert running.returncode == 0, errors
    return json.loads(output)


@pytest.mark.slow
def test_a_process_that_is_killed_loses_no_chunk(conus, tmp_path, in_pieces):
    """kill -9 in the middle, and another process finishes: the same file as without."""
    path, (computed, _) = tmp_path / "killed.nc", in_pieces
    task = {"name": CONUS, "grid": {"eps_uV_ee": [-0.4, 0.4, 7], "eps_dV_ee": [-0.3, 0.6, 34]}, "rows": 1}
    with process({**task, "log": str(tmp_path / "log"), "out": str(path), "seconds": 1.0}) as running:
        part, end = tmp_path / "killed.nc.part", time.monotonic() + 120
        while len(list(part.glob("chunk-*.npz"))) < 2:
            assert time.monotonic() < end and running.poll() is None, running.stderr.read()
            time.sleep(0.02)
        running.send_signal(signal.SIGKILL)
        running.wait(20)
    kept = sorted(int(p.stem.split("-")[1]) for p in part.glob("chunk-*.npz"))
    assert 2 <= len(kept) < 7 and not path.exists()
    grid = {"eps_uV_ee": UP, "eps_dV_ee": DOWN}
    result = cevjax.scan(conus, grid, out=path, resume=True)
    assert computed == [i for i in range(7) if i not in kept]
    assert same(result, cevjax.scan(conus, grid))
    result.dataset.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["killed.nc", "log"]


@pytest.mark.slow
def test_a_file_can_be_killed_and_resumed_by_other_processes(tmp_path):
    """All of it in processes of their own, with many nuisances, and killed twice."""
    path, log = tmp_path / "killed.zarr", tmp_path / "log"
    task = {
        "name": CSI,
        "grid": {"eps_uV_ee": [-0.4, 0.4, 6], "eps_dV_ee": [-0.3, 0.6, 40]},
        "rows": 1,
        "log": str(log),
    }
    for count in (1, 3):
        with process({**task, "out": str(path), "seconds": 1.0, "options": {"resume": True}}) as running:
            end = time.monotonic() + 240
            while len(list(tmp_path.glob("killed.zarr.part/chunk-*.npz"))) < count:
                assert time.monotonic() < end and running.poll() is None, running.stderr.read()
                time.sleep(0.02)
            running.kill()
    finish({**task, "out": str(path), "options": {"resume": True}}, 240)
    done = [int(x) for x in log.read_text().split()]
    assert sorted(set(done)) == [*range(6)] and len(done) <= 8  # one at most each time
    finish({**task, "out": str(tmp_path / "whole.nc")}, 240)
    assert same(ScanResult.load(path), ScanResult.load(tmp_path / "whole.nc"))


@pytest.mark.slow
def test_workers_change_not_a_bit(tmp_path):
    pytest.importorskip("distributed")
    like = cevjax.Likelihood(cevjax.load(CONUS), cevjax.StandardModel() + cevjax.NSI())
    grid = {"eps_uV_ee": np.linspace(-0.5, 0.5, 48), "eps_dV_ee": np.linspace(-0.4, 0.6, 40)}
    alone = cevjax.scan(like, grid)
    shared = cevjax.scan(like, grid, out=tmp_path / "scan.nc", workers=2)
    assert same(alone, shared)
    shared.dataset.close()
    assert not jobs._WORKERS


@pytest.mark.slow
def test_several_devices_find_the_same(tmp_path):
    task = {
        "name": CSI, "choices": {"statistic": "2303.09360"},
        "grid": {"eps_uV_ee": [-0.4, 0.4, 20], "eps_dV_ee": [-0.3, 0.6, 37]},
    }  # fmt: skip
    found = []
    for count in (1, 4):
        out = tmp_path / f"{count}.nc"
        flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={count}"}
        assert finish({**task, "out": str(out)}, 300, **flags)["devices"] == count
        found.append(ScanResult.load(out))
    np.testing.assert_allclose(found[1].chi2, found[0].chi2, rtol=0, atol=1e-9)
    assert np.array_equal(found[0].status, found[1].status)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_grid(tmp_path):
    """A million points stay below 2 GB, and as many as a quarter of a million take no less."""
    rss = []
    for n in (500, 1000):
        task = {"name": CONUS, "grid": {"eps_uV_ee": [-1, 1, n], "eps_dV_ee": [-1, 1, n]}}
        done = finish({**task, "out": str(tmp_path / f"{n}.nc")}, 1200)
        assert done["failed"] == 0
        rss.append(done["rss"] / 2**20)  # GiB
    assert rss[1] < 2
    assert rss[1] < 1.5 * rss[0]
    with ScanResult.open(tmp_path / "1000.nc").dataset as dataset:
        assert dataset["chi2"].shape == (1000, 1000)
        assert np.isfinite(dataset["chi2"][::100].values).all()


HANG = """
import sys
import numpy as np
import cevjax
from cevjax.inference import minimize as m
from cevjax.inference.fit import problem
cevjax.enable_compilation_cache()
names = ("coherent-csi-2021", "coherent-lar-2020", "dresden-ii-2022")
like = cevjax.Likelihood([cevjax.load(n) for n in names], cevjax.StandardModel() + cevjax.NSI())
task = problem(like, ("eps_uV_ee", "eps_dV_ee"), None)
rng = np.random.default_rng(0)
for k in range(int(sys.argv[1])):
    starts = np.tile([like.parameters[n].nominal for n in task.where.names], (16, 1))
    starts[:, :2] = rng.uniform(-0.5, 0.5, (16, 2))
    found = m.minimize(like, task.where, starts, task.fixed, ("eps_uV_ee", "eps_dV_ee"), tolerance=1e-4)
    assert np.all(found.converged), k
    print(k, flush=True)
"""


@pytest.mark.slow
def test_batches_of_the_joint_likelihood_never_hang():
    """Threads of XLA that wait for each other within a loop come up once in some hundred batches."""
    with subprocess.Popen([sys.executable, "-c", HANG, "40"], stdout=subprocess.PIPE, text=True) as running:
        try:
            output, _ = running.communicate(timeout=1500)
        finally:
            running.kill()
    assert running.returncode == 0
    assert output.split()[-1] == "39"
