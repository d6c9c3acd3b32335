"""Block attention's parts against plain softmax attention."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from csrm.attention import SIMILAR_LENGTH, Ragged, attend_partially, merge, similar_runs


@given(st.lists(st.integers(1, 500), max_size=60))
def test_runs_cover_all_blocks_and_are_similar(lengths):
    runs = list(similar_runs(lengths, SIMILAR_LENGTH))
    assert [b for run in runs for b in run] == list(range(len(lengths)))
    for run in runs:
        own = [lengths[b] for b in run]
        assert min(own) >= SIMILAR_LENGTH * max(own)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=12))
def test_padding_and_back_is_the_identity(lengths):
    ragged = Ragged(lengths)
    packed_HTD = torch.randn(2, ragged.num_tokens, 3)
    back_THD = torch.cat([group.unpad(group.pad(packed_HTD)) for group in ragged.groups])
    assert torch.equal(back_THD, packed_HTD.transpose(0, 1))


def test_equal_lengths_need_no_copy():
    (group,) = Ragged([5, 5, 5]).groups
    packed_HTD = torch.randn(2, 15, 4)
    assert group.pad(packed_HTD).data_ptr() == packed_HTD.data_ptr()


@pytest.mark.parametrize("cut", [1, 3, 6])
def test_partial_attentions_merge_to_the_whole(cut):
    query, key, value = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 7, 8), torch.randn(2, 2, 7, 8)
    parts = [
        attend_partially(query, key[:, :, part], value[:, :, part], None) for part in (slice(cut), slice(cut, None))
    ]
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, scale=1.0, enable_gqa=True)
    torch.testing.assert_close(merge(parts), expected, atol=1e-5, rtol=1e-5)


def test_masked_keys_do_not_count():
    query, key, value = torch.randn(1, 2, 3, 4), torch.randn(1, 2, 6, 4), torch.randn(1, 2, 6, 4)
    valid = torch.tensor([[[True, True, True, False, False, False]]])
    output, log_weight = attend_partially(query, key, value, valid)
    expected, expected_weight = attend_partially(query, key[:, :, :3], value[:, :, :3], None)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(log_weight, expected_weight)
