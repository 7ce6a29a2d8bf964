"""The likelihood of each data set at its nominal point, to 1e-8: a change here is a change of physics or data."""

import pytest

NLL = {
    "default": 42.52723924550217,
    "2211.11905": 42.31863252387054,
    "2211.11905-shape": 42.31863252387062,
    "2303.09360": 42.5272392455022,
}


@pytest.mark.parametrize("statistic", NLL)
def test_coherent_csi_2021(csi_likelihood, statistic):
    like = csi_likelihood(statistic)
    assert float(like.nll(like.nominal())) == pytest.approx(NLL[statistic], rel=1e-8)
