"""Fields' docstrings, read from a model's source: the descriptions in a JSON Schema.

pydantic can read them itself (`use_attribute_docstrings`), but does so when a class is made, thus at each
start of each process, where it took a tenth of the time.
"""

from __future__ import annotations

import ast
import inspect
from itertools import pairwise
from textwrap import dedent

from pydantic import BaseModel


def docs_of(model: type[BaseModel]) -> dict[str, str]:
    """The docstring of each field that has one, by name; those of inherited fields, too.

    Raises:
        OSError: the source is not there.
    """
    docs: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, BaseModel) and base is not BaseModel:
            docs |= _docs_in(inspect.getsource(base))
    return {name: text for name, text in docs.items() if name in model.model_fields}


def _docs_in(source: str) -> dict[str, str]:
    """The strings right below a class's annotated names."""
    docs = {}
    [made] = ast.parse(dedent(source)).body
    body = made.body if isinstance(made, ast.ClassDef) else []
    for statement, below in pairwise(body):
        match statement, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                docs[name] = inspect.cleandoc(text)
    return docs
