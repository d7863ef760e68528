"""Trained float networks, from the files that frameworks write to the float nodes that are quantized."""
