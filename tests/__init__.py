"""The tests, laid out like the package; `support` has what helps them.

`contract` has what holds for every store, `backends` what is particular to each, `server` the lock
server from the outside, `project` what users get: the distributions, the example. Three rooms are
named after a subject: `configuration` (conf, checks, runtime), `jobs` (tasks and commands under
locks) and `transactions` (the commit guard, deferred release).

Tests run side by side, in a few processes. Each process has its own servers and SQLite files: a
test says by `@pytest.mark.needs("postgresql")` which servers it needs, and they are started for the
first such test. `@pytest.mark.once` marks what hardly depends on the version of Python or Django:
it runs on the newest only.

A test waits for an event, and never for time to pass, unless time is its subject. It reads no
private names, unless it tests exactly one unit and says so: project/test_tests.py checks that.
"""
