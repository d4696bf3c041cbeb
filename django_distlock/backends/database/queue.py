"""PostgreSQL's queue of waiters: a table in their order, and one of the processes they are in.

A release hands the lock over: it writes the first waiter whose process is alive into the lock's
row, as an offer that ends soon, and notifies that process.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from django_distlock.records import Grant, Refusal

from .statements import HandOver, Parameters, Statements, outcome

OFFER: Final = 400_000
"""Microseconds for which a lock is offered to a waiter."""
ALIVE: Final = 700_000
"""Microseconds after its last heartbeat for which a process counts as alive."""
SWEPT: Final = 5 * ALIVE
"""Microseconds after its process's last heartbeat when a waiter is removed from the queue."""
TICK: Final = 0.25
"""Seconds between two heartbeats."""
FORGOTTEN: Final = 3_600_000_000
"""Microseconds after its last heartbeat when a process is deleted from the table."""

# Delete the first waiter of a living process from the queue, if the lock can be `given`. In a pause
# it is offered to nobody.
NEXT_WAITER = """
    DELETE FROM {waiters} WHERE id = (
        SELECT waiter.id
        FROM {waiters} AS waiter JOIN {processes} AS process ON process.id = waiter.process
        WHERE waiter.semaphore = %(semaphore)s::varchar AND process.seen_at > {now} - {alive}
            AND EXISTS (SELECT FROM given) AND NOT EXISTS (SELECT FROM {paused})
        ORDER BY waiter.id LIMIT 1
        FOR UPDATE OF waiter
    )
    RETURNING owner, holder, process, number
"""

# Release a lock that others wait for, if `its_holder` holds it: an owner, or for a forced release
# the one that was granted a token. `given` is the row, if it is this owner's; it is locked
# before the first living waiter is looked up. That waiter has to take the lock before the offer
# ends. What is offered has no `acquired_at` yet.
HAND_OVER = """
WITH given AS (
    SELECT semaphore
    FROM {table} AS lock, set_config('lock_timeout', '50ms', true) AS wait, set_config(
        'synchronous_commit',
        CASE WHEN %(ttl)s::bigint IS NULL THEN current_setting('synchronous_commit') ELSE 'off' END,
        true
    ) AS durability
    WHERE semaphore = %(semaphore)s::varchar AND {its_holder}
        AND (expires_at IS NULL OR expires_at > {now})
    FOR NO KEY UPDATE OF lock
), next AS (
    {next_waiter}
)
UPDATE {table} AS lock SET
    owner = coalesce(next.owner, ''),
    token = CASE
        WHEN next.owner IS NULL THEN lock.token
        ELSE greatest(lock.token + 1, {now})
    END,
    holder = coalesce(next.holder, lock.holder),
    acquired_at = CASE WHEN next.owner IS NULL THEN lock.acquired_at END,
    renewed_at = CASE WHEN next.owner IS NULL THEN lock.renewed_at END,
    expires_at = {now} + CASE WHEN next.owner IS NULL THEN 0 ELSE {offer} END
FROM given LEFT JOIN next ON true
WHERE lock.semaphore = given.semaphore
RETURNING
    next.owner IS NOT NULL,
    CASE WHEN next.owner IS NOT NULL
        THEN pg_notify('distlock_' || next.process, next.number::text)::text
    END,
    next.owner IS NULL
        AND EXISTS (SELECT FROM {waiters} WHERE semaphore = %(semaphore)s::varchar)
        AND NOT EXISTS (SELECT FROM {paused})
"""

# The same for a lock that nobody holds.
OFFER_FREE = """
WITH given AS (
    SELECT semaphore
    FROM {table} AS lock, set_config('lock_timeout', '50ms', true) AS wait,
        set_config('synchronous_commit', 'off', true) AS durability
    WHERE semaphore = %(semaphore)s::varchar AND (owner = '' OR expires_at <= {now})
    FOR NO KEY UPDATE OF lock
), next AS (
    {next_waiter}
)
UPDATE {table} AS lock SET
    owner = next.owner, token = greatest(lock.token + 1, {now}), holder = next.holder,
    acquired_at = NULL, renewed_at = NULL, expires_at = {now} + {offer}
FROM given, next
WHERE lock.semaphore = given.semaphore
RETURNING pg_notify('distlock_' || next.process, next.number::text)::text
"""

# Take an offered lock: an acquisition by the same owner, whose row is known to exist. In a pause,
# the offer ends.
TAKE = """
WITH paused AS (
    SELECT until, reason FROM {paused}
), taken AS (
    UPDATE {table} AS lock SET
        owner = CASE WHEN is_paused THEN '' ELSE owner END,
        acquired_at = CASE WHEN NOT is_paused THEN {now} END,
        expires_at = {now} + CASE WHEN is_paused THEN 0 ELSE %(ttl)s::bigint END
    FROM set_config('lock_timeout', '50ms', true) AS wait,
        (SELECT EXISTS (SELECT FROM paused) AS is_paused) AS pause
    WHERE semaphore = %(semaphore)s::varchar AND owner = %(owner)s::varchar AND expires_at > {now}
        AND (acquired_at IS NULL OR NOT is_paused)
    RETURNING token, acquired_at, expires_at
)
SELECT 'granted', token, acquired_at, expires_at, '', 0 FROM taken WHERE acquired_at IS NOT NULL
UNION ALL SELECT 'paused', NULL, NULL, until, reason, {now} FROM paused
"""

# Waiters need not survive a crash of the server: they notice, and join again. The lock's row is not
# locked, because the next holder would have to wait for that. So a release that runs at the same
# time may miss a new waiter, if there is no other. A waiter that joins `again`, since the reply was
# lost, may be in the queue already, or have the offer.
JOIN = """
WITH heartbeat AS (
    INSERT INTO {processes} (id, seen_at)
    SELECT %(process)s::bigint, {now} WHERE %(heartbeat)s::bool
    ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at
), there AS (
    SELECT id FROM {waiters} WHERE semaphore = %(semaphore)s::varchar AND owner = %(owner)s::varchar
), joined AS (
    INSERT INTO {waiters} (id, semaphore, owner, holder, process, number)
    SELECT
        coalesce(%(place)s::bigint, nextval('{ids}')), %(semaphore)s::varchar, %(owner)s::varchar,
        %(holder)s::text, %(process)s::bigint, %(number)s::bigint
    FROM set_config('synchronous_commit', 'off', true)
    WHERE NOT (%(again)s::bool AND EXISTS (SELECT FROM there))
    ON CONFLICT (id) DO NOTHING
    RETURNING id
)
SELECT
    coalesce((SELECT id FROM joined), %(place)s::bigint, (SELECT id FROM there LIMIT 1)),
    NOT EXISTS (
        SELECT FROM {table}
        WHERE semaphore = %(semaphore)s::varchar AND owner NOT IN ('', %(owner)s::varchar)
            AND (expires_at IS NULL OR expires_at > {now})
    ),
    NOT EXISTS (SELECT FROM {waiters} WHERE semaphore = %(semaphore)s::varchar)
"""

LEAVE = """
DELETE FROM {waiters} USING set_config('synchronous_commit', 'off', true) AS durability
WHERE id = %(place)s::bigint
"""

# Return which of the waiters are still in the queue, and in how many microseconds their locks can
# be free: at the end of the lease, or of the pause.
HEARTBEAT = """
WITH heartbeat AS (
    INSERT INTO {processes} (id, seen_at)
    SELECT %(process)s::bigint, {now} FROM set_config('synchronous_commit', 'off', true)
    ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at
)
SELECT
    pg_backend_pid(), waiter.id, waiter.semaphore,
    CASE
        WHEN waiter.id IS NULL THEN NULL
        WHEN pause.prefix IS NOT NULL AND pause.until IS NULL THEN NULL
        WHEN lock.semaphore IS NULL OR lock.owner = '' THEN greatest(0, pause.until - {now})
        ELSE greatest(lock.expires_at, pause.until) - {now}
    END
FROM (SELECT) AS session
LEFT JOIN (
    {waiters} AS waiter LEFT JOIN {table} AS lock ON lock.semaphore = waiter.semaphore
    LEFT JOIN {pauses} AS pause
    ON starts_with(waiter.semaphore, pause.prefix) AND (pause.until IS NULL OR pause.until > {now})
) ON waiter.id = ANY (%(places)s::bigint[])
"""

WAITERS_OF_PROCESS = "SELECT id, number FROM {waiters} WHERE process = %(process)s::bigint"

# Delete the waiters of processes without a recent heartbeat. A process that is only slow has its
# waiters join again.
SWEEP = """
WITH dead AS (
    SELECT waiter.id
    FROM {waiters} AS waiter LEFT JOIN {processes} AS process ON process.id = waiter.process
    WHERE coalesce(process.seen_at, 0) < {now} - %(silent)s::bigint
    FOR UPDATE OF waiter SKIP LOCKED
), silent AS (
    DELETE FROM {processes} WHERE seen_at < {now} - {forgotten}
)
DELETE FROM {waiters} AS waiter USING dead WHERE waiter.id = dead.id
"""

FORGET = """
DELETE FROM {processes} USING set_config('synchronous_commit', 'off', true) AS durability
WHERE id = %(process)s::bigint
"""


class QueueStatements(Statements):
    """The statements of the queue."""

    queues_waiters = True

    def complete_queue(self, complete: Callable[[str], str]) -> None:
        """Fill the tables' names into the statements."""
        hand_over = partial(HAND_OVER.replace, "{its_holder}")
        self._hand_over_sql = complete(hand_over("owner = %(owner)s::varchar"))
        self._force_release_sql = complete(hand_over("owner <> '' AND token = %(token)s::bigint"))
        self._offer_free_sql = complete(OFFER_FREE)
        self._take_sql = complete(TAKE)
        self._join_sql, self._leave_sql = complete(JOIN), complete(LEAVE)
        self._heartbeat_sql = complete(HEARTBEAT)
        self._waiters_of_process_sql = complete(WAITERS_OF_PROCESS)
        self._sweep_sql, self._forget_sql = complete(SWEEP), complete(FORGET)

    def hand_over(self, parameters: Parameters) -> HandOver:
        rows = self.fetch(self._hand_over_sql, parameters)
        if not rows:
            return HandOver.NOT_HELD
        [(handed_over, _, only_dead)] = rows
        if handed_over:
            return HandOver.TO_WAITER
        return HandOver.PAST_THE_DEAD if only_dead else HandOver.TO_NOBODY

    def force_release(self, parameters: Parameters) -> bool:
        return bool(self.fetch(self._force_release_sql, parameters | {"ttl": None}))

    def offer_free(self, semaphore: str) -> bool:
        """Offer a lock that nobody holds to its first waiter; return whether it was offered."""
        return bool(self.fetch(self._offer_free_sql, {"semaphore": semaphore}))

    def take(self, parameters: Parameters) -> Grant | Refusal:
        """Take an offered lock, if the offer has not ended."""
        return outcome(self.fetch(self._take_sql, parameters))

    def join(self, parameters: Parameters) -> tuple[int, bool, bool]:
        """Add a waiter to the queue, at the end or at its former place.

        Return its place, whether the lock is free, and whether there is no other waiter.
        """
        [(place, is_free, is_alone)] = self.fetch(self._join_sql, parameters)
        return place, is_free, is_alone

    def leave(self, place: int) -> bool:
        """Remove a waiter from the queue; False if the lock has been offered to it."""
        return self.execute(self._leave_sql, {"place": place}) == 1

    def listen(self, process: int) -> int:
        """Receive the notifications to this process; return the number of the session."""
        self.execute(f"LISTEN distlock_{process:d}", {})
        [(session,)] = self.fetch("SELECT pg_backend_pid()", {})
        return int(session)

    def notify(self, process: int) -> None:
        """Send the process a notification without a meaning."""
        self.fetch("SELECT pg_notify(%(channel)s, '0')", {"channel": f"distlock_{process:d}"})

    def heartbeat(self, process: int, places: list[int]) -> list[Any]:
        """Keep the process alive; return the number of the session, and each waiter's row."""
        return self.fetch(self._heartbeat_sql, {"process": process, "places": places})

    def waiters_of(self, process: int) -> list[tuple[int, int]]:
        """Return the place and the number of each of the process's waiters in the table."""
        return self.fetch(self._waiters_of_process_sql, {"process": process})

    def sweep(self, silent: int) -> None:
        """Delete the waiters of processes without a heartbeat for so many microseconds."""
        self.execute(self._sweep_sql, {"silent": silent})

    def forget(self, process: int) -> None:
        """Delete the process, which stops waiting."""
        self.execute(self._forget_sql, {"process": process})


def queue_values() -> dict[str, str | int]:
    """Return the values in the statements, apart from the names of the tables."""
    return {
        "next_waiter": NEXT_WAITER.strip(),
        "alive": ALIVE,
        "offer": OFFER,
        "forgotten": FORGOTTEN,
    }
