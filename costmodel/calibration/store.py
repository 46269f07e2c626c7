"""Where calibrations are kept: ``$XDG_CACHE_HOME/parlay/<device>.json``, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from costmodel.catalog.fit import shipped_fit
from costmodel.schema.calibration import Calibration
from costmodel.schema.errors import InvalidSpec
from costmodel.schema.files import write_whole
from costmodel.schema.fit import Fit


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/parlay``, or ``~/.cache/parlay``; need not exist.

    Source: XDG Base Directory Specification 0.8, which has a relative path ignored.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(given) if os.path.isabs(given) else Path.home() / ".cache") / "parlay"


def calibration_path(device_name: str) -> Path:
    """The file that ``plan calibrate`` writes for a device."""
    return cache_folder() / f"{device_name}.json"


def fit_path() -> Path:
    """The file that ``plan calibrate --from`` writes."""
    return cache_folder() / "runs.fit.json"


def load_fit(path: str | Path | None) -> Fit:
    """The fit in ``path`` where that is one; with None the one kept from runs of one's own, if any, else the shipped.

    A ``path`` that is ``none`` or holds a device's calibration leaves the shipped fit in place.
    Raises InvalidSpec for a damaged file.
    """
    if path == "none":
        return shipped_fit()
    found = Path(path) if path is not None else fit_path()
    try:
        text = found.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        # A file that was asked for and cannot be read is the device's calibration's to report.
        return shipped_fit()
    return Fit.load_json(text, f"fit file {found}") if path is None or _is_fit(text) else shipped_fit()


def _is_fit(text: str) -> bool:
    """Whether a file holds factors on catalog figures, not one device's figures."""
    return '"unseen_log_std"' in text


def load_calibration(path: str | Path | None, device_name: str) -> Calibration | None:
    """The calibration in ``path``; with None the one kept for the device, if any; with ``none`` no calibration.

    Raises InvalidSpec, one sentence with the file's name, when a given file is not there or when a file is damaged,
    lacks a field or belongs to another device.
    """
    if path == "none":
        return None
    found = Path(path) if path is not None else calibration_path(device_name)
    try:
        text = found.read_text(encoding="utf-8")
    except FileNotFoundError:
        if path is None:
            return None
        raise InvalidSpec(f"calibration file {found} does not exist", "plan calibrate writes one") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSpec(f"calibration file {found} cannot be read: {_reason(error)}") from None
    if path is not None and _is_fit(text):
        return None
    calibration = Calibration.load_json(text, f"calibration file {found}")
    if calibration.device != device_name:
        raise InvalidSpec(
            f"calibration file {found} is of device {calibration.device!r}, not of {device_name!r}",
            "use --calibration none",
        )
    return calibration


def save_fit(fit: Fit, path: str | Path | None = None) -> Path:
    """Write ``fit`` to ``path`` or to its place in the cache, whole or not at all, and return where.

    Raises InvalidSpec when the place cannot be written.
    """
    return _save(fit.model_dump_json(indent=1), Path(path) if path is not None else fit_path(), "fit file")


def save_calibration(calibration: Calibration, path: str | Path | None = None) -> Path:
    """Write ``calibration`` to ``path`` or to the device's place in the cache, and return where.

    Written beside the target and renamed over it, so that an interrupted write leaves the old file as it was.
    Raises InvalidSpec when the place cannot be written.
    """
    target = Path(path) if path is not None else calibration_path(calibration.device)
    return _save(calibration.model_dump_json(indent=1), target, "calibration file")


def _save(text: str, target: Path, what: str) -> Path:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, text + "\n")
    except OSError as error:
        raise InvalidSpec(f"{what} {target} cannot be written: {_reason(error)}") from None
    return target


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
