#!/usr/bin/env python3
"""Stands in front of a service and spoils it.

    gremlin.py KIND[:SECONDS] ADDRESS PORT REAL-ADDRESS REAL-PORT

Listens at ADDRESS PORT, where clients are to find it instead of the real one. TCP, and for a KDC UDP as well. KIND:

    garbage        bytes of no protocol, as soon as the client has spoken or, if it waits for a greeting, after 0.3 s
    page           200 and a page of HTML, as from a proxy in the way; with TLS and the right certificate where the real one has it
    refuse         no, in the real one's protocol: HTTP 403, LDAP's "unwilling to perform", a mail server's 554
    hang           nothing: connections are accepted and read
    slow SECONDS   what the real one says, its first words so many seconds late

Prints `ready` when it listens.
"""
import asyncio
import os
import ssl
import sys

LAB = os.environ["LAB"]
KIND, _, SECONDS = sys.argv[1].partition(":")
SECONDS = float(SECONDS or 0)
ADDRESS, PORT, REAL_ADDRESS, REAL_PORT = sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5])
PROTOCOL = {22: "ssh", 25: "smtp", 88: "kerberos", 389: "ldap", 443: "https", 8200: "https", 8445: "https", 9091: "http"}[REAL_PORT]
GREETING_AFTER = 0.3
# Zeros, bytes that are no UTF-8, and what would clear a terminal.
NOISE = b"\x00\xff\xfe\x80GREMLIN \x1b[2J\x07 this is no protocol\r\n\x00\xff\r\n\r\n"
PAGE = b"<!DOCTYPE html>\n<html><head><title>Welcome</title></head><body>Please log in to the network.</body></html>\n"
keep = set()


def http(status, body):
    return b"HTTP/1.1 %s\r\nContent-Type: text/html\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (status, len(body), body)


def unwilling(request):
    """LDAP's answer 53 to a bind or a search of this message id. Lengths below 128, as those of short requests are."""
    start = 2 + (request[1] & 0x7F if request[1] & 0x80 else 0)
    end = start + 2 + request[start + 1]
    message_id, kind = request[start:end], {0x63: 0x65}.get(request[end], 0x61)
    text = b"the directory is being rebuilt"
    result = b"\x0a\x01\x35\x04\x00\x04" + bytes([len(text)]) + text
    body = message_id + bytes([kind, len(result)]) + result
    return bytes([0x30, len(body)]) + body


async def first_words(reader):
    """What the client says first; nothing if it waits for a greeting."""
    try:
        return await asyncio.wait_for(reader.read(65536), GREETING_AFTER)
    except asyncio.TimeoutError:
        return b""


async def read_to_the_end(reader):
    # A connection that is closed with bytes unread is reset, and what was said to the client is lost.
    while await reader.read(65536):
        pass


async def say(reader, writer, words):
    writer.write(words)
    await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
    try:
        await asyncio.wait_for(read_to_the_end(reader), 60)
    except asyncio.TimeoutError:
        pass


async def copy(reader, writer, late=0.0):
    while data := await reader.read(65536):
        if late:
            await asyncio.sleep(late)
            late = 0.0
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


async def converse(reader, writer):
    if KIND == "hang":
        await read_to_the_end(reader)
    elif KIND == "garbage":
        await first_words(reader)
        await say(reader, writer, NOISE)
    elif KIND == "slow":
        real_reader, real_writer = await asyncio.open_connection(REAL_ADDRESS, REAL_PORT)
        await asyncio.gather(copy(reader, real_writer), copy(real_reader, writer, SECONDS))
        real_writer.close()
    elif PROTOCOL == "ldap":
        while words := await reader.read(65536):
            writer.write(unwilling(words))
            await writer.drain()
    elif PROTOCOL == "smtp":
        await say(reader, writer, b"554 5.3.2 no mail today\r\n")
    else:
        await reader.readuntil(b"\r\n\r\n")
        await say(reader, writer, http(b"200 OK", PAGE) if KIND == "page" else http(b"403 Forbidden", b"not you"))


async def serve(reader, writer):
    try:
        await converse(reader, writer)
    except (OSError, EOFError):
        # The client is gone, or there is no real one.
        pass
    finally:
        writer.close()


class Datagrams(asyncio.DatagramProtocol):
    """A KDC is asked by UDP, too."""

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        if KIND == "garbage":
            self.transport.sendto(NOISE, address)
        elif KIND == "slow":
            task = asyncio.ensure_future(self.forward(data, address))
            keep.add(task)
            task.add_done_callback(keep.discard)

    async def forward(self, data, address):
        answer = asyncio.get_running_loop().create_future()

        class Once(asyncio.DatagramProtocol):
            def datagram_received(self, data, _):
                answer.done() or answer.set_result(data)

        real, _ = await asyncio.get_running_loop().create_datagram_endpoint(Once, remote_addr=(REAL_ADDRESS, REAL_PORT))
        real.sendto(data)
        words = await answer
        real.close()
        await asyncio.sleep(SECONDS)
        self.transport.sendto(words, address)


async def main():
    tls = None
    if PROTOCOL == "https" and KIND in ("page", "refuse"):
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(f"{LAB}/ca/server.pem", f"{LAB}/ca/server.key")
    server = await asyncio.start_server(serve, ADDRESS, PORT, ssl=tls, backlog=256)
    if PROTOCOL == "kerberos":
        await asyncio.get_running_loop().create_datagram_endpoint(Datagrams, local_addr=(ADDRESS, PORT))
    print("ready", flush=True)
    await server.serve_forever()


asyncio.run(main())
