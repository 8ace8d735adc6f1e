"""What an evaluation costs: passes, FLOPs, time and money, before it runs."""
