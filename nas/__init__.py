"""Spaces, networks, training, quantization, tables and search; knows no board and no TFLite."""
