"""The engine equals the slow reference, and what must not matter does not."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from tiny import FAMILIES, tiny_model

from csrm import Clause, Configuration, RecordError
from csrm.engine import prepare, score_encoded
from csrm.reference import reference_logits

TOLERANCE = 1e-5


def words(rng, number):
    return " ".join(f"w{n}" for n in rng.integers(0, 200, number))


def make_conversations(rng, number, longest=30):
    return [
        [
            {"role": role, "content": words(rng, rng.integers(0, longest // 3 + 1))}
            for role in ("system", "user", "assistant")[: rng.integers(1, 4)]
        ]
        for _ in range(number)
    ]


def make_configurations(rng, sizes, contexts=False):
    return [
        Configuration(
            id=f"policy_{n}",
            title=f"Policy {n}",
            context=words(rng, 5) if contexts and n % 2 == 0 else "",
            clauses=tuple(
                Clause(category=f"w{rng.integers(200)}", guideline=words(rng, rng.integers(1, 12))) for _ in range(size)
            ),
        )
        for n, size in enumerate(sizes)
    ]


def reference(model, conversations, configurations):
    """Rewards by the reference, one window per conversation."""
    encoded = model.encoder.encode(conversations_of(conversations))
    assert encoded.num_windows == len(conversations)
    texts, members, contexts = [], [], []
    for configuration in configurations:
        own = [clause.text for clause in configuration.clauses]
        context = [f"Context: {configuration.context}"] if configuration.context and model.layout.num_probes else []
        members.append(range(len(texts), len(texts) + len(own)))
        contexts.append(range(len(texts) + len(own), len(texts) + len(own) + len(context)))
        texts += own + context
    clauses = model.encoder.encode_clauses(texts)
    windows = [window.tolist() for window in encoded.windows()]
    return -reference_logits(model, windows, encoded.judged_starts.tolist(), clauses, members, contexts).numpy()


def conversations_of(conversations):
    from csrm.messages import as_conversation

    return [as_conversation(conversation) for conversation in conversations]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("num_probes", [0, 1, 4])
@pytest.mark.parametrize("sizes", [(1,), (3, 1), (2, 5, 1, 4, 3, 1, 2)])
def test_engine_equals_reference(family, num_probes, sizes):
    rng = np.random.default_rng(len(sizes) + num_probes)
    model = tiny_model(family, num_probes)
    conversations, configurations = make_conversations(rng, 6), make_configurations(rng, sizes, contexts=True)
    matrix = model.score(conversations, configurations)
    np.testing.assert_allclose(
        matrix.reward, reference(model, conversations, configurations), atol=TOLERANCE, rtol=TOLERANCE
    )


@pytest.mark.parametrize("batch_tokens", [1, 50, 10_000])
@pytest.mark.parametrize("num_probes", [0, 2])
def test_engine_equals_reference_at_any_batch_size(batch_tokens, num_probes):
    rng = np.random.default_rng(7)
    model = tiny_model("qwen3", num_probes)
    conversations, configurations = make_conversations(rng, 9), make_configurations(rng, (2, 3, 1))
    matrix = model.score(conversations, configurations, batch_tokens=batch_tokens)
    np.testing.assert_allclose(
        matrix.reward, reference(model, conversations, configurations), atol=TOLERANCE, rtol=TOLERANCE
    )


def test_padding_side_does_not_matter():
    rng = np.random.default_rng(3)
    conversations, configurations = make_conversations(rng, 5), make_configurations(rng, (2, 1))
    rewards = []
    for side in ("left", "right"):
        model = tiny_model("llama", 1)
        model.encoder.tokenizer.padding_side = side
        rewards.append(model.score(conversations, configurations).reward)
    np.testing.assert_array_equal(*rewards)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("num_probes", [0, 2])
def test_order_does_not_matter(family, num_probes):
    """Clauses, configurations and records in any order: the same cells, to rounding."""
    rng = np.random.default_rng(11)
    model = tiny_model(family, num_probes)
    conversations, configurations = make_conversations(rng, 7), make_configurations(rng, (4, 1, 3))
    expected = model.score(conversations, configurations).reward
    rows, columns = rng.permutation(7), rng.permutation(3)
    shuffled = [
        Configuration(
            id=configurations[c].id,
            title="",
            clauses=tuple(configurations[c].clauses[k] for k in rng.permutation(len(configurations[c].clauses))),
        )
        for c in columns
    ]
    actual = model.score([conversations[r] for r in rows], shuffled).reward
    np.testing.assert_allclose(actual, expected[np.ix_(rows, columns)], atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("num_probes", [0, 2])
def test_company_does_not_matter(num_probes):
    """A cell alone scores what it scores among others."""
    rng = np.random.default_rng(5)
    model = tiny_model("bert", num_probes)
    conversations, configurations = make_conversations(rng, 8), make_configurations(rng, (2, 1, 5))
    full = model.score(conversations, configurations).reward
    for r, c in itertools.product((0, 3, 7), (0, 2)):
        alone = model.score([conversations[r]], [configurations[c]]).reward
        np.testing.assert_allclose(alone[0, 0], full[r, c], atol=TOLERANCE, rtol=TOLERANCE)


def test_probes_in_chunks_equal_probes_at_once():
    """Too many clause tokens for one chunk: configurations are worked off in several, with the same result."""
    rng = np.random.default_rng(2)
    model = tiny_model("qwen3", 2)
    conversations, configurations = make_conversations(rng, 5), make_configurations(rng, (3, 1, 4, 2, 2))
    encoded = model.encoder.encode(conversations_of(conversations))
    at_once = prepare(model, configurations)
    chunked = prepare(model, configurations, column_tokens=40)
    assert len(at_once.chunks) == 1
    assert len(chunked.chunks) > 2
    np.testing.assert_allclose(
        score_encoded(model, encoded, chunked).reward,
        score_encoded(model, encoded, at_once).reward,
        atol=TOLERANCE,
        rtol=TOLERANCE,
    )


def test_long_conversations_take_the_worst_window():
    rng = np.random.default_rng(4)
    model = tiny_model("bert", max_conversation_tokens=32)
    configurations = make_configurations(rng, (2, 1))
    long = [{"role": "user", "content": words(rng, 20)} for _ in range(6)]
    encoded = model.encoder.encode(conversations_of([long]))
    assert encoded.num_windows > 3
    windows = [w.tolist() for w in encoded.windows()]
    texts = [clause.text for c in configurations for clause in c.clauses]
    by_window = -reference_logits(
        model,
        windows,
        encoded.judged_starts.tolist(),
        model.encoder.encode_clauses(texts),
        [range(2), range(2, 3)],
        [[], []],
    ).numpy()
    matrix = model.score([long], configurations)
    np.testing.assert_allclose(matrix.reward[0], by_window.min(axis=0), atol=TOLERANCE, rtol=TOLERANCE)


def test_worst_clause_names_the_clause_that_alone_scores_lowest():
    rng = np.random.default_rng(6)
    model = tiny_model("bert")
    conversations, (configuration,) = make_conversations(rng, 12), make_configurations(rng, (5,))
    alone = [Configuration(id=f"c{n}", title="", clauses=(c,)) for n, c in enumerate(configuration.clauses)]
    worst = model.score(conversations, [configuration], explain=True).scores.worst_clause
    np.testing.assert_array_equal(worst[:, 0], model.score(conversations, alone).reward.argmin(axis=1))


def test_a_long_clause_is_split_with_a_warning_and_reported_whole():
    rng = np.random.default_rng(8)
    model = tiny_model("bert", max_clause_tokens=16)
    clauses = (
        Clause(category="short", guideline=words(rng, 3)),
        Clause(category="long", guideline=". ".join(words(rng, 6).capitalize() for _ in range(5)) + "."),
    )
    configuration = Configuration(id="mixed", title="Mixed", clauses=clauses)
    with pytest.warns(UserWarning, match="'long' is longer than the 16 tokens"):
        matrix = model.score(make_conversations(rng, 20), [configuration], explain=True)
    assert set(matrix.scores.worst_clause[:, 0]) <= {0, 1}
    assert 1 in matrix.scores.worst_clause[:, 0]


def test_identical_windows_are_read_once(monkeypatch):
    rng = np.random.default_rng(9)
    model = tiny_model("bert")
    (conversation,), configurations = make_conversations(rng, 1), make_configurations(rng, (2,))
    read = []
    monkeypatch.setattr(
        model,
        "encode_windows",
        lambda blocks, *a, _run=model.encode_windows, **k: read.append(len(blocks)) or _run(blocks, *a, **k),
    )
    matrix = model.score([conversation] * 1000, configurations)
    assert read == [1]
    assert np.unique(matrix.reward).size == 1


def test_records_without_windows_have_no_score():
    rng = np.random.default_rng(10)
    model = tiny_model("bert")
    configurations = make_configurations(rng, (2, 1))
    first, last = conversations_of(make_conversations(rng, 2))
    encoded = model.encoder.encode([[], first, [], last])
    scores = score_encoded(model, encoded, prepare(model, configurations), explain=True)
    assert np.isnan(scores.reward[[0, 2]]).all()
    assert np.isfinite(scores.reward[[1, 3]]).all()
    assert (scores.worst_clause[[0, 2]] == -1).all()


def test_nothing_to_score():
    model = tiny_model("bert")
    matrix = model.score([], make_configurations(np.random.default_rng(0), (1,)))
    assert matrix.reward.shape == (0, 1)
    assert matrix.to_arrow().num_rows == 0


def test_a_thousand_configurations_on_one_record():
    rng = np.random.default_rng(12)
    model = tiny_model("bert", 1)
    configurations = make_configurations(rng, [10] * 1000)
    conversation = make_conversations(rng, 1)
    matrix = model.score(conversation, configurations)
    assert np.isfinite(matrix.reward).all()
    some = [configurations[0], configurations[999]]
    np.testing.assert_allclose(
        matrix.reward[:, [0, 999]], model.score(conversation, some).reward, atol=TOLERANCE, rtol=TOLERANCE
    )


def test_bad_conversations_are_named():
    model = tiny_model("bert")
    with pytest.raises(RecordError, match="conversation 1: message 1 has the unknown role"):
        model.score([[{"role": "user", "content": "a"}], [{"role": "king", "content": "a"}]], [])
    with pytest.raises(ValueError, match="1 record ids for 0 conversations"):
        model.score([], make_configurations(np.random.default_rng(0), (1,)), record_ids=["x"])


def test_the_context_is_read_by_probes_alone():
    rng = np.random.default_rng(13)
    conversations = make_conversations(rng, 4)
    (plain,) = make_configurations(rng, (2,))
    told = Configuration(id="told", title="", clauses=plain.clauses, context="w1 w2 w3")
    with_probes = tiny_model("bert", 2).score(conversations, [plain, told]).reward
    without = tiny_model("bert", 0).score(conversations, [plain, told]).reward
    assert np.abs(with_probes[:, 0] - with_probes[:, 1]).max() > 1e-3
    np.testing.assert_array_equal(without[:, 0], without[:, 1])


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_is_under_a_tenth_on_real_length_distributions(family):
    """Lognormal lengths, as chat logs have: padded attention tokens stay within 10 % of real ones."""
    from csrm.attention import Ragged
    from csrm.engine import _fill

    rng = np.random.default_rng(14)
    lengths = np.sort(np.clip(rng.lognormal(4.5, 0.9, 4000), 6, 512).astype(int)).tolist()
    padded = sum(Ragged([lengths[i] for i in batch]).num_padded_tokens for batch in _fill(lengths, 4096))
    assert padded < 1.1 * sum(lengths)


def test_bfloat16_stays_close():
    rng = np.random.default_rng(15)
    model = tiny_model("bert", 1)
    conversations, configurations = make_conversations(rng, 20), make_configurations(rng, (2, 3))
    exact = model.score(conversations, configurations).reward
    rounded = model.to(torch.bfloat16).score(conversations, configurations).reward
    assert np.corrcoef(exact.ravel(), rounded.ravel())[0, 1] > 0.99


@pytest.mark.parametrize(("family", "offset"), [("bert", 0), ("qwen3", 24), ("llama", 24)])
def test_rotary_conversations_start_after_the_longest_clause(family, offset, monkeypatch):
    """The reference shares this number with the engine, so it is checked by itself."""
    model, seen = tiny_model(family, max_clause_tokens=24), []
    monkeypatch.setattr(
        model, "_run", lambda e, positions, *a, _run=model._run: seen.append(positions) or _run(e, positions, *a)
    )
    model.encode_clauses([[4, 5, 6]])
    model.encode_windows([[4, 5, 6, 7]], [1])
    assert seen[0].tolist() == [0, 1, 2]
    assert seen[1].tolist() == [offset + p for p in range(4)]
