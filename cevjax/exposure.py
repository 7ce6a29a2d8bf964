r"""More exposure: the measurement that the same detector would make in ``factor`` times the time.

Every component is multiplied by the factor, signal and backgrounds alike, and there are no data: the counts are the
expectation, as for a detector to come. What stays is everything that more exposure does not improve by itself: the
relative errors of normalisations, the errors of quenching, efficiency, timing and nuclear radius, and the statistical
errors of the templates. For a background that is measured beside the signal, such as the steady-state background
between the pulses of the beam, ``sideband`` lets the relative error of its size fall like 1/sqrt(factor).

Gaussian data carry a standard deviation for each bin, which is taken as statistical: it grows like sqrt(factor) while
the counts grow like the factor. So it is for differences of spectra, as those of CONUS+ and Dresden-II, if the time
with the source off grows along. Where a statistic hides a systematic error in it (the 1.7 % of the neutrons in the chi2
of arXiv:2211.11905 for argon) that part shrinks too.

The factor is an array inside the measurement: gradients, ``vmap`` and ``jit`` reach it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike

from .detector import FORECAST
from .errors import InvalidValueError, check_name
from .interactions import StandardModel
from .likelihood import Likelihood
from .measurement import Component, Measurement, Precision
from .parameters import Gaussian

PREFIX = "exposure x "


class Exposed(Component):
    """A component under a multiple of its exposure.

    Args:
        name: that of the component.
        inner: the component.
        factor: multiplies its counts.
        sideband: pulls whose effect falls like 1/sqrt(factor).
    """

    name: str = eqx.field(static=True)
    inner: Component
    factor: Array
    sideband: tuple[str, ...] = eqx.field(static=True, default=())

    @property
    def parameters(self):
        return self.inner.parameters

    def improved(self, params):
        """The parameters as the component itself sees them."""
        return {**params, **{name: params[name] / jnp.sqrt(self.factor) for name in self.sideband if name in params}}

    def __call__(self, params, interaction):
        return self.factor * self.inner(self.improved(params), interaction)

    def relevant(self, interaction):
        return self.inner.relevant(interaction)

    def moved_by(self, interaction):
        return self.inner.moved_by(interaction)

    def prepare(self, interaction):
        return eqx.tree_at(lambda c: c.inner, self, self.inner.prepare(interaction))

    def fold(self, folding, precision):
        if self.sideband and self.factor < 1:  # its pulls would leave their ranges
            return self
        own = folding._replace(params=self.improved(folding.params))
        inner = Precision(*(variance / np.asarray(self.factor) ** 2 for variance in precision))
        return eqx.tree_at(lambda c: c.inner, self, self.inner.fold(own, inner))

    def hold(self, params):
        return eqx.tree_at(lambda c: c.inner, self, self.inner.hold(self.improved(params)))


def scaled(measurement: Measurement, factor: ArrayLike, sideband: Sequence[str] = ()) -> Measurement:
    """The same measurement with ``factor`` times the exposure, without data: the standard model gives the counts.

    Args:
        measurement: with data or a forecast.
        factor: above 0; it may be traced, then the remark of the measurement cannot name it.
        sideband: pulls of the measurement whose error falls like 1/sqrt(factor), such as ``csi2021_ssb``.

    Raises:
        InvalidValueError: a factor that is not a finite number above 0; a ``sideband`` that is not a pull, of 0 +- 1.
        UnknownNameError: no such nuisance; the message offers the nearest.

    >>> import cevjax
    >>> xenon = cevjax.load("ess-xe")
    >>> longer = scaled(xenon, 3.0)
    >>> round(float(longer.observed.sum() / xenon.observed.sum()), 6), longer.remark.split("; ")[-1]
    (3.0, 'exposure x 3')
    """
    checked, sideband = check_factor(factor), check_sideband(measurement, sideband)
    if not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((checked, measurement))):
        total = total_factor(measurement) * float(checked)
        measurement = replace(measurement, remark=_remark(measurement.remark, total))
    other = _exposed(measurement, checked, sideband)
    like = Likelihood(other, StandardModel())
    (components,) = like.expected(like.nominal()).values()
    return other.with_observed(jnp.sum(jnp.stack(list(components.values())), axis=0))


def with_exposure(
    like: Likelihood, factor: ArrayLike | Sequence[ArrayLike], sideband: Sequence[str] = ()
) -> Likelihood:
    """The same likelihood with multiples of the exposures, and as data the expectation at the nominal point.

    A pure function of the factors, and unlike :func:`scaled` one that compiles once for all of them.

    Args:
        like: likelihood.
        factor: above 0: one for all measurements, or one for each.
        sideband: pulls whose errors fall like 1/sqrt(factor), each in the measurements that have it.

    Raises:
        InvalidValueError: a factor that is not a finite number above 0, or not one for each measurement; a ``sideband``
            that is not a pull, of 0 +- 1.
        UnknownNameError: no such nuisance; the message offers the nearest.

    >>> import cevjax, jax
    >>> like = cevjax.Likelihood([cevjax.load("ess-xe")], cevjax.StandardModel())
    >>> events = lambda factor: with_exposure(like, factor).measurements[0].observed.sum()
    >>> growth = jax.jit(jax.grad(events))(2.0)
    >>> round(float(growth / events(1.0)), 6)
    1.0
    """
    factors = check_factors(like, factor)
    for name in sideband:
        check_name("nuisance", name, like.nuisances)
    measurements = tuple(
        _exposed(m, f, check_sideband(m, [name for name in sideband if _has(m, name)]))
        for m, f in zip(like.measurements, factors, strict=True)
    )
    exposed = like.with_measurements(measurements)
    data = exposed.asimov(exposed.nominal())
    if not any(isinstance(f, Tracer) for f in factors):
        data.note = "; ".join((exposure_note(like, factors), data.note))
    return data


def exposure_note(like: Likelihood, factors: Sequence[ArrayLike]) -> str:
    """The exposures in words: one where they are all the same."""
    numbers = [float(np.asarray(f)) for f in factors]
    if len(set(numbers)) == 1:
        return f"{PREFIX}{numbers[0]:g}"
    pairs = zip(like.measurements, numbers, strict=True)
    return "exposure " + ", ".join(f"x {number:g} of {m.name}" for m, number in pairs)


def total_factor(measurement: Measurement) -> float:
    """By how much the exposure of a measurement was multiplied.

    >>> import cevjax
    >>> total_factor(scaled(scaled(cevjax.load("ess-si"), 2.0), 5.0))
    10.0
    """
    total, component = 1.0, measurement.components[0]
    while isinstance(component, Exposed):
        total, component = total * float(component.factor), component.inner
    return total


def check_factor(factor: ArrayLike) -> Array:
    """The factor as an array, if it is traced or a finite number above 0."""
    if isinstance(factor, Tracer):
        return jnp.asarray(factor, float)
    try:
        number = float(np.asarray(factor, float))
    except (TypeError, ValueError):
        number = np.nan
    if not 0 < number < np.inf:
        raise InvalidValueError(f"Argument `factor` must be a finite number above 0, but was {factor!r}.")
    return jnp.asarray(number)


def check_factors(like: Likelihood, factor: ArrayLike | Sequence[ArrayLike]) -> tuple[Array, ...]:
    """One factor for each measurement of the likelihood."""
    n = len(like.measurements)
    several = isinstance(factor, Sequence) or np.ndim(factor) > 0
    given = list(cast(Sequence[ArrayLike], factor)) if several else [cast(ArrayLike, factor)] * n
    if len(given) != n:
        raise InvalidValueError(
            f"Argument `factor` must be one number or one for each of the {n} measurements, but has {len(given)}."
        )
    return tuple(check_factor(f) for f in given)


def check_sideband(measurement: Measurement, sideband: Sequence[str]) -> tuple[str, ...]:
    """The names, if they are pulls of the measurement."""
    known = {p.name: p for p in measurement.parameters if p.nuisance}
    for name in sideband:
        check_name(f"nuisance of {measurement.name}", name, known)
        if known[name].constraint != Gaussian(0.0, 1.0):
            raise InvalidValueError(f"Argument `sideband` must name pulls, constrained to 0 +- 1, but {name} is none.")
    return tuple(sideband)


def _has(measurement: Measurement, name: str) -> bool:
    return any(p.name == name for p in measurement.parameters)


def _exposed(measurement: Measurement, factor: Array, sideband: tuple[str, ...]) -> Measurement:
    """Components and errors under ``factor`` times the exposure; the data stay."""
    components = tuple(Exposed(c.name, c, factor, sideband) for c in measurement.components)
    other = eqx.tree_at(lambda m: m.components, measurement, components)
    if measurement.sigma is None:
        return other
    return eqx.tree_at(lambda m: m.sigma, other, measurement.sigma * jnp.sqrt(factor))


def _remark(known: str, factor: float) -> str:
    kept = [part for part in known.split("; ") if part and not part.startswith(PREFIX)]
    return "; ".join([*kept, *([] if FORECAST in kept else [FORECAST]), f"{PREFIX}{factor:g}"])
