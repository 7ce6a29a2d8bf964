"""Published results on COHERENT CsI and LAr together (arXiv:2211.11905), in the reading that comes closest to them.

The whole of the paper, and what does not agree, is in the study experiments/2211.11905.
"""

import pytest

import cevjax

pytestmark = pytest.mark.slow

ROWS = {  # label: interaction, free parameters, published chi2_min less that of the standard model, 189.7
    "nsi_ee": (cevjax.NSI(), ("eps_dV_ee", "eps_uV_ee"), -0.8),
    "nsi_mumu": (cevjax.NSI(), ("eps_dV_mumu", "eps_uV_mumu"), -1.2),
}


def joint(interaction=None, es=False):
    data = [
        cevjax.load("coherent-csi-2021", statistic="2211.11905-window", es=es),
        cevjax.load("coherent-lar-2020", statistic="2211.11905"),
    ]
    return cevjax.Likelihood(data, cevjax.StandardModel() + interaction if interaction else cevjax.StandardModel())


@pytest.fixture(scope="module")
def standard():
    return cevjax.fit(joint()).chi2_min


@pytest.mark.xfail(strict=True, reason="187.69: 2.0 too low, as CsI alone is by 2.4 (README of the study)")
def test_standard_model(standard):
    assert standard == pytest.approx(189.7, abs=1.0)


@pytest.mark.parametrize("row", ROWS)
def test_falls_of_chi2(standard, row):
    interaction, free, published = ROWS[row]
    assert cevjax.fit(joint(interaction), free).chi2_min - standard == pytest.approx(published, abs=0.45)


@pytest.mark.parametrize(("es", "name", "published"), [(True, "mu_nu_e", 3.6e-9), (False, "mu_nu_mu", 2.6e-9)])
def test_magnetic_moments(es, name, published):
    """90 % CL."""
    ((_, high),) = cevjax.interval(joint(cevjax.MagneticMoment(), es), name, cl=0.90).intervals
    assert high == pytest.approx(published, rel=0.06)
