"""Commands on records: check, run again, attack, compare, unite."""
