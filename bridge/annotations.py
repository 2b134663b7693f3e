"""What the annotation of a setting stands for: the types that may come there, and which are tables."""

from __future__ import annotations

import types
import typing
from typing import Any, TypeGuard

from pydantic import BaseModel


def members_of(annotation: Any) -> list[Any]:
    """The types that an annotation stands for, Annotated and unions opened."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return members_of(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [member for part in typing.get_args(annotation) for member in members_of(part)]
    return [annotation]


def is_table(annotation: Any) -> TypeGuard[type[BaseModel]]:
    """Whether it is a table of settings of its own."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
