"""Forecasts of what an evaluation costs: passes, FLOPs, time and money."""
