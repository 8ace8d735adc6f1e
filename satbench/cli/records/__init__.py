"""Commands that read records: show, check, run again, attack, compare, merge."""
