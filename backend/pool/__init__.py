"""A project's photos as arrays, kept on disk between turns."""
