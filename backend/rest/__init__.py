"""The JSON API: photos of a car in, its condition out."""
