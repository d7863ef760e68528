"""Tasks: what a network is trained for and what it is evaluated by."""
