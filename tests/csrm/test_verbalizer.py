"""The verbalizer read-out says what the decoder's own language-model head says."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_tokenizer
from transformers import BertConfig, BertLMHeadModel, LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from csrm import CSRM, CheckpointError, Clause, Configuration
from csrm.checkpoint import from_language_model
from csrm.model import Layout
from csrm.reference import dense_mask
from csrm.verbalizer import QUESTION, token_ids, verbalizer_reward

SIZE = {
    "vocab_size": 260,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
}
DECODER = {**SIZE, "num_key_value_heads": 2, "head_dim": 8}
LAYOUT = Layout(width=16, max_conversation_tokens=48, max_clause_tokens=24)


def tokenizer_that_knows(*words):
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([*words, *QUESTION.lower().replace(":", "").split()])
    return tokenizer


@pytest.fixture(params=[(Qwen3ForCausalLM, Qwen3Config), (LlamaForCausalLM, LlamaConfig)])
def folder(request, tmp_path):
    torch.manual_seed(0)
    kind, config = request.param
    model = kind(config(**DECODER))
    model.lm_head.weight.data.normal_()  # verdicts of an untrained head would all be the same
    model.save_pretrained(tmp_path)
    tokenizer_that_knows("safe", "unsafe").save_pretrained(tmp_path)
    return tmp_path, model


def reward_of_the_language_model(language_model, model, clause, conversation):
    """Clause, conversation and question in one packed sequence through the stock model and its own head."""
    question = model.encoder.tokenizer(QUESTION, add_special_tokens=False)["input_ids"]
    blocks = [clause, conversation]
    token_block = [b for b, block in enumerate(blocks) for _ in block]
    cells = [(0, 0, p) for p in range(len(question))]
    mask = dense_mask(model, token_block, 1, cells, [[0]], [[]])
    first = model.conversation_offset + len(conversation)
    positions = [*range(len(clause)), *range(model.conversation_offset, first), *range(first, first + len(question))]
    language_model.set_attn_implementation("sdpa")
    with torch.no_grad():
        logits = language_model(
            input_ids=torch.tensor([[*clause, *conversation, *question]]),
            position_ids=torch.tensor([positions]),
            attention_mask=mask[None, None],
            use_cache=False,
        ).logits[0, -1]
    p = logits.double().softmax(-1)
    safe, unsafe = token_ids(model.encoder.tokenizer)
    return (p[safe].sum().log() - p[unsafe].sum().log()).item()


def test_an_untrained_verbalizer_scores_as_the_language_model_does(folder):
    path, language_model = folder
    model = from_language_model(path, LAYOUT).eval()
    model.clause_evidence.output.bias.data.fill_(-1e4)  # silence what is new: the head alone speaks
    configuration = Configuration(id="one", clauses=(Clause(category="w3", guideline="w4 w5"),))
    talk = [{"role": "user", "content": "w1 w2"}, {"role": "assistant", "content": "w7"}]
    (clause,) = model.encoder.encode_clauses([configuration.clauses[0].text])
    from csrm.conversations import as_conversation

    (conversation,) = model.encoder.encode([as_conversation(talk)]).windows()
    expected = reward_of_the_language_model(language_model, model, clause, conversation.tolist())
    assert model.score([talk], [configuration]).reward[0, 0] == pytest.approx(expected, abs=1e-4)


def test_a_verbalizer_checkpoint_comes_back_the_same(folder, tmp_path):
    path, _ = folder
    model = from_language_model(path, LAYOUT).eval()
    model.save_pretrained(tmp_path / "saved")
    again = CSRM.from_pretrained(tmp_path / "saved", dtype="float32")
    configuration = Configuration(id="one", clauses=(Clause(category="w3", guideline="w4 w5"),))
    conversations = [[{"role": "user", "content": "w1 w2"}], [{"role": "user", "content": "w9"}]]
    first, second = (m.score(conversations, [configuration]).reward for m in (model, again))
    assert again.layout == model.layout
    assert (first == second).all()
    assert first[0, 0] != first[1, 0]


def test_clauses_start_near_silence_and_add_to_the_odds(folder):
    path, _ = folder
    model = from_language_model(path, LAYOUT).eval()
    configuration = Configuration(id="one", clauses=(Clause(category="w3", guideline="w4 w5"),))
    heard = model.score([[{"role": "user", "content": "w1"}]], [configuration]).reward[0, 0]
    model.clause_evidence.output.bias.data.fill_(-1e4)
    silenced = model.score([[{"role": "user", "content": "w1"}]], [configuration]).reward[0, 0]
    assert heard <= silenced
    assert heard == pytest.approx(silenced, abs=0.1)


def test_an_encoder_has_no_verbalizer(tmp_path):
    BertLMHeadModel(BertConfig(**SIZE)).save_pretrained(tmp_path)
    tokenizer_that_knows("safe", "unsafe").save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="needs a decoder"):
        from_language_model(tmp_path, LAYOUT)


def test_a_tokenizer_without_the_words_is_refused():
    with pytest.raises(CheckpointError, match="cannot tell 'safe' from 'unsafe'"):
        token_ids(tiny_tokenizer())


def test_a_verbalizer_needs_probes():
    with pytest.raises(ValueError, match="num_probes"):
        Layout(verbalizer=(1, 1))


@given(st.floats(-50, 50), st.floats(-50, 50))
def test_a_two_token_verbalizer_is_the_difference_of_logits(safe, unsafe):
    logits = torch.tensor([[0.0, safe, 5.0, unsafe]])
    torch.testing.assert_close(verbalizer_reward(logits, [1], [3]), torch.tensor([safe]) - torch.tensor([unsafe]))


def test_the_verbalizer_is_the_log_ratio_of_summed_probabilities():
    logits = torch.randn(2, 3, 7)
    p = logits.softmax(-1)
    expected = (p[..., 0] + p[..., 4]).log() - (p[..., 1] + p[..., 2] + p[..., 6]).log()
    torch.testing.assert_close(verbalizer_reward(logits, [0, 4], [1, 2, 6]), expected)


@pytest.mark.parametrize(("safe", "unsafe"), [([], [1]), ([1], []), ([1, 2], [2])])
def test_verbalizers_must_be_two_sets(safe, unsafe):
    with pytest.raises(ValueError, match="two disjoint sets"):
        verbalizer_reward(torch.zeros(3), safe, unsafe)
