"""Devices by name: one TOML file each under ``data/devices``, over what ``data/generations`` says of their kind."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from costmodel.catalog.fit import fitted_device, shipped_fit
from costmodel.catalog.names import canonical, data_files
from costmodel.catalog.toml_file import read_toml
from costmodel.schema.cluster import DeviceSpec
from costmodel.schema.errors import UnknownName
from costmodel.schema.fit import Fit

_BRAND = re.compile(r"^(nvidia|amd|instinct|geforce|tesla)[\s_-]+", re.IGNORECASE)


@cache
def device_names() -> tuple[str, ...]:
    """The catalog's devices, sorted by name."""
    return tuple(sorted(data_files("devices", ".toml")))


def load_device(name: str, fit: Fit | None = None) -> DeviceSpec:
    """The device called ``name``: a catalog name (one file is read), an alias (all are), or the path of a TOML file.

    A catalog device has the factors of ``fit`` on its figures, by default those of the shipped fit; a user's file is
    taken at its word.

    Case, spaces and punctuation of names do not matter, nor does a leading brand (NVIDIA, GeForce, Tesla, AMD,
    Instinct). A name that ends in ``.toml`` is a path to a file in the catalog's form. A field that a file leaves out
    is its generation's, where the catalog knows that.
    Raises UnknownName with the nearest names - a device is never guessed - or InvalidSpec for a bad file.
    """
    if name.endswith(".toml"):
        return DeviceSpec.load(_completed(read_toml(Path(name))), name)
    bare = name.strip()
    while _BRAND.match(bare):
        bare = _BRAND.sub("", bare, count=1)
    wanted = canonical(bare)
    for known in device_names():
        if canonical(known) == wanted:
            return _fitted(known, fit)
    for known in device_names():
        if wanted in {canonical(alias) for alias in _read(known).aliases}:
            return _fitted(known, fit)
    raise UnknownName("gpu", name, device_names(), "`plan gpus` lists them all")


def _fitted(name: str, fit: Fit | None) -> DeviceSpec:
    return _shipped(name) if fit is None or fit is shipped_fit() else fitted_device(_read(name), fit)


@cache
def _shipped(name: str) -> DeviceSpec:
    return fitted_device(_read(name), shipped_fit())


@cache
def _read(name: str) -> DeviceSpec:
    text = data_files("devices", ".toml")[name].read_text(encoding="utf-8")
    return DeviceSpec.load(_completed(tomllib.loads(text)), f"device {name}")


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    """The document over its generation's: field by field, and so the sources; maps are replaced whole."""
    shared = data_files("generations", ".toml").get(str(document.get("generation")))
    if shared is None:
        return document
    base = tomllib.loads(shared.read_text(encoding="utf-8"))
    kept = {field: source for field, source in base.pop("sources").items() if field not in document}
    own = document.get("sources", {})
    return {**base, **document, "sources": {**kept, **own} if isinstance(own, dict) else own}
