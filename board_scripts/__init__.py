"""What runs on the board: each file stands alone, with the standard library, numpy and a TFLite runtime."""
