"""The engine: runs a suite on the survivors, journals each batch, and judges.

It imports no attack.
"""
