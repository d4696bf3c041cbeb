"""The blocks that tests/documentation/test_pages.py leaves out, and why."""

RUN_ELSEWHERE: dict[str, str] = {
    "how-to/test.md": "tests/test_kit/test_documented_testing.py",
    "coming-from/celery-once.md": "tests/documentation/test_coming_from.py",
    "coming-from/django-db-mutex.md": "tests/documentation/test_coming_from.py",
    "coming-from/django-pglock.md": "tests/documentation/test_coming_from.py",
    "coming-from/django-redis.md": "tests/documentation/test_coming_from.py",
    "coming-from/index.md": "tests/documentation/test_coming_from.py",
    "coming-from/python-redis-lock.md": "tests/documentation/test_coming_from.py",
    "coming-from/redis-py.md": "tests/documentation/test_coming_from.py",
    "how-to/move.md": "tests/documentation/test_move.py",
    "how-to/pgbouncer.md": "tests/documentation/test_pgbouncer.py",
    "how-to/use-memcached.md": "tests/backends/memcached/test_documents.py",
    "how-to/use-redis.md": "tests/backends/redis/test_documents.py",
    "how-to/run-the-lock-server.md": "tests/server/test_documents.py",
    "how-to/secure-the-lock-server.md": "tests/server/test_documents.py",
    "integrations/celery.md": "tests/integrations/queues/test_celery.py",
    "integrations/channels.md": "tests/support/consumers.py",
    "integrations/debug-toolbar.md": "tests/integrations/test_debug_toolbar.py",
    "integrations/django-prometheus.md": "tests/integrations/test_django_prometheus.py",
    "integrations/django-rq.md": "tests/integrations/queues/test_rq.py",
    "integrations/django-tasks.md": "tests/jobs/test_tasks.py",
    "integrations/django-tenants.md": "tests/support/tenants/settings.py",
    "integrations/dramatiq.md": "tests/integrations/queues/test_dramatiq.py",
    "integrations/huey.md": "tests/integrations/queues/test_huey.py",
    "integrations/ninja.md": "tests/integrations/test_ninja.py",
    "integrations/procrastinate.md": "tests/integrations/queues/test_procrastinate.py",
    "integrations/sentry.md": "tests/support/workers/sentry.py",
    "tutorial.md": "tests/documentation/test_tutorial.py",
}
"""Pages whose blocks need servers or libraries of their own, with the module that runs them."""

NOT_RUN: dict[str, str] = {
    "opentelemetry-instrument gunicorn shop.wsgi": "tests/telemetry load its entry point",
    "python manage.py makemigrations shop": "the tests have no site in which shop is installed",
    "# shop/models.py: an invoice that refuses late writes": "tests/documentation/shop has it",
    'pip install "django-distlock[health]"': "installs from PyPI; tests/health run the plugin",
    "git clone https://github.com/django-distlock/django-distlock": "only this machine is asked",
    "cd django-distlock": "it is the folder of the clone",
    "cd django_distlock": "tests/project/test_translations.py runs the next commands in a copy",
    "django-admin": "likewise",
    "git worktree add ../before HEAD~1": "it would leave a checkout beside this one",
    "python3 dev.py example": "tests/project/test_example.py runs the example's parts",
    "python3 dev.py test --install-servers": "it is what runs this test",
    "python3 dev.py test tests/locks -k waits": "so is this",
    ".tox/py313-django61/bin/python -m pytest tests/locks/test_waits.py": "so is this",
    "pre-commit install": "it would write into this checkout",
    "install -D -m 640 -o root -g shop /dev/null /etc/shop/lock-secret": "it writes to /etc",
    "python manage.py check --deploy": "tests/configuration run the checks of the server",
    "systemctl": "there is no systemd to talk to",
    "pg_dump": "tests/documentation/test_backups.py runs it",
    "pg_restore": "tests/documentation/test_backups.py runs it",
    "redis-cli": "tests/documentation/test_backups.py runs it",
    "uvicorn shop.asgi:application --workers 4": "tests/views/test_real_servers.py runs Uvicorn",
    "kubectl": "there is no cluster to talk to",
    "ssh web1 ps -o pid,stat,etime,args -p 71": "there is no host web1",
    "ssh web1 sudo py-spy dump --pid 71": "there is no host web1",
}
"""What no test can run, each with the reason: a command in a `console` block, whole or by its first
word; a statement in SQL; or the first line of a block in Python, which is then only compiled."""

SQL_SERVERS: dict[str, str] = {
    "how-to/back-up-and-restore.md": "postgresql",
    "how-to/limit-who-may-lock.md": "postgresql",
}
"""Pages whose SQL is for a server, with the alias of the tests' database that runs it."""
