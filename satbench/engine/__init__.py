"""The engine: it runs a suite on the survivors, writes each batch to a journal, and judges.

It imports no attack.
"""
