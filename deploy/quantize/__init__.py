"""The user's own network: calibrated, quantized, written, and compared with its float self tensor by tensor."""

from deploy.quantize.from_torch import quantize_model
from deploy.quantize.quantized import Quantized, quantize

__all__ = ["Quantized", "quantize", "quantize_model"]
