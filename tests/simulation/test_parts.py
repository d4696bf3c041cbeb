"""The parts of a universe behave like those of the real world, as far as locks depend on them."""

from __future__ import annotations

import os
from functools import partial

import pytest

from tests.simulation.disk import Disk, DiskPath, PowerFailure, os_module
from tests.simulation.event_loop import EventLoop
from tests.simulation.machines import Machine, Process
from tests.simulation.network import Direction, Network
from tests.simulation.scheduler import Scheduler, SimulatedThread, SimulationError
from tests.simulation.sockets import ListeningSocket, Socket
from tests.simulation.threads import Event, Lock

pytestmark = pytest.mark.once


class World:
    """A server's and a client's process, and the network between them."""

    def __init__(self, seed: int = 0) -> None:
        self.scheduler = Scheduler.current = Scheduler(seed)
        self.network = Network(0.01, 0.0)
        self.server = Process("server", Machine("server", 0.0, 0.0))
        self.client = Process("client", Machine("client", 500.0, 60.0))
        self.listening = ListeningSocket(self.network, self.server)
        self.listening.listen(1)
        self.seen: list[object] = []

    def run(self, process: Process, *steps: object) -> None:
        """Run a thread of this process: a number sleeps, a function is called."""

        def work() -> None:
            for step in steps:
                if isinstance(step, float):
                    self.scheduler.sleep(step)
                elif callable(step):
                    try:
                        self.seen.append(step())
                    except OSError as error:
                        self.seen.append(type(error))

        thread = SimulatedThread(process, work)
        process.threads.append(thread)
        thread.start()

    def connected(self) -> tuple[Socket, Socket]:
        """Return both ends of a connection."""
        near = Socket(self.network, self.client)
        near.settimeout(5.0)
        self.run(self.client, lambda: near.connect(("", 0)))
        self.scheduler.run_until(self.scheduler.now + 1)
        far, _ = self.listening.accept()
        far.settimeout(0.0)
        self.seen.clear()
        return near, far


def test_what_is_sent_arrives_once_and_in_order() -> None:
    """However long each message takes."""
    world = World()
    near, far = world.connected()
    for number in range(50):
        near.send(bytes([number]))
    world.scheduler.run_until(5)
    assert far.recv(100) == bytes(range(50))
    with pytest.raises(BlockingIOError):
        far.recv(1)


def test_partition_keeps_back_what_is_sent_until_it_is_over() -> None:
    """In one direction only, if so wanted."""
    world = World()
    near, far = world.connected()
    world.network.partition("client", [Direction.IN], 10)
    near.send(b"one")
    far.send(b"other way")
    world.scheduler.run_until(5)
    near.send(b"two")
    assert near.recv(10) == b"other way"
    assert not far.is_readable()
    world.scheduler.run_until(15)
    assert far.recv(10) == b"onetwo"


@pytest.mark.parametrize("silently", [False, True])
def test_cut_loses_what_is_under_way(silently: bool) -> None:
    """Both ends are told, or neither."""
    world = World()
    near, far = world.connected()
    near.send(b"lost")
    world.network.cut("client", silently=silently)
    world.scheduler.run_until(9)
    near.settimeout(0.0)
    for end in (near, far):
        with pytest.raises(BlockingIOError if silently else ConnectionResetError):
            end.recv(10)


def test_killed_process_closes_its_connections_and_does_nothing_more() -> None:
    """Its `finally` blocks don't run."""
    world = World()
    near, far = world.connected()
    world.run(world.client, 1.0, lambda: near.send(b"never"))
    world.client.kill()
    world.scheduler.run_until(9)
    assert far.recv(10) == b""
    assert world.seen == []


def test_machine_without_power_says_nothing() -> None:
    """Who waits for it finds out by a timeout; after its restart, by a reset."""
    world = World()
    near, _ = world.connected()
    near.settimeout(2.0)
    world.server.machine.fail()
    world.server.lose_power()
    world.run(world.client, partial(near.send, b"lost"), partial(near.recv, 1))
    world.scheduler.run_until(9)
    world.server.machine.boot()
    world.run(world.client, partial(near.send, b"refused"), partial(near.recv, 1))
    world.scheduler.run_until(20)
    assert world.seen == [4, TimeoutError, 7, ConnectionResetError]


def test_paused_process_goes_on_later() -> None:
    """Its timers are late; its clocks are not."""
    world = World()
    world.run(world.client, 1.0, lambda: world.scheduler.now)
    world.client.pause(60)
    world.scheduler.run_until(59)
    assert world.seen == []
    world.scheduler.run_until(62)
    assert world.seen == [pytest.approx(61, abs=0.1)]


def test_locks_and_events_of_threads_wait_in_virtual_time() -> None:
    """The first waiter gets the lock; a wait with a timeout ends."""
    world = World()
    lock, event = Lock(), Event()
    world.run(world.client, lock.acquire, 3.0, lock.release, event.set)
    world.run(world.client, 1.0, partial(lock.acquire, timeout=1.0), partial(event.wait, 0.5))
    world.run(world.client, 1.0, lock.acquire, partial(event.wait, 9.0))
    world.scheduler.run_until(9)
    assert world.seen == [True, False, False, None, None, True, True]


def test_code_in_an_event_loop_that_blocks_is_found() -> None:
    """It would keep all other tasks from running."""
    world = World()
    loop = EventLoop(world.client)

    async def block() -> None:
        world.scheduler.sleep(1.0)

    task = loop.start(block(), "blocks")
    world.scheduler.run_until(2)
    assert isinstance(task.exception(), SimulationError)
    loop.close()


def save(disk: Disk, text: str) -> None:
    """Replace the file, as StateFile does."""
    system, path = os_module(disk), DiskPath(disk, "state")
    new = path.with_name("state.new")
    number = system.open(new, os.O_WRONLY | os.O_CREAT)
    with system.fdopen(number, "w", encoding="utf-8") as file:
        file.write(text)
        system.fsync(file.fileno())
    new.replace(path)
    system.fsync(system.open(path.parent, os.O_RDONLY))


@pytest.mark.parametrize("after", range(8))
def test_disk_keeps_one_whole_state_when_the_power_fails(after: int) -> None:
    """If a file is written through before it takes the place of the earlier one."""
    results = set()
    for seed in range(20):
        Scheduler.current = Scheduler(seed)
        disk = Disk(Machine("server", 0.0, 0.0))
        save(disk, "before")
        disk.fails_after = after
        try:
            save(disk, "after")
        except PowerFailure:
            pass
        else:
            disk.machine.fail()
        disk.lose_power()
        results.add(DiskPath(disk, "state").read_bytes())
    assert results <= {b"before", b"after"}
    assert (results == {b"after"}) == (after >= 6)


def test_disk_tears_what_was_not_written_through() -> None:
    """Some of it may be there."""
    results = set()
    for seed in range(50):
        Scheduler.current = Scheduler(seed)
        disk = Disk(Machine("server", 0.0, 0.0))
        system, path = os_module(disk), DiskPath(disk, "state")
        number = system.open(path, os.O_WRONLY | os.O_CREAT)
        system.fsync(system.open(path.parent, os.O_RDONLY))
        with system.fdopen(number, "w", encoding="utf-8") as file:
            file.write("abc")
        disk.lose_power()
        results.add(path.read_bytes())
    assert results == {b"", b"a", b"ab", b"abc"}
