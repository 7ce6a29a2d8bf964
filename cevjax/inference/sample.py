"""Draws of a posterior by the tempered pilot and the chains, as an ArviZ InferenceData."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from .. import posteriors
from ..jobs import Columns, Sequel, run
from ..likelihood import Likelihood
from ..priors import Prior
from ..provenance import identity, provenance
from .chains import FIRST_STEP, Draws, State, advance
from .evidence import bridge
from .mixture import Mixture
from .posterior import Posterior, folded_posterior, make_posterior
from .predictive import predict
from .pseudo import check_count, random_key
from .tempering import LAST, PARTICLES, Pilot, log_likelihood, mixture_of, pilot

if TYPE_CHECKING:
    from arviz import InferenceData

WARM_UP, CHUNK = 200, 250
"""Draws of a chain that are thrown away, and those of a chunk."""
COMPARED, DEVIATION = 256, 0.02
"""Points of the posterior where the folded likelihood is compared with the exact one, and the standard deviation of the
difference of their logarithms from which on it is not used."""
START = 2  # what a random key is used for


def sample(
    like: Likelihood,
    free: Sequence[str] = (),
    priors: Mapping[str, Prior | str] | None = None,
    values: Mapping[str, float] | None = None,
    *,
    chains: int = 4,
    draws: int = 1000,
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = False,
    exact: bool = False,
) -> InferenceData:
    """Draw from the posterior of the ``free`` parameters and the nuisances, all modes with their weights.

    Points that represent all modes are found by tempering; chains start there, jump between modes and move by NUTS
    within them. Nuisances have their auxiliary measurements as priors. Parameters of interest have those in ``priors``;
    else they are flat over the range where they are looked for. The result says which.

    Args:
        like: likelihood.
        free: names of the parameters of interest.
        priors: {parameter: prior}: :class:`cevjax.Flat`, :class:`cevjax.LogFlat`, :class:`cevjax.Normal`, or a text
            such as ``"log-flat:1:1000"``.
        values: parameters held at values other than nominal.
        chains: number of chains; the first ones are the same whatever it is.
        draws: of each chain.
        seed: of the random numbers; the same seed gives the same draws on the same kind of machine.
        out: file to write, ``.nc``. Until it is complete, what is done is kept beside it, in ``OUT.part``.
        resume: continue what an earlier, interrupted run to the same file has left.
        progress: show a bar.
        exact: never use a folded likelihood.

    Returns:
        ArviZ InferenceData: posterior, sample_stats, log_likelihood of the bins, posterior_predictive, prior,
        prior_predictive, observed_data, constant_data. :func:`cevjax.posteriors.facts_of` tells where it came from,
        with the evidence; :func:`cevjax.posteriors.judge` whether it is good.

    Raises:
        UnknownNameError: no such parameter.
        InvalidValueError: values or priors out of bounds, or an output that cannot be written.

    >>> import cevjax
    >>> like = cevjax.Likelihood([cevjax.load("coherent-csi-2021", statistic="2303.09360")], cevjax.StandardModel())
    >>> result = cevjax.sample(like, free=("sin2_theta_w",), chains=2, draws=250, seed=1)
    >>> round(float(result.posterior["sin2_theta_w"].mean()), 1)
    0.2
    """
    began = time.perf_counter()
    posterior = make_posterior(like, free, priors, values)
    check_count("chains", chains)
    check_count("draws", draws)
    check_count("seed", seed, 0)
    path = None if out is None else posteriors.check_file(out)
    part = None if path is None else path.with_name(f"{path.name}.part")
    job = SampleJob(posterior, chains, draws, seed, exact)
    chunks = run(job, part, resume=resume, progress=progress)
    points, rest = chunks[0], [job.draws_of(chunks[index]) for index in range(2, len(chunks))]
    drawn = Draws(*(np.concatenate(pieces, axis=1) for pieces in zip(*rest, strict=True)))
    acting, mixture = job.acting(points)
    facts = {
        **provenance(like, "sample"),
        **settings(posterior),
        "chains": chains,
        "draws": draws,
        "seed": seed,
        "method": "exact" if points["exact"][0] else "folded",
        "accuracy": float(points["deviation"][0]),
        **bridge(acting, mixture, drawn.z, drawn.log_likelihood, seed)._asdict(),
    }
    result = posteriors.assemble(
        like, posterior, drawn, predict(acting, drawn.z, seed), {**facts, "seconds": time.perf_counter() - began}
    )
    if path is not None and part is not None:
        posteriors.save(result, path)
        shutil.rmtree(part)
    return result


def settings(posterior: Posterior) -> dict[str, Any]:
    """What is sampled and how it is distributed before the data, as JSON can hold it; enough to build it again."""
    parameters, names = posterior.like.parameters, posterior.names
    fixed = {name: float(value) for name, value in posterior.fixed.items()}
    return {
        "free": list(names[: posterior.lead]),
        "nuisances": list(names[posterior.lead :]),
        "priors": {name: str(prior) for name, prior in zip(names, posterior.priors, strict=True)},
        "fixed": {name: value for name, value in fixed.items() if value != parameters[name].nominal},
    }


@dataclass(frozen=True, eq=False)
class SampleJob(Sequel):
    """A run, cut into the pilot, the warm-up and pieces of all chains.

    Attributes:
        posterior: with the exact likelihood.
        chains, draws: how many.
        seed: of the random numbers.
        exact: whether to do without a folded likelihood.
    """

    posterior: Posterior
    chains: int
    draws: int
    seed: int
    exact: bool
    _mixtures: list[Mixture] = field(default_factory=list, init=False, repr=False)

    @cached_property
    def folded(self) -> Posterior:
        return folded_posterior(self.posterior)

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Draws of a chain in each chunk but the first."""
        return (WARM_UP, *(min(CHUNK, self.draws - first) for first in range(0, self.draws, CHUNK)))

    @property
    def sizes(self) -> tuple[int, ...]:
        return ((LAST + 1) * PARTICLES, *(self.chains * length for length in self.lengths))

    @property
    def identity(self) -> Mapping[str, Any]:
        return {
            **identity(self.posterior.like, "sample"),
            **settings(self.posterior),
            "fixed": {name: float(value) for name, value in self.posterior.fixed.items()},
            "chains": self.chains,
            "seed": self.seed,
            "exact": self.exact,
        }

    def follow(self, index: int, chunks: Sequence[Columns]) -> Columns:
        if index == 0:
            return self._pilot()
        acting, mixture = self.acting(chunks[0])
        if index == 1:
            state = self._start(Pilot(*(chunks[0][name] for name in Pilot._fields)))
        else:
            state = self.draws_of(chunks[index - 1]).last
        first = sum(self.lengths[: index - 1])
        found = advance(acting, mixture, state, self.seed, first, self.lengths[index - 1], adapt=index == 1)
        return {name: x.reshape(-1, *x.shape[2:]) for name, x in found._asdict().items()}

    def draws_of(self, columns: Columns) -> Draws:
        """The draws of a chunk, a row for each chain."""
        return Draws(*(columns[name].reshape(self.chains, -1, *columns[name].shape[1:]) for name in Draws._fields))

    def acting(self, points: Columns) -> tuple[Posterior, Mixture]:
        """The posterior that is evaluated and the mixture that describes it, from the columns of the pilot."""
        posterior = self.posterior if points["exact"][0] else self.folded
        if not self._mixtures:  # every chunk asks for it
            described = Pilot(*(points[name] for name in Pilot._fields))
            self._mixtures.append(mixture_of(posterior, described, self.seed))
        return posterior, self._mixtures[0]

    def _pilot(self) -> Columns:
        deviation, exact = 0.0, self.exact
        points = None
        if not exact:
            points = pilot(self.folded, self.seed)
            deviation = self._deviation(points)
            exact = deviation > DEVIATION
        if exact:
            points = pilot(self.posterior, self.seed)
            deviation = 0.0
        assert points is not None
        n = len(points.z)
        return {**points._asdict(), "exact": np.full(n, exact), "deviation": np.full(n, deviation)}

    def _deviation(self, points: Pilot) -> float:
        """By how much the logarithms of the folded likelihood and of the exact one differ, from point to point."""
        chosen = self._chosen(points, (np.arange(COMPARED) + 0.5) / COMPARED)
        exact = log_likelihood(self.posterior, points.z[chosen])
        return float(np.std(np.nan_to_num(exact, neginf=-1e9) - points.log_likelihood[chosen]))

    def _start(self, points: Pilot) -> State:
        """Each chain starts at a point of the pilot, drawn with its weight."""
        keys = [random_key(self.seed, START, i) for i in range(self.chains)]
        z = points.z[self._chosen(points, np.array([float(jax.random.uniform(key)) for key in keys]))]
        return State(z, np.full(self.chains, np.log(FIRST_STEP)))

    @staticmethod
    def _chosen(points: Pilot, at: np.ndarray) -> np.ndarray:
        """The points at some parts of the total weight."""
        return np.minimum(np.searchsorted(np.cumsum(points.weights), at), len(points.z) - 1)
