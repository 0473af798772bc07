"""A server of its own process that speaks OpenAI's API, for tests: a real model, and every way in which servers fail.

1. It draws from the shipped model; seeds, n, temperature, top_p, stop and log-probabilities are honoured, so the same
   request has the same answer, whenever it comes and whatever came before. What the model cannot take, such as a
   prompt beyond its context, is refused with status 400.
2. ``POST /admin`` sets how it misbehaves from then on (see :class:`Behaviour`), ``GET /admin`` tells what it was asked.
   Faults are real: closed and reset connections, half replies, a byte at a time, SIGKILL of itself.
3. Chat requests can have scripted replies, for what a judge may say.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import signal
import socket
import struct
import sys
import threading
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import processes
from training.run_driver import DEADLINE_S, wait_for


@dataclass(kw_only=True)
class Behaviour:
    """How the server behaves."""

    fault: str = ""
    """What goes wrong: a status ("500"), or a name of :meth:`Handler.misbehave`; "" is nothing."""
    times: int = 1
    """How often for each different request; −1: always."""
    headers: dict[str, str] = field(default_factory=dict)
    """More headers of a status."""
    body: Any = "out of order"
    """Of a status: text, or JSON; of the fault "json": the whole reply."""
    max_choices: int = 1_000
    """More than so many are not given, whatever was asked."""
    die_after: int = -1
    """SIGKILL of itself while it holds a request, after so many answered ones."""
    hides: list[str] = field(default_factory=list)
    """Fields that its replies lack, such as "usage"."""
    replies: dict[str, list[str]] = field(default_factory=dict)
    """Scripted chat replies: for the first key that the conversation holds, one after the other, the last for ever."""
    top_logprobs: dict[str, list[list[Any]]] = field(default_factory=dict)
    """For a scripted reply: [token, log-probability] of its first token."""
    refuses: list[str] = field(default_factory=list)
    """Prompts with such a text are refused with status 400."""
    has_template: bool = True
    """Whether conversations are understood; a base model has no chat template."""
    status_of_chat: int = 400
    """What a conversation is answered with if they are not."""
    most_stops: int = 1_000
    """More stop strings are refused with status 400."""
    fault_after: int = 0
    """The fault begins after so many answers."""
    models: list[str] = field(default_factory=lambda: ["countdown-tiny"])
    """What /models lists."""
    owned_by: str = "transformers"
    """Whose models these are, says /models."""


class State:
    """What all requests share."""

    def __init__(self) -> None:
        from bontune.engines.transformers import TransformersEngine
        from bontune.models import load_model

        self.engine = TransformersEngine(*load_model("countdown-tiny", device="cpu"))
        self.lock = threading.Lock()
        self.behave({})

    def behave(self, changes: dict[str, Any]) -> None:
        self.behaviour = Behaviour(**changes)
        self.num_faults: Counter[str] = Counter()
        self.num_said: Counter[str] = Counter()
        self.requests: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.num_answered = self.num_at_once = self.most_at_once = 0

    def choices(self, body: dict[str, Any], prompt: str) -> list[dict[str, Any]]:
        from bontune.engines.contract import SamplingOptions

        options = SamplingOptions(
            num_samples=min(body.get("n", 1), self.behaviour.max_choices),
            max_new_tokens=body["max_tokens"],
            temperature=body["temperature"],
            top_p=body["top_p"],
            stop=tuple(body.get("stop", ())),
        )
        samples = self.engine.draw([prompt], options, [("served", body.get("seed", 0))])
        rows = zip(samples.completions()[0], samples.logprobs_BT.tolist(), strict=True)
        return [
            {"index": i, "text": drawn.text, "stop": drawn.stop.value, "logprobs": logprobs[: drawn.num_tokens]}
            for i, (drawn, logprobs) in enumerate(rows)
        ]


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    state: State

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/admin":
            state = self.state
            self.send(
                {
                    "requests": state.requests,
                    "keys": sorted(state.keys, key=str),
                    "num_answered": state.num_answered,
                    "most_at_once": state.most_at_once,
                }
            )
        elif self.path == "/v1/models":
            owned = {"owned_by": self.state.behaviour.owned_by}
            self.send({"object": "list", "data": [{"id": name, **owned} for name in self.state.behaviour.models]})
        else:
            self.send({"error": {"message": "nothing here"}}, 404)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        state = self.state
        if self.path == "/admin":
            state.behave(body)
            self.send({})
            return
        with state.lock:
            state.num_at_once += 1
            state.most_at_once = max(state.most_at_once, state.num_at_once)
            state.requests.append({"path": self.path, **body})
            state.keys.add(self.headers.get("Authorization"))
            name = json.dumps(body, sort_keys=True)
            state.num_faults[name] += 1
            is_due = (
                state.behaviour.fault
                and state.num_answered >= state.behaviour.fault_after
                and (state.behaviour.times < 0 or state.num_faults[name] <= state.behaviour.times)
            )
        try:
            if is_due:
                self.misbehave(state.behaviour.fault)
            else:
                self.answer(body)
        finally:
            with state.lock:
                state.num_at_once -= 1

    def answer(self, body: dict[str, Any]) -> None:
        state, is_chat = self.state, self.path == "/v1/chat/completions"
        if not is_chat and self.path != "/v1/completions":
            self.send({"detail": "Not Found"}, 404)
            return
        with state.lock:
            if state.behaviour.die_after >= 0 and state.num_answered >= state.behaviour.die_after:
                os.kill(os.getpid(), signal.SIGKILL)
            state.num_answered += 1
            prompt = "".join(m["content"] for m in body["messages"]) if is_chat else body["prompt"]
            if is_chat and not state.behaviour.has_template:
                message = "the tokenizer does not define a chat template"
                self.send({"error": {"message": message}}, state.behaviour.status_of_chat)
                return
            if len(body.get("stop", ())) > state.behaviour.most_stops:
                self.send({"error": {"message": "stop: array too long"}}, 400)
                return
            if any(text in prompt for text in state.behaviour.refuses):
                self.send({"error": {"message": "this prompt is too long"}}, 400)
                return
            script = next((key for key in state.behaviour.replies if key in prompt), None)
            try:
                choices = (
                    [self.scripted(script)]
                    if script is not None
                    else state.choices(body, body["messages"][-1]["content"] if is_chat else prompt)
                )
            except ValueError as error:  # such as a prompt beyond the model's context
                self.send({"error": {"message": str(error)}}, 400)
                return
        num_tokens = sum(len(choice["logprobs"]) for choice in choices)
        reply = {
            "object": "chat.completion" if is_chat else "text_completion",
            "model": body["model"],
            "choices": [self.choice(choice, is_chat, body) for choice in choices],
            "usage": {"prompt_tokens": 1, "completion_tokens": num_tokens, "total_tokens": num_tokens + 1},
        }
        self.send({name: value for name, value in reply.items() if name not in state.behaviour.hides})

    def scripted(self, script: str) -> dict[str, Any]:
        behaviour, said = self.state.behaviour, self.state.num_said[script]
        self.state.num_said[script] += 1
        texts = behaviour.replies[script]
        text = texts[min(said, len(texts) - 1)]
        return {"index": 0, "text": text, "stop": "end", "logprobs": [], "top": behaviour.top_logprobs.get(script)}

    def choice(self, choice: dict[str, Any], is_chat: bool, body: dict[str, Any]) -> dict[str, Any]:
        told: dict[str, Any] = {
            "index": choice["index"],
            "finish_reason": "length" if choice["stop"] == "length" else "stop",
            "stop_reason": body["stop"][0] if choice["stop"] == "stop" else None,
        }
        if not is_chat:
            logprobs = {"token_logprobs": choice["logprobs"]} if body.get("logprobs") else None
            return told | {"text": choice["text"], "logprobs": logprobs}
        content = [{"token": "?", "logprob": value} for value in choice["logprobs"]]
        if choice.get("top"):
            top = [{"token": token, "logprob": value} for token, value in choice["top"]]
            content = [{**top[0], "top_logprobs": top}]
        logprobs = {"content": content} if body.get("logprobs") else None
        return told | {"message": {"role": "assistant", "content": choice["text"]}, "logprobs": logprobs}

    def misbehave(self, fault: str) -> None:
        """Go wrong in the named way."""
        if fault.isdigit():
            self.send(self.state.behaviour.body, int(fault), self.state.behaviour.headers)
        elif fault == "json":
            self.send(self.state.behaviour.body)
        elif fault == "hang":
            self.connection.settimeout(60)
            with contextlib.suppress(OSError):
                self.connection.recv(1)  # returns when the client has gone
            self.close_connection = True
        elif fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        elif fault == "half":
            self.raw(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"choices": [{"text": "1+')
        elif fault == "half_header":
            self.raw(b"HTTP/1.1 200 OK\r\nContent-Le")
        elif fault == "no_http":
            self.raw(b"\x00\xff\x16garbage\r\n\r\n")
        elif fault in ("slow_body", "slow_header"):
            start = (
                b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" if fault == "slow_body" else b"HTTP/1.1 200 OK\r\n"
            )
            with contextlib.suppress(OSError):
                self.connection.sendall(start)
                for _ in range(600):
                    self.connection.sendall(b"x")
                    time.sleep(0.05)
            self.close_connection = True
        else:
            assert fault == "drop", fault
            self.raw(b"")

    def raw(self, data: bytes) -> None:
        self.connection.sendall(data)
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def send(self, body: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "text/html" if isinstance(body, str) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class Listener(ThreadingHTTPServer):
    """Quiet about clients that leave: tests kill them."""

    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def serve() -> None:
    """Load once; then, for each port on stdin, fork a server that listens there and say its process and port."""
    import torch

    torch.set_num_threads(1)
    Handler.state = State()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    children: list[int] = []
    for line in sys.stdin:
        listener = Listener(("127.0.0.1", int(line)), Handler)
        children.append(os.fork())
        if children[-1] == 0:
            listener.serve_forever()
        listener.socket.close()
        print(children[-1], listener.server_address[1], flush=True)
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


# ---- seen from a test ----


class Server:
    """A server process that can be killed, and started again at the same port in an instant."""

    def __init__(self) -> None:
        their_in, ours_out = os.pipe()
        ours_in, their_out = os.pipe()
        self.parent = processes.start(serve, stdin=their_in, stdout=their_out, stderr=2, start_new_session=True)
        os.close(their_in)
        os.close(their_out)
        self._orders, self._answers = os.fdopen(ours_out, "w"), os.fdopen(ours_in)
        self.port = 0
        self.restart()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}/v1"

    def restart(self) -> None:
        """Start it, at the port it had."""
        self._orders.write(f"{self.port}\n")
        self._orders.flush()
        self.pid, self.port = map(int, self._answers.readline().split())

    def behave(self, **changes: Any) -> None:
        """Set how it behaves from now on, forgetting all before; nothing given: well."""
        self._admin(json.dumps(changes).encode())

    def told(self) -> dict[str, Any]:
        """What it was asked since."""
        return self._admin(None)

    def kill(self) -> None:
        """SIGKILL, if it has not died by itself; returns when it is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        wait_for(lambda: not Path(f"/proc/{self.pid}").exists(), "the server's end")

    def close(self) -> None:
        """Let it and its parent go."""
        self._orders.close()
        self.parent.wait(DEADLINE_S)

    def _admin(self, data: bytes | None) -> dict[str, Any]:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{self.port}/admin", data, timeout=DEADLINE_S) as reply:
            return json.loads(reply.read())


@functools.cache
def server() -> Server:
    """The server of this test process: one for all modules, since its imports take longer than what they ask."""
    started = Server()
    atexit.register(started.close)
    return started
