"""Connecting the backend to a Label Studio project that is there already, and taking it back."""
