"""Published results on COHERENT CsI and LAr together (arXiv:2211.11905). What does not agree is explained in the README
of the study experiments/coherent-lar-2020."""

import pytest

import cevjax

pytestmark = pytest.mark.slow

ROWS = {  # label: interaction, free parameters, published chi2_min less that of the standard model, 189.7
    "sin2_theta_w": (None, ("sin2_theta_w",), 0.0),
    "moments": (cevjax.MagneticMoment(), ("mu_nu_e", "mu_nu_mu"), -0.1),
    "nsi_ee": (cevjax.NSI(), ("eps_dV_ee", "eps_uV_ee"), -0.8),
    "nsi_mumu": (cevjax.NSI(), ("eps_dV_mumu", "eps_uV_mumu"), -1.2),
    "b_minus_l": (cevjax.LightVector(model="b-l"), ("g_zprime", "m_zprime"), -0.1),
}
MISSED = {("moments", "2211.11905"): "1.01 below the standard model, published 0.1"}


def joint(csi, interaction=None, es=False):
    data = [
        cevjax.load("coherent-csi-2021", statistic=csi, es=es),
        cevjax.load("coherent-lar-2020", statistic="2211.11905"),
    ]
    return cevjax.Likelihood(data, cevjax.StandardModel() + interaction if interaction else cevjax.StandardModel())


@pytest.fixture(scope="module")
def standard():
    return {csi: cevjax.fit(joint(csi)).chi2_min for csi in ("2211.11905", "2211.11905-shape")}


def test_standard_model(standard):
    """2211.11905: 189.7. The reference implementations give 190.9 and 187.4 (with slightly different signals)."""
    assert standard["2211.11905"] == pytest.approx(189.7, abs=4)
    assert standard["2211.11905-shape"] == pytest.approx(189.7, abs=4)


CASES = [
    pytest.param(
        row, csi, marks=[pytest.mark.xfail(strict=True, reason=MISSED[row, csi])] if (row, csi) in MISSED else []
    )
    for csi in ("2211.11905", "2211.11905-shape")
    for row in ROWS
]


@pytest.mark.parametrize(("row", "csi"), CASES)
def test_falls_of_chi2(standard, row, csi):
    interaction, free, published = ROWS[row]
    fall = cevjax.fit(joint(csi, interaction), free).chi2_min - standard[csi]
    assert fall == pytest.approx(published, abs=0.6)


def limit(es, name):
    like = joint("2211.11905-shape", cevjax.MagneticMoment(), es)
    ((_, high),) = cevjax.interval(like, name, cl=0.90).intervals
    return high


@pytest.mark.parametrize(
    ("es", "name", "published"),
    [
        (True, "mu_nu_e", 3.6e-9),
        (True, "mu_nu_mu", 2.4e-9),
        (False, "mu_nu_mu", 2.6e-9),
        pytest.param(
            False,
            "mu_nu_e",
            3.8e-9,
            marks=pytest.mark.xfail(strict=True, reason="4.21e-9, 10.8 % above; CsI alone gives 4.11e-9"),
        ),
    ],
)
def test_magnetic_moments(es, name, published):
    """90 % CL, timing and efficiency of CsI free."""
    assert limit(es, name) == pytest.approx(published, rel=0.10)


def test_magnetic_moment_without_electrons_is_where_the_study_says():
    assert limit(False, "mu_nu_e") == pytest.approx(4.21e-9, rel=2e-3)
