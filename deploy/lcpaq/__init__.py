"""Bit widths for each layer of a trained network: LCPAQ over a run."""
