"""A line with a round trip: a TCP proxy whose bytes arrive later, for kernels that have no ``netem``.

    python -m bench.delaying_proxy PORT TARGET_PORT ROUND_TRIP_MS COMMAND...

COMMAND is started as a child, so that it counts with the process that listens at PORT. Each direction holds bytes back
for half the round trip, as long as they take on a real line, and passes on what comes meanwhile: the delay is one of
latency and not of bandwidth.
"""

import asyncio
import signal
import sys
import time


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
    """Pass bytes on, each ``delay_s`` after it came, until the sender ends."""
    held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def send() -> None:
        data = b"-"
        while data:
            due_s, data = await held.get()
            await asyncio.sleep(due_s - time.monotonic())
            if data:
                writer.write(data)
                await writer.drain()
        writer.close()

    sender = asyncio.create_task(send())
    data = b"-"
    while data:
        try:
            data = await reader.read(1 << 16)
        except ConnectionError:
            data = b""
        held.put_nowait((time.monotonic() + delay_s, data))
    try:
        await sender
    except ConnectionError:
        writer.close()


async def serve(port: int, target_port: int, delay_s: float, command: list[str]) -> None:
    """Start the command, listen, and carry each connection to it until it ends."""
    process = await asyncio.create_subprocess_exec(*command)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, process.kill)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection("127.0.0.1", target_port)
        except ConnectionError:
            writer.close()
            return
        await asyncio.gather(carry(reader, there[1], delay_s), carry(there[0], writer, delay_s))

    server = await asyncio.start_server(connected, "127.0.0.1", port)
    async with server:
        await process.wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) / 2e3, sys.argv[4:]))
