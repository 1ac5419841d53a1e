"""A hostile judge server: whatever it sends, a verdict, none, or one sentence; in time, and without telling the key."""

import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from pydantic import ValidationError

from infimmr_jax.config import JudgeSection
from infimmr_jax.data.records import Problem
from infimmr_jax.rewards.endpoint import EndpointJudge, JudgeAwayError, is_local, read_score
from infimmr_jax.rewards.judging import JudgeError, JudgeRequest

KEY = "sk-secret-1234567890"
PROBLEM = Problem("p", "What is 2+3?", "5", "math")


def request(response: str = "it is 5") -> JudgeRequest:
    return JudgeRequest(PROBLEM.question, PROBLEM.answer, response, None, PROBLEM)


def http(body: bytes, status: str = "200 OK", headers: str = "", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Length: {size}\r\n{headers}\r\n".encode() + body


def says(content: object, **more: object) -> bytes:
    return http(json.dumps({"choices": [{"message": {"content": content}}], **more}).encode())


class Server:
    """Answers every connection with the next of its replies (the last one again and again); bytes, or a function."""

    def __init__(self, *replies: bytes | Callable[[socket.socket], None]):
        self.replies, self.requests = list(replies), []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self.listener.getsockname()[1]}/v1"
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
            threading.Thread(target=self._answer, args=(connection, reply), daemon=True).start()

    def _answer(self, connection: socket.socket, reply: bytes | Callable[[socket.socket], None]) -> None:
        with connection:
            try:
                self.requests.append(read_request(connection))
                if callable(reply):
                    reply(connection)
                else:
                    connection.sendall(reply)
            except OSError:
                pass

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.close()


def read_request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65_536)
        if not piece:
            return data
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    while len(body) < length:
        body += connection.recv(65_536)
    return head + b"\r\n\r\n" + body


def drip(data: bytes) -> Callable[[socket.socket], None]:
    def reply(connection: socket.socket) -> None:
        for byte in data:
            connection.sendall(bytes([byte]))
            time.sleep(0.05)

    return reply


def silent(connection: socket.socket) -> None:
    time.sleep(3)


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def endless(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(b" " * 65_536)


def judge(server: Server, **changes: object) -> EndpointJudge:
    settings = {"model": "m", "timeout_seconds": 5, "patience_seconds": 0.4, "attempts": 1, **changes}
    return EndpointJudge(JudgeSection(endpoint=server.endpoint, **settings), sleep=lambda _: None)


DEEP = b'{"choices":' + b"[" * 200_000
# What comes, and what becomes of it: a score, None (asked again, then no verdict), or the sentence of an error.
REPLIES: dict[str, tuple[bytes | Callable[[socket.socket], None], float | str | None]] = {
    "one": (says("They agree.\n1"), 1.0),
    "zero": (says("0"), 0.0),
    "a share": (says("Score: 1/1"), 1.0),
    "a label": (says("**Answer: Yes**"), 1.0),
    "more keys": (says("1", usage={"tokens": 3}, id=None), 1.0),
    "utf-16": (http(json.dumps({"choices": [{"message": {"content": "1"}}]}).encode("utf-16")), 1.0),
    "half a surrogate pair": (says("\ud800\n1"), 1.0),
    "a wrong content type": (http(says("1").partition(b"\r\n\r\n")[2], headers="Content-Type: text/html\r\n"), 1.0),
    "no length": (b"HTTP/1.0 200 OK\r\n\r\n" + says("1").partition(b"\r\n\r\n")[2], 1.0),
    "no score": (says("I can not tell."), None),
    "nothing": (says(""), None),
    "two": (says("2"), None),
    "nan": (says("nan"), None),
    "null": (says(None), None),
    "a list": (says([{"type": "text", "text": "1"}]), None),
    "a number": (says(1), None),
    "a score of 5,000 digits": (says("0." + "1" * 5_000), float("0." + "1" * 20)),
    "no choices": (http(b"{}"), None),
    "empty choices": (http(b'{"choices": []}'), None),
    "choices as text": (http(b'{"choices": "1"}'), None),
    "a list of lists": (http(b"[[]]"), None),
    "a bare number": (http(b"1"), None),
    "no JSON": (http(b"<html>1</html>"), None),
    "an empty body": (http(b""), None),
    "half of it": (http(b'{"choices": [{"mess'), None),
    "deep JSON": (http(DEEP), None),
    "an integer of 5,000 digits": (http(b'{"choices": ' + b"9" * 5_000 + b"}"), None),
    "no UTF-8": (http(b'{"choices": "\xff\xfe\xfd"}'), None),
    "zeros": (http(bytes(1_000)), None),
    "a reply that is compressed": (http(b"\x1f\x8b\x08abc", headers="Content-Encoding: gzip\r\n"), None),
    "too much": (http(b" " * 1_000_001), None),
    "endless": (endless, None),
    "no HTTP": (b"SSH-2.0-OpenSSH\r\n", None),
    "another protocol's status": (b"HTTP/1.1 abc\r\n\r\n", None),
    "a long header": (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n", None),
    "many headers": (b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 200 + b"\r\n", None),
    "a bad chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n1\r\n", "did not answer"),
    "refused as too long": (http(b"", "400 Bad Request"), None),
    "a strange status": (http(b"", "999 What"), None),
    "cut in the middle": (http(b'{"choices"', length=500), "did not answer"),
    "nothing at all": (b"", "did not answer"),
    "a reset": (reset, "did not answer"),
    "silence": (silent, "did not answer"),
    "a byte at a time": (drip(says("1")), "did not answer"),
    "headers a byte at a time": (drip(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 400), "did not answer"),
    "broken inside": (http(b"", "500 Internal Server Error"), "did not answer"),
    "overloaded": (http(b"", "503 Service Unavailable", "Retry-After: soon\r\n"), "did not answer"),
    "too many": (http(b"", "429 Too Many Requests", "Retry-After: 100000\r\n"), "did not answer"),
    "a key is wanted": (http(b"", "401 Unauthorized"), "wants a key: name the variable"),
    "not allowed": (http(b"", "403 Forbidden"), "wants a key"),
    "another place": (http(b"", "404 Not Found"), "no /v1/chat/completions or no model 'm'"),
    "elsewhere": (http(b"", "307 Moved", "Location: http://evil.example/v1?k=1\r\n"), "redirects .* to http://evil.ex"),
    "another port": (http(b"", "308 Moved", "Location: http://127.0.0.1:1/v1\r\n"), "same host only"),
    "as a page": (http(b"", "302 Found", "Location: /login\r\n"), "same host only"),
    "nowhere": (http(b"", "307 Moved"), "redirects in a circle"),
    "a file": (http(b"", "307 Moved", "Location: file:///etc/passwd\r\n"), "same host only"),
}
SLOW = {"silence", "a byte at a time", "headers a byte at a time"}


def test_there_are_enough_kinds() -> None:
    assert len(REPLIES) >= 45


@pytest.mark.parametrize("kind", REPLIES)
def test_any_reply_is_a_verdict_none_or_a_sentence(kind: str) -> None:
    reply, expected = REPLIES[kind]
    began = time.monotonic()
    with Server(reply) as server:
        asked = judge(server, timeout_seconds=0.3 if kind in SLOW else 5)
        if isinstance(expected, str):
            with pytest.raises((JudgeError, JudgeAwayError), match=expected):
                asked([request()])
        else:
            assert asked([request()]) == [expected]
    assert time.monotonic() - began < 4


def test_a_redirect_on_the_same_host_is_followed() -> None:
    with Server(http(b"", "307 Moved", "Location: /v2/chat\r\n"), says("1")) as server:
        assert judge(server)([request()]) == [1.0]
        assert [line.split(b" ")[1] for line in server.requests] == [b"/v1/chat/completions", b"/v2/chat"]


def test_a_bad_reply_is_asked_for_again() -> None:
    with Server(says(None), says("1")) as server:
        assert judge(server, attempts=2)([request()]) == [1.0]
        assert len(server.requests) == 2


def test_a_judge_that_is_away_is_waited_for_with_growing_pauses() -> None:
    slept: list[float] = []
    away, busy = http(b"", "503 Away"), http(b"", "429 Too Many Requests", "Retry-After: 7\r\n")
    with Server(away, away, away, busy, says("1")) as server:
        section = JudgeSection(endpoint=server.endpoint, model="m", patience_seconds=60, attempts=1)
        assert EndpointJudge(section, sleep=slept.append)([request()]) == [1.0]
    assert slept[3] == 7, "as it asks to be"
    assert [0.7 * 2**i < pause <= 2**i for i, pause in enumerate(slept[:3])] == [True] * 3


def test_a_judge_that_comes_back_is_no_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    section = JudgeSection(endpoint=f"http://127.0.0.1:{port}/v1", model="m", patience_seconds=30)
    scores: list[float | None] = []
    asking = threading.Thread(target=lambda: scores.extend(EndpointJudge(section)([request()] * 2)))
    asking.start()
    time.sleep(0.5)
    server = Server(says("1"))
    # The same port, as a server that is started again has it.
    forward = socket.create_server(("127.0.0.1", port))

    def pass_on() -> None:
        for _ in range(2):
            connection, _ = forward.accept()
            read_request(connection)
            connection.sendall(says("1"))
            connection.close()

    threading.Thread(target=pass_on, daemon=True).start()
    asking.join(20)
    forward.close()
    server.listener.close()
    assert scores == [1.0, 1.0]


def test_a_judge_that_stays_away_ends_the_run_with_75() -> None:
    section = JudgeSection(endpoint="http://127.0.0.1:9/v1", model="m", patience_seconds=0.2)
    with pytest.raises(JudgeAwayError, match=r"127\.0\.0\.1:9 did not answer for .*go on with --resume") as raised:
        EndpointJudge(section)([request()] * 20)
    assert raised.value.status == 75


def test_what_fails_while_others_are_answered_is_no_verdict(caplog: pytest.LogCaptureFixture) -> None:
    with Server(http(b"", "500 Broken")) as server:
        asked = judge(server, attempts=2, patience_seconds=100)
        asked._answered = time.monotonic() + 1e6  # another thread has its answer all the time
        assert asked([request()]) == [None]
        assert len(server.requests) == 2
    assert "no verdict on 1 of 1 responses: status 500, while others are answered" in caplog.text


def test_one_silent_step_is_no_end_and_three_are() -> None:
    with Server(says("no idea")) as server:
        asked = judge(server)
        assert asked([request()] * 2) == [None, None]
        assert asked([request()]) == [None]
        with pytest.raises(
            JudgeError, match=r"no verdict on any response, 3 times in a row \(its last line is no score"
        ):
            asked([request()])


def test_the_key_is_sent_and_told_nobody(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with Server(says("1"), http(b"", "401 No"), says("nothing")) as server:
        section = JudgeSection(endpoint=server.endpoint, model="m", key_env="JUDGE_KEY", attempts=1)
        asked = EndpointJudge(section, environment={"JUDGE_KEY": f" {KEY}\n"})
        assert asked([request()]) == [1.0]
        assert f"Authorization: Bearer {KEY}\r\n".encode() in server.requests[0]
        with pytest.raises(JudgeError, match="refuses the key") as raised:
            asked([request()])
        assert asked([request()]) == [None]
    told = [caplog.text, str(raised.value), repr(section), section.model_dump_json(), repr(asked)]
    assert not any(KEY in text for text in told)


@pytest.mark.parametrize("value", [None, "", "  ", "two\nlines", "schlüssel", "a b"])
def test_a_key_that_can_not_be_sent_is_said_at_once(value: str | None) -> None:
    section = JudgeSection(endpoint="http://127.0.0.1:9/v1", model="m", key_env="JUDGE_KEY")
    with pytest.raises(JudgeError, match="JUDGE_KEY") as raised:
        EndpointJudge(section, environment={} if value is None else {"JUDGE_KEY": value})
    assert not (value and value.strip()) or value not in str(raised.value)


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://user:pw@host/v1",
        "http://pw@host/v1",
        "http://host/v1?key=1",
        "http://host/v1#a",
        "http://",
        "http://h:x/",
    ],
)
def test_an_address_that_holds_more_than_a_place_is_refused(endpoint: str) -> None:
    with pytest.raises(ValidationError, match="`endpoint`"):
        JudgeSection(endpoint=endpoint, model="m")
    with pytest.raises(ValidationError, match="`key_env` belongs to `endpoint`"):
        JudgeSection(function="a:b", key_env="KEY")


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server(says("1")) as proxy:
        for name in ("http_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, proxy.endpoint.replace("http://", "http://me:word@").removesuffix("/v1"))
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        yield proxy


def test_a_proxy_is_for_others_only(proxied: Server) -> None:
    with Server(says("0")) as server:
        assert judge(server)([request()]) == [0.0]
    assert proxied.requests == []
    section = JudgeSection(endpoint="http://judge.example:8000/v1", model="m", patience_seconds=0)
    assert EndpointJudge(section)([request()]) == [1.0]
    (seen,) = proxied.requests
    assert seen.startswith(b"POST http://judge.example:8000/v1/chat/completions HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic bWU6d29yZA==" in seen


def test_local_addresses() -> None:
    local = ("localhost", "127.0.0.1", "::1", "10.1.2.3", "192.168.0.9", "gpu7", "a.local", "x.localhost", "j.internal")
    assert all(map(is_local, local))
    assert not any(map(is_local, ("judge.example", "8.8.8.8", "2001:4860:4860::8888", "localhost.example")))


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("Score: 1/1", 1.0),
        ("Score: 0/1", 0.0),
        ("Score: 0.5 / 1.0", 0.5),
        ("1 out of 1", 1.0),
        ("Answer: Yes", 1.0),
        ("Final answer: no", 0.0),
        ("The verdict:\nVerdict is correct.", 1.0),
        ("**Score:** `1`", 1.0),
        ("[[1]]", 1.0),
        ("$\\boxed{1}$", None),
        ("Answer: 1", None),
        ("Score: 7/10", None),
        ("1/2", None),
        ("Score: 2/1", None),
        ("not correct", None),
        ("incorrect", 0.0),
    ],
)
def test_how_scores_are_written(reply: str, score: float | None) -> None:
    assert read_score(reply) == score
