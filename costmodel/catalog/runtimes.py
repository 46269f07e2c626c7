"""Runtimes by name: what a training framework does with a layout, one TOML file each under ``data/runtimes``.

A file may say ``extends = "NAME"``: what it leaves out is as in that runtime of the catalog.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from costmodel.catalog.fit import fitted_runtime, shipped_fit
from costmodel.catalog.names import canonical, data_files
from costmodel.catalog.toml_file import read_toml
from costmodel.schema.errors import InvalidSpec, UnknownName
from costmodel.schema.fit import Fit
from costmodel.schema.runtime import Runtime

_OWN = ("name", "aliases", "source", "date", "compiled_kernels")
"""Fields that are never taken over from the runtime that a file extends."""


@cache
def runtime_names() -> tuple[str, ...]:
    """The catalog's runtimes, sorted by name."""
    return tuple(sorted(data_files("runtimes", ".toml")))


def load_runtime(name: str, fit: Fit | None = None) -> Runtime:
    """The runtime called ``name``: a catalog name, an alias, or the path of a TOML file in the catalog's form.

    A catalog runtime has the factors of ``fit`` on its figures, by default those of the shipped fit; a user's file is
    taken at its word.

    Case, spaces and punctuation of names do not matter. A name that ends in ``.toml`` is a path.
    Raises UnknownName with the nearest names, or InvalidSpec for a file that is missing, malformed or incomplete.
    """
    if name.endswith(".toml"):
        return Runtime.load(_completed(read_toml(Path(name)), name), name)
    wanted = canonical(name)
    for known in runtime_names():
        if canonical(known) == wanted:
            return _fitted(known, fit)
    for known in runtime_names():
        if wanted in {canonical(alias) for alias in _read(known).aliases}:
            return _fitted(known, fit)
    raise UnknownName("runtime", name, runtime_names(), "a path to a .toml file works too")


def _fitted(name: str, fit: Fit | None) -> Runtime:
    return _shipped(name) if fit is None or fit is shipped_fit() else fitted_runtime(_read(name), fit)


@cache
def _shipped(name: str) -> Runtime:
    return fitted_runtime(_read(name), shipped_fit())


@cache
def _read(name: str) -> Runtime:
    return Runtime.load(_document(name), f"runtime {name}")


def _document(name: str) -> dict[str, Any]:
    text = data_files("runtimes", ".toml")[name].read_text(encoding="utf-8")
    return _completed(tomllib.loads(text), f"runtime {name}")


def _completed(document: dict[str, Any], origin: str) -> dict[str, Any]:
    """The document over the one that it extends: its tables field by field, everything else whole."""
    own = dict(document)
    base = own.pop("extends", None)
    if base is None:
        return own
    if base not in runtime_names():
        raise InvalidSpec(f"{origin}: extends = {base!r} names no runtime", f"one of {', '.join(runtime_names())}")
    whole = {key: value for key, value in _document(base).items() if key not in _OWN}
    for key, value in own.items():
        inherited = whole.get(key)
        whole[key] = {**inherited, **value} if isinstance(value, dict) and isinstance(inherited, dict) else value
    return whole
