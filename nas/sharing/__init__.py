"""What block-wise search is compared with: full-network weight sharing (SPOS, FairNAS) and evolution under budgets."""
