"""Search over tables: the exact Pareto front, the best under budgets, and what they are checked against."""
