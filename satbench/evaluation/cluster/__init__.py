"""Evaluations on many machines: a Ray cluster, or shards for the job arrays of a batch system."""
