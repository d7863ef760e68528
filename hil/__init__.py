"""Boards and measurements: reach a board, stage files on it, run models there, keep every number."""
