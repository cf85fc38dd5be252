"""The pool: who is idle, who is in use, and what a connection's end does to either."""

from __future__ import annotations

import asyncio

from tests.fakes.upstream import CLOSE, OK, SILENCE, World, make_cluster, settle

CLOSING = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


def pool_repr(world: World) -> str:
    return repr(world.endpoint().pool)


async def test_a_connection_is_used_again() -> None:
    world = World()
    assert await world.get(5) == [200] * 5
    assert world.connector.attempts == ["10.0.0.1:80"]
    assert pool_repr(world) == "<Pool 10.0.0.1:80 active=0 idle=1 connecting=0 epoch=0>"
    await world.close()
    assert pool_repr(world) == "<Pool 10.0.0.1:80 active=0 idle=0 connecting=0 epoch=0>"


async def test_states_while_a_request_is_under_way() -> None:
    world = World()
    world.peer().say(SILENCE)
    request = asyncio.create_task(world.forward())
    await asyncio.sleep(0)
    assert pool_repr(world) == "<Pool 10.0.0.1:80 active=0 idle=0 connecting=1 epoch=0>"
    await settle()
    assert pool_repr(world) == "<Pool 10.0.0.1:80 active=1 idle=0 connecting=0 epoch=0>"
    world.peer().send(world.peer().transports[0], OK)
    await request
    assert pool_repr(world) == "<Pool 10.0.0.1:80 active=0 idle=1 connecting=0 epoch=0>"
    await world.close()


async def test_last_in_first_out() -> None:
    world = World()
    await asyncio.gather(*[world.forward() for _ in range(3)])
    pool = world.endpoint().pool
    first, second, third = pool.idle
    assert pool.take() is third
    pool.idle.append(third)
    # Under light load the others reach their idle timeout, the one in use does not.
    for _ in range(4):
        await world.clock.advance(20)
        await world.get()
    assert pool.idle == [third]
    assert first.closed
    assert second.closed
    await world.close()


async def test_idle_connections_close_after_their_timeout() -> None:
    world = World(idle_timeout=7.0)
    await world.get()
    await world.clock.advance(6.9)
    assert len(world.endpoint().pool.idle) == 1
    await world.clock.advance(0.1)
    assert len(world.endpoint().pool.idle) == 0
    assert world.connector.open == 0
    await world.close()


async def test_a_connection_closed_by_the_upstream_is_out_at_once() -> None:
    world = World()
    await world.get()
    (connection,) = world.endpoint().pool.idle
    connection.eof_received()
    assert world.endpoint().pool.idle == []
    assert await world.get() == [200]
    assert len(world.connector.attempts) == 2
    await world.close()


async def test_a_connection_that_talks_out_of_turn_is_dropped() -> None:
    world = World()
    await world.get()
    (connection,) = world.endpoint().pool.idle
    connection.data_received(b"HTTP/1.1 200 OK\r\n\r\n")
    assert world.endpoint().pool.idle == []
    await world.close()


async def test_a_transport_that_is_closing_is_passed_over() -> None:
    world = World()
    await world.get()
    world.peer().transports[0].closing = True
    assert await world.get() == [200]
    assert len(world.connector.attempts) == 2
    await settle()
    world.check_quiet()
    await world.close()


async def test_connection_close_is_not_pooled() -> None:
    world = World()
    world.peer().say(CLOSING)
    assert await world.get(3) == [200] * 3
    assert len(world.connector.attempts) == 3
    world.check_quiet()
    await world.close()


async def test_a_new_epoch_closes_idle_ones_now_and_busy_ones_later() -> None:
    world = World()
    await asyncio.gather(world.forward(), world.forward())
    world.peer().say(SILENCE)
    request = asyncio.create_task(world.forward())
    await settle()
    pool = world.endpoint().pool
    pool.rotate()
    assert repr(pool) == "<Pool 10.0.0.1:80 active=1 idle=0 connecting=0 epoch=1>"
    busy = next(t for t in world.peer().transports if not t.closing)
    world.peer().send(busy, OK)
    assert (await request).status == 200
    assert repr(pool) == "<Pool 10.0.0.1:80 active=0 idle=0 connecting=0 epoch=1>"
    assert busy.closing
    assert not busy.aborted
    await world.close()


async def test_a_connection_begun_in_an_old_epoch_is_not_kept() -> None:
    world = World()
    request = asyncio.create_task(world.forward())
    await asyncio.sleep(0)
    world.endpoint().pool.rotate()
    assert (await request).status == 200
    assert world.endpoint().pool.idle == []
    await world.close()


async def test_a_removed_endpoint_finishes_what_is_in_flight() -> None:
    world = World(2)
    for number in (1, 2):
        world.peer(number).say(SILENCE)
    requests = [asyncio.create_task(world.forward()) for _ in range(2)]
    await settle()
    gone = world.endpoint(2)
    world.apply(make_cluster())
    assert (gone.drained, gone.pool.active) == (True, 1)
    for number in (1, 2):
        world.peer(number).send(world.peer(number).transports[0], OK)
    assert [(await request).status for request in requests] == [200, 200]
    assert (gone.active, gone.pool.active, gone.pool.idle) == (0, 0, [])
    assert world.peer(2).transports[0].closing
    await world.close()


async def test_a_dead_connection_leaves_the_counts_right() -> None:
    world = World()
    world.peer().say(CLOSE)
    for _ in range(3):
        request = asyncio.create_task(world.forward())
        await asyncio.wait([request])
        assert request.exception() is not None
    world.check_quiet()
    await world.close()
