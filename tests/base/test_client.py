"""Contract of the HTTP client, against a real server process that fails in every way:

1. what may pass is tried again, after the pause that the server asks for, and then answered; after all tries it ends in
   one sentence that names the work and the reason;
2. what a server refuses is said at once, in its words, without the key, in one line that no terminal obeys;
3. no server, a silent one and a trickling one end in time;
4. it can be called from many threads, inside an event loop, and again after it was closed.
"""

from __future__ import annotations

import asyncio
import email.utils
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from bontune.base.client import Address, BadReply, Endpoint
from bontune.base.errors import BontuneError, RunStopped
from servers.openai_server import Server, server

BODY = {"model": "m", "prompt": "1,2,3,4:10=", "max_tokens": 4, "temperature": 1.0, "top_p": 1.0, "seed": 7}
LOOSE = ("drop", "reset", "half", "half_header", "no_http", "408", "409", "429", "500", "502", "503", "504", "529")


@pytest.fixture
def served() -> Server:
    started = server()
    started.behave()
    return started


def text_of(reply: Any) -> str:
    return reply["choices"][0]["text"]


def ask(endpoint: Endpoint, **changes: Any) -> str:
    return endpoint.submit(endpoint.post("/completions", BODY | changes, text_of, "problem 7")).result(60)


# ---- 1: tried again ----


@pytest.mark.parametrize("fault", LOOSE)
def test_what_may_pass_is_tried_again(served: Server, fault: str) -> None:
    with Endpoint(served.url) as endpoint:
        wanted = ask(endpoint)
        served.behave(fault=fault, times=1)
        assert ask(endpoint) == wanted
        assert endpoint.num_retries == 1
    assert len(served.told()["requests"]) == 2


@pytest.mark.parametrize(
    ("reply", "phrase"),
    [
        ("<html><style>p {}</style><body><h1>Bad gateway</h1></body></html>", "not of this API: Bad gateway"),
        ('{"choices": [{"te', "not of this API"),
        ("[" * 100_000, "not of this API"),
        ({}, "not of this API"),
        ([], "not of this API"),
        (None, "not of this API: null"),
        ({"choices": []}, "not of this API"),
        ({"choices": {"0": 1}}, "not of this API"),
        ({"choices": [{"text": 5}]}, "text is no text"),
        ({"error": {"message": "engine dead"}}, "not of this API: engine dead"),
    ],
)
def test_a_reply_without_what_was_asked_for_is_a_failed_try(served: Server, reply: Any, phrase: str) -> None:
    def read(parsed: Any) -> str:
        if not isinstance(parsed["choices"][0]["text"], str):
            raise BadReply("text is no text")
        return parsed["choices"][0]["text"]

    with Endpoint(served.url, num_tries=2) as endpoint:
        served.behave(fault="json", body=reply, times=1)
        assert len(endpoint.submit(endpoint.post("/completions", BODY, read, "problem 7")).result(60)) > 0
        served.behave(fault="json", body=reply, times=-1)
        with pytest.raises(RunStopped) as stopped:
            endpoint.submit(endpoint.post("/completions", BODY, read, "problem 7")).result(60)
    assert phrase in str(stopped.value)
    assert "no usable answer to problem 7 in 2 tries" in str(stopped.value)
    assert "\n" not in str(stopped.value)


@pytest.mark.parametrize("is_date", [False, True])
def test_retry_after_is_honoured(served: Server, is_date: bool) -> None:
    after = email.utils.formatdate(time.time() + 3, usegmt=True) if is_date else "2"
    served.behave(fault="429", headers={"Retry-After": after}, times=1)
    with Endpoint(served.url) as endpoint:
        begun = time.monotonic()
        ask(endpoint)
        # A date has whole seconds: of three, two at least are left.
        assert time.monotonic() - begun >= 1.9


@pytest.mark.parametrize(("after", "is_obeyed"), [("7200", True), ("soon", False), ("-5", False), ("nan", False)])
def test_what_else_retry_after_may_say(served: Server, after: str, is_obeyed: bool) -> None:
    served.behave(fault="503", headers={"Retry-After": after}, times=1)
    with Endpoint(served.url) as endpoint:
        if is_obeyed:
            with pytest.raises(RunStopped, match=r"asks to wait 7200 s \(status 503: out of order; problem 7\)"):
                ask(endpoint)
        else:
            assert ask(endpoint)


def test_pauses_grow_and_differ(served: Server) -> None:
    from bontune.base.client import LONGEST_PAUSE_S, _pause_s

    for number in range(12):
        pauses = [_pause_s(number) for _ in range(50)]
        longest = min(LONGEST_PAUSE_S, 0.5 * 2**number)
        assert longest / 2 <= min(pauses) < max(pauses) <= longest


# ---- 2: refused ----


@pytest.mark.parametrize("status", ["400", "401", "404", "413", "422", "302"])
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"error": {"message": "too long"}}, "too long"),
        ({"detail": "too long"}, "too long"),
        ({"detail": [{"loc": ["body"], "msg": "too long"}]}, '[{"loc": ["body"], "msg": "too long"}]'),
        ("<html><body>too\n\u001b[31m long</body></html>", "too [31m long"),
        ("", "status"),
    ],
)
def test_a_refusal_is_said_at_once_in_the_servers_words(served: Server, status: str, body: Any, said: str) -> None:
    served.behave(fault=status, body=body, times=-1)
    with Endpoint(served.url) as endpoint, pytest.raises(BontuneError) as refused:
        ask(endpoint)
    message = str(refused.value)
    assert message.startswith(f"The server refuses problem 7: POST {served.url}/completions → status {status}")
    assert said in message
    assert message.isprintable()
    assert len(served.told()["requests"]) == 1


@pytest.mark.parametrize("status", ["400", "500"])
def test_the_key_is_sent_and_never_told(served: Server, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    key = "sk-verysecret"
    monkeypatch.setenv("OPENAI_API_KEY", f" {key}\n")
    served.behave(fault=status, body={"error": {"message": f"wrong key {key} {'x' * 1000}"}}, times=-1)
    with Endpoint(served.url, num_tries=1) as endpoint, pytest.raises((BontuneError, RunStopped)) as failed:
        ask(endpoint)
    assert served.told()["keys"] == [f"Bearer {key}"]
    assert key not in repr(failed.value)
    assert "wrong key *** xxx" in str(failed.value)
    assert len(str(failed.value)) < 500
    with pytest.raises(BontuneError) as odd:
        Endpoint(served.url, api_key="sk-secret\nX-Header: 1")
    assert "sk-secret" not in str(odd.value)


# ---- 3: nobody there, silence, trickles ----


def test_no_server_is_said_quickly() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        begun = time.monotonic()
        with Endpoint(url) as endpoint, pytest.raises(BontuneError, match=f"No server answers at {url}"):
            endpoint.models()
        assert time.monotonic() - begun < 10


@pytest.mark.parametrize("fault", ["hang", "slow_body", "slow_header"])
def test_silence_and_trickles_end_in_time(served: Server, fault: str) -> None:
    served.behave(fault=fault, times=-1)
    begun = time.monotonic()
    with Endpoint(served.url, timeout_s=0.4, num_tries=2) as endpoint, pytest.raises(RunStopped) as stopped:
        ask(endpoint)
    assert "no answer within 0.4 s" in str(stopped.value)
    assert time.monotonic() - begun < 15


def test_closing_does_not_wait_for_a_silent_server(served: Server) -> None:
    served.behave(fault="hang", times=-1)
    endpoint = Endpoint(served.url)
    waiting = endpoint.submit(endpoint.post("/completions", BODY, text_of, "problem 7"))
    while not served.told()["requests"]:
        pass
    begun = time.monotonic()
    endpoint.close()
    assert time.monotonic() - begun < 10
    assert waiting.cancelled()
    endpoint.close()


# ---- 4: from anywhere ----


def test_many_threads_and_no_more_at_once_than_allowed(served: Server) -> None:
    with Endpoint(served.url, concurrency=3) as endpoint, ThreadPoolExecutor(12) as pool:
        first = list(pool.map(lambda seed: ask(endpoint, seed=seed), range(24)))
        assert served.told()["most_at_once"] <= 3
        assert first == [ask(endpoint, seed=seed) for seed in range(24)]
        assert len(set(first)) > 6


def test_inside_a_running_loop_and_again_after_closing(served: Server) -> None:
    endpoint = Endpoint(served.url)

    async def inside() -> str:
        return ask(endpoint)

    wanted = ask(endpoint)
    assert asyncio.run(inside()) == wanted
    endpoint.close()
    assert ask(endpoint) == wanted
    endpoint.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "endpoint"]


def test_models(served: Server) -> None:
    with Endpoint(served.url) as endpoint:
        assert endpoint.models() == ["countdown-tiny"]
        assert endpoint.only_model() == "countdown-tiny"
        served.behave(models=["a", "b"])
        with pytest.raises(BontuneError, match=r"has 2 models, name one as in .*/v1#name: a, b\."):
            endpoint.only_model()
        served.behave(models=[])
        with pytest.raises(BontuneError, match="does not say which models it has"):
            endpoint.only_model()
    with Endpoint(served.url.removesuffix("/v1")) as endpoint:
        assert endpoint.models() is None
        with pytest.raises(BontuneError, match="does not say which models it has"):
            endpoint.only_model()


# ---- addresses ----


@pytest.mark.parametrize(
    ("text", "model", "expected"),
    [
        ("http://h:1/v1", None, ("http://h:1/v1", None)),
        ("http://h:1/v1/", "m", ("http://h:1/v1", "m")),
        ("https://h/v1#org/name", None, ("https://h/v1", "org/name")),
        ("https://h/v1#m", "m", ("https://h/v1", "m")),
    ],
)
def test_addresses(text: str, model: str | None, expected: tuple[str, str | None]) -> None:
    assert Address.parse(text, model) == Address(url=expected[0], model=expected[1])


@pytest.mark.parametrize(
    ("text", "model", "phrase"),
    [
        ("localhost:8000", None, "looks like http://127.0.0.1:8000/v1"),
        ("ftp://h/v1", None, "looks like"),
        ("http:///v1", None, "looks like"),
        ("http://h:port/v1", None, "not the address of a server"),
        ("http://user:secret@h/v1", None, "must hold no password"),
        ("http://h/v1?key=secret", None, "must hold no password"),
        ("http://h/v1#a", "b", "Two names"),
    ],
)
def test_what_is_no_address(text: str, model: str | None, phrase: str) -> None:
    with pytest.raises(BontuneError) as refused:
        Address.parse(text, model)
    assert phrase in str(refused.value)
    assert "secret" not in str(refused.value)


def test_options_outside_their_range() -> None:
    for name, value in (("concurrency", 0), ("timeout_s", 0), ("num_tries", 0)):
        with pytest.raises(BontuneError, match="must be"):
            Endpoint("http://h/v1", **{name: value})
