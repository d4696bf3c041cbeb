"""The promise as a checked model, and its runs repeated on real stores: docs/explanation/model.md.

`python -m tests.model` checks it.
"""
