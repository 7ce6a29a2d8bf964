"""The profile likelihood against brute force."""

import numpy as np
import pytest

import cevjax
from cevjax.errors import InvalidValueError, UnknownNameError


def test_profile_is_the_minimum_over_the_nuisances(csi_likelihood):
    from scipy.optimize import minimize

    like = csi_likelihood("2303.09360")
    result = cevjax.profile(like, {"sin2_theta_w": [0.19, 0.26]})
    for i, s2w in enumerate([0.19, 0.26]):
        fixed = {**like.nominal(), "sin2_theta_w": s2w}

        def chi2(x, fixed=fixed):
            return float(like.chi2({**fixed, **dict(zip(like.nuisances, map(float, x), strict=True))}))

        brute = minimize(
            chi2, np.zeros(len(like.nuisances)), method="Nelder-Mead", options={"fatol": 1e-9, "maxfev": 4000}
        )
        assert result.chi2[i] == pytest.approx(brute.fun, abs=1e-5)
    assert np.all(result.converged)


def test_profile_over_a_second_coupling_takes_the_lower_of_two_modes(csi_likelihood):
    """At each eps_dV_ee two values of eps_uV_ee fit: compare with a dense grid in eps_uV_ee."""
    like = csi_likelihood("2303.09360", nsi=True)
    points = np.array([-0.3, 0.1, 0.4])
    result = cevjax.profile(like, {"eps_dV_ee": points}, free=("eps_uV_ee",))
    grid = np.linspace(-1, 1, 161)
    for i, point in enumerate(points):
        dense = cevjax.profile(like, {"eps_dV_ee": np.full(len(grid), point), "eps_uV_ee": grid})
        assert result.chi2[i] <= dense.chi2.min() + 1e-6
        assert result.chi2[i] == pytest.approx(dense.chi2.min(), abs=0.05)


def test_unusable_points(csi_likelihood):
    like = csi_likelihood("2303.09360", nsi=True)
    with pytest.raises(InvalidValueError, match="columns of one length"):
        cevjax.profile(like, {"eps_dV_ee": [0.0, 0.1], "eps_uV_ee": [0.0]})
    with pytest.raises(InvalidValueError, match="columns of one length"):
        cevjax.profile(like, {})
    with pytest.raises(InvalidValueError, match=r"between 0 and 1, but was 1\.2"):
        cevjax.profile(like, {"sin2_theta_w": [0.2, 1.2]})
    with pytest.raises(InvalidValueError, match="must be finite"):
        cevjax.profile(like, {"sin2_theta_w": [0.2, np.nan]})
    with pytest.raises(UnknownNameError, match="Did you mean 'sin2_theta_w'"):
        cevjax.profile(like, {"sin2_thetaw": [0.2]})
