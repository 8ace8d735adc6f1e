"""Attacks that other packages run: pyautoattack, the reference, and Foolbox."""
