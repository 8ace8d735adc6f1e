"""The matrix of transfer attacks: its options, computation and report."""
