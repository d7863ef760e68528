"""QDQ ONNX files, written from integer graphs (writer), operator by operator (layers, moving, resizing)."""

from deploy.formats.onnx.writer import to_onnx

__all__ = ["to_onnx"]
