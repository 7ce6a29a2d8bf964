"""Posteriors as ArviZ InferenceData: what is in them, whether they are good, and files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import gaussian_filter1d

from .errors import InvalidValueError, check_name
from .priors import parse_prior
from .provenance import labels
from .results import check_output, describe, write_atomically

if TYPE_CHECKING:
    from arviz import InferenceData

    from .inference.chains import Draws
    from .inference.posterior import Posterior
    from .inference.predictive import Predictive
    from .likelihood import Likelihood

R_HAT, ESS, DIVERGING, BFMI = 1.01, 400.0, 0.03, 0.2
"""What is good: split R-hat at most, bulk and tail effective size at least, part of divergent transitions at most, and
Bayesian fraction of missing information at least."""
WORST = {"r_hat": max, "ess_bulk": min, "ess_tail": min}
"""Columns of :func:`summary` that are judged, and which value of them is the worst."""
Table = dict[str, dict[str, Any]]


def arviz() -> Any:
    """The package arviz, imported when it is needed: it takes seconds."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # about its own future
        import arviz

    return arviz


def assemble(
    like: Likelihood, posterior: Posterior, drawn: Draws, predictive: Predictive, facts: Mapping[str, Any]
) -> InferenceData:
    """An InferenceData of draws."""
    from .inference.predictive import split
    from .inference.tempering import log_prior

    known = labels(like)
    dims = {m.name: [f"{m.name}_{axis}" for axis, _ in m.axes] for m in like.measurements}

    def counts(flat: np.ndarray) -> dict[str, np.ndarray]:
        return {m.name: part.reshape(*flat.shape[:-1], *m.shape) for m, part in split(like, flat)}

    edges = {f"{m.name}_{axis}_edges": np.asarray(e) for m in like.measurements for axis, e in m.axes}
    errors = {f"{m.name}_sigma": np.asarray(m.sigma) for m in like.measurements if m.sigma is not None}
    dims |= {name: [f"{name}_number"] for name in edges} | {f"{m.name}_sigma": dims[m.name] for m in like.measurements}
    centres = {
        f"{m.name}_{axis}": (np.asarray(e)[1:] + np.asarray(e)[:-1]) / 2
        for m in like.measurements
        for axis, e in m.axes
    }
    expected = {f"{name}_expected": part for name, part in counts(predictive.expected).items()}
    dims |= {f"{m.name}_expected": dims[m.name] for m in like.measurements}
    before = {name: part[None] for name, part in counts(predictive.prior_seen).items()}
    result = arviz().from_dict(
        posterior=posterior.values(drawn.z),
        sample_stats={
            "lp": drawn.log_likelihood + log_prior(posterior, drawn.z),
            "diverging": drawn.diverging,
            "acceptance_rate": drawn.acceptance_rate,
            "n_steps": drawn.n_steps,
            "energy": drawn.energy,
            "step_size": np.exp(drawn.log_step),
            "jumped": drawn.jumped,
        },
        log_likelihood=counts(predictive.log_likelihood),
        posterior_predictive={**counts(predictive.seen), **expected},
        prior={name: x[None] for name, x in posterior.values(predictive.prior).items()},
        prior_predictive=before,
        observed_data={m.name: np.asarray(m.observed) for m in like.measurements},
        constant_data={**edges, **errors},
        coords=centres,
        dims=dims,
    )
    thinned = np.arange(drawn.z.shape[1])[predictive.thinned]
    groups = ["log_likelihood", "posterior_predictive"]
    result.map(lambda group: group.assign_coords(draw=thinned), groups=groups, inplace=True)
    for group in ("posterior", "prior"):
        for name in result[group].data_vars:
            symbol, unit = known[str(name)]
            result[group][name].attrs.update(long_name=symbol, units=unit)
    result.attrs["facts"] = json.dumps(facts)
    return result


def facts_of(result: InferenceData) -> dict[str, Any]:
    """Where a result comes from: version, data with their hashes, statistic, interaction, priors, seed, evidence.

    Raises:
        InvalidValueError: it is none of cevjax.
    """
    try:
        return json.loads(result.attrs["facts"])
    except (AttributeError, KeyError):
        raise InvalidValueError("Argument `result` must be what cevjax.sample returned.") from None


def summary(result: InferenceData) -> Table:
    """{parameter: mean, standard deviation, 90 % highest-density interval, effective sizes, R-hat}.

    The parameters of interest come first. For several modes ``hdi90_pieces`` has the pieces of the densest 90 %.
    """
    az, facts = arviz(), facts_of(result)
    names = [*facts["free"], *facts["nuisances"]]
    table: Table = {}
    bulk, tail = (az.ess(result, var_names=names, method=method) for method in ("bulk", "tail"))
    r_hat = az.rhat(result, var_names=names) if facts["chains"] > 1 or facts["draws"] >= 8 else None
    for name in names:
        x = result["posterior"][name].values
        table[name] = {
            "mean": float(np.mean(x)),
            "sd": float(np.std(x)),
            "hdi90": [float(end) for end in az.hdi(x.ravel(), hdi_prob=0.9)],
            "hdi90_pieces": pieces(x.ravel(), 0.9),
            "ess_bulk": float(bulk[name]),
            "ess_tail": float(tail[name]),
            "r_hat": float("nan") if r_hat is None else float(r_hat[name]),
        }
    return table


def pieces(x: np.ndarray, cl: float, bins: int = 200) -> list[list[float]]:
    """The pieces of the region of highest density that holds a part of draws, from a smoothed histogram.

    >>> x = np.random.default_rng(1).normal([-5.0, 5.0], 1.0, (10_000, 2)).ravel()
    >>> [[round(end, 1) for end in piece] for piece in pieces(x, 0.6827)]  # of two normal distributions
    [[-6.0, -4.0], [4.0, 6.0]]
    """
    x = np.asarray(x, float)
    low, high = np.min(x), np.max(x)
    if not low < high:
        return [[float(low), float(high)]]
    counts, edges = np.histogram(x, bins=bins, range=(low, high))
    smooth = lambda width: gaussian_filter1d(counts.astype(float), width, mode="reflect")  # noqa: E731
    spread = len(_densest(smooth(1.5), counts, 0.6827)) / 2  # a standard deviation, or that of all modes together
    chosen = np.zeros(bins + 2, bool)
    chosen[_densest(smooth(max(1.5, 0.9 * spread * len(x) ** -0.2)), counts, cl) + 1] = True
    starts, ends = np.flatnonzero(~chosen[:-1] & chosen[1:]), np.flatnonzero(chosen[:-1] & ~chosen[1:])
    return [[float(edges[a]), float(edges[b])] for a, b in zip(starts, ends, strict=True)]


def _densest(density: np.ndarray, counts: np.ndarray, cl: float) -> np.ndarray:
    """The bins of highest density that hold a part of all counts."""
    order = np.argsort(-density, kind="stable")
    return order[: int(np.searchsorted(np.cumsum(counts[order]), cl * np.sum(counts))) + 1]


def diagnostics(result: InferenceData) -> dict[str, Any]:
    """Worst R-hat and effective sizes, divergent transitions, lowest BFMI, part of draws that jumped."""
    return _diagnostics(result, summary(result))


def _diagnostics(result: InferenceData, table: Table) -> dict[str, Any]:
    stats = result["sample_stats"]
    return {
        **{key: table[_worst(table, key)][key] for key in WORST},
        "divergences": int(np.sum(stats["diverging"].values)),
        "diverging": float(np.mean(stats["diverging"].values)),
        "bfmi": float(np.min(arviz().bfmi(result))),
        "jumped": float(np.mean(stats["jumped"].values)),
    }


def _worst(table: Table, key: str) -> str:
    """The parameter that is worst in something."""
    return WORST[key](table, key=lambda name: table[name][key])


def judge(result: InferenceData) -> list[str]:
    """What is wrong with a result, in words; nothing if it is good."""
    table = summary(result)
    return _judge(facts_of(result), table, _diagnostics(result, table))


def _judge(facts: Mapping[str, Any], table: Table, found: Mapping[str, Any]) -> list[str]:
    worst = {key: _worst(table, key) for key in WORST}
    complaints = []
    if not found["r_hat"] <= R_HAT:
        complaints.append(f"the chains disagree: R-hat of {worst['r_hat']} is {found['r_hat']:.3f}, more than {R_HAT}")
    for key, what in (("ess_bulk", "means"), ("ess_tail", "ends of intervals")):
        if not found[key] >= ESS:
            complaints.append(
                f"too few independent draws for {what}: {found[key]:.0f} of {worst[key]}, less than {ESS:.0f}"
            )
    if found["diverging"] > DIVERGING:
        complaints.append(
            f"{100 * found['diverging']:.1f} % of the transitions of NUTS diverge, more than {100 * DIVERGING:.0f} %"
        )
    if found["bfmi"] < BFMI:
        complaints.append(f"energies vary too slowly: BFMI is {found['bfmi']:.2f}, less than {BFMI}")
    if found["jumped"] < 0.05 and len(facts["free"]) > 0:
        complaints.append(
            f"only {100 * found['jumped']:.1f} % of the draws jump: modes may not have their right weights"
        )
    return complaints


def to_dict(result: InferenceData, like: Likelihood) -> dict[str, Any]:
    """The fields of the JSON output."""
    facts, table = facts_of(result), summary(result)
    found = _diagnostics(result, table)
    return {
        **describe(like, "sample"),
        **{key: facts[key] for key in ("priors", "chains", "draws", "seed", "method", "accuracy")},
        "parameters": table,
        **found,
        "complaints": _judge(facts, table, found),
        "log_evidence": facts["log_evidence"],
        "log_evidence_error": facts["log_evidence_error"],
        **information_criteria(result),
        "seconds": facts["seconds"],
    }


def information_criteria(result: InferenceData) -> dict[str, float]:
    """Expected log predictive densities of the bins, by leave-one-out (PSIS) and WAIC, and what they rest on.

    They are meant to compare models of the same data. A bin is left out, so they make sense where bins are independent
    given the parameters, as they are here, and where no single one is decisive: ``loo_bad`` counts those with a Pareto
    k above 0.7.

    Source: A. Vehtari, A. Gelman, J. Gabry, arXiv:1507.04544.
    """
    import warnings

    az, group = arviz(), result["log_likelihood"]
    n = group.sizes["chain"] * group.sizes["draw"]
    joined = np.concatenate([group[name].values.reshape(n, -1) for name in group.data_vars], axis=1)
    if n < 100:
        return {"elpd_loo": float("nan"), "elpd_loo_se": float("nan"), "elpd_waic": float("nan"), "loo_bad": -1}
    data = az.from_dict(posterior={"x": np.zeros((1, n))}, log_likelihood={"bins": joined[None]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they would say is in the numbers
        loo, waic = az.loo(data, pointwise=True, reff=1.0), az.waic(data)
    return {
        "elpd_loo": float(loo["elpd_loo"]),
        "elpd_loo_se": float(loo["se"]),
        "elpd_waic": float(waic["elpd_waic"]),
        "loo_bad": int(np.sum(np.asarray(loo["pareto_k"]) > 0.7)),
    }


def bayes_factor(one: InferenceData, other: InferenceData) -> tuple[float, float]:
    """ln of the evidence of one model over that of another for the same data, and its standard deviation.

    Raises:
        InvalidValueError: the data are not the same.
    """
    first, second = facts_of(one), facts_of(other)
    if first["datasets"] != second["datasets"] or not _same_data(one, other):
        raise InvalidValueError("A Bayes factor must be one of two models of the same data, but the data differ.")
    error = float(np.hypot(first["log_evidence_error"], second["log_evidence_error"]))
    return first["log_evidence"] - second["log_evidence"], error


def _same_data(one: InferenceData, other: InferenceData) -> bool:
    mine, theirs = one["observed_data"], other["observed_data"]
    return all(np.array_equal(mine[name].values, theirs[name].values) for name in mine.data_vars)


def savage_dickey(like: Likelihood, result: InferenceData, values: Mapping[str, float]) -> tuple[float, float]:
    r"""ln of the evidence with parameters at ``values`` over that with them free: posterior over prior density there.

    .. math:: \ln B_{01} = \ln \frac{p(\theta_0 | n)}{\pi(\theta_0)}

    Positive if the data speak for the nested model. The density is not counted from the draws, which may never come
    near: all other parameters are integrated over at that point.

    Args:
        like: that was sampled.
        result: what came out.
        values: of sampled parameters, such as those of the standard model.

    Returns:
        ln B and its standard deviation.

    Raises:
        UnknownNameError: a parameter that was not sampled.
        InvalidValueError: no value, or one that the prior excludes.

    Source: J. M. Dickey, Ann. Math. Stat. 42 (1971) 204.
    """
    from .inference.evidence import importance
    from .inference.posterior import folded_posterior, make_posterior

    facts = facts_of(result)
    if not values:
        raise InvalidValueError("Argument `values` must hold a parameter, but is empty.")
    for name, value in values.items():
        prior = prior_of(result, name)
        if not np.isfinite(prior.log_density(value)):
            raise InvalidValueError(f"Value of `{name}` must be one that its prior {prior} allows, but was {value:g}.")
    free = [name for name in facts["free"] if name not in values]
    priors = {name: prior for name, prior in facts["priors"].items() if name not in values}
    nested = make_posterior(like, free, priors, {**facts["fixed"], **values})
    found = importance(nested if facts["method"] == "exact" else folded_posterior(nested), facts["seed"])
    error = float(np.hypot(found.log_evidence_error, facts["log_evidence_error"]))
    return found.log_evidence - facts["log_evidence"], error


def prior_of(result: InferenceData, name: str):
    """The prior of a sampled parameter."""
    priors = facts_of(result)["priors"]
    return parse_prior(priors[check_name("sampled parameter", name, priors)])


def check_file(path: str | Path) -> Path:
    """``path``, if a posterior can be written there.

    Raises:
        InvalidValueError: another ending than .nc, or its folder does not exist or cannot be written to.
    """
    path = Path(path)
    if path.suffix != ".nc":
        raise InvalidValueError(f"Output file {path} must end in .nc.")
    return check_output(path)


def save(result: InferenceData, path: str | Path) -> Path:
    """Write a result as netCDF, atomically."""
    return write_atomically(check_file(path), lambda temporary: result.to_netcdf(str(temporary), engine="h5netcdf"))


def load(path: str | Path) -> InferenceData:
    """Read what :func:`save` or ``cevjax.sample(out=...)`` wrote.

    Raises:
        InvalidValueError: no such file, or not that of a posterior.
    """
    path = Path(path)
    if not path.is_file():
        raise InvalidValueError(f"File {path} does not exist.")
    try:
        result = arviz().from_netcdf(str(path), engine="h5netcdf")
    except (OSError, ValueError, KeyError) as error:
        raise InvalidValueError(f"File {path} cannot be read as that of a posterior: {error}.") from error
    if "posterior" not in result.groups() or "facts" not in result.attrs:
        raise InvalidValueError(f"File {path} must be that of a posterior, but is not.")
    return result
