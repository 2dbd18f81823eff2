"""A real S3 server on this machine, moto's, and a proxy before it that misbehaves as told."""

import http.client
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
import requests

from tests.conftest import drip_bytes

BUCKET = "team"
REGION = "us-east-1"


@contextmanager
def s3_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Start the server, point the environment at it, make a bucket; a client of boto3."""
    import boto3
    from moto.server import ThreadedMotoServer

    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "FSSPEC_S3_ANON"):
        monkeypatch.delenv(name, raising=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it prints each request
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",  # else credentials are looked for at an address
            "AWS_CONFIG_FILE": "/nonexistent",
            "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
            "no_proxy": "127.0.0.1",
        }.items():
            monkeypatch.setenv(name, value)
        requests.post(f"http://{host}:{port}/moto-api/reset", timeout=60)  # of earlier servers, too
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        yield client
        client.close()
    finally:
        server.stop()


Misbehaviour = Callable[[BaseHTTPRequestHandler, int], bool]


@contextmanager
def proxy(target: str, misbehave: Misbehaviour) -> Iterator[str]:
    """Start a proxy to the server at `target`; its URL.

    misbehave(request, n), for the n-th request for each path, counted from 1, answers in its own
    way and returns True, or returns False to let the server answer.
    """
    counts: dict[str, int] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            counts[path] = counts.get(path, 0) + 1
            if misbehave(self, counts[path]):
                return
            connection = http.client.HTTPConnection(target.removeprefix("http://"))
            connection.request(self.command, self.path, headers=dict(self.headers.items()))
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def status(request: BaseHTTPRequestHandler, code: int) -> bool:
    """Answer with an error, as S3 words it."""
    name = {500: "InternalError", 503: "SlowDown"}[code]
    content = f"<?xml version='1.0'?><Error><Code>{name}</Code><Message>busy</Message></Error>"
    request.send_response(code)
    request.send_header("Content-Type", "application/xml")
    request.send_header("Content-Length", str(len(content)))
    request.end_headers()
    request.wfile.write(content.encode())
    return True


def cut(request: BaseHTTPRequestHandler) -> bool:
    """Promise 1,000 bytes, send three, hang up."""
    request.send_response(200)
    request.send_header("Content-Length", "1000")
    request.end_headers()
    request.wfile.write(b"cut")
    request.close_connection = True
    return True


def hang_up(request: BaseHTTPRequestHandler) -> bool:
    """Send nothing at all."""
    request.close_connection = True
    return True


def silent(request: BaseHTTPRequestHandler) -> bool:
    """Promise 1,000 bytes, send three, and then nothing for a second."""
    cut(request)
    request.wfile.flush()
    time.sleep(1)
    return True


def drip(request: BaseHTTPRequestHandler) -> bool:
    """Send a byte now and then."""
    request.send_response(200)
    request.send_header("Content-Length", "1000")
    request.end_headers()
    drip_bytes(request)
    return True
