"""The loop around Label Studio."""
