"""The tests, laid out like the package; `support` has what helps them.

`contract` has what holds for every store, `stores` what is particular to each, `server` the lock
server from the outside, `project` what users get: the distributions, the example.

Tests run side by side, in a few processes. Each process has its own servers and SQLite files: a
test says by `@pytest.mark.needs("postgresql")` which servers it needs, and they are started for the
first such test. `@pytest.mark.once` marks what hardly depends on the version of Python or Django:
it runs on the newest only.

A test waits for what happens, and never for time to pass. It reads no private names, unless it
tests exactly one unit and says so: project/test_tests.py holds that.
"""
