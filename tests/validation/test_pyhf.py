"""The counting model of two backgrounds with linear normalisations, in pyhf."""

import jax.numpy as jnp
import numpy as np
import pytest

import cevjax
from cevjax.measurement import Background, Measurement, Norm
from cevjax.parameters import pull

pyhf = pytest.importorskip("pyhf")

SHAPES = {"flat": np.array([10.0, 11.0, 9.0, 10.0]), "falling": np.array([30.0, 14.0, 6.0, 2.0])}
SIGMAS = {"flat": 0.1, "falling": 0.25}
OBSERVED = np.array([49.0, 22.0, 18.0, 9.0])


def ours():
    components = tuple(
        Background(name, jnp.asarray(shape / shape.sum()), None, float(shape.sum()), Norm(((name, SIGMAS[name]),)))
        for name, shape in SHAPES.items()
    )
    nuisances = tuple(pull(name, name, (-1 / SIGMAS[name], 5.0)) for name in SHAPES)
    axes = (("bin", (0.0, 1.0, 2.0, 3.0, 4.0)),)
    return cevjax.Likelihood(
        Measurement("toy", "default", axes, OBSERVED, components, nuisances), cevjax.StandardModel()
    )


def theirs():
    samples = [
        {
            "name": name,
            "data": list(shape),
            "modifiers": [
                {
                    "name": name,
                    "type": "histosys",
                    "data": {
                        "hi_data": list(shape * (1 + SIGMAS[name])),
                        "lo_data": list(shape * (1 - SIGMAS[name])),
                    },
                }
            ],
        }
        for name, shape in SHAPES.items()
    ]
    spec = {"channels": [{"name": "toy", "samples": samples}]}
    settings = {"histosys": {"interpcode": "code0"}}
    return pyhf.Model(spec, poi_name=None, modifier_settings=settings)


def twice_nll(model, data, pulls):
    ordered = [pulls[name] for name in model.config.par_order]
    return -2 * float(model.logpdf(ordered, data)[0])


@pytest.mark.parametrize("point", [{"flat": 0.0, "falling": 0.0}, {"flat": 1.3, "falling": -0.7}])
def test_differences_of_chi2(point):
    like, model = ours(), theirs()
    data = [*OBSERVED, *model.config.auxdata]
    reference = {"flat": 0.4, "falling": 0.2}
    difference = twice_nll(model, data, point) - twice_nll(model, data, reference)
    found = float(like.chi2(like.nominal(**point)) - like.chi2(like.nominal(**reference)))
    assert found == pytest.approx(difference, abs=1e-9)


def test_best_fit():
    like, model = ours(), theirs()
    data = [*OBSERVED, *model.config.auxdata]
    pulls = dict(zip(model.config.par_order, map(float, pyhf.infer.mle.fit(data, model)), strict=True))
    result = cevjax.fit(like)
    assert result.converged
    for name, value in pulls.items():
        assert result.values[name] == pytest.approx(value, abs=1e-3)
    assert float(like.chi2(result.values)) <= float(like.chi2(like.nominal(**pulls))) + 1e-8
