"""Checks, findings and advice of `carcond doctor`. It changes nothing."""
