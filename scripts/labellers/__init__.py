"""People who label in a real browser: `scripts/bench.py labellers` and tests/browser."""
