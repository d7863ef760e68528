"""Search over tables: the exact front."""
