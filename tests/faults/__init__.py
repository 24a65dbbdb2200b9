"""Faults on real processes: a real ZooKeeper ensemble, real brokers, real signals.

Each test writes numbered records, breaks something while it does, and then holds what was
acknowledged against what can be read (:mod:`.workload`).
"""
