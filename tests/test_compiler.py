"""The compiler gives in batches what it gives one by one."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cevjax
from cevjax import compiler


def test_sums_in_batches():
    """What jaxlib 0.10.2 gets wrong on CPUs."""
    q, eye = jnp.linspace(0.1, 0.5, 80), jnp.eye(3)[:, :, None]

    def charge(s, radius):
        proton = jax.lax.optimization_barrier(jnp.broadcast_to(0.5 - 2 * s, (3,)))
        return jnp.sum(eye * (jnp.multiply.outer(proton, q) - 0.5 * radius * q), axis=0)

    s, radius = np.linspace(0.1, 0.4, 64), np.full(64, 3.55)
    expected = np.stack([(0.5 - 2 * s)[:, None] * q - 0.5 * radius[:, None] * q] * 3, axis=1)
    np.testing.assert_allclose(jax.jit(jax.vmap(charge))(s, radius), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("couplings", ["tree", "erler-su", "2023"])
def test_signals_in_batches(couplings):
    like = cevjax.Likelihood(
        cevjax.load("coherent-lar-2020", statistic="2211.11905"), cevjax.StandardModel(couplings=couplings)
    )
    points = like.nominal() | {"sin2_theta_w": np.linspace(0.1, 0.4, 64), "R_n_Ar40": np.linspace(3.0, 4.0, 64)}

    def total(s, radius):
        params = points | {"sin2_theta_w": s, "R_n_Ar40": radius}
        return like.measurements[0].components[0](params, like.interaction).sum()

    columns = points["sin2_theta_w"], points["R_n_Ar40"]
    one_by_one = [float(total(*row)) for row in np.transpose(columns)[::21]]
    found = jax.jit(jax.vmap(total))(*columns)
    np.testing.assert_allclose(found[::21], one_by_one, rtol=1e-12)


def test_a_wrong_compiler_is_mended(monkeypatch):
    monkeypatch.setattr(compiler, "version", lambda name: compiler.WRONG[0])
    monkeypatch.setattr(compiler.xla_bridge, "backends_are_initialized", lambda: False)
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=here")
    compiler.mend_compiler()
    assert os.environ["XLA_FLAGS"] == "--xla_dump_to=here --xla_cpu_experimental_ynn_fusion_type="
    compiler.mend_compiler()
    assert os.environ["XLA_FLAGS"].count(compiler.SWITCH) == 1


def test_other_compilers_are_left_alone(monkeypatch):
    """They stop at options that they do not know."""
    monkeypatch.setattr(compiler, "version", lambda name: "0.9.2")
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    compiler.mend_compiler()
    assert "XLA_FLAGS" not in os.environ


def test_it_is_said_when_it_is_too_late(monkeypatch):
    monkeypatch.setattr(compiler, "version", lambda name: compiler.WRONG[0])
    monkeypatch.setattr(compiler.xla_bridge, "backends_are_initialized", lambda: True)
    monkeypatch.setenv("XLA_FLAGS", "")
    with pytest.raises(ImportError, match=r"jaxlib 0.10.2 computes wrong sums .* import cevjax before anything is"):
        compiler.mend_compiler()
