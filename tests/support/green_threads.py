"""Use a store where threads are green: `python -m tests.support.green_threads <library> <alias>`.

Such a library replaces or removes functions of the standard library, so it is set up first.
"""

import os
import select
import sys
import threading


def without_poll() -> None:
    """Keep real threads, but remove select.poll() as eventlet does."""
    del select.poll


def with_eventlet() -> None:
    import eventlet

    eventlet.monkey_patch()


def with_gevent() -> None:
    from gevent import monkey

    monkey.patch_all()


LIBRARIES = {"none": without_poll, "eventlet": with_eventlet, "gevent": with_gevent}


def use(alias: str) -> None:
    """Acquire, renew, and hand the lock to a waiting thread, in several threads at once."""
    from django_distlock import clocks
    from tests.support.concurrency import until
    from tests.support.holders import acquire, due_now, free_for_others

    def take_turns() -> None:
        lease = acquire(alias, timeout=60)
        due_now([lease])
        until(lambda: lease.due > clocks.monotonic() + 1)
        assert not free_for_others(alias)
        assert lease.release()

    def take_turn_and_count() -> None:
        take_turns()
        done.append(threading.get_ident())

    done: list[int] = []
    threads = [threading.Thread(target=take_turn_and_count) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert free_for_others(alias, timeout=60)
    for thread in threads:
        thread.join(60)
    assert len(done) == len(threads)
    assert free_for_others(alias)


def main() -> None:
    """Use the store, and exit at once: the library's threads may prevent an orderly end."""
    library, alias = sys.argv[1:]
    LIBRARIES[library]()
    import django

    django.setup()
    use(alias)
    print("done", flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
