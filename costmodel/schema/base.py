"""The frozen pydantic base of everything that touches a file, and its one-sentence errors."""

from __future__ import annotations

import json
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from costmodel.schema.errors import InvalidSpec


class Spec(BaseModel):
    """A value read from or written to a file: frozen; unknown keys, NaN and infinity refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    @classmethod
    def load(cls, data: Any, origin: str) -> Self:
        """Validate ``data``; raise InvalidSpec naming the first bad field, its value and the rule."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise invalid_spec(error, origin) from None

    @classmethod
    def load_json(cls, text: str, origin: str) -> Self:
        """As ``load`` from JSON text; truncated or malformed text is an InvalidSpec too."""
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise InvalidSpec(
                f"{origin} is not whole JSON: {error.msg} at line {error.lineno} column {error.colno}",
                "the file may be truncated; write it again",
            ) from None
        return cls.load(data, origin)


def invalid_spec(error: ValidationError, origin: str) -> InvalidSpec:
    """One sentence for the first of a ValidationError's complaints, and how many more there are."""
    first, *more = error.errors()
    where = ": ".join([origin, *([".".join(str(part) for part in first["loc"])] if first["loc"] else [])])
    value = first.get("input")
    shown = "" if first["type"] == "missing" or isinstance(value, dict | list) else f" = {value!r}"
    rule = first["msg"].removeprefix("Value error, ")
    tail = f" (and {len(more)} more)" if more else ""
    return InvalidSpec(f"{where}{shown}: {rule}{tail}")
