"""Experiment trackers. Rank 0 starts a process for each, which reads history.jsonl as it grows: nothing of the training
waits for it, nothing is queued, and what a tracker's library does, it does in a process of its own.
"""
