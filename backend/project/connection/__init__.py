"""Connecting the backend to an existing Label Studio project, and undoing it."""
