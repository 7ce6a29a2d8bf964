"""The likelihood of each data set at its nominal point, to 1e-8: a change here is a change of physics or data."""

import pytest

import cevjax
from cevjax.registry import dataset_names

NLL = {
    ("coherent-csi-2017", "default"): 76.84017005909206,
    ("coherent-csi-2017", "2005.01645"): 1.5741552561159486,
    ("coherent-csi-2017", "1711.09773"): 0.9434820438733077,
    ("coherent-csi-2021", "default"): 42.52723924550217,
    ("coherent-csi-2021", "2211.11905"): 42.31863252387054,
    ("coherent-csi-2021", "2211.11905-shape"): 42.31863252387062,
    ("coherent-csi-2021", "2211.11905-window"): 42.65754828581984,
    ("coherent-csi-2021", "2303.09360"): 42.5272392455022,
    ("coherent-lar-2020", "default"): 540.0853725034299,
    ("coherent-lar-2020", "2211.11905"): 72.94048859448385,
    ("coherent-lar-2020", "2005.01645"): 4.958425859495268,
    ("coherent-lar-2020", "2003.10630"): 538.1979370580941,
    ("conus-plus-2025", "default"): 3.6934185425089674,
    ("conus-plus-2025", "2501.17843"): 3.6934185425089674,
    ("dresden-ii-2022", "default"): 53.9115210527452,
    ("dresden-ii-2022", "2205.09484"): 55.535526841070705,
}


@pytest.mark.parametrize(("name", "statistic"), NLL)
def test_value(name, statistic):
    like = cevjax.Likelihood([cevjax.load(name, statistic=statistic)], cevjax.StandardModel())
    assert float(like.nll(like.nominal())) == pytest.approx(NLL[name, statistic], rel=1e-8)


def test_every_statistic_of_every_data_set_has_its_value():
    from cevjax.datasets import statistics

    assert set(NLL) == {(name, statistic) for name in dataset_names() for statistic in statistics(name)}
