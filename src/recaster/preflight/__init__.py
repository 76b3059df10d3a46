"""What a training will need, before it is begun: memory, disk, time, energy; and whether this machine has it.

probe, miniature, stages          on the ranks: torch and nothing else of the stack
launch, predict, limits, power    in the process that asks: no torch
"""
