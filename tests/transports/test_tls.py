"""TLS to a server, to sentinels and in a cluster. Valkey's build from the wheel has none: it stands in front of it."""

import asyncio
import ssl
import subprocess
from contextlib import asynccontextmanager

import pytest

from fastapi_consumers import ImproperlyConfigured
from fastapi_consumers.transports import RedisTransport
from tests.transports.tools import fails_to_open, until, works


@pytest.fixture
def certificate(tmp_path):
    """A certificate for 127.0.0.1 that is its own CA, and its key."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=valkey", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    return certificate, key


@pytest.fixture
def context(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


@asynccontextmanager
async def listening(serve, context):
    """Serves with TLS; yields the port."""
    tasks = set()

    async def tracked(reader, writer):
        tasks.add(asyncio.current_task())
        try:
            await serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()
            tasks.discard(asyncio.current_task())

    server = await asyncio.start_server(tracked, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await until(lambda: not tasks)


def in_front_of(find_port):
    """Passes on to the port that ``find_port()`` returns."""

    async def serve(reader, writer):
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", find_port())
        try:
            await asyncio.gather(pipe(reader, inner_writer), pipe(inner_reader, writer))
        finally:
            inner_writer.transport.abort()

    async def pipe(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    return serve


@pytest.fixture
async def tls_port(broker, context):
    async with listening(in_front_of(lambda: broker.port), context) as port:
        yield port


@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
async def test_tls_works_with_a_ca_of_ones_own(tls_port, certificate, prefix, scheme):
    await works(RedisTransport(f"{scheme}://127.0.0.1:{tls_port}?ssl_ca_certs={certificate[0]}", prefix=prefix))


async def test_a_certificate_that_cannot_be_verified_is_refused(tls_port, certificate):
    text = await fails_to_open(RedisTransport(f"rediss://127.0.0.1:{tls_port}"), ImproperlyConfigured)
    assert "broker-tls" in text
    assert "ssl_ca_certs" in text
    text = await fails_to_open(
        RedisTransport(f"rediss://localhost:{tls_port}?ssl_ca_certs={certificate[0]}"), ImproperlyConfigured
    )
    assert "broker-tls" in text


@pytest.mark.parametrize("scheme", ["rediss+sentinel", "valkeys+sentinel"])
async def test_tls_works_to_a_sentinel_and_to_the_master_that_it_names(
    tls_port, context, certificate, prefix, scheme, sentinels
):
    """The sentinel is real, but for the master's port, which is put in place of the one without TLS."""

    async def serve(reader, writer):
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", sentinels.ports[0])
        try:
            while data := await reader.read(65536):
                inner_writer.write(data)
                answer = await inner_reader.read(65536)
                plain, own = (f"${len(str(port))}\r\n{port}\r\n" for port in (sentinels.master.port, tls_port))
                writer.write(answer.replace(plain.encode(), own.encode()))
        finally:
            inner_writer.transport.abort()

    async with listening(serve, context) as port:
        url = f"{scheme}://127.0.0.1:{port}?service=mymaster&ssl_ca_certs={certificate[0]}"
        await works(RedisTransport(url, prefix=prefix))
        text = await fails_to_open(
            RedisTransport(f"rediss+sentinel://127.0.0.1:{port}?service=mymaster"), ImproperlyConfigured
        )
        assert "broker-tls" in text


@pytest.mark.parametrize("scheme", ["rediss+cluster", "valkeys+cluster"])
async def test_tls_works_to_a_cluster_and_the_nodes_that_it_names(make_broker, context, certificate, prefix, scheme):
    nodes = []
    async with listening(in_front_of(lambda: nodes[0].port), context) as port:
        nodes.append(make_broker(**{"cluster-enabled": "yes", "cluster-announce-port": port}))
        nodes[0].admin("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        await until(lambda: "cluster_state:ok" in nodes[0].admin("CLUSTER", "INFO"))
        transport = RedisTransport(f"{scheme}://127.0.0.1:{port}?ssl_ca_certs={certificate[0]}", prefix=prefix)
        await works(transport)
        text = await fails_to_open(RedisTransport(f"rediss+cluster://127.0.0.1:{port}"), ImproperlyConfigured)
        assert "broker-tls" in text
