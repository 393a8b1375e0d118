"""Training an encoder: the one room that imports torch. No serving process opens it."""
