"""Conditions on records: parsed, checked before anything runs, and evaluated on tables. DuckDB's SQL is the language.

What is run is one boolean expression and nothing else. DuckDB's own parser turns the text into a tree; only the tree of
the condition is kept, only kinds of node that are known to be harmless are let through, and what is executed is written
from that tree. The engine cannot reach files, the network, extensions or its own settings besides.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from csrm.errors import InputError
from jobs.nearest import nearest

__all__ = ["Evaluator", "Expression", "Name", "parse"]

_ROWS = "csrm_rows"
_HEAD = f"SELECT true FROM {_ROWS} WHERE\n"
_CLASSES = frozenset(
    (
        *("COLUMN_REF", "CONSTANT", "COMPARISON", "CONJUNCTION", "FUNCTION", "OPERATOR", "CASE", "CAST", "BETWEEN"),
        *("COLLATE", "LAMBDA", "TYPE"),
    )
)
_REFUSED = {
    "SUBQUERY": "a query inside; one condition on each row is taken",
    "WINDOW": "a window function; one condition on each row is taken",
    "STAR": "a *; name the columns",
    "PARAMETER": "a parameter; write the value",
    "POSITIONAL_REFERENCE": "a column by number; name it",
}
_EXTRACTORS = frozenset((("struct_extract",), ("array_extract",)))
_CALLED = ("scalar", "macro", "aggregate", "window")
"""Kinds of function that an expression can call; a table function may have the name of one."""
_OF_NO_ROW = frozenset(("current_localtime", "current_localtimestamp", "version"))
"""Functions that tell of the day or the machine although DuckDB calls them consistent."""
_ZONED_TIMES = frozenset(("timetz", "time with time zone"))
_PLACE = frozenset(("query_location", "query_location_length"))

Name = tuple[str, ...]
"""A column, or a field of one: its parts without the dots."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """A checked `--where`: what a record must be to be kept."""

    conditions: tuple[str, ...]
    """What is joined by AND at the top; all must be true. SQL, in the user's own words where these are on one line."""
    names: tuple[Name, ...]
    """What it refers to, each once."""


def parse(text: str) -> Expression:
    """Read a condition; whether its columns exist is not looked at.

    Raises:
        InputError: It is not one boolean expression over the columns of a row, or uses what is not allowed there.
    """
    engine = _engine()
    try:
        text.encode()
        tree = _condition(engine, text)
        names = dict.fromkeys(_names(tree, engine))
        return Expression(conditions=tuple(_texts(engine, tree, text)), names=tuple(names))
    except UnicodeEncodeError:
        raise _refusal("is not UTF-8") from None
    except RecursionError:
        raise _refusal("is nested too deeply") from None


class Evaluator:
    """Runs a condition over tables that have a column `row` and every column that it names."""

    def __init__(self, expression: Expression):
        self.engine = _engine()
        self.conditions = expression.conditions

    def check(self, schema: pa.Schema) -> None:
        """Try the condition on no rows.

        Raises:
            InputError: It does not fit the columns, or a part of it is neither true nor false.
        """
        with _one_line():
            self.engine.register(_ROWS, schema.empty_table())
            for condition in self.conditions:
                [kind] = self.engine.sql(f"SELECT ({condition}) FROM {_ROWS}").types
                if str(kind) != "BOOLEAN":
                    raise _refusal(f"{condition} is {_article(str(kind))}, not a condition; compare it with something")
        self(schema.empty_table())

    def __call__(self, table: pa.Table) -> NDArray[np.bool_]:
        """Which rows of a table fulfil which conditions [rows, conditions]; what is null is not fulfilled.

        Raises:
            InputError: A value is not one that the condition can be applied to.
        """
        wanted = (f"coalesce(({text}), false) AS c{number}" for number, text in enumerate(self.conditions))
        with _one_line():
            self.engine.register(_ROWS, table)
            found = self.engine.sql(f"SELECT {', '.join(wanted)} FROM {_ROWS}").to_arrow_table()
        assert found.num_rows == table.num_rows, (found.num_rows, table.num_rows)
        return np.stack([column.to_numpy(zero_copy_only=False).astype(bool) for column in found.columns], axis=1)


def _engine() -> duckdb.DuckDBPyConnection:
    """A database in memory that reaches nothing outside it."""
    engine = duckdb.connect(
        ":memory:",
        config={
            "enable_external_access": "false",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "python_enable_replacements": "false",
            "temp_directory": "",
            "threads": "1",
        },
    )
    engine.execute("SET TimeZone = 'UTC'")  # not the machine's: every worker decides alike
    engine.execute("SET lock_configuration = true")
    return engine


class _one_line:  # noqa: N801 - a context manager, used like a function
    """Turn DuckDB's errors into one line."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, duckdb.Error):
            why = str(error).partition(chr(10))[0].partition(": ")[2]
            hint = "; all conditions are tried on all records: write try_cast(… AS …), null where that fails"
            raise _refusal(f"fails: {why}{hint * isinstance(error, duckdb.ConversionException)}") from None


def _refusal(why: str) -> InputError:
    return InputError(f"--where {why}")


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "AEIOU" else f"a {kind}"


def _condition(engine: duckdb.DuckDBPyConnection, text: str) -> dict[str, Any]:
    """The tree of a condition, if a query that ends in it has that and nothing else."""
    found, plain = _serialized(engine, text), _serialized(engine, "true")
    if found["error"]:
        raise _syntax_error(found, text)
    statement, expected = _placeless(found["statements"][0]), _placeless(plain["statements"][0])
    statement["node"]["where_clause"] = expected["node"]["where_clause"]
    statement["named_param_map"] = expected["named_param_map"]
    if len(found["statements"]) != 1 or statement != expected:
        raise _refusal("is more than a condition; leave out what follows it (ORDER BY, LIMIT, GROUP BY, ;)")
    tree: dict[str, Any] = found["statements"][0]["node"]["where_clause"]
    return tree


def _serialized(engine: duckdb.DuckDBPyConnection, text: str) -> dict[str, Any]:
    # The line end closes a comment.
    [[found]] = engine.execute("SELECT json_serialize_sql(?)", [f"{_HEAD}{text}\n"]).fetchall()
    parsed: dict[str, Any] = json.loads(found)
    return parsed


def _syntax_error(found: dict[str, Any], text: str) -> InputError:
    if found["error_type"] != "parser":
        return _refusal("is not one condition; statements are not taken")
    if "position" not in found:
        return _refusal(f"cannot be read: {found['error_message']}")
    before = f"{_HEAD}{text}".encode()[: int(found["position"])].decode(errors="ignore")
    place = len(before) - len(_HEAD) + 1
    if not text.strip() or place < 1:
        return _refusal("is empty; give a condition, such as p_safe.children_app >= 0.9")
    return _refusal(f"cannot be read: {found['error_message']} (character {place})")


def _placeless(tree: Any) -> Any:
    """A tree without where its nodes were in the text."""
    if isinstance(tree, dict):
        return {key: _placeless(value) for key, value in tree.items() if key not in _PLACE}
    return [_placeless(one) for one in tree] if isinstance(tree, list) else tree


def _names(tree: Any, engine: duckdb.DuckDBPyConnection, bound: frozenset[str] = frozenset()) -> Iterator[Name]:
    """Yield what a tree refers to, apart from the parameters of lambdas.

    Raises:
        InputError: It has what is not allowed.
    """
    if isinstance(tree, list):
        for one in tree:
            yield from _names(one, engine, bound)
    if not isinstance(tree, dict):
        return
    kind = tree.get("class", "CONSTANT")
    if kind not in _CLASSES or tree.get("syntax_type", "LAMBDA_KEYWORD") != "LAMBDA_KEYWORD":
        arrow = "an arrow; write lambda x: … or json_extract(column, '$.key')"
        raise _refusal(f"has {arrow if kind == 'LAMBDA' else _REFUSED.get(kind, kind)}")
    if kind == "TYPE" and tree["type_name"].lower() in _ZONED_TIMES:
        raise _refusal("has a time of day in a zone, which is another on other days; take a timestamp")
    own = _field_named(tree)
    if own and own[0] not in bound:
        yield own
    if kind == "LAMBDA":
        bound |= {name[0] for name in _names(tree["lhs"], engine)}
        yield from _names(tree["expr"], engine, bound)
        return
    if kind == "FUNCTION":
        _check_function(tree["qualified_name"]["path"], len(tree["arguments"]), engine)
    for value in tree.values():
        yield from (name for name in _names(value, engine, bound) if own is None or name != own[:-1])


def _field_named(tree: dict[str, Any]) -> Name | None:
    """The name of a column, or of a field by constant subscripts, if a tree is no more than that."""
    if tree.get("class") == "COLUMN_REF":
        return tuple(tree["column_names"])
    if tree.get("type") in ("ARRAY_EXTRACT", "STRUCT_EXTRACT"):
        parts = tree["children"]
    elif tree.get("class") == "FUNCTION" and tuple(map(str.lower, tree["qualified_name"]["path"])) in _EXTRACTORS:
        parts = [argument["expression"] for argument in tree["arguments"]]
    else:
        return None
    whole = _field_named(parts[0]) if len(parts) == 2 else None
    literal = parts[-1].get("literal", {}) if whole else {}
    return (*whole, literal["text"]) if whole and literal.get("kind") == "STRING" else None


def _check_function(path: Sequence[str], num_arguments: int, engine: duckdb.DuckDBPyConnection) -> None:
    """Raise unless a function makes of the same values always the same one, and does nothing else."""
    name = path[-1].lower()
    if len(path) > 1:
        raise _refusal(f"calls {'.'.join(path)}; write {name}(…)")
    query = "SELECT function_type, stability, macro_definition, parameters FROM duckdb_functions()"
    found = engine.execute(f"{query} WHERE function_name = ?", [name]).fetchall()
    if not found and name != "unnest":
        known = {one for [one] in engine.execute("SELECT function_name FROM duckdb_functions()").fetchall()}
        raise _refusal(f"calls {name}, which is no function; {nearest(name, known)}")
    if (name, num_arguments) == ("age", 1):
        raise _refusal("calls age with one argument, which counts from today; write age(later, earlier)")
    found = [one for one in found if one[0] in _CALLED]
    for kind, stability, definition, parameters in found:
        if kind == "macro":  # a name for another expression, under the same rules; the time of day looks like a column
            is_own = {name[0] for name in _names(_condition(engine, definition), engine)} <= set(parameters)
        else:
            is_own = (kind, stability) == ("scalar", "CONSISTENT")
        found = found if is_own else []
    if not found or name in _OF_NO_ROW or name.startswith("__"):
        raise _refusal(f"calls {name}, which is not a function of one row's values alone")


def _texts(engine: duckdb.DuckDBPyConnection, tree: dict[str, Any], text: str) -> Iterator[str]:
    """The conditions that a tree joins by AND at its top, as text that gives the same trees."""
    is_and = tree["type"] == "CONJUNCTION_AND"
    for part in tree["children"] if is_and else [tree]:
        own = _own_words(part, text)
        try:
            is_same = bool(own) and _placeless(_condition(engine, own)) == _placeless(part)
        except InputError:  # of "(a + b) * c" the outer bracket is not part of any node
            is_same = False
        yield own if is_same else _written(engine, part)


def _own_words(tree: dict[str, Any], text: str) -> str:
    """The part of a text that a tree comes from, as far as its nodes tell; empty where they are on several lines."""
    data = f"{_HEAD}{text}".encode()
    places = [place for place in _places(tree) if place[1] <= len(data)]
    start, end = min(place[0] for place in places), max(place[1] for place in places)
    own = data[start:end].decode(errors="replace")
    return "" if "\n" in own else own


def _places(tree: Any) -> Iterator[tuple[int, int]]:
    """First byte and the one after the last of every node that has a place."""
    if isinstance(tree, dict) and "query_location" in tree:
        yield tree["query_location"], tree["query_location"] + tree["query_location_length"]
    for value in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from _places(value)


def _written(engine: duckdb.DuckDBPyConnection, tree: dict[str, Any]) -> str:
    """A tree in DuckDB's words."""
    statement = _serialized(engine, "true")
    statement["statements"][0]["node"] |= {"select_list": [tree], "where_clause": None}
    [[query]] = engine.execute("SELECT json_deserialize_sql(?)", [json.dumps(statement)]).fetchall()
    written: str = query.removeprefix("SELECT ").removesuffix(f" FROM {_ROWS}")
    return written
