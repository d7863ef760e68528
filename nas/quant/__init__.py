"""Quantization by a Scheme: fold (float_graph), equalize, calibrate (ranges), quantize (lower), correct biases
(bias_correction), run the integers (simulate); post_training takes all the steps for a whole network."""
