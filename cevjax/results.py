"""What fits and intervals return, as plain data and as JSON files that are never half-written."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InvalidValueError
from .goodness import deviance_moments, p_value
from .likelihood import Likelihood


@dataclass(frozen=True)
class LocalMinimum:
    """A minimum of chi2 besides the global one."""

    chi2: float
    values: dict[str, float]


@dataclass(frozen=True)
class FitResult:
    """The best fit.

    Attributes:
        likelihood: what was fitted.
        free: names of the parameters of interest.
        names: of all fitted parameters, in the order of ``covariance``.
        values: all parameters at the best fit, fitted or not.
        errors: standard deviation of each fitted parameter from the observed information (HESSE); None at a bound or
            where the information is not positive.
        covariance: of ``names``; nan where an error is None.
        chi2_min: 2 nll at the minimum.
        converged: whether the minimiser reached its tolerance.
        message: how it ended, in words.
        at_bound: fitted parameters that sit at a bound.
        flat: fitted parameters that the likelihood does not depend on.
        dropped: nuisances left out because a free parameter describes the same thing.
        other_minima: further minima that the starts led to.
        steps: of the minimiser, from the start that led to the best fit.
        seconds: wall time.
    """

    likelihood: Likelihood = field(repr=False)
    free: tuple[str, ...]
    names: tuple[str, ...]
    values: dict[str, float]
    errors: dict[str, float | None]
    covariance: np.ndarray = field(repr=False)
    chi2_min: float
    converged: bool
    message: str
    at_bound: tuple[str, ...] = ()
    flat: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    other_minima: tuple[LocalMinimum, ...] = ()
    steps: int = 0
    seconds: float = 0.0

    @property
    def nuisances(self) -> tuple[str, ...]:
        return tuple(name for name in self.names if name not in self.free)

    @property
    def ndof(self) -> int:
        """Bins plus auxiliary measurements less fitted parameters, but for those without effect."""
        auxiliary = sum(self.likelihood.parameters[name].constraint is not None for name in self.names)
        return self.likelihood.n_bins + auxiliary - len(self.names) + len(self.flat)

    @property
    def p_value(self) -> float | None:
        """Probability of a larger chi2; None without degrees of freedom.

        Bins with few counts do not have the chi2 of one degree of freedom, so the distribution is one of the same mean
        and variance as the sum over the bins at the best fit; with many counts everywhere it is that of chi2 with
        ``ndof`` degrees of freedom.
        """
        if self.ndof <= 0:
            return None
        mean, variance = float(self.ndof - self.likelihood.n_bins), 2.0 * (self.ndof - self.likelihood.n_bins)
        expected = self.expected()
        for m in self.likelihood.measurements:
            total = np.sum(list(expected[m.name].values()), axis=0)
            ones = np.ones(m.shape)
            moments = deviance_moments(total.ravel()) if m.sigma is None else (ones, 2 * ones)
            mean, variance = mean + float(np.sum(moments[0])), variance + float(np.sum(moments[1]))
        return p_value(self.chi2_min, mean, variance)

    def expected(self) -> dict[str, dict[str, np.ndarray]]:
        """Expected counts at the best fit: {measurement: {component: array}}."""
        expected = self.likelihood.expected(self.values)
        return {m: {c: np.asarray(counts) for c, counts in parts.items()} for m, parts in expected.items()}

    def to_dict(self) -> dict[str, Any]:
        """The fields of the JSON output."""
        like = self.likelihood
        parameters = like.parameters

        def entry(name: str) -> dict[str, Any]:
            return {"value": self.values[name], "error": self.errors[name], "unit": parameters[name].unit}

        return {
            **describe(like, "fit"),
            "chi2_min": self.chi2_min,
            "n_bins": like.n_bins,
            "ndof": self.ndof,
            "p_value": self.p_value,
            "converged": self.converged,
            "message": self.message,
            "parameters": {name: entry(name) for name in self.free},
            "nuisances": {name: {**entry(name), "pull": self._pull(name)} for name in self.nuisances},
            "fixed": {name: value for name, value in self.values.items() if name not in self.names},
            "dropped": list(self.dropped),
            "other_minima": [{"chi2": m.chi2, "values": m.values} for m in self.other_minima],
            "expected": {
                m: {c: float(counts.sum()) for c, counts in parts.items()} for m, parts in self.expected().items()
            },
            "observed": {m.name: float(np.sum(m.observed)) for m in like.measurements},
            "seconds": self.seconds,
        }

    def _pull(self, name: str) -> float | None:
        constraint = self.likelihood.parameters[name].constraint
        return None if constraint is None else (self.values[name] - constraint.mean) / constraint.sigma


@dataclass(frozen=True)
class ProfileResult:
    """The profile likelihood along a list of points.

    Attributes:
        points: {parameter: its value at each point}.
        chi2: minimum over all other fitted parameters, at each point.
        values: {parameter: its fitted value at each point}.
        converged: at each point.
    """

    points: dict[str, np.ndarray]
    chi2: np.ndarray
    values: dict[str, np.ndarray]
    converged: np.ndarray


@dataclass(frozen=True)
class IntervalResult:
    """All values of a parameter with chi2 - chi2_min below the threshold of a confidence level.

    Attributes:
        poi: the parameter.
        cl: confidence level (1 degree of freedom); of several the first.
        best_fit: value at the global minimum.
        chi2_min: there.
        intervals: the disjoint pieces [low, high] in increasing order; None for an end that is open, at a physical
            bound or where chi2 never reaches the threshold.
        fit: the global fit.
        profile: the profile that was scanned.
        converged: whether every minimisation behind the ends did.
        message: what else to know: that chi2 does not depend on the parameter, or that another one's bound sets an end.
        seconds: wall time.
        levels: {confidence level: its pieces}, for each that was asked for.
    """

    poi: str
    cl: float
    best_fit: float
    chi2_min: float
    intervals: list[list[float | None]]
    fit: FitResult = field(repr=False)
    profile: ProfileResult = field(repr=False)
    converged: bool = True
    message: str = ""
    seconds: float = 0.0
    levels: dict[float, list[list[float | None]]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The fields of the JSON output."""
        several = [{"cl": cl, "intervals": pieces} for cl, pieces in self.levels.items()]
        return {
            **describe(self.fit.likelihood, "interval"),
            "poi": self.poi,
            "unit": self.fit.likelihood.parameters[self.poi].unit,
            "cl": self.cl,
            "best_fit": self.best_fit,
            "chi2_min": self.chi2_min,
            "converged": self.converged,
            "message": self.message,
            "intervals": self.intervals,
            **({"levels": several} if len(several) > 1 else {}),
            "seconds": self.seconds,
        }


OPTIONS: ContextVar[dict[str, Any] | None] = ContextVar("options", default=None)
"""All options of the command that is running, defaults included; None outside the command line."""


def describe(like: Likelihood, command: str) -> dict[str, Any]:
    """What every output says about where it comes from."""
    from importlib.metadata import version

    options = OPTIONS.get()
    return {
        **({} if options is None else {"options": options}),
        "cevjax": version("cevjax"),
        "command": command,
        "datasets": [m.name for m in like.measurements],
        "interaction": like.interaction.name,
        "statistic": {m.name: m.statistic for m in like.measurements}
        if len({m.statistic for m in like.measurements}) > 1
        else like.measurements[0].statistic,
        "choices": {m.name: dict(m.choices) for m in like.measurements},
        "remarks": remarks(like),
    }


def remarks(like: Likelihood) -> dict[str, str]:
    """What everyone who sees a result must know about its data, by data set."""
    found = {m.name: "; ".join(filter(None, (m.remark, like.note))) for m in like.measurements}
    return {name: text for name, text in found.items() if text}


UNFINISHED: set[Path] = set()
"""Temporary files that are being written, for a handler that ends the process to remove."""


def write_atomically(path: str | Path, write: Callable[[Path], object]) -> Path:
    """Let ``write`` fill a temporary file beside ``path`` and move it there once it is complete.

    Raises:
        InvalidValueError: the folder of ``path`` does not exist, or ``path`` is a folder.
    """
    path = check_output(path)
    if path.exists() and not path.is_file():
        write(path)  # a device or a pipe: there is nothing to replace
        return path
    handle, name = tempfile.mkstemp(dir=path.resolve().parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    UNFINISHED.add(temporary)
    try:
        write(temporary)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path.resolve())
    finally:
        temporary.unlink(missing_ok=True)
        UNFINISHED.discard(temporary)
    return path


def check_output(path: str | Path) -> Path:
    """``path``, if a file can be written there.

    Raises:
        InvalidValueError: its folder does not exist or cannot be written to, or it is a folder.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise InvalidValueError(f"Output file {path} must be in an existing folder, but {path.parent} is none.")
    if path.is_dir():
        raise InvalidValueError(f"Output file {path} must be a file, but is a folder.")
    if not os.access(path.resolve().parent, os.W_OK) or not _can_hold_files(path.resolve().parent):
        raise InvalidValueError(f"Output file {path} must be in a folder that can be written to, but it cannot.")
    return path


def _can_hold_files(folder: Path) -> bool:
    """Whether a file can be made there: permissions say little for root and special file systems."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def to_json(data: dict[str, Any]) -> str:
    """JSON text; numbers that are not finite become null."""
    return json.dumps(_clean(data), indent=2, allow_nan=False) + "\n"


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _clean(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(v) for v in value]
    if isinstance(value, np.ndarray):
        return _clean(value.tolist())
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def save_json(path: str | Path, data: dict[str, Any]) -> Path:
    """Write ``data`` as JSON, atomically."""
    text = to_json(data)
    return write_atomically(path, lambda temporary: temporary.write_text(text))


def load_json(path: str | Path) -> dict[str, Any]:
    """What :func:`save_json` has written."""
    return json.loads(Path(path).read_text())
