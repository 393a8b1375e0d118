"""The model of a car's condition and its active learning."""
