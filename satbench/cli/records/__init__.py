"""Commands on records: show, check, run again, attack, compare, unite."""
