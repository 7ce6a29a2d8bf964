"""Intervals: the ends are roots, all pieces are found, open ends are said to be open."""

import importlib

import numpy as np
import pytest
from scipy.stats import chi2 as chi2_distribution

import cevjax
from cevjax.errors import InvalidValueError, UnknownNameError


@pytest.mark.parametrize("cl", [0.6827, 0.90, 0.9973])
def test_ends_lie_on_the_threshold(csi_likelihood, cl):
    like = csi_likelihood("2303.09360")
    result = cevjax.interval(like, "sin2_theta_w", cl=cl)
    assert result.converged and len(result.intervals) == 1
    at_ends = cevjax.profile(like, {"sin2_theta_w": result.intervals[0]}).chi2
    np.testing.assert_allclose(at_ends - result.chi2_min, chi2_distribution.ppf(cl, 1), atol=1e-5)


@pytest.mark.slow
def test_both_pieces_of_a_quadratic_coupling(csi_likelihood):
    like = csi_likelihood("2211.11905", nsi=True)
    result = cevjax.interval(like, "eps_dV_ee", cl=0.90)
    assert len(result.intervals) == 2
    grid = np.linspace(-0.3, 0.7, 401)
    allowed = cevjax.profile(like, {"eps_dV_ee": grid}).chi2 < result.chi2_min + chi2_distribution.ppf(0.90, 1)
    inside = np.zeros(len(grid), bool)
    for low, high in result.intervals:
        inside |= (grid >= low) & (grid <= high)
    np.testing.assert_array_equal(inside, allowed)


def test_pieces_merge_at_a_higher_level(csi_likelihood):
    like = csi_likelihood("2211.11905", nsi=True)
    result = cevjax.interval(like, "eps_dV_ee", cl=0.9999)
    assert len(result.intervals) == 1


def test_an_open_end_is_null(csi_likelihood):
    """Nothing limits a coupling that only tau neutrinos feel."""
    result = cevjax.interval(csi_likelihood("2303.09360", nsi=True), "eps_uV_tautau", cl=0.90)
    assert result.intervals == [[None, None]]


def test_an_end_at_a_physical_bound_is_open(csi_likelihood):
    """With few events expected, any small radius is allowed at high confidence: the interval ends at the bound."""
    like = csi_likelihood("2303.09360")
    result = cevjax.interval(like.asimov(like.nominal(R_n_CsI=2.2)), "R_n_CsI", cl=0.95)
    ((low, high),) = result.intervals
    assert low is None and 2.2 < high < 6


def test_gaussian_limit_of_the_ends(csi_likelihood):
    """On Asimov data the 1 sigma interval is best fit +- error up to the curvature's change."""
    like = csi_likelihood("2303.09360")
    asimov = like.asimov(like.nominal())
    fit = cevjax.fit(asimov, free=("sin2_theta_w",))
    ((low, high),) = cevjax.interval(asimov, "sin2_theta_w", cl=0.6827).intervals
    assert (high - low) / 2 == pytest.approx(fit.errors["sin2_theta_w"], rel=0.02)


def test_profile_of_the_result_is_dense_around_the_pieces(csi_likelihood):
    result = cevjax.interval(csi_likelihood("2303.09360"), "sin2_theta_w", cl=0.90)
    x = result.profile.points["sin2_theta_w"]
    ((low, high),) = result.intervals
    assert np.all(np.diff(x) > 0)
    assert np.sum((x >= low) & (x <= high)) >= 16
    assert result.profile.chi2.min() == pytest.approx(result.chi2_min, abs=1e-9)


@pytest.mark.parametrize("cl", [0.0, 1.0, -0.1, 90.0, np.nan])
def test_unusable_confidence_levels(csi_likelihood, cl):
    with pytest.raises(InvalidValueError, match="`cl` must be between 0 and 1"):
        cevjax.interval(csi_likelihood("2303.09360"), "sin2_theta_w", cl=cl)


def test_unknown_parameter(csi_likelihood):
    with pytest.raises(UnknownNameError, match="Did you mean 'sin2_theta_w'"):
        cevjax.interval(csi_likelihood("2303.09360"), "sin2_thetaw")


@pytest.mark.slow
def test_what_limits_an_interval_is_said(csi_likelihood):
    like = csi_likelihood("2303.09360", nsi=True)
    assert "does not depend on eps_uV_tautau" in cevjax.interval(like, "eps_uV_tautau").message
    assert cevjax.interval(like, "eps_dV_ee").message == ""
    both = cevjax.interval(like, "eps_dV_ee", free=("eps_uV_ee",))
    assert "eps_uV_ee is at its bound" in both.message


def new_physics(model):
    return cevjax.Likelihood([cevjax.load("coherent-csi-2021", statistic="2211.11905")], cevjax.StandardModel() + model)


@pytest.mark.slow
def test_a_degenerate_pair_is_open_in_one_piece():
    """Whatever the coupling, some mass makes it harmless: a minimisation that gets stuck must not cut the interval."""
    result = cevjax.interval(new_physics(cevjax.LightVector("b-l")), "g_zprime", free=("m_zprime",))
    assert result.intervals == [[None, None]]
    assert result.converged


@pytest.mark.slow
def test_a_heavy_mediator_is_open_upwards():
    """An independent scan puts the lower end at 98.80 MeV."""
    result = cevjax.interval(new_physics(cevjax.LightVector("b-l")), "m_zprime", values={"g_zprime": 1e-4})
    ((low, high),) = result.intervals
    assert low == pytest.approx(98.80, abs=0.01) and high is None and result.converged


@pytest.mark.slow
def test_a_jump_is_not_a_root(monkeypatch):
    """A profile with a step across the threshold cannot be trusted, and says so."""
    like = new_physics(cevjax.LightVector("b-l"))
    module = importlib.import_module("cevjax.inference.intervals")
    real = module.minimize

    def stuck(*args, **kwargs):
        out = real(*args, **kwargs)
        return out._replace(nll=np.where(out.values[:, 0] > 3e-5, out.nll + 50, out.nll))

    monkeypatch.setattr(module, "minimize", stuck)
    monkeypatch.setattr(importlib.import_module("cevjax.inference.profile"), "minimize", stuck)
    assert not cevjax.interval(like, "g_zprime", values={"m_zprime": 10.0}).converged


def test_several_levels_share_one_profile(csi_likelihood):
    like = csi_likelihood("2303.09360", nsi=True)
    levels = (0.6827, 0.9, 0.9545)
    together = cevjax.interval(like, "eps_dV_ee", levels)
    assert (
        together.cl == 0.6827 and together.intervals == together.levels[0.6827] and list(together.levels) == [*levels]
    )
    for cl in levels:
        alone = cevjax.interval(like, "eps_dV_ee", cl)
        np.testing.assert_allclose(together.levels[cl], alone.intervals, rtol=1e-6, atol=1e-8)
        assert alone.levels == {cl: alone.intervals} and "levels" not in alone.to_dict()
    found = together.to_dict()["levels"]
    assert [entry["cl"] for entry in found] == [*levels] and found[2]["intervals"] == together.levels[0.9545]


@pytest.mark.parametrize("cl", [(), (0.9, 1.0), (0.0,)])
def test_impossible_levels(csi_likelihood, cl):
    with pytest.raises(InvalidValueError, match="`cl`"):
        cevjax.interval(csi_likelihood("2303.09360"), "sin2_theta_w", cl=cl)


@pytest.mark.slow
@pytest.mark.parametrize("poi", ["r2_nu_mumu"])
def test_minima_of_another_mode_leave_no_gap(poi):
    """Small and large nuclei fit: the lowest fit with the one may lie where the profile is that of the other."""
    argon = cevjax.load("coherent-lar-2020", statistic="2005.01645")
    like = cevjax.Likelihood([argon], cevjax.StandardModel() + cevjax.ChargeRadius())
    others = [n for n in ("r2_nu_ee", "r2_nu_mumu", "r2_nu_emu", "r2_nu_etau", "r2_nu_mutau") if n != poi]
    result = cevjax.interval(like, poi, cl=0.6827, free=[*others, "R_n_Ar40"])
    assert result.converged and len(result.intervals) == 1
    assert any(other.chi2 > result.chi2_min + 1 for other in result.fit.other_minima)
    inside = [low < x < high for (low, high) in result.intervals for x in result.profile.points[poi]]
    assert np.all(result.profile.chi2[inside] < result.chi2_min + 1 + 1e-4)  # the ends are roots


def test_a_physical_limit_holds_the_best_fit(csi_likelihood):
    """Counted from the lowest value that is allowed: the end is where chi2 is higher than there by the threshold."""
    like = csi_likelihood("2303.09360")
    for within in ((0.26, None), (0.26, 0.9)):
        result = cevjax.interval(like, "sin2_theta_w", cl=0.6827, within=within)
        ((low, high),) = result.intervals
        assert result.converged and result.best_fit == 0.26 and low is None
        chi2 = cevjax.profile(like, {"sin2_theta_w": [0.26, high]}).chi2
        assert chi2[1] - chi2[0] == pytest.approx(1.0, abs=1e-4) and result.chi2_min == pytest.approx(chi2[0])
    free, around = (cevjax.interval(like, "sin2_theta_w", within=w) for w in ((None, None), (0.05, 0.6)))
    np.testing.assert_allclose(around.intervals, free.intervals, rtol=1e-6)


@pytest.mark.parametrize("within", [(0.3, 0.2), (-0.1, None), (None, 1.5), (0.2, 0.2)])
def test_impossible_limits(csi_likelihood, within):
    with pytest.raises(InvalidValueError, match=r"`within` must be a range of `sin2_theta_w`, which may be 0 to 1,"):
        cevjax.interval(csi_likelihood("2303.09360"), "sin2_theta_w", within=within)
