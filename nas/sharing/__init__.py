"""Rivals of block-wise search: whole-network weight sharing (SPOS, FairNAS) and evolution under budgets."""
