"""Results as ArviZ InferenceData: what is in them, whether they are good, evidence of nested models, files, figures."""

import json

import arviz as az
import jax
import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import stats

import cevjax
from cevjax import plots, posterior_plots, posteriors
from cevjax.errors import CevjaxError

DATA = "coherent-csi-2021"


@pytest.fixture(scope="module")
def like(csi_likelihood):
    return csi_likelihood("2303.09360", nsi=True)


@pytest.fixture(scope="module")
def result(like):
    return cevjax.sample(like, ("eps_dV_ee",), draws=600, seed=1)


def test_groups(like, result):
    expected = {"posterior", "sample_stats", "log_likelihood", "posterior_predictive", "prior", "prior_predictive"}
    assert set(result.groups()) == expected | {"observed_data", "constant_data"}
    m = like.measurements[0]
    np.testing.assert_array_equal(result.observed_data[DATA].values, m.observed)
    assert result.posterior_predictive[DATA].shape[2:] == m.shape
    for axis, edges in m.axes:
        np.testing.assert_allclose(result.constant_data[f"{DATA}_{axis}_edges"].values, edges)
    assert result.posterior["eps_dV_ee"].attrs["long_name"] == like.parameters["eps_dV_ee"].latex


def test_log_likelihood_and_predictions_are_those_of_the_draws(like, result):
    """At some draws, by the likelihood itself."""
    group = result.log_likelihood
    for chain, draw in ((0, 0), (3, 5)):
        number = int(group["draw"].values[draw])
        point = {n: float(x.values[chain, number]) for n, x in result.posterior.data_vars.items()}
        full = like.nominal(**point)
        constraints = sum(
            0.5 * ((full[p.name] - p.constraint.mean) / p.constraint.sigma) ** 2 for p in like.constrained
        )
        assert float(-group[DATA].values[chain, draw].sum()) == pytest.approx(
            float(like.nll(full)) - constraints, abs=5e-3
        )
        expected = np.sum(list(like.expected(full)[DATA].values()), axis=0)
        np.testing.assert_allclose(
            result.posterior_predictive[f"{DATA}_expected"].values[chain, draw], expected, rtol=2e-3
        )
    seen, expected = (result.posterior_predictive[n].values for n in (DATA, f"{DATA}_expected"))
    pull = (seen - expected) / np.sqrt(expected)
    assert np.mean(pull) == pytest.approx(0, abs=0.02)
    assert np.var(pull) == pytest.approx(1, abs=0.03)


def test_prior_group_follows_the_priors(result):
    x = result.prior["eps_dV_ee"].values.ravel()
    low, high = posteriors.prior_of(result, "eps_dV_ee").support
    assert stats.kstest(x, stats.uniform(low, high - low).cdf).pvalue > 1e-3


def test_facts(result):
    facts = posteriors.facts_of(result)
    assert facts["datasets"] == [DATA] and facts["seed"] == 1 and facts["free"] == ["eps_dV_ee"]
    assert facts["priors"]["eps_dV_ee"] == "flat:-1:1"
    assert facts["hashes"].keys() == {DATA} and facts["cevjax"]
    with pytest.raises(CevjaxError, match="must be what cevjax.sample returned"):
        posteriors.facts_of(az.from_dict(posterior={"x": np.zeros((1, 10))}))


def test_summary_agrees_with_arviz(result):
    table = az.summary(result, var_names=["eps_dV_ee"], hdi_prob=0.9, round_to="none")
    row = posteriors.summary(result)["eps_dV_ee"]
    for mine, theirs in (("mean", "mean"), ("ess_bulk", "ess_bulk"), ("ess_tail", "ess_tail"), ("r_hat", "r_hat")):
        assert row[mine] == pytest.approx(table[theirs].iloc[0], rel=1e-9)
    assert len(row["hdi90_pieces"]) == 2  # two solutions


def test_pieces_of_known_distributions():
    rng = np.random.default_rng(1)
    ((low, high),) = posteriors.pieces(rng.normal(3.0, 2.0, 20_000), 0.6827)
    assert (low, high) == (pytest.approx(1.0, abs=0.1), pytest.approx(5.0, abs=0.1))
    ((low, high),) = posteriors.pieces(rng.uniform(0, 1, 20_000), 0.9999)
    assert (low, high) == (pytest.approx(0, abs=0.01), pytest.approx(1, abs=0.01))
    ((low, high),) = posteriors.pieces(rng.exponential(1.0, 20_000), 0.9)
    assert (low, high) == (pytest.approx(0, abs=0.05), pytest.approx(np.log(10), abs=0.1))
    narrow = posteriors.pieces(rng.normal([-5.0, 5.0], 0.05, (2000, 2)).ravel(), 0.9)
    assert len(narrow) == 2 and narrow[0][1] < -4.8 and narrow[1][0] > 4.8
    assert posteriors.pieces(np.full(10, 2.0), 0.9) == [[2.0, 2.0]]


# ---------------------------------------------------------------------------------------------------------------- good


def test_a_good_run_is_not_complained_about(result):
    assert posteriors.judge(result) == []


def test_complaints_say_what_and_where(result):
    """Chains that sit in different modes, few draws, and divergences."""
    bad = result.copy()
    x = bad.posterior["eps_dV_ee"].values
    x[0] += 1.0
    (complaint,) = [c for c in posteriors.judge(bad) if "disagree" in c]
    assert "eps_dV_ee" in complaint and "R-hat" in complaint
    short = result.sel(draw=slice(0, 19), groups=["posterior", "sample_stats"])
    short.attrs = result.attrs
    assert any("too few independent draws" in c for c in posteriors.judge(short))
    wild = result.copy()
    wild.sample_stats["diverging"].values[:, ::3] = True
    assert any("diverge" in c for c in posteriors.judge(wild))
    stuck = result.copy()
    stuck.sample_stats["jumped"].values[:] = False
    assert any("jump" in c for c in posteriors.judge(stuck))


# ------------------------------------------------------------------------------------------------------------ evidence


def test_savage_dickey_agrees_with_the_evidence_of_the_nested_model(like, result):
    """Posterior over prior density at zero, evidence of the standard model over that of all, and the histogram."""
    log_b, error = posteriors.savage_dickey(like, result, {"eps_dV_ee": 0.0})
    nested = cevjax.sample(like, (), draws=500, seed=2)
    other, uncertain = posteriors.bayes_factor(nested, result)
    assert error < 0.03 and uncertain < 0.03
    assert log_b == pytest.approx(other, abs=4 * np.hypot(error, uncertain))
    x = result.posterior["eps_dV_ee"].values.ravel()
    near = np.mean(np.abs(x) < 0.02) / 0.04
    assert log_b == pytest.approx(np.log(near / 0.5), abs=0.35)


def test_savage_dickey_far_from_the_draws(like, result):
    """Where no draw is: Laplace's approximation of the integrals over the nuisances, by profile and Hessian."""
    far, _ = posteriors.savage_dickey(like, result, {"eps_dV_ee": 0.75})
    here, _ = posteriors.savage_dickey(like, result, {"eps_dV_ee": 0.0})
    scan = cevjax.scan(like, {"eps_dV_ee": [0.0, 0.75]})
    names = list(scan.values)
    laplace = []
    for i, value in enumerate((0.0, 0.75)):
        point = like.nominal(eps_dV_ee=value)
        hessian = jax.hessian(lambda x, point=point: like.nll({**point, **dict(zip(names, x, strict=True))}))
        curvature = np.asarray(hessian(np.array([scan.values[n][i] for n in names])))
        laplace.append(-0.5 * scan.chi2[i] - 0.5 * np.linalg.slogdet(curvature)[1])
    assert far - here == pytest.approx(laplace[1] - laplace[0], abs=0.3)
    assert far < -20


def test_savage_dickey_bad_input(like, result):
    with pytest.raises(CevjaxError, match="Did you mean 'eps_dV_ee'"):
        posteriors.savage_dickey(like, result, {"eps_dV_e": 0.0})
    with pytest.raises(CevjaxError, match="its prior flat:-1:1 allows"):
        posteriors.savage_dickey(like, result, {"eps_dV_ee": 1.5})
    with pytest.raises(CevjaxError, match="is empty"):
        posteriors.savage_dickey(like, result, {})


def test_bayes_factor_of_other_data(like, result):
    moved = like.asimov(like.nominal(eps_dV_ee=0.3))
    other = cevjax.sample(moved, (), chains=1, draws=20, seed=1)
    with pytest.raises(CevjaxError, match="the data differ"):
        posteriors.bayes_factor(result, other)


def test_information_criteria(result):
    """Leave-one-out against the definition: the harmonic mean of the likelihood of each bin, where that is tame."""
    found = posteriors.information_criteria(result)
    group = result.log_likelihood[DATA].values.reshape(-1, result.observed_data[DATA].size)
    naive = -np.sum(np.log(np.mean(np.exp(-group), axis=0)))
    assert found["elpd_loo"] == pytest.approx(naive, abs=0.1)
    assert found["elpd_waic"] == pytest.approx(found["elpd_loo"], abs=0.2)
    assert found["loo_bad"] == 0


# --------------------------------------------------------------------------------------------------------------- files


def test_file(result, like, tmp_path):
    path = posteriors.save(result, tmp_path / "posterior.nc")
    again = posteriors.load(path)
    for group in result.groups():
        for name, x in result[group].data_vars.items():
            np.testing.assert_array_equal(again[group][name].values, x.values)
    assert posteriors.to_dict(again, like) == posteriors.to_dict(result, like)
    json.dumps(posteriors.to_dict(again, like))
    assert az.from_netcdf(str(path), engine="h5netcdf").posterior.sizes["draw"] == 600


def test_bad_files(tmp_path):
    with pytest.raises(CevjaxError, match="does not exist"):
        posteriors.load(tmp_path / "none.nc")
    (tmp_path / "text.nc").write_text("no netCDF")
    with pytest.raises(CevjaxError, match="cannot be read"):
        posteriors.load(tmp_path / "text.nc")
    az.from_dict(posterior={"x": np.zeros((1, 10))}).to_netcdf(str(tmp_path / "other.nc"), engine="h5netcdf")
    with pytest.raises(CevjaxError, match="must be that of a posterior"):
        posteriors.load(tmp_path / "other.nc")


# ------------------------------------------------------------------------------------------------------------- figures


def test_figures(result, like, tmp_path):
    """Each is drawn and written; what it shows is looked at in the tests below."""
    scan = cevjax.scan(like, {"eps_dV_ee": np.linspace(-0.3, 0.6, 12), "eps_uV_ee": np.linspace(-0.1, 0.1, 12)})
    assert scan.chi2.shape == (12, 12)
    figures = {
        "corner": posterior_plots.corner(result),
        "nuisances": posterior_plots.corner(result, ["eps_dV_ee", *posteriors.facts_of(result)["nuisances"][:2]]),
        "trace": posterior_plots.trace(result),
        "predictive": posterior_plots.predictive(result),
    }
    for name, figure in figures.items():
        assert isinstance(figure, Figure)
        plots.save(figure, tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
    with pytest.raises(CevjaxError, match="eps_uV_ee"):
        posterior_plots.over_profile(result, scan)
    with pytest.raises(CevjaxError, match="Did you mean"):
        posterior_plots.corner(result, ["eps_dV_e"])
    with pytest.raises(CevjaxError, match="data set"):
        posterior_plots.predictive(result, "coherent-lar-2020")


def test_predictive_bands_hold_the_data(result):
    """The data of nearly all bins lie within 95 % of what would be seen."""
    ax = posterior_plots.predictive(result).axes[0]
    data = result.observed_data[DATA].sum(f"{DATA}_t_us").values
    edges = result.constant_data[f"{DATA}_PE_edges"].values
    wide = next(p for p in ax.patches if p.get_label() == "seen, 95 %")
    upper, _, lower = wide.get_data()
    inside = (lower <= data / np.diff(edges)) & (data / np.diff(edges) <= upper)
    assert np.sum(~inside) <= 1


def test_the_densest_region_holds_its_part_of_the_draws(result):
    names = ("eps_dV_ee", posteriors.facts_of(result)["nuisances"][0])
    axes, density, at_draws = posterior_plots.density(result, names)
    assert np.sum(density) * np.prod([x[1] - x[0] for x in axes]) == pytest.approx(1, abs=0.02)
    for cl in (0.3, 0.68, 0.9):
        assert np.mean(at_draws > posterior_plots.height(at_draws, cl)) == pytest.approx(cl, abs=1e-3)
