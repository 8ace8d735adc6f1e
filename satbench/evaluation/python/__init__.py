"""The rest of the Python interface: attacks, models and data by name, and results."""
