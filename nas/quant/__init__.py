"""Quantization: fold (float_graph), calibrate (ranges), quantize (lower), run the integers (simulate)."""
