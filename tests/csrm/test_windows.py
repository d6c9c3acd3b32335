"""Windows: nothing is lost, everything fits, the judged message is in every window."""

from hypothesis import given
from hypothesis import strategies as st

from csrm.windows import cut_windows

PREFIX = [-1]
messages = st.lists(st.integers(0, 40), min_size=1, max_size=8)


def numbered(lengths):
    """Messages whose tokens are all different."""
    start, result = 0, []
    for length in lengths:
        result.append(list(range(start, start + length)))
        start += length
    return result


@given(messages, st.integers(8, 60))
def test_windows_keep_every_token_and_fit(lengths, max_tokens):
    talk = numbered(lengths)
    windows = cut_windows(talk, PREFIX, max_tokens)
    assert all(len(window.input_ids) <= max_tokens for window in windows)
    assert all(window.input_ids[0] == -1 for window in windows)
    assert {t for w in windows for t in w.input_ids} - {-1} == {t for message in talk for t in message}


@given(messages, st.integers(8, 60))
def test_every_window_ends_with_the_judged_message_or_a_piece_of_it(lengths, max_tokens):
    *context, judged = numbered(lengths)
    for window in cut_windows([*context, judged], PREFIX, max_tokens):
        piece = window.input_ids[window.judged_start :]
        assert piece == [token for token in judged if token in set(piece)]
        if judged and len(judged) <= 0.75 * (max_tokens - 1):
            assert piece == judged


@given(messages, st.integers(8, 60))
def test_context_stays_in_order(lengths, max_tokens):
    for window in cut_windows(numbered(lengths), PREFIX, max_tokens):
        assert window.input_ids[1:] == sorted(window.input_ids[1:])


def test_what_fits_is_one_window():
    assert cut_windows([[1, 2], [3]], PREFIX, 8) == [([-1, 1, 2, 3], 3)]


def test_cuts_fall_between_messages():
    windows = cut_windows([[1] * 4, [2] * 4, [3] * 4, [9] * 2], PREFIX, 11)
    assert windows == [([-1, *[1] * 4, 9, 9], 5), ([-1, *[2] * 4, *[3] * 4, 9, 9], 9)]


def test_a_long_judged_message_is_read_in_pieces_beside_recent_context():
    windows = cut_windows([[1, 1], list(range(10, 26))], PREFIX, 13)
    assert [window.judged_start for window in windows] == [3, 3]
    assert [window.input_ids[3:] for window in windows] == [list(range(10, 18)), list(range(18, 26))]
