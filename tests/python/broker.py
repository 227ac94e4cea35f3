"""Brokers and connections for the tests.

The Rust test that runs pytest starts a broker and says by EXOCOM_PORT where it listens, by EXOCOM_CERTS where its
certificates are, by EXOCOM_POLICY which policy it has, and by EXOCOM_BIN which binary it is, for the tests that need
a broker to stop and start.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import ssl
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import nats
from nats.aio.client import Client

# How long anything may take before a test gives up, in seconds: far more than it needs.
PATIENCE_S = 30


def variable(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise RuntimeError(f"{name} is not set; run these tests by cargo test --test broker clients_python")
    return value


@dataclass
class Place:
    """Where a broker listens, and where the certificates for it are."""

    port: int
    certs: Path

    async def connect(self, service: str, **options) -> "Connected":
        """The official client, connected as a service."""
        tls = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=self.certs / "ca.pem")
        tls.load_cert_chain(self.certs / f"{service}.pem", self.certs / f"{service}.key")
        connected = Connected(Client())

        def note(event: str):
            async def append() -> None:
                connected.events.append(event)

            return append

        async def note_error(error: Exception) -> None:
            connected.errors.append(error)

        await connected.nc.connect(
            f"tls://127.0.0.1:{self.port}",
            tls=tls,
            tls_handshake_first=True,
            connect_timeout=PATIENCE_S,
            error_cb=note_error,
            disconnected_cb=note("disconnected"),
            reconnected_cb=note("reconnected"),
            closed_cb=note("closed"),
            lame_duck_mode_cb=note("lame duck"),
            **options,
        )
        return connected


@dataclass
class Connected:
    """A client, and what it has told of itself."""

    nc: Client
    events: list[str] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)


def the_broker() -> Place:
    """The broker that the Rust test started."""
    return Place(int(variable("EXOCOM_PORT")), Path(variable("EXOCOM_CERTS")))


async def eventually(what: str, holds) -> None:
    """Waits until something holds; fails when it does not in time."""
    start = time.monotonic()
    while not holds():
        assert time.monotonic() - start < PATIENCE_S, f"waited in vain for {what}"
        await asyncio.sleep(0.001)


class Broker:
    """A broker of a test's own, which it may stop and start again."""

    def __init__(self, folder: Path, process: asyncio.subprocess.Process, port: int):
        self.folder = folder
        self.process = process
        self.place = Place(port, folder / "certs")

    @classmethod
    async def dev(cls, folder: Path | None = None, port: int = 0) -> "Broker":
        """`exocom dev`, on a free port unless one is given."""
        folder = folder or Path(tempfile.mkdtemp(prefix="exocom-python-"))
        process = await asyncio.create_subprocess_exec(
            variable("EXOCOM_BIN"),
            *("dev", "--policy", variable("EXOCOM_POLICY"), "--dir", folder, "--listen", f"127.0.0.1:{port}"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        line = await asyncio.wait_for(process.stdout.readline(), PATIENCE_S)
        word, _, address = line.decode().strip().partition(" ")
        assert word == "ready", f"not a ready line: {line!r}"
        return cls(folder, process, int(address.rpartition(":")[2]))

    @classmethod
    async def serve(cls, lame_duck_ms: int) -> "Broker":
        """`exocom serve`, which takes its leave slowly."""
        maker = await cls.dev()
        await maker.stop()
        config = maker.folder / "serve.toml"
        config.write_text(
            f"""version = 1
name = "lame-duck"
policy = {json.dumps(variable("EXOCOM_POLICY"))}
admin-socket = "admin.sock"
[tls]
certificate = "certs/server.pem"
key = "certs/server.key"
[listener.main]
address = "127.0.0.1:{maker.place.port}"
roots = ["certs/ca.pem"]
[limits]
lame-duck-ms = {lame_duck_ms}
"""
        )
        process = await asyncio.create_subprocess_exec(
            variable("EXOCOM_BIN"),
            *("serve", "--config", config),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        while b" ready " not in (line := await asyncio.wait_for(process.stderr.readline(), PATIENCE_S)):
            assert line, "the broker ended before it was ready"
        return cls(maker.folder, process, maker.place.port)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def stop(self) -> int:
        """Stops it and waits for its end; gives its exit code."""
        self.signal(signal.SIGTERM)
        return await self.ended()

    async def ended(self) -> int:
        """Waits for its end; gives its exit code."""
        return await asyncio.wait_for(self.process.wait(), PATIENCE_S)

    async def start_again(self) -> "Broker":
        """Another one in the same folder, on the same port."""
        return await Broker.dev(self.folder, self.place.port)

    async def end(self) -> None:
        """Whatever the test has done: no process and no folder is left."""
        if self.process.returncode is None:
            self.process.kill()
            await self.ended()
        shutil.rmtree(self.folder, ignore_errors=True)
