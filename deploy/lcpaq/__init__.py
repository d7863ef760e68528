"""LCPAQ over a run: its command, its steps, and the experiments that it is held to."""
