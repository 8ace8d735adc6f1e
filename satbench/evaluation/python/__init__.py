"""The Python interface beside `satbench.evaluate`: attacks, models and data by name, results."""
