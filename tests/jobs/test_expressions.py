"""A condition is one boolean expression over a row's columns; whatever is more is refused before anything runs."""

import pyarrow as pa
import pytest

from csrm.errors import InputError
from jobs.filter.expressions import Evaluator, parse

ROWS = pa.table(
    {
        "row": [0, 1, 2],
        "p_safe": [{"game": 0.9}, {"game": 0.2}, {"game": None}],
        "lang": ["en", None, "it's"],
        "turns": [[1, 2], [], None],
    }
)


def passed(text, table=ROWS):
    return Evaluator(parse(text)).__call__(table).tolist()


def test_rows_are_judged_condition_by_condition():
    assert passed("p_safe.game >= 0.5 and lang is not null") == [[True, True], [False, False], [False, True]]


@pytest.mark.parametrize(
    ("text", "conditions"),
    [
        ("p_safe.game >= 0.5", ["p_safe.game >= 0.5"]),
        ("a > 1 and (b or c) and not d", ["a > 1", "b or c", "not d"]),
        ("(a > 1 AND b) and c", ["a > 1", "b", "c"]),
        ("a between 1 and 2 and b like 'x and y%'", ["a between 1 and 2", "b like 'x and y%'"]),
        ("(a + b) * c > 1 and d", ["(a + b) * c > 1", "d"]),
        ("a > 1 or b", ["a > 1 or b"]),
        ("städte = 'Köln' and b = 'é'", ["städte = 'Köln'", "b = 'é'"]),
        ("a >\n1 and b -- why", ["(a > 1)", "b"]),
        ('list_contains(a, 1) and "b c" is null', ["list_contains(a, 1)", '"b c" is null']),
        ("a in (1, 2) and b not in ('x')", ["a in (1, 2)", "b not in ('x')"]),
    ],
)
def test_conditions_are_told_in_the_users_words(text, conditions):
    assert list(parse(text).conditions) == conditions


def test_columns_are_those_named_and_no_parameters_of_lambdas():
    text = "list_sum(list_transform(turns, lambda x: x + p_safe.game)) > record.x and p_safe.game < 1"
    assert parse(text).names == (("turns",), ("p_safe", "game"), ("record", "x"))
    assert passed("len(list_filter(turns, lambda x: x > 1)) = 1") == [[True], [False], [False]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("a >", "cannot be read: .*"),
        ("é = 'é' and )", r'cannot be read: syntax error at or near "\)" \(character 13\)'),
        ("1); DROP TABLE x", r"cannot be read: .* \(character 2\)"),
        ("true; DROP TABLE x", "is not one condition; statements are not taken"),
        ("true; SELECT 1", "is more than a condition"),
        ("true ORDER BY 1", "is more than a condition"),
        ("true LIMIT 1", "is more than a condition"),
        ("true GROUP BY 1", "is more than a condition"),
        ("true UNION SELECT true", "is not|is more"),
        ("(SELECT count(*) FROM '/etc/passwd') > 0", "has a query inside"),
        ("a IN (SELECT content FROM read_text('/etc/passwd'))", "has a query inside"),
        ("EXISTS (SELECT 1)", "has a query inside"),
        ("a = ANY([1, 2])", "has a query inside"),
        ("read_csv('/etc/passwd') is null", "calls read_csv, which is not a function of one row's values"),
        ("read_text('/etc/passwd') is null", "calls read_text, which is not"),
        ("getenv('HOME') = 'x'", "calls getenv, which is no function"),
        ("current_setting('home_directory') = 'x'", "calls current_setting, which is not"),
        ("getvariable('x') = 1", "calls getvariable, which is not"),
        ("random() < 0.5", "calls random, which is not"),
        ("NOW() > ts", "calls now, which is not"),
        ("ago(interval 1 day) < ts", "calls ago, which is not"),
        ("pg_get_viewdef(1) = 'x'", "has a query inside"),
        ("pg_get_constraintdef(1) = 'x'", "has a query inside|nested"),
        ("system.main.random() < 1", "calls system.main.random"),
        ("max(a) > 1", "calls max, which is not"),
        ("unnest(a) > 1", "calls unnest, which is not"),
        ("row_number() OVER () > 1", "has a window function"),
        ("COLUMNS('a') > 1", r"has a \*"),
        ("a = $1", "has a parameter"),
        ("a = #1", "has a column by number"),
        ("a -> '$.b' = 1", "has an arrow"),
        ("lowr(a) = 'x'", "calls lowr, which is no function; did you mean 'lower'"),
        ("error('x') = 1", "calls error, which is not"),
        ("sleep_ms(1) = 1", "calls sleep_ms, which is not"),
        (
            "age(ts) > interval 1 day",
            r"calls age with one argument, .*today; write age\(later, earlier\)",
        ),
        ("AGE(p_safe['a']) > interval 1 day", "calls age with one argument"),
        ("current_localtimestamp() > ts", "calls current_localtimestamp, which is not"),
        ("current_localtime() > ts", "calls current_localtime, which is not"),
        ("timezone('Asia/Tokyo', ts::timetz) is null", "has a time of day in a zone, which is another on other days"),
        ("cast(x as struct(a time with time zone)[]) is null", "has a time of day in a zone"),
        ("version() = 'x'", "calls version, which is not"),
        ("force_checkpoint() is null", "calls force_checkpoint, which is not"),
        ("histogram(a) is null", "calls histogram, which is not"),
        ("struct_extract(p_safe, 'a') filter (where exists (select 1)) > 1", "has a query inside"),
        ("system.main.struct_extract(p_safe, 'a') > 1", "calls system.main.struct_extract"),
        ("(" * 3000 + "a" + ")" * 3000, "cannot be read|is nested"),
        ("not " * 900 + "a", "is nested too deeply"),
        ("a = '\udce4'", "is not UTF-8"),
    ],
)
def test_what_is_no_condition_is_refused_in_one_line(text, message):
    with pytest.raises(InputError, match=f"^--where ({message})") as told:
        parse(text)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("p_safe['a'] > 1", [("p_safe", "a")]),
        ("struct_extract(p_safe, 'a') > ARRAY_EXTRACT(reward, 'b')", [("p_safe", "a"), ("reward", "b")]),
        ("(p_safe).a > 1 and p_safe.a < 2", [("p_safe", "a")]),
        ("record['x']['y'] = 1", [("record", "x", "y")]),
        ("record.messages[1]['role'] = 'user'", [("record", "messages")]),
        ("p_safe[lang] > 1", [("p_safe",), ("lang",)]),
        ("p_safe['a' || p_safe] > 1", [("p_safe",)]),
        ("struct_extract() is null or array_extract(turns) is null", [("turns",)]),
        ("p_safe['it''s'] > 1", [("p_safe", "it's")]),
        ("len(list_filter(turns, lambda x: x['a'] > y['a'])) > 1", [("turns",), ("y", "a")]),
    ],
)
def test_a_field_by_a_constant_subscript_is_one_by_name(text, names):
    assert list(parse(text).names) == names


def test_functions_that_tables_share_a_name_with_are_taken():
    assert passed("repeat('a', row) = 'aa' or range(row) = [0] or generate_series(row, 1) = [0, 1]")[0] == [True]
    assert passed("repeat('a', row) = 'aa' and range(row) = [0, 1]") == [[False, False], [False, False], [True, True]]
    assert passed("age('2020-01-03'::timestamp, '2020-01-01'::timestamp) = interval 2 day") == [[True]] * 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("p_safe.game", "p_safe.game is a FLOAT|p_safe.game is a DOUBLE, not a condition"),
        ("p_safe.game > 0.5 and 1", "1 is an INTEGER, not a condition"),
        ("null", "null is .*, not a condition"),
        ("p_safe.gme > 0.5", 'fails: Could not find key "gme" in struct'),
        ("lang > 1.5 and lower(p_safe) = 'x'", "fails: .*"),
        ("lang + 'a' > 3", "fails: .*"),
    ],
)
def test_what_does_not_fit_the_columns_is_refused_on_no_rows(text, message):
    with pytest.raises(InputError, match=f"^--where ({message})") as told:
        Evaluator(parse(text)).check(ROWS.schema)
    assert "\n" not in str(told.value)


def test_a_value_that_no_condition_applies_to_is_told():
    with pytest.raises(InputError, match=r"^--where fails: Could not convert string 'en'.*; .* write try_cast\("):
        passed("lang::int > 3")
    assert passed("try_cast(lang as int) > 3 or lang = 'it''s'") == [[False], [False], [True]]


def test_the_engine_reaches_nothing_outside(tmp_path):
    """Were a condition to get past the check, there would be nothing to find."""
    engine = Evaluator(parse("true")).engine
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    for query in (
        f"SELECT * FROM read_csv('{secret}')",
        f"SELECT * FROM '{secret}'",
        f"COPY (SELECT 1) TO '{tmp_path}/x.csv'",
        f"ATTACH '{tmp_path}/x.db'",
        "INSTALL httpfs",
        "SET enable_external_access = true",
        "SELECT * FROM ROWS",
    ):
        with pytest.raises(Exception, match=r"disabled by configuration|does not exist|locked"):
            engine.execute(query).fetchall()
    assert [path.name for path in tmp_path.iterdir()] == ["secret.csv"]


def test_times_are_those_of_no_machine(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert passed("'2020-01-01 00:00:00+00'::timestamptz::varchar like '2020-01-01 00:%'") == [[True]] * 3
