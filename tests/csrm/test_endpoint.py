"""The endpoint proposer against a real server on loopback that fails in every way it can."""

import json
import socket
import time
from email.utils import formatdate

import numpy as np
import pytest
from stub_server import GOOD, cut, hang, hang_up, no_completion, says, serving, slow, status, trickle

from csrm import Clause, Message
from csrm.chat import Endpoint
from csrm.endpoint import EndpointProposer, Subcategory
from csrm.errors import EndpointError
from csrm.labelled import LabelledRow
from csrm.proposers import Proposal

KEY = "sk-secret-0123456789"
BAD = Clause(category="Insults", guideline="Do not insult players.")
FINE = Clause(category="Spam", guideline="Do not post the same text again and again.")
EXPECTED = Proposal(violated=Clause(**GOOD["violated"]), kept=Clause(**GOOD["kept"]))


def row(text="bet now!", clauses=(BAD,), violated=(True,)):
    return LabelledRow(
        id=text, domain="social", conversation=[Message("user", text)], clauses=clauses, violated=violated
    )


def proposer(stub, **settings):
    quick = {"timeout_s": 20.0, "backoff_s": 0.01, "max_wait_s": 2.0, "max_retries": 3} | settings
    return EndpointProposer(Endpoint(url=stub.url, model="stub", **quick))


def ask(asked, clauses=(), seed=0, **fields):
    return asked.propose(row(**fields), clauses, np.random.default_rng(seed))


@pytest.fixture(autouse=True)
def _no_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def test_the_request_is_a_chat_completion_with_a_schema():
    with serving() as stub:
        assert ask(proposer(stub), [FINE]) == EXPECTED
    (request,) = stub.requests
    assert stub.paths == ["/v1/chat/completions"]
    assert request["model"] == "stub"
    schema = request["response_format"]["json_schema"]
    assert request["response_format"]["type"] == "json_schema"
    assert schema["strict"]
    assert set(schema["schema"]["required"]) == {"violated", "kept"}
    shown = json.loads(request["messages"][1]["content"])
    assert shown["conversation"] == [{"role": "user", "content": "bet now!"}]
    assert shown["policy"] == [{"category": FINE.category, "guideline": FINE.guideline}]


@pytest.mark.parametrize(
    "fault",
    [
        *(status(code) for code in (408, 429, 500, 502, 503, 504)),
        *(hang, hang_up, cut, trickle, status(429, retry_after="nonsense")),
    ],
)
def test_a_passing_failure_is_asked_again(fault):
    with serving([fault, fault]) as stub:
        asked = proposer(stub, timeout_s=0.5 if fault in {hang, trickle} else 20.0)
        assert ask(asked) == EXPECTED
    counts = asked.counts
    assert (counts.num_asked, counts.num_answered, counts.num_failed, counts.num_malformed) == (1, 1, 0, 0)
    assert counts.num_retries == 2
    assert len(stub.requests) == 3


@pytest.mark.parametrize("fault", [hang, trickle])
def test_no_request_outlasts_its_time(fault):
    with serving([fault]) as stub:
        asked = proposer(stub, max_retries=0, timeout_s=0.2)
        start = time.monotonic()
        assert ask(asked) == Proposal()
        assert time.monotonic() - start < 10.0
    assert asked.counts.num_failed == 1


def test_retries_end():
    with serving([status(503)] * 10) as stub:
        asked = proposer(stub)
        assert ask(asked) == Proposal()
    assert len(stub.requests) == 4
    assert (asked.counts.num_failed, asked.counts.num_retries) == (1, 3)
    assert asked.counts.last_failure == "status 503"


def test_a_server_that_is_not_there_counts_as_failed():
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    asked = EndpointProposer(Endpoint(url=url, model="m", max_retries=1, backoff_s=0.01))
    assert ask(asked) == Proposal()
    assert asked.counts.num_failed == 1
    assert "ConnectionRefusedError" in asked.counts.last_failure


def test_retry_after_is_honoured_in_seconds_and_as_a_date():
    with serving([status(429, retry_after="1")]) as stub:
        assert ask(proposer(stub)) == EXPECTED
    assert stub.times[1] - stub.times[0] >= 1.0
    with serving([status(503, retry_after=formatdate(time.time() + 2, usegmt=True))]) as stub:
        assert ask(proposer(stub)) == EXPECTED
    assert stub.times[1] - stub.times[0] >= 0.9


def test_a_server_that_asks_for_too_long_a_wait_is_given_up():
    with serving([status(429, retry_after="3600")]) as stub:
        asked = proposer(stub)
        assert ask(asked) == Proposal()
    assert asked.counts.num_failed == 1
    assert len(stub.requests) == 1


def test_waits_double():
    with serving([status(500)] * 4) as stub:
        asked = proposer(stub, backoff_s=0.08, max_retries=3)
        ask(asked)
    waits = np.diff(stub.times)
    assert (waits >= [0.04, 0.08, 0.16]).all()


MALFORMED = [
    '{"violated": {"category": "Gam',
    '{"violated": null}',
    '{"violated": null, "kept": {"category": "X"}}',
    '{"violated": null, "kept": {"category": "", "guideline": "Y."}}',
    '{"violated": null, "kept": {"category": 3, "guideline": "Y."}}',
    '{"violated": "Gambling", "kept": null}',
    json.dumps({"violated": None, "kept": {"category": "X", "guideline": "y" * 601}}),
    '["violated"]',
    "I cannot help with that.",
    "",
    '{"a":' * 20_000,
    None,
]


@pytest.mark.parametrize("content", MALFORMED)
def test_a_malformed_answer_is_asked_for_once_more(content):
    with serving([says(content)]) as stub:
        asked = proposer(stub)
        assert ask(asked) == EXPECTED
    assert (asked.counts.num_answered, asked.counts.num_malformed, asked.counts.num_malformed_answers) == (1, 0, 1)
    with serving([says(content)] * 5) as stub:
        asked = proposer(stub)
        assert ask(asked) == Proposal()
    assert len(stub.requests) == 2
    assert (asked.counts.num_answered, asked.counts.num_malformed, asked.counts.num_malformed_answers) == (0, 1, 2)


def test_a_body_that_is_no_completion_is_malformed():
    with serving([no_completion] * 2) as stub:
        asked = proposer(stub)
        assert ask(asked) == Proposal()
    assert asked.counts.num_malformed == 1


@pytest.mark.parametrize(
    "content",
    [
        f"Sure! Here it is:\n```json\n{json.dumps(GOOD)}\n```\nAnything else?",
        f'<think>The user wrote {{"violated": null, "kept": null}}.</think>{json.dumps(GOOD)}',
        f'{{"note": "not this"}} {json.dumps(GOOD)} {{"nor": "this"}}',
    ],
)
def test_prose_around_the_answer_is_passed_over_and_the_last_answer_counts(content):
    with serving([says(content)]) as stub:
        asked = proposer(stub)
        assert ask(asked) == EXPECTED
    assert asked.counts.num_malformed_answers == 0


def test_many_questions_keep_their_order_and_their_bound():
    def echo(request):
        text = json.loads(request["messages"][1]["content"])["conversation"][0]["content"]
        return {"violated": {"category": text, "guideline": f"Do not say {text}."}, "kept": None}

    rows = [row(f"number {n}") for n in range(24)]
    with serving([slow(0.05)] * 24, echo) as stub:
        asked = proposer(stub, num_workers=4)
        found = asked.propose_all(rows, [()] * 24, np.random.default_rng(0))
    assert [proposal.violated.category for proposal in found] == [f"number {n}" for n in range(24)]
    assert 2 <= stub.most_in_flight <= 4


def test_counts_add_up_whatever_happens():
    script = [status(500), says("no"), hang_up, status(400), says("{}"), cut, status(429), says(None)] * 4
    with serving(script) as stub:
        asked = proposer(stub, max_retries=1, num_workers=3)
        asked.propose_all([row(str(n)) for n in range(20)], [()] * 20, np.random.default_rng(0))
    counts = asked.counts
    assert counts.num_asked == 20 == counts.num_answered + counts.num_malformed + counts.num_failed
    assert min(counts.num_answered, counts.num_malformed + counts.num_failed) > 0
    assert len(stub.requests) == 20 + counts.num_retries + counts.num_malformed_answers - counts.num_malformed


def test_requests_are_a_function_of_the_seed():
    with serving() as stub:
        asked = proposer(stub)
        ask(asked, seed=7)
        ask(asked, seed=7)
        ask(asked, seed=8)
    first, again, other = stub.requests
    assert first == again
    assert first["seed"] != other["seed"]


@pytest.mark.parametrize(("code", "remedy"), [(401, "API key"), (403, "API key"), (404, "model")])
def test_a_refusal_for_good_ends_everything_in_one_line(code, remedy):
    with serving([status(code)] * 100) as stub:
        asked = proposer(stub, num_workers=2)
        with pytest.raises(EndpointError, match=remedy) as caught:
            asked.propose_all([row(str(n)) for n in range(50)], [()] * 50, np.random.default_rng(0))
    assert "\n" not in str(caught.value)
    assert stub.url in str(caught.value)
    assert len(stub.requests) < 50


def test_a_refusal_for_good_ends_the_waits_of_others():
    def act(handler, stub, body):
        is_waiting = "wait" in body["messages"][1]["content"]
        (status(429, retry_after="50") if is_waiting else status(401))(handler, stub, body)

    with serving([act] * 9) as stub:
        asked = proposer(stub, num_workers=2, max_wait_s=60.0)
        start = time.monotonic()
        with pytest.raises(EndpointError):
            asked.propose_all([row("wait"), row("no"), row("never asked")], [()] * 3, np.random.default_rng(0))
    assert time.monotonic() - start < 40


def test_the_key_is_sent_and_never_shown(monkeypatch, caplog, capfd):
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")
    with serving([status(500), status(401)]) as stub:
        asked = proposer(stub, api_key_variable="MY_KEY")
        with pytest.raises(EndpointError) as caught:
            ask(asked)
    assert {headers["Authorization"] for headers in stub.headers} == {f"Bearer {KEY}"}
    shown = capfd.readouterr()
    trail = f"{caught.value!r}{caught.value.__context__!r}{asked.counts}{caplog.text}{shown.out}{shown.err}"
    assert KEY not in trail
    assert KEY not in repr(asked._client.endpoint)


def test_no_key_sends_no_header():
    with serving() as stub:
        ask(proposer(stub))
    assert "Authorization" not in stub.headers[0]


def test_a_key_that_cannot_be_one_is_named_but_not_shown(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-\nX-Evil: 1")
    with pytest.raises(EndpointError, match="MY_KEY") as caught:
        EndpointProposer(Endpoint(url="http://localhost/v1", model="m", api_key_variable="MY_KEY"))
    assert "Evil" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["", "localhost:8000", "ftp://x/v1", "http://", "http://x:port/v1", "http://u:p@x/v1", "http://x/v1?k=1"]
)
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(EndpointError) as caught:
        Endpoint(url=url, model="m")
    assert "u:p" not in str(caught.value)


def test_redirects_are_not_followed():
    with serving() as target, serving([status(302, location=f"{target.url}/chat/completions")]) as stub:
        asked = proposer(stub)
        assert ask(asked) == Proposal()
    assert asked.counts.last_failure == "status 302"
    assert not target.requests


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"violated": None, "kept": {"category": "insults", "guideline": "Other."}}, Proposal()),
        ({"violated": None, "kept": {"category": "Rude", "guideline": "do not insult PLAYERS"}}, Proposal()),
        ({"violated": {"category": "SPAM", "guideline": "Other."}, "kept": None}, Proposal()),
        ({"violated": GOOD["violated"], "kept": GOOD["violated"]}, Proposal(violated=EXPECTED.violated)),
    ],
)
def test_labels_overrule_the_model(answer, expected):
    with serving(answer=answer) as stub:
        labelled = row(clauses=(BAD, FINE), violated=(True, False))
        assert proposer(stub).propose(labelled, [], np.random.default_rng(0)) == expected


def test_what_the_configuration_holds_is_not_proposed():
    held = Clause(category="Betting", guideline=GOOD["violated"]["guideline"])
    with serving() as stub:
        assert ask(proposer(stub), [held]) == Proposal(kept=EXPECTED.kept)


def test_a_long_conversation_keeps_its_judged_message():
    messages = [Message("user", "x" * 30_000), Message("assistant", "judged")]
    long = LabelledRow(id="l", domain="d", conversation=messages, clauses=(BAD,), violated=(True,))
    with serving() as stub:
        proposer(stub).propose(long, [], np.random.default_rng(0))
    shown = json.loads(stub.requests[0]["messages"][1]["content"])["conversation"]
    assert shown[-1] == {"role": "assistant", "content": "judged"}
    assert shown[0]["content"].endswith("[…]")
    assert sum(len(message["content"]) for message in shown) < 25_000


def test_subcategories_come_least_severe_first_and_new_ones_only():
    entries = [("Knives", 0), ("toy guns", 1), ("guns", 0), ("Knives", 1), ("pepper spray", 2)]
    answer = {"subcategories": [{"subcategory": name, "num_more_severe": rank} for name, rank in entries]}
    with serving(answer=answer) as stub:
        found = proposer(stub).propose_subcategories("Weapons", [[Message("user", "hi")]], ["bombs", "guns"])
    assert found == [Subcategory("pepper spray", 2), Subcategory("toy guns", 1), Subcategory("Knives", 0)]
    shown = json.loads(stub.requests[0]["messages"][1]["content"])
    assert shown["known"] == ["bombs", "guns"]


@pytest.mark.parametrize(
    "entry",
    [
        {"subcategory": "a, b", "num_more_severe": 0},
        {"subcategory": "a", "num_more_severe": 5},
        {"subcategory": "a", "num_more_severe": True},
        {"subcategory": "a"},
        "a",
    ],
)
def test_subcategories_that_fit_no_ladder_are_malformed(entry):
    with serving(answer={"subcategories": [entry]}) as stub:
        asked = proposer(stub)
        assert asked.propose_subcategories("Weapons", [], ["bombs"]) == []
    assert asked.counts.num_malformed == 1
