"""Models whose fields are described by the docstrings under them: read when a schema is made, not at every start."""

import ast
import inspect
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel, GetJsonSchemaHandler
from pydantic_core import CoreSchema, to_jsonable_python


class Documented(BaseModel):
    """The base of these models.

    Pydantic's ``use_attribute_docstrings`` does the same as soon as a class is made, for which it reads and parses the
    class's source: a third of the time that importing the configuration's models takes.
    """

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(core_schema)
        described = field_docs(cls)
        for name, of_field in handler.resolve_ref_schema(schema).get("properties", {}).items():
            if name in described:
                of_field.setdefault("description", described[name])
            if "default" in of_field:  # durations as seconds: the API does not take pydantic's own form, PT10S
                default = cls.model_fields[name].get_default(call_default_factory=True, validated_data={})
                of_field["default"] = to_jsonable_python(default, timedelta_mode="float")
        return schema


@cache
def field_docs(model: type[BaseModel]) -> Mapping[str, str]:
    """The docstring of each field that has one. A field that a subclass declares again has that one's, or none."""
    docs: dict[str, str] = {}
    for each in reversed(model.__mro__):
        if issubclass(each, Documented):
            for name in inspect.get_annotations(each):
                docs.pop(name, None)
            docs |= _docs_of_module(each.__module__).get(each.__qualname__, {})
    return docs


@cache
def _docs_of_module(module: str) -> Mapping[str, Mapping[str, str]]:
    """Docstrings by class and attribute."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    classes = (node for node in tree.body if isinstance(node, ast.ClassDef))
    return {node.name: dict(_docs_of_class(node)) for node in classes}


def _docs_of_class(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for statement, after in zip(node.body, node.body[1:], strict=False):
        match statement, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, inspect.cleandoc(text)
