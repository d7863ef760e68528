"""LCPAQ: bits for each layer of a fixed network, by sensitivity and integer programming (arXiv 2402.17706)."""
