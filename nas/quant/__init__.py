"""Quantization by a Scheme: fold (folding), equalize, calibrate (ranges), quantize (lower), correct biases
(bias_correction), run the integers (simulate); post_training takes all the steps for a full network."""
