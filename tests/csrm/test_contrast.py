"""Contrasts: labels follow answer and request together, and neither request, opener nor length gives them away."""

from collections import Counter

import numpy as np
import pytest
import yaml
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict

from csrm.contrast import _KINDS, RELATED_TOPICS, _related, contrast_rows, load_contrasts
from csrm.errors import ConfigurationError, InputError

TOPICS = load_contrasts()
ROWS = contrast_rows(TOPICS, np.random.default_rng(0), 3000)
REPLIES = [row for row in ROWS if len(row.conversation) == 2]
LABELS = np.array([row.violated[0] for row in REPLIES])
LISTS = ("harmful_requests", "harmful_replies", "harmless_requests", "harmless_replies", "redirecting_replies")


def stripped(reply: str) -> str:
    openers = sorted(TOPICS[0].openers, key=len, reverse=True)
    return next((reply[len(opener) + 1 :] for opener in openers if reply.startswith(f"{opener} ")), reply)


def topic_of(row):
    return next(topic for topic in TOPICS if row.clauses[0] in topic.clauses)


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_every_topic_is_full(topic):
    counts = [len(getattr(topic, name)) for name in LISTS]
    assert np.all(np.array(counts) >= [24, 20, 20, 20, 10])
    assert 6 <= len(topic.clauses) <= 8


def test_the_lists_for_all_topics_are_full():
    assert len(TOPICS) >= 16
    assert len(TOPICS[0].refusals) >= 60
    assert len(TOPICS[0].openers) >= 30


def test_no_text_plays_two_parts():
    texts = [text for topic in TOPICS for name in LISTS for text in getattr(topic, name)]
    texts += [*TOPICS[0].refusals, *TOPICS[0].openers, *TOPICS[0].small_talk]
    assert [text for text, count in Counter(text.casefold() for text in texts).items() if count > 1] == []
    clauses = [clause for topic in TOPICS for clause in topic.clauses]
    assert len(set(clauses)) == len(clauses)


def test_redirecting_replies_use_no_stock_refusal():
    stock = ("sorry", "i can't", "i cannot", "i won't", "as an ai", "unable", "not able")
    assert [
        reply for topic in TOPICS for reply in topic.redirecting_replies if any(s in reply.lower() for s in stock)
    ] == []


def test_labels_follow_request_and_answer():
    for row in ROWS:
        topic, last = topic_of(row), row.conversation[-1]
        if last.role == "user":
            assert row.violated[0] == (last.content in topic.harmful_requests)
            continue
        reply = stripped(last.content)
        assert row.violated[0] == (reply in topic.harmful_replies or last.content in topic.harmful_replies)


def test_every_kind_comes_in_its_share():
    def kind(row):
        topic, asked, reply = topic_of(row), row.conversation[0].content, stripped(row.conversation[-1].content)
        request = next(n for n in ("harmful_requests", "harmless_requests", "small_talk") if asked in getattr(topic, n))
        if len(row.conversation) == 1:
            return request.removesuffix("_requests"), None
        texts = {row.conversation[-1].content, reply}
        names = ("harmful_replies", "harmless_replies", "redirecting_replies", "refusals")
        answer = next(name for name in names if texts & set(getattr(topic, name)))
        answer = {"harmful_replies": "harmful", "redirecting_replies": "redirecting", "refusals": "refusal"}.get(answer)
        if answer is None:
            answer = "own" if request == "harmless_requests" else "harmless"
        return request.removesuffix("_requests"), answer

    counts = Counter(map(kind, ROWS))
    for share, request, answer, *_ in _KINDS:
        assert counts[request, answer] / len(ROWS) == pytest.approx(share, abs=0.03), (request, answer)


def test_a_harmless_question_gets_its_own_answer():
    for row in REPLIES:
        topic, asked = topic_of(row), row.conversation[0].content
        reply = stripped(row.conversation[1].content)
        if asked in topic.harmless_requests and reply in topic.harmless_replies:
            assert topic.harmless_requests.index(asked) == topic.harmless_replies.index(reply)


def test_other_clauses_are_unrelated_and_kept():
    names = {clause: topic.name for topic in TOPICS for clause in topic.clauses}
    assert Counter(len(row.clauses) for row in ROWS).keys() == {1, 2, 3}
    for row in ROWS:
        first, *others = (names[clause] for clause in row.clauses)
        assert not any(row.violated[1:])
        assert not any(_related(first, other) for other in others)
        assert len({first, *others}) == len(row.clauses)


def test_relations_name_real_topics_and_leave_some_unrelated():
    names = {topic.name for topic in TOPICS}
    assert {*RELATED_TOPICS, *" ".join(RELATED_TOPICS.values()).split()} == names
    for one in names:
        assert sum(not _related(one, other) for other in names) >= 3
        assert all(_related(one, other) == _related(other, one) for other in names)
    for pair in ("violence terrorism", "fraud cyber", "privacy theft", "hate political", "sexual child_safety"):
        assert _related(*pair.split())


def test_share_of_violations():
    assert np.mean([row.violated[0] for row in ROWS]) == pytest.approx(0.45, abs=0.03)


def test_the_request_alone_does_not_give_the_label_away():
    requests = [row.conversation[0].content for row in REPLIES]
    counts = CountVectorizer(ngram_range=(1, 2)).fit_transform(requests)
    scores = cross_val_predict(LogisticRegression(max_iter=500), counts, LABELS, cv=4, method="decision_function")
    assert roc_auc_score(LABELS, scores) < 0.75


def test_neither_length_nor_opener_gives_the_label_away():
    lengths = [len(row.conversation[1].content) for row in REPLIES]
    opened = [stripped(row.conversation[1].content) != row.conversation[1].content for row in REPLIES]
    for cue in (lengths, opened):
        assert 0.35 < roc_auc_score(LABELS, cue) < 0.65


def test_rows_are_distinct_and_reproducible():
    assert len({row.id for row in ROWS}) == len(ROWS)
    assert len({(tuple((m.role, m.content) for m in row.conversation), row.clauses) for row in ROWS}) == len(ROWS)
    assert {row.domain for row in ROWS} == {"requests"}
    assert contrast_rows(TOPICS, np.random.default_rng(0), 300) == contrast_rows(TOPICS, np.random.default_rng(0), 300)
    assert contrast_rows(TOPICS, np.random.default_rng(1), 300) != contrast_rows(TOPICS, np.random.default_rng(0), 300)


def small_library():
    topic = {name: ["one"] for name in LISTS} | {"name": "theft", "clauses": [{"category": "A", "guideline": "No."}]}
    return {"refusals": ["No."], "openers": ["Sure."], "small_talk": ["hi"], "topics": [topic]}


def test_more_rows_than_there_are_is_an_error(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(small_library()))
    with pytest.raises(ValueError, match="ask for fewer"):
        contrast_rows(load_contrasts(path), np.random.default_rng(0), 100)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"harmful_replies": []}, r"theft.*harmful_replies is empty"),
        ({"harmless_replies": ["a", "b"]}, r"theft.*1 harmless_requests but 2 harmless_replies"),
        ({"harmful_requests": ["a", "a"]}, r"theft.*holds a text twice"),
        ({"redirecting_replies": [True]}, r"theft.*must be a list of texts"),
        ({"clauses": ["no theft"]}, r"theft.*category and guideline"),
        ({"name": None}, "no `name`"),
    ],
)
def test_a_broken_library_is_refused_with_file_and_topic(tmp_path, change, message):
    library = small_library()
    library["topics"][0] |= change
    path = tmp_path / "broken.yaml"
    path.write_text(yaml.safe_dump(library))
    with pytest.raises(ConfigurationError, match=rf"broken\.yaml: .*{message}"):
        load_contrasts(path)


def test_a_missing_library_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="not readable"):
        load_contrasts(tmp_path / "none.yaml")
