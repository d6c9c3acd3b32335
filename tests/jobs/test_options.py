"""Bad settings are refused when they are made."""

import pytest

from csrm.conversations import RecordColumns
from jobs.options import ScoreOptions

PATHS = {"input": "in", "configurations": "policies", "output": "out"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"input": ""}, "input must not be empty"),
        ({"limit": 0}, "limit must be at least 1, got 0"),
        ({"num_actors": -1}, "num_actors"),
        ({"batch_tokens": 0}, "batch_tokens"),
        ({"shard_rows": 0}, "shard_rows"),
        ({"max_error_rate": 1.5}, "max_error_rate must be between 0 and 1"),
        ({"max_error_rate": float("nan")}, "max_error_rate"),
        ({"keep_columns": ("a", "")}, "empty name"),
        ({"keep_columns": ("reward",)}, "'reward' has the name of one of the matrix's own"),
        ({"keep_columns": ("a",), "partition_by": ("a",)}, "'a' is named twice"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        ScoreOptions(**PATHS | settings)


def test_named_columns_are_all_of_them_once():
    columns = RecordColumns(prompt="q", response="a")
    options = ScoreOptions(**PATHS, columns=columns, id_column="id", keep_columns=("q", "k"), partition_by=("p",))
    assert options.named_columns == ("q", "a", "id", "k", "p")
