"""Training: the loop (`loop`) and its parts."""
