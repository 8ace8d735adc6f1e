"""The matrix of transfer attacks: how it is asked for, computed and reported."""
